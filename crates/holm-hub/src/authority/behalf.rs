//! An edge device speaks for a device or module below it.
//!
//! ```text
//! user name   hub/leaf/?…&auth-chain=leaf;e1          first: whom it is about; last: who speaks
//! password    sr={hub}/devices/leaf, signed by a key of e1/$edgeHub
//! ```
//!
//! The token names the one it is about, so that it opens nothing else; the signature is the speaker's, so that an edge needs no
//! key of its children, and children with certificates can be spoken for too. The registry says whether the speaker is above:
//! what stands between first and last in the chain is a way, and proves nothing. An element may end in `/$edgeHub`.
//!
//! Source: `edge-broker.md` §7.

use holm_gateway::Principal;
use holm_identity::SasToken;
use holm_model::{DeviceId, Identity, ModuleId};

use super::{Authority, Denied, denied, signed};
use crate::metrics::Denial;
use crate::registry::{Authentication, is_below};

/// The most elements of a chain that are read: a module, its device, and the edge devices above.
const MAX_ELEMENTS: usize = 8;

impl Authority {
    /// Who speaks for `identity` by this token and chain.
    pub(super) async fn actor(&self, token: &SasToken, identity: &Identity, chain: &str) -> Result<Principal, Denied> {
        let actor = last_of(chain, identity).map_err(|text| denied(Denial::Malformed, text))?;
        self.check_audience(token, identity)?;
        if token.policy().is_some() {
            let text = "a token of a policy speaks for everybody by itself; leave out `auth-chain`";
            return Err(denied(Denial::OtherKind, text));
        }
        let speaker = Identity::of_module(actor.clone(), ModuleId::edge_hub());
        let (wanted, target) = (speaker.clone(), identity.device.clone());
        let found = self
            .repository
            .read(move |view| Ok((view.entry(&wanted)?, is_below(view, &target, &wanted.device)?)))
            .await
            .map_err(|error| denied(Denial::Unavailable, error.message))?;
        match found {
            (Some(entry), true) => match &entry.authentication {
                Authentication::Sas(keys) if signed(token, &keys.primary, &keys.secondary) => {
                    Ok(Principal::Identity(speaker))
                }
                _ => {
                    let text = format!("the token for `{identity}` was not signed by a key of `{speaker}`");
                    Err(denied(Denial::WrongKey, text))
                }
            },
            _ => {
                let text = format!(
                    "`{actor}` is no edge device above `{identity}`, or one between them is disabled; \
                     make it the parent with `holm device children add {actor} {}`",
                    identity.device
                );
                Err(denied(Denial::NotPermitted, text))
            }
        }
    }
}

/// The device that speaks.
fn last_of(chain: &str, identity: &Identity) -> Result<DeviceId, String> {
    let elements: Vec<&str> = chain.split(';').filter(|element| !element.is_empty()).collect();
    if elements.len() > MAX_ELEMENTS {
        return Err(format!(
            "the `auth-chain` has {} elements; at most {MAX_ELEMENTS} are read",
            elements.len()
        ));
    }
    let (Some(first), Some(last)) = (elements.first(), elements.last()) else {
        return Err("the `auth-chain` is empty; leave it out, or give `device;…;edge`".to_owned());
    };
    if *first != identity.to_string() {
        return Err(format!(
            "the `auth-chain` is about `{first}` and not about `{identity}`"
        ));
    }
    let last = last.strip_suffix("/$edgeHub").unwrap_or(last);
    DeviceId::new(last).map_err(|error| format!("the last of the `auth-chain` is no device: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_a_chain_speaks_and_the_first_is_spoken_for() {
        let leaf = "leaf".parse().unwrap();

        for chain in [
            "leaf;e1",
            "leaf;e1/$edgeHub",
            "leaf;e2;e1",
            ";leaf;e2/$edgeHub;e1/$edgeHub;",
        ] {
            assert_eq!(last_of(chain, &leaf).unwrap().as_str(), "e1", "{chain}");
        }
        for chain in ["", ";", "other;e1", "leaf;e 1", "leaf;1;2;3;4;5;6;7;8"] {
            assert!(last_of(chain, &leaf).is_err(), "{chain}");
        }
    }

    #[test]
    fn a_chain_of_one_speaks_for_itself() {
        let module = "e1/sensor".parse().unwrap();

        assert_eq!(last_of("e1/sensor;e1", &module).unwrap().as_str(), "e1");
        assert!(last_of("e1/sensor", &module).is_err());
    }
}
