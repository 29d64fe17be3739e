//! SASL by a TPM: what the provisioning service asks it before a device may ask for its registration.
//!
//! ```text
//! client  init       0 scope 0 registration 0 EK
//! node    challenge  0                                  client  response  0 SRK
//! node    challenge  control, a part of what only the TPM can open      client  response  0        for each but the last
//!                                                                       client  response  0 token  signed by what was in it
//! control: 0x80, and 0x40 with the last; the two lowest bits count
//! ```
//!
//! A part is small enough for the smallest frame that a peer may want. One exchange on a connection, of so many steps as there are
//! parts. Source: `hub-device-protocols.md` §5.4.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use holm_amqp::SaslCode;
use holm_model::wire::provisioning::Registrant;
use holm_model::{ProvisioningCode, ProvisioningError};
use holm_net::clock::instant;
use tokio::io::{AsyncRead, AsyncWrite};

use super::front::{Done, Front};
use crate::backend::{Backend, Credential};
use crate::provisioning::Applicant;

/// Bytes of what only the TPM can open in one challenge: with what is around it less than the 512 of the smallest frame.
const PART: usize = 400;
/// The most bytes of a storage root key that are taken: more than one of 4096 bits has.
const MAX_KEY: usize = 1024;

/// How far a TPM is.
#[derive(Debug)]
pub(super) enum Asked {
    /// Its storage root key is awaited.
    Key {
        registrant: Registrant,
        endorsement_key: Bytes,
    },
    /// What only it can open is being made.
    Sealing(Registrant),
    /// It gets the rest of that, from the part of this number on; then its token is awaited.
    Parts {
        registrant: Registrant,
        sealed: Bytes,
        sent: u8,
    },
}

impl<B: Backend, S: AsyncRead + AsyncWrite + Unpin + Send> Front<'_, B, S> {
    /// A TPM names its device and shows its endorsement key.
    pub(super) fn ask_tpm(&mut self, id_scope: &str, registration_id: &str, endorsement_key: Bytes) {
        if self.gateway.backend().id_scope().is_none() {
            return self.decide(SaslCode::Auth);
        }
        let registrant = Registrant {
            id_scope: id_scope.to_owned(),
            registration_id: registration_id.to_owned(),
        };
        self.tpm = Some(Asked::Key {
            registrant,
            endorsement_key,
        });
        self.put_challenge(Bytes::from_static(&[0]));
    }

    /// It answers.
    pub(super) fn tpm_answered(&mut self, response: &Bytes) {
        let said = response.strip_prefix(&[0]).map(|said| response.slice_ref(said));
        match (self.tpm.take(), said) {
            (
                Some(Asked::Key {
                    registrant,
                    endorsement_key,
                }),
                Some(key),
            ) if !key.is_empty() && key.len() <= MAX_KEY => {
                self.tpm = Some(Asked::Sealing(registrant.clone()));
                let backend = Arc::clone(self.gateway.backend());
                let applicant = self.without_proof(registrant);
                let sealing = async move {
                    let sealed = backend.challenge(&applicant, endorsement_key, key).await;
                    Done::TpmChallenged(sealed)
                };
                self.tasks.push(sealing.boxed());
            }
            (
                Some(Asked::Parts {
                    registrant,
                    sealed,
                    sent,
                }),
                Some(said),
            ) => match (sealed.is_empty(), said.is_empty()) {
                (false, true) => self.send_part(registrant, sealed, sent),
                (true, false) => match String::from_utf8(said.to_vec()) {
                    Ok(token) => self.log_in_registrant(registrant, token),
                    Err(_) => self.refuse_tpm("its token is no text"),
                },
                _ => self.refuse_tpm("it answered out of turn"),
            },
            _ => self.refuse_tpm("it answered out of turn, or with no key of a TPM"),
        }
    }

    /// What only the TPM can open is there, or is not given.
    pub(super) fn tpm_challenged(&mut self, sealed: Result<Vec<u8>, ProvisioningError>) {
        let Some(Asked::Sealing(registrant)) = self.tpm.take() else {
            return;
        };
        match sealed {
            Ok(sealed) => self.send_part(registrant, sealed.into(), 0),
            Err(error) if error.code == ProvisioningCode::ArgumentInvalid => self.refuse_tpm(&error.message),
            Err(error) => self.registrant_known(self.without_proof(registrant), Err(error)),
        }
    }

    fn without_proof(&self, registrant: Registrant) -> Applicant {
        Applicant {
            registrant,
            credential: Credential::None,
            source: self.peer.address.map(|address| address.ip()),
        }
    }

    fn send_part(&mut self, registrant: Registrant, mut sealed: Bytes, sent: u8) {
        let part = sealed.split_to(sealed.len().min(PART));
        let last = if sealed.is_empty() { 0x40 } else { 0 };
        let control = 0x80 | last | (sent & 3);
        self.tpm = Some(Asked::Parts {
            registrant,
            sealed,
            sent: sent.wrapping_add(1),
        });
        self.put_challenge([&[control][..], &part].concat().into());
    }

    fn put_challenge(&mut self, challenge: Bytes) {
        self.connection.session_mut().challenge(instant(), challenge);
    }

    fn refuse_tpm(&mut self, reason: &str) {
        let peer = self.peer.address.map(tracing::field::display);
        tracing::info!(
            peer,
            reason,
            "a client was refused: the exchange with its TPM went wrong"
        );
        self.refuse_login();
    }
}
