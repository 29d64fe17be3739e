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
//! | the token of a policy, for `dev1` alone or for more | services, and devices that have one |
//! | the certificate | where no token came |

use std::collections::HashMap;
use std::sync::Arc;

use holm_identity::SasToken;
use holm_identity::sas::Scope;
use holm_model::Identity;
use holm_model::wire::percent;
use holm_net::Peer;

use crate::backend::{Admission, Credential, Principal};

/// Tokens for identities that one connection may hold, their own and those of policies; the pools of the SDKs have 1,000 at most.
pub(super) const MAX_TOKENS: usize = 1100;

/// Tokens of policies for more than one identity that one connection may hold. Clients of Event Hubs have one for each link: a
/// partition has a name of its own, and there are 32 at most.
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
        let nobody =
            || "the token's `sr` names no device or module, and it has no `skn` that names a policy".to_owned();
        named(&parsed).map(Self::Identity).ok_or_else(nobody)
    }
}

/// The proofs of one connection.
#[derive(Debug, Default)]
pub(super) struct Proofs {
    tokens: HashMap<Identity, Arc<str>>,
    /// Tokens of policies that open one identity, the newest of each: as many as clients.
    of_one: HashMap<Identity, Arc<str>>,
    /// Those that open more, or what is no identity; the newest last.
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
        self.tokens.is_empty() && self.of_one.is_empty() && self.policies.is_empty()
    }

    /// Whether a token may be kept: it is one of few enough, or takes the place of the one before it.
    pub(super) fn has_room_for(&self, claim: &Claim, token: &str) -> bool {
        let is_known = match claim {
            Claim::Identity(identity) => self.has(identity),
            Claim::Policy(_) => {
                let one = SasToken::parse(token).ok().and_then(|token| named(&token));
                // The others make room for themselves.
                one.is_none_or(|identity| self.of_one.contains_key(&identity))
            }
        };
        is_known || self.tokens.len() + self.of_one.len() < MAX_TOKENS
    }

    /// Keeps a token that was found good. A newer one takes the place of the one before it, for the same thing.
    pub(super) fn keep(&mut self, claim: Claim, token: Arc<str>) {
        match claim {
            Claim::Identity(identity) => {
                self.tokens.insert(identity, token);
            }
            Claim::Policy(name) => {
                let parsed = SasToken::parse(&token).ok();
                if let Some(identity) = parsed.as_ref().and_then(named) {
                    self.of_one.insert(identity, token);
                    return;
                }
                let resource = parsed.map_or_else(String::new, |parsed| parsed.raw_resource().to_owned());
                self.policies
                    .retain(|known| known.name != name || known.resource != resource);
                if self.policies.len() >= MAX_POLICIES {
                    self.policies.remove(0);
                }
                self.policies.push(OfPolicy { name, resource, token });
            }
        }
    }

    /// Whether the identity's own token is there.
    pub(super) fn has(&self, identity: &Identity) -> bool {
        self.tokens.contains_key(identity)
    }

    /// The tokens of policies that are not for one identity, the newest first.
    pub(super) fn policies(&self) -> impl Iterator<Item = &Arc<str>> {
        self.policies.iter().rev().map(|known| &known.token)
    }

    /// The tokens that open an identity and may be a policy's: who logs in by SASL PLAIN as a device may show one too.
    pub(super) fn of_policies_for(&self, identity: &Identity) -> impl Iterator<Item = &Arc<str>> {
        let more = self.policies();
        let more = more.filter(|token| SasToken::parse(token).is_ok_and(|token| opens(&token, identity)));
        let own = self.tokens.get(identity).into_iter().chain(self.for_one(identity));
        own.chain(more)
    }

    /// Whether a token of that claim is what an identity acts by: its own, one that its gateway made for it, its gateway's, or
    /// one of its policy that opens it.
    pub(super) fn is_proof_of(&self, claim: &Claim, token: Option<&SasToken>, admission: &Admission) -> bool {
        match (claim, &admission.principal) {
            (Claim::Policy(policy), Principal::Policy(principal)) => {
                policy == principal && token.is_some_and(|token| opens(token, &admission.identity))
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
            .or_else(|| self.for_one(identity))
            // One for something else stands beside it.
            .or_else(|| {
                self.policies()
                    .find(|token| SasToken::parse(token).is_ok_and(|token| opens(&token, identity)))
            })
            .or_else(|| self.policies().next());
        match token {
            Some(token) => Credential::Token(token.to_string()),
            None if peer.certificates.is_empty() => Credential::None,
            None => Credential::Certificate(Arc::clone(&peer.certificates)),
        }
    }

    /// A policy's token for that identity alone.
    fn for_one(&self, identity: &Identity) -> Option<&Arc<str>> {
        self.of_one.get(identity).or_else(|| {
            // An `sr` is read with all decoded that can be; the id itself may hold `%41`.
            let read = percent::decode(&identity.to_string()).parse().ok()?;
            let token = self.of_one.get(&read)?;
            SasToken::parse(token)
                .is_ok_and(|token| opens(&token, identity))
                .then_some(token)
        })
    }
}

/// Whether a token's `sr` covers an identity. That it names this node was found out when the token came.
fn opens(token: &SasToken, identity: &Identity) -> bool {
    token.covers(&[token.resource().host], identity)
}

/// The one identity that a token's `sr` names.
fn named(token: &SasToken) -> Option<Identity> {
    match token.resource().scope {
        Scope::Device(device) => Some(Identity::of_device(device)),
        Scope::Module(device, module) => Some(Identity::of_module(device, module)),
        Scope::Host | Scope::AllDevices | Scope::Other(_) => None,
    }
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

        assert!(proofs.is_proof_of(&edge, None, &as_edge));
        assert!(proofs.is_proof_of(&leaf, None, &as_leaf));
        assert!(!proofs.is_proof_of(&edge, None, &as_leaf));
        assert!(!proofs.is_proof_of(&leaf, None, &as_edge));
    }

    #[test]
    fn a_policys_token_for_one_device_is_no_proof_of_another_and_hides_no_token_of_it() {
        let mut proofs = Proofs::default();
        let of_policy = |resource: &str| format!("{}&skn=device", token(resource));
        let (first, second) = (of_policy("hub%2Fdevices%2Fd1"), of_policy("hub%2Fdevices%2Fd2"));
        let policy = || Claim::Policy("device".to_owned());
        let parsed = |token: &str| SasToken::parse(token).ok();
        let mut as_d1 = admitted("d1", "d1");
        as_d1.principal = Principal::Policy("device".to_owned());

        proofs.keep(policy(), first.as_str().into());
        proofs.keep(policy(), second.as_str().into());

        assert!(proofs.is_proof_of(&policy(), parsed(&first).as_ref(), &as_d1));
        assert!(!proofs.is_proof_of(&policy(), parsed(&second).as_ref(), &as_d1));
        assert!(proofs.is_proof_of(&policy(), parsed(&of_policy("hub")).as_ref(), &as_d1));
        for (device, token) in [("d1", first), ("d2", second)] {
            match proofs.credential(&device.parse().unwrap(), None, &Peer::default()) {
                Credential::Token(tried) => assert_eq!(tried, token),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn each_of_many_clients_with_a_policys_token_of_its_own_acts_by_that_one() {
        let mut proofs = Proofs::default();
        let of_policy = |resource: &str| format!("{}&skn=device", token(resource));
        let policy = || Claim::Policy("device".to_owned());
        let tried = |proofs: &Proofs, identity: &str| {
            let tried = proofs.credential(&identity.parse().unwrap(), None, &Peer::default());
            match tried {
                Credential::Token(token) => Some(token),
                Credential::Certificate(_) | Credential::None => None,
            }
        };
        // Ids that hold what could be decoded are found as well.
        let mut own = vec![("a%41".to_owned(), of_policy("hub%2Fdevices%2Fa%2541"))];
        own.extend((0..MAX_POLICIES * 2).map(|number| {
            let (id, sr) = (
                format!("d{number}/m"),
                format!("hub%2Fdevices%2Fd{number}%2Fmodules%2Fm"),
            );
            (id, of_policy(&sr))
        }));

        for (_, token) in &own {
            proofs.keep(policy(), token.as_str().into());
        }

        assert!(!proofs.is_empty());
        for (identity, token) in &own {
            assert_eq!(tried(&proofs, identity).as_ref(), Some(token));
        }
        assert_eq!(tried(&proofs, "d0"), None);
        proofs.keep(policy(), of_policy("hub").into());
        assert_eq!(tried(&proofs, "d0"), Some(of_policy("hub")));
        assert_eq!(tried(&proofs, "d0/m").as_ref(), Some(&own[1].1));
    }

    #[test]
    fn tokens_for_identities_are_bounded_and_those_that_are_kept_may_be_renewed() {
        let mut proofs = Proofs::default();
        let of = |number: usize| format!("{}&skn=device", token(&format!("hub/devices/d{number}")));
        let policy = Claim::Policy("device".to_owned());
        let own = |number: usize| Claim::Identity(format!("o{number}").parse().unwrap());
        for number in 0..MAX_TOKENS / 2 {
            proofs.keep(policy.clone(), of(number).into());
            proofs.keep(own(number), "own".into());
        }

        assert!(!proofs.has_room_for(&policy, &of(MAX_TOKENS)));
        assert!(!proofs.has_room_for(&own(MAX_TOKENS), ""));
        assert!(proofs.has_room_for(&policy, &of(0)));
        assert!(proofs.has_room_for(&own(0), ""));
        assert!(proofs.has_room_for(&policy, &format!("{}&skn=device", token("hub"))));
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
