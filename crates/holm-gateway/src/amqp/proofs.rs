//! What was proved on a connection, and by what: tokens that came by SASL PLAIN or `$cbs`, and the certificate of TLS.
//!
//! A proof is checked when it comes, so that its sender learns at once that it is bad, and again when an identity begins to act
//! by it, since the registry may have changed in between.
//!
//! | a link for `dev1` is opened by | |
//! | --- | --- |
//! | the token of `dev1` itself | |
//! | a token about `dev1`, signed by a gateway that the auth chain names | an edge speaks for its children |
//! | the token of a gateway that its auth chain names | where the back end takes that for a proof |
//! | the token of a policy | services, and devices that have one |
//! | the certificate | where no token came |

use std::collections::HashMap;
use std::sync::Arc;

use holm_identity::SasToken;
use holm_identity::sas::Scope;
use holm_model::Identity;
use holm_net::Peer;

use crate::backend::{Admission, Credential, Principal};

/// Tokens of policies that one connection may hold. Clients of Event Hubs have one for each link: a partition has a name of its
/// own, and there are 32 at most.
const MAX_POLICIES: usize = 64;

/// Whose token a text is. Nothing is proved by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    Identity(Identity),
    /// The policy of that name.
    Policy(String),
}

impl std::fmt::Display for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Identity(identity) => write!(f, "{identity}"),
            Self::Policy(policy) => write!(f, "policy {policy}"),
        }
    }
}

impl Claim {
    /// Whom a token speaks for, by its `skn` and `sr`.
    ///
    /// # Errors
    /// Why it is no token of anybody, in words for its sender.
    pub(super) fn of(token: &str) -> Result<Self, String> {
        let parsed = SasToken::parse(token).map_err(|error| error.to_string())?;
        if let Some(policy) = parsed.policy() {
            return Ok(Self::Policy(policy.to_owned()));
        }
        match parsed.resource().scope {
            Scope::Device(device) => Ok(Self::Identity(Identity::of_device(device))),
            Scope::Module(device, module) => Ok(Self::Identity(Identity::of_module(device, module))),
            Scope::Host | Scope::AllDevices | Scope::Other(_) => {
                Err("the token's `sr` names no device or module, and it has no `skn` that names a policy".to_owned())
            }
        }
    }
}

/// The proofs of one connection.
#[derive(Debug, Default)]
pub(super) struct Proofs {
    tokens: HashMap<Identity, Arc<str>>,
    /// The newest last.
    policies: Vec<OfPolicy>,
}

#[derive(Debug)]
struct OfPolicy {
    name: String,
    /// What it opens, as it came.
    resource: String,
    token: Arc<str>,
}

impl Proofs {
    /// Whether there is one; a certificate counts where it is the only way.
    pub(super) fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.policies.is_empty()
    }

    /// Keeps a token that was found good. A newer one takes the place of the one before it, for the same thing.
    pub(super) fn keep(&mut self, claim: Claim, token: Arc<str>) {
        match claim {
            Claim::Identity(identity) => {
                self.tokens.insert(identity, token);
            }
            Claim::Policy(name) => {
                let resource =
                    SasToken::parse(&token).map_or_else(|_| String::new(), |token| token.raw_resource().to_owned());
                self.policies
                    .retain(|known| known.name != name || known.resource != resource);
                if self.policies.len() >= MAX_POLICIES {
                    self.policies.remove(0);
                }
                self.policies.push(OfPolicy { name, resource, token });
            }
        }
    }

    /// How many tokens of identities there are.
    pub(super) fn count(&self) -> usize {
        self.tokens.len()
    }

    /// Whether the identity's own token is there.
    pub(super) fn has(&self, identity: &Identity) -> bool {
        self.tokens.contains_key(identity)
    }

    /// The tokens of policies, the newest first.
    pub(super) fn policies(&self) -> impl Iterator<Item = &Arc<str>> {
        self.policies.iter().rev().map(|known| &known.token)
    }

    /// Whether a token of that claim is what an identity acts by: its own, one that its gateway made for it, its gateway's, or
    /// one of its policy that opens it.
    pub(super) fn is_proof_of(&self, claim: &Claim, token: &str, admission: &Admission) -> bool {
        match (claim, &admission.principal) {
            (Claim::Policy(policy), Principal::Policy(principal)) => {
                policy == principal && opens(token, &admission.identity)
            }
            (Claim::Identity(of), Principal::Identity(principal)) => {
                *of == admission.identity || (of == principal && !self.has(&admission.identity))
            }
            _ => false,
        }
    }

    /// By what an identity may try to be let in.
    pub(super) fn credential(&self, identity: &Identity, auth_chain: Option<&str>, peer: &Peer) -> Credential {
        let gateways = auth_chain.unwrap_or_default().split(';');
        let gateways = gateways.filter_map(|name| name.parse::<Identity>().ok());
        let mut gateways = gateways.filter(|gateway| gateway != identity);
        let token = self
            .tokens
            .get(identity)
            .or_else(|| gateways.find_map(|gateway| self.tokens.get(&gateway)))
            // That of another device stands beside it.
            .or_else(|| self.policies().find(|token| opens(token, identity)))
            .or_else(|| self.policies().next());
        match token {
            Some(token) => Credential::Token(token.to_string()),
            None if peer.certificates.is_empty() => Credential::None,
            None => Credential::Certificate(Arc::clone(&peer.certificates)),
        }
    }
}

/// Whether a token's `sr` covers an identity. That it names this node was found out when the token came.
fn opens(token: &str, identity: &Identity) -> bool {
    SasToken::parse(token).is_ok_and(|token| token.covers(&[token.resource().host], identity))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAIL: &str = "&sig=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA%3D&se=1800000000";

    fn token(resource: &str) -> String {
        format!("SharedAccessSignature sr={resource}{TAIL}")
    }

    fn admitted(identity: &str, principal: &str) -> Admission {
        Admission {
            principal: Principal::Identity(principal.parse().unwrap()),
            identity: identity.parse().unwrap(),
            auth: crate::backend::AuthKind::Sas,
            thumbprint: None,
            generation_id: String::new(),
            expires: None,
            announced: crate::backend::Announced::default(),
        }
    }

    #[test]
    fn a_new_token_of_an_edge_renews_the_edge_and_not_the_children_that_have_tokens_of_their_own() {
        let mut proofs = Proofs::default();
        let (edge, leaf) = (
            Claim::of(&token("hub/devices/e1/modules/$edgeHub")),
            Claim::of(&token("hub/devices/leaf")),
        );
        let (edge, leaf) = (edge.unwrap(), leaf.unwrap());
        let (as_edge, as_leaf) = (admitted("e1/$edgeHub", "e1/$edgeHub"), admitted("leaf", "e1/$edgeHub"));

        proofs.keep(leaf.clone(), token("hub/devices/leaf").into());

        assert!(proofs.is_proof_of(&edge, "", &as_edge));
        assert!(proofs.is_proof_of(&leaf, "", &as_leaf));
        assert!(!proofs.is_proof_of(&edge, "", &as_leaf));
        assert!(!proofs.is_proof_of(&leaf, "", &as_edge));
    }

    #[test]
    fn a_policys_token_for_one_device_is_no_proof_of_another_and_hides_no_token_of_it() {
        let mut proofs = Proofs::default();
        let of_policy = |resource: &str| format!("{}&skn=device", token(resource));
        let (first, second) = (of_policy("hub%2Fdevices%2Fd1"), of_policy("hub%2Fdevices%2Fd2"));
        let policy = || Claim::Policy("device".to_owned());
        let mut as_d1 = admitted("d1", "d1");
        as_d1.principal = Principal::Policy("device".to_owned());

        proofs.keep(policy(), first.as_str().into());
        proofs.keep(policy(), second.as_str().into());

        assert!(proofs.is_proof_of(&policy(), &first, &as_d1));
        assert!(!proofs.is_proof_of(&policy(), &second, &as_d1));
        assert!(proofs.is_proof_of(&policy(), &of_policy("hub"), &as_d1));
        for (device, token) in [("d1", first), ("d2", second)] {
            match proofs.credential(&device.parse().unwrap(), None, &Peer::default()) {
                Credential::Token(tried) => assert_eq!(tried, token),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_token_says_whose_it_is() {
        let of = |resource: &str| Claim::of(&token(resource));

        assert_eq!(
            of("hub.test%2Fdevices%2Fdev1"),
            Ok(Claim::Identity("dev1".parse().unwrap()))
        );
        assert_eq!(
            of("hub.test/devices/dev1/modules/%2524edgeHub"),
            Ok(Claim::Identity("dev1/$edgeHub".parse().unwrap()))
        );
        assert_eq!(of("hub.test&skn=device"), Ok(Claim::Policy("device".to_owned())));
        assert!(of("hub.test").unwrap_err().contains("names no device"));
        assert!(Claim::of("nonsense").is_err());
    }

    #[test]
    fn an_identity_tries_its_own_token_then_its_gateways_then_a_policys() {
        let mut proofs = Proofs::default();
        let own: Identity = "leaf".parse().unwrap();
        let edge: Identity = "edge/$edgeHub".parse().unwrap();
        let peer = Peer::default();
        let chain = Some("leaf;edge/$edgeHub");
        let tried = |proofs: &Proofs, chain| match proofs.credential(&own, chain, &peer) {
            Credential::Token(token) => Some(token),
            Credential::Certificate(_) | Credential::None => None,
        };

        assert_eq!(tried(&proofs, chain), None);
        proofs.keep(Claim::Policy("device".to_owned()), "policy".into());
        assert_eq!(tried(&proofs, chain).as_deref(), Some("policy"));
        proofs.keep(Claim::Identity(edge), "edge".into());
        assert_eq!(tried(&proofs, chain).as_deref(), Some("edge"));
        assert_eq!(tried(&proofs, None).as_deref(), Some("policy"));
        proofs.keep(Claim::Identity(own.clone()), "own".into());
        assert_eq!(tried(&proofs, chain).as_deref(), Some("own"));
    }

    #[test]
    fn policies_are_bounded_and_the_newest_counts() {
        let mut proofs = Proofs::default();
        for number in 0..100 {
            proofs.keep(Claim::Policy(format!("p{number}")), format!("t{number}").into());
        }

        assert_eq!(proofs.policies().count(), MAX_POLICIES);
        assert_eq!(proofs.policies().next().unwrap().as_ref(), "t99");
    }

    #[test]
    fn a_policys_tokens_for_several_links_stand_beside_each_other() {
        let mut proofs = Proofs::default();
        let policy = || Claim::Policy("service".to_owned());
        let of = |resource: &str, end: u32| format!("{}{end}&skn=service", token(resource));

        for (resource, end) in [("h/eh/a", 1), ("h/eh/b", 2), ("h/eh/a", 3)] {
            proofs.keep(policy(), of(resource, end).into());
        }

        let kept: Vec<_> = proofs.policies().map(ToString::to_string).collect();
        assert_eq!(kept, [of("h/eh/a", 3), of("h/eh/b", 2)]);
    }
}
