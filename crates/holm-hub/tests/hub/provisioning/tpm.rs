//! Devices that prove themselves by a TPM: how often they are given what it opens.

use std::num::NonZeroU32;

use holm_gateway::Credential;
use holm_model::{ProvisioningCode, ProvisioningError};
use serde_json::{Value, json};

use super::{Device, keys, symmetric};
use crate::support::TestHub;

/// Public keys of a TPM in software, as its tools show them.
const EK: &str = "AToAAQALAAMAsgAgg3GXZ0SEs/gakMyNRqXXJP1S124GUgtk8qHaGzMUaaoABgCAAEMAEAgAAAAAAAEAqlK3cDQgu6R4BTKLFvRMYrtxclbRecRZwdK0Z2wddxKbgLfDrcFvcq8aXAlj3QtfWenZg11UU9hjDvxXHvDEo3i3YQDxgkPoQ667qpYwhel1+vEOKM7cGoc0LTCZaIrm5upJsAJFiMIdLlNXOBEwbpDzelLAEF1Pe0rjvf5M89Pxn9MNSD9IKg91vQQUUwQnIiA3fvrn3iv6Wyx+HJ7erJP7XzfSFEwXZBC6dn0qhW6+6anq3jlshorjvmkaNkIh/PQdzbOHnYa47TfbKYT0kEnd9w8AixGJu0ARe9yET9LzgZcCSy62AL5lfUGxdgiAvhJKSi2c1S4SGBVg+eqkLw==";
const SRK: &str = "ARoAAQALAAMEcgAAAAYAgABDABAIAAAAAAABAKe1nubsbEOq5p3GOk1IBHj4R5sqS970ITAWZSdTtBugEYNo9cX3MTI/Z1Ck2eb642PJr8SBaCIiIBb7UU/b6U0BK2oc5E7z2501eH5difabLOgkeuH9t0cXe7eIBHvnxGiKLjLMSfFchrr4kFThlx+RLiJ9netJVqUgJcJpxaHge3nsivqTEoKWjnt1+PjBM08IAxFiz7iJqMc+gNhzsF0k7o1bpwMLyUGL2r1Do2U2dVJwqn+Au5QxPoQ4FrqLstzE/1yo3lznwLZmMbhFpMwlCMcU/27BDpQUVTZ4E58MXLxPSMSWIkuBBQekxj47jvixsiFqrBlXEmUekuZztRU=";

fn by_tpm() -> Value {
    json!({ "attestation": { "type": "tpm", "tpm": { "endorsementKey": EK } } })
}

#[tokio::test]
async fn a_tpm_that_asks_for_challenges_without_pause_is_sent_away_and_uses_up_no_registrations() {
    // One at once, and the next in a minute.
    let hub = TestHub::start_with(|config| config.registrations_per_minute = NonZeroU32::new(1)).await;
    for id in ["t1", "t2"] {
        hub.put(&format!("/enrollments/{id}"), by_tpm()).await.ok();
    }
    hub.put("/enrollments/by-key", symmetric()).await.ok();
    let ask = async |id: &str| {
        let keys = json!({ "tpm": { "endorsementKey": EK, "storageRootKey": SRK } });
        let device = Device::new(&hub, id, Credential::None);
        device.begin_with(&keys).await.unwrap_err()
    };

    let unknown = ask("nobody").await;
    let first = ask("t1").await;
    let next = ask("t2").await;
    let by_key = Device::with_key(&hub, "by-key", &keys(&hub, "/enrollments/by-key").await.0);
    let registered = by_key.begin().await;

    let sealed = |told: &ProvisioningError| told.extra.contains_key("authenticationKey");
    assert_eq!(
        (unknown.code, sealed(&unknown)),
        (ProvisioningCode::Unauthorized, false)
    );
    assert_eq!((first.code, sealed(&first)), (ProvisioningCode::Unauthorized, true));
    assert_eq!((next.code, sealed(&next)), (ProvisioningCode::TooManyRequests, false));
    assert!(next.retry_after.is_some());
    assert_eq!(registered.unwrap().status, 202);
}
