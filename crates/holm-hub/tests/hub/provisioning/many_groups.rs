//! Many groups: what a stranger's proof costs is bounded, and who is known does not feel it.

use std::net::{IpAddr, Ipv4Addr};

use holm_identity::SymmetricKey;
use holm_model::ProvisioningCode;
use serde_json::{Value, json};

use super::{Device, keys, symmetric, with};
use crate::support::TestHub;

const GROUPS: usize = 100;
/// More than a source may try in vain while it is at it, on any machine.
const MANY: usize = 20_000;

impl Device<'_> {
    fn from(mut self, last: u8) -> Self {
        self.applicant.source = Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)));
        self
    }
}

#[tokio::test]
async fn a_source_of_wrong_proofs_is_sent_away_and_who_is_known_or_comes_from_elsewhere_is_not() {
    let hub = TestHub::start().await;
    for first in (0..GROUPS).step_by(10) {
        let group = |number| with(symmetric(), &json!({ "enrollmentGroupId": format!("g{number}") }));
        let groups: Vec<Value> = (first..first + 10).map(group).collect();
        let made = hub.post(
            "/enrollmentGroups",
            json!({ "mode": "create", "enrollmentGroups": groups }),
        );
        assert_eq!(made.await.ok()["isSuccessful"], true);
    }
    let key = keys(&hub, "/enrollmentGroups/g99").await.0;
    let device = |id: &str, source| Device::with_key(&hub, id, &key.derive_for_registration(id)).from(source);
    device("known", 1).register().await.unwrap();

    let wrong = SymmetricKey::from_bytes([7; 32]).unwrap();
    let stranger = Device::with_key(&hub, "stranger", &wrong).from(1);
    let mut tries = 0;
    let sent_away = loop {
        let refused = stranger.begin().await.unwrap_err();
        if refused.code != ProvisioningCode::Unauthorized || tries == MANY {
            break refused;
        }
        tries += 1;
    };
    let known = device("known", 1).register().await;
    let elsewhere = device("new", 2).register().await;

    assert_eq!(sent_away.code, ProvisioningCode::TooManyRequests, "after {tries} tries");
    assert!(sent_away.retry_after.is_some());
    assert!(tries >= 300, "{tries}");
    for registered in [known, elsewhere] {
        assert_eq!(registered.unwrap()["status"], "assigned");
    }
}
