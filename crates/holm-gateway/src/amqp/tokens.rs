//! How those on a connection prove themselves: SASL, and tokens that come to `$cbs`.

use std::sync::Arc;

use futures_util::FutureExt as _;
use holm_amqp::{Allowance, Credentials, Delivery, Outcome, SaslCode};
use holm_identity::SasToken;
use holm_model::wire::SaslUser;
use holm_net::clock::instant;
use tokio::io::{AsyncRead, AsyncWrite};

use super::cbs::{self, Verdict};
use super::front::{Done, Front, Proved};
use super::proofs::{Claim, MAX_TOKENS};
use crate::backend::{Announced, Attempt, Backend, Credential, Refusal};
use crate::metrics::ConnectRefusal;

impl<B: Backend, S: AsyncRead + AsyncWrite + Unpin + Send> Front<'_, B, S> {
    /// SASL: whoever says nothing of himself is let in to send a token.
    pub(super) fn authenticate(&mut self, credentials: Credentials) {
        let (user, password) = match credentials {
            Credentials::Anonymous | Credentials::Mssbcbs => return self.decide(SaslCode::Ok),
            Credentials::External if self.peer.certificates.is_empty() => {
                tracing::info!(
                    peer = self.peer.address.map(tracing::field::display),
                    "a client was refused: EXTERNAL without a certificate in TLS"
                );
                return self.refuse_login();
            }
            Credentials::External => return self.decide(SaslCode::Ok),
            Credentials::Plain { user, password } => (user, password),
            Credentials::Tpm {
                id_scope,
                registration_id,
                endorsement_key,
            } => return self.ask_tpm(id_scope.as_str(), registration_id.as_str(), endorsement_key),
        };
        if let Some(registrant) = self.registrant(user.as_str()) {
            return match String::from_utf8(password.0.to_vec()) {
                Ok(token) => self.log_in_registrant(registrant, token),
                Err(_) => self.refuse_login(),
            };
        }
        let claim = match SaslUser::parse(user.as_str()) {
            Some(SaslUser::Identity(identity)) => Claim::Identity(identity),
            Some(SaslUser::Policy(policy)) => Claim::Policy(policy),
            None => {
                tracing::info!(user = %user, "a client was refused: its user is not `device@sas.hub` or `policy@sas.root.hub`");
                return self.refuse_login();
            }
        };
        let Ok(token) = String::from_utf8(password.0.to_vec()) else {
            tracing::info!(user = %user, "a client was refused: its password is no token");
            return self.refuse_login();
        };
        let proving = prove(Arc::clone(self.gateway.backend()), claim, token.into(), None);
        self.tasks.push(proving.map(Done::Plain).boxed());
    }

    pub(super) fn decide(&mut self, code: SaslCode) {
        self.connection.session_mut().authenticate(instant(), code);
    }

    pub(super) fn refuse_login(&mut self) {
        self.gateway
            .metrics
            .refused
            .of(ConnectRefusal::NotAuthorized)
            .increment();
        self.decide(SaslCode::Auth);
    }

    /// A request to `$cbs`.
    pub(super) fn put_token(&mut self, delivery: &Delivery) {
        let request = match cbs::read(delivery) {
            Ok(request) => request,
            Err(refused) => {
                let (asker, verdict) = *refused;
                return self.answer_put(asker, verdict);
            }
        };
        let claim = match Claim::of(&request.token) {
            Ok(claim) => claim,
            Err(text) => return self.answer_put(request.asker, Verdict::new(401, text)),
        };
        if !self.proofs.has_room_for(&claim, &request.token) {
            let text =
                format!("this connection holds tokens of {MAX_TOKENS} identities, the most allowed; open another one");
            return self.answer_put(request.asker, Verdict::new(403, text));
        }
        if self.proving >= cbs::MAX_CHECKED {
            let text = "too many tokens of this connection are being checked; send it again";
            return self.answer_put(request.asker, Verdict::new(503, text));
        }
        self.proving += 1;
        let backend = Arc::clone(self.gateway.backend());
        let proving = prove(backend, claim, request.token.into(), request.auth_chain);
        let asker = request.asker;
        self.tasks.push(proving.map(|proved| Done::Put(asker, proved)).boxed());
    }

    pub(super) fn plain_proved(&mut self, proved: Proved) {
        let code = match &proved.outcome {
            Ok(_) => SaslCode::Ok,
            Err(Refusal::NotAuthorized(_)) => SaslCode::Auth,
            Err(Refusal::Unavailable(_) | Refusal::Throttled(_)) => SaslCode::SysTemp,
        };
        self.judge(proved);
        self.connection.session_mut().authenticate(instant(), code);
    }

    pub(super) fn put(&mut self, asker: cbs::Asker, proved: Proved) {
        self.proving = self.proving.saturating_sub(1);
        let verdict = match &proved.outcome {
            Ok(_) => Verdict::good(),
            Err(Refusal::NotAuthorized(_)) => {
                Verdict::new(401, "the token is not good here; the log of the node says why")
            }
            Err(Refusal::Unavailable(_)) => Verdict::new(503, "the token can't be checked now; try again"),
            Err(Refusal::Throttled(why)) => Verdict::new(429, why),
        };
        self.judge(proved);
        self.answer_put(asker, verdict);
    }

    /// Keeps a proof that is good, and lets those who act by it go on.
    pub(super) fn judge(&mut self, proved: Proved) {
        let Proved { claim, token, outcome } = proved;
        match outcome {
            Ok(expires) => {
                let parsed = SasToken::parse(&token).ok();
                for name in self.clients.names() {
                    if self
                        .clients
                        .look(name)
                        .is_some_and(|client| self.proofs.is_proof_of(&claim, parsed.as_ref(), &client.admission))
                        && let Some(client) = self.clients.get(name)
                    {
                        client.renew(expires, &self.gateway.clock);
                    }
                }
                if self.proofs.is_empty() {
                    self.connection.session_mut().set_allowance(Allowance::default());
                }
                self.proofs.keep(claim, token);
            }
            Err(refusal) => {
                self.gateway
                    .metrics
                    .refused
                    .of(ConnectRefusal::from(&refusal))
                    .increment();
                self.gateway.complaints.not_let_in(&refusal, self.peer.address, &claim);
            }
        }
    }

    /// Answers a request to `$cbs`, when there is a link for the answer.
    pub(super) fn answer_put(&mut self, asker: cbs::Asker, verdict: Verdict) {
        // Now another one may come.
        self.settle(asker.request, Outcome::Accepted);
        let Some(link) = self.answers.link_for(&asker) else {
            if !self.answers.keep(asker, verdict) {
                tracing::debug!(
                    peer = self.peer.address.map(tracing::field::display),
                    "an answer of `$cbs` was dropped: no link is there for it, and too many wait"
                );
            }
            return;
        };
        let outbound = self.answers.outbound(asker, verdict);
        if let Err(error) = self.connection.session_mut().send_later(link, &outbound) {
            tracing::debug!(peer = self.peer.address.map(tracing::field::display), %error, "an answer of `$cbs` was dropped");
        }
    }
}

/// Asks the backend about a token.
async fn prove<B: Backend>(backend: Arc<B>, claim: Claim, token: Arc<str>, auth_chain: Option<String>) -> Proved {
    let outcome = match &claim {
        Claim::Identity(identity) => {
            let attempt = Attempt {
                identity: identity.clone(),
                credential: Credential::Token(token.to_string()),
                announced: Announced {
                    auth_chain,
                    ..Announced::default()
                },
            };
            backend.verify(attempt).await.map(|admission| admission.expires)
        }
        Claim::Policy(policy) => match SasToken::parse(&token) {
            // SASL names the policy beside its token.
            Ok(parsed)
                if !parsed
                    .policy()
                    .is_some_and(|signer| signer.eq_ignore_ascii_case(policy)) =>
            {
                Err(Refusal::NotAuthorized(format!(
                    "the user is the policy `{policy}`, and the token is not signed by it (`skn`)"
                )))
            }
            _ => backend.verify_policy(&token).await,
        },
    };
    Proved { claim, token, outcome }
}
