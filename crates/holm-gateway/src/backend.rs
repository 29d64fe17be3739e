//! What a node must be able to do so that devices can talk to it: a few small capabilities. The hub implements them over
//! its registry and event log, the edge over its broker; the protocol fronts know nothing else of either.
//!
//! Every capability names the *admission* under which it is asked: who proved a key (the principal) and whom the session
//! acts for (the identity). The two differ for policy keys, for gateways that speak for their children, and for
//! connections that carry many identities, so no interface takes "the device of this connection".

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use holm_identity::Thumbprint;
use holm_model::error::{ErrorCode, ServiceError};
use holm_model::{Identity, Message, Timestamp};
use rustls::pki_types::CertificateDer;
use serde_json::Value;

use crate::credentials::Credentials;
use crate::provisioning::Provisioning;
use crate::service::Service;
use crate::session::{SessionHandle, SessionId, Subscriptions};

/// How a client tries to prove who it is.
#[derive(Clone)]
pub enum Credential {
    /// A shared-access-signature token, whole, as it came.
    Token(String),
    /// Certificates of the TLS handshake, leaf first; the handshake has proved that the peer holds the leaf's key.
    Certificate(Arc<[CertificateDer<'static>]>),
    /// Neither.
    None,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token(_) => "Token(…)",
            Self::Certificate(_) => "Certificate(…)",
            Self::None => "None",
        })
    }
}

/// A client that wants to act for an identity.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Whom it wants to act for.
    pub identity: Identity,
    /// Its proof.
    pub credential: Credential,
    /// What it says of itself.
    pub announced: Announced,
}

/// What a client says of itself when it connects; nothing of it is proved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// The version of the interface it was written for, such as `2021-04-12`.
    pub api_version: Option<String>,
    /// Its library and version.
    pub client_type: Option<String>,
    /// The digital-twin model it implements.
    pub model_id: Option<String>,
    /// The gateways it comes through, `leaf;parent;…`.
    pub auth_chain: Option<String>,
}

/// Who proved a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// A device or module, by its own key or certificate.
    Identity(Identity),
    /// The holder of a shared access policy's key.
    Policy(String),
}

/// How the proof was given; told to those who read the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthKind {
    /// A token signed with a symmetric key.
    Sas,
    /// A certificate known by its thumbprint.
    X509,
}

/// A proved right to act for an identity.
#[derive(Clone, Debug)]
pub struct Admission {
    /// Who proved a key.
    pub principal: Principal,
    /// Whom the session acts for.
    pub identity: Identity,
    /// How the proof was given.
    pub auth: AuthKind,
    /// By which thumbprint its certificate is known, where it showed one and the node goes by thumbprints.
    pub thumbprint: Option<Thumbprint>,
    /// The generation of the identity; another generation is another device of the same name.
    pub generation_id: String,
    /// When the proof ends; `None` for certificates. The session is closed 300 s later (clock error).
    pub expires: Option<Timestamp>,
    /// What the client said of itself.
    pub announced: Announced,
}

/// Why a client is not let in. The text is for the log; a client learns only the code of its protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Wrong, expired or missing proof, or an identity that is unknown or disabled. Clients stop or ask their owner.
    #[error("{0}")]
    NotAuthorized(String),
    /// The node can't tell now (registry unreachable, too busy): clients try again later.
    #[error("{0}")]
    Unavailable(String),
    /// More clients come than the node lets in: clients try again later.
    #[error("{0}")]
    Throttled(String),
}

/// Decides who may act for whom.
pub trait Authority: Send + Sync + 'static {
    /// Checks an attempt against the registry.
    ///
    /// # Errors
    /// [`Refusal`].
    fn authenticate(&self, attempt: Attempt) -> impl Future<Output = Result<Admission, Refusal>> + Send;

    /// Checks an attempt as [`Authority::authenticate`] does, where no session follows: a token that is given ahead of its
    /// use, or a single request.
    ///
    /// # Errors
    /// [`Refusal`].
    fn verify(&self, attempt: Attempt) -> impl Future<Output = Result<Admission, Refusal>> + Send {
        self.authenticate(attempt)
    }

    /// Checks a token of a shared access policy, whatever it is for; gives when it ends. What it opens is decided when it is
    /// used.
    ///
    /// # Errors
    /// [`Refusal`]; always, where there are no policies.
    fn verify_policy(&self, _token: &str) -> impl Future<Output = Result<Option<Timestamp>, Refusal>> + Send {
        std::future::ready(Err(Refusal::NotAuthorized(
            "shared access policies are not known here; send a token of the device or module itself".to_owned(),
        )))
    }
}

/// Why a message was not taken in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IngestError {
    /// Larger than the published limit.
    #[error("the message has {size} bytes; at most {limit} are allowed")]
    TooLarge {
        /// Its counted size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// Its properties could not be passed on: written as a topic has them they are too long.
    #[error(
        "the properties take {bytes} bytes as a topic carries them, and at most {limit} are allowed; send fewer or shorter \
         ones (`/` and other signs count three)"
    )]
    PropertiesTooLong {
        /// Their size in a topic.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// There is no room for it, or the disk failed: the sender keeps it and tries again.
    #[error("the message can't be stored now: {0}")]
    Unavailable(String),
}

/// Takes in messages from devices and modules.
pub trait Ingest: Send + Sync + 'static {
    /// Resolves when the message is on disk.
    type Receipt: Future<Output = Result<(), IngestError>> + Send + Unpin + 'static;

    /// Takes in messages of one sender from the front, in order, as many as need no waiting: one receipt for all of them.
    /// The first that is left over has to wait or is refused: [`Ingest::ingest`] takes it in, or says why not.
    fn ingest_ready(&self, _from: &Admission, _messages: &mut VecDeque<Message>) -> Option<Self::Receipt> {
        None
    }

    /// Whether a message could be taken in at all: asked before the first of a batch is, of which all are taken or none.
    ///
    /// # Errors
    /// [`IngestError`], as [`Ingest::ingest`] would say it.
    fn check(&self, _from: &Admission, _message: &Message) -> Result<(), IngestError> {
        Ok(())
    }

    /// Takes in one message. When the returned future is ready the message has its place in the order; the receipt
    /// resolves when it is safe, and only then may its sender be told.
    ///
    /// Cancel-safe as far as its sender can tell: when the future is dropped, the message has not been acknowledged, and
    /// may or may not be there when it is sent again.
    ///
    /// The output of a module and everything else the sender said is in the message's system properties.
    ///
    /// # Errors
    /// [`IngestError`].
    fn ingest(
        &self,
        from: &Admission,
        message: Message,
    ) -> impl Future<Output = Result<Self::Receipt, IngestError>> + Send;
}

/// Reads and changes the twin of the identity that a session acts for.
pub trait Twins: Send + Sync + 'static {
    /// The twin as devices see it: `{"desired":{…,"$version":n},"reported":{…,"$version":n}}`.
    ///
    /// # Errors
    /// [`ServiceError`], told to the client.
    fn twin(&self, of: &Admission) -> impl Future<Output = Result<Value, ServiceError>> + Send;

    /// Merges a patch into the reported properties, if their version is `expected` (when given). Gives the new version,
    /// where the node knows it.
    ///
    /// # Errors
    /// [`ServiceError`], told to the client.
    fn patch_reported(
        &self,
        of: &Admission,
        patch: Value,
        expected: Option<u64>,
    ) -> impl Future<Output = Result<Option<u64>, ServiceError>> + Send;
}

/// Where messages wait for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mailbox {
    /// Cloud-to-device messages of a device.
    CloudToDevice,
    /// Messages that routes have sent to the inputs of a module.
    Inputs,
}

/// A message that waits for a client, on lease to one session.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// The input it is for, in [`Mailbox::Inputs`].
    pub input: Option<Arc<str>>,
    /// Names the lease in [`Inbox::settle`]; unique within the session and mailbox.
    pub lease: u64,
    /// Whether an earlier delivery of it was not settled.
    pub redelivered: bool,
}

/// What a client did with a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// It has it: remove the message.
    Complete,
    /// It could not handle it now: deliver it again, and count that.
    Abandon,
    /// It never will: remove the message, and say so to who asked.
    Reject,
    /// It did not see it, or says nothing about it: deliver it again, and count nothing.
    Release,
}

/// Hands out waiting messages on lease. What a session has not settled when it closes goes back, uncounted; what is held under
/// a lock goes back, uncounted, when its time is over.
pub trait Inbox: Send + Sync + 'static {
    /// Waits for messages and leases at most `most` of them to the session, in order. Cancel-safe: when the future is
    /// dropped, nothing is leased.
    ///
    /// # Errors
    /// [`Refusal`] when there is no such mailbox for the identity or it can't be read.
    fn receive(
        &self,
        session: SessionId,
        of: &Admission,
        mailbox: Mailbox,
        most: usize,
    ) -> impl Future<Output = Result<Vec<Delivery>, Refusal>> + Send;

    /// [`Inbox::settle`] with [`Settlement::Complete`] for several leases, in the order in which they were given.
    fn complete(&self, session: SessionId, of: &Admission, mailbox: Mailbox, leases: &[u64]) {
        for lease in leases {
            self.settle(session, of, mailbox, *lease, Settlement::Complete);
        }
    }

    /// Ends a lease. An unknown lease (expired, settled before) is ignored. Must not block: what it changes may be
    /// written after it returns.
    fn settle(&self, session: SessionId, of: &Admission, mailbox: Mailbox, lease: u64, settlement: Settlement);

    /// Leases the first message that waits, at once, or `None` where none does. For callers without a session that would
    /// close: one `holder` may stand for all of them. The lease ends by itself after `lock`, a time that the node has by
    /// default if `None` is given, and that it moves to the nearest it allows.
    ///
    /// Cancel-safe in that what is leased to a caller that has gone away comes back when its lock is over.
    ///
    /// # Errors
    /// When the mailbox can't be read; `InvalidOperation` of a node that leases to sessions only, which is what this does if it
    /// is not given.
    fn take(
        &self,
        _holder: SessionId,
        _of: &Admission,
        _mailbox: Mailbox,
        _lock: Option<Duration>,
    ) -> impl Future<Output = Result<Option<Delivery>, ServiceError>> + Send {
        async { Err(no_locks()) }
    }

    /// As [`Inbox::settle`], and resolves when what it changes is on disk; what was begun is carried out also when the
    /// future is dropped after its first poll. `false`, and nothing is changed, when there is no such lease: its time was over
    /// (412002), it was settled before, or the message has gone (expired, purged).
    ///
    /// # Errors
    /// When it can't be written; the message waits again. Also as for [`Inbox::take`].
    fn settle_durably(
        &self,
        _holder: SessionId,
        _of: &Admission,
        _mailbox: Mailbox,
        _lease: u64,
        _settlement: Settlement,
    ) -> impl Future<Output = Result<bool, ServiceError>> + Send {
        async { Err(no_locks()) }
    }
}

/// No try again helps, so it is none of the errors that SDKs try again after.
fn no_locks() -> ServiceError {
    let text = "this node has messages only for who is connected over MQTT or AMQP; connect so, or fetch them over HTTPS at the hub itself";
    ServiceError::new(ErrorCode::InvalidOperation, text)
}

/// What a client gets back of its last session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resumed {
    /// Whether there was a session to resume.
    pub present: bool,
    /// What it was subscribed to, as filter and granted quality of service.
    pub filters: Vec<(String, u8)>,
}

/// What becomes of what an earlier session left behind, when another one of the identity opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Earlier {
    /// It goes on.
    Resumed,
    /// It is thrown away.
    Discarded,
    /// It stays for a later one: the protocol of this one knows no such thing.
    LeftAlone,
}

impl Earlier {
    /// As a client of MQTT wishes.
    #[must_use]
    pub const fn of(clean_session: bool) -> Self {
        if clean_session { Self::Discarded } else { Self::Resumed }
    }
}

/// Learns who is connected, and keeps what sessions leave behind.
pub trait Presence: Send + Sync + 'static {
    /// A session opens. The handle reaches the client until [`Presence::closed`].
    ///
    /// # Errors
    /// [`Refusal`].
    fn opened(
        &self,
        session: &SessionHandle,
        of: &Admission,
        earlier: Earlier,
    ) -> impl Future<Output = Result<Resumed, Refusal>> + Send;

    /// The session's subscriptions have changed to `all`. `filters` is what a later session resumes; `None` for a clean
    /// session, which leaves nothing behind. The client is told that it is subscribed after this returns.
    ///
    /// # Errors
    /// [`Refusal`] when they can't be kept.
    fn subscribed(
        &self,
        session: SessionId,
        of: &Admission,
        all: Subscriptions,
        filters: Option<Vec<(String, u8)>>,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// A session has ended; its leases go back.
    fn closed(&self, session: SessionId, of: &Admission) -> impl Future<Output = ()> + Send;
}

/// Everything that the protocol fronts ask of a node.
pub trait Backend: Authority + Ingest + Twins + Inbox + Presence + Service + Provisioning + Credentials {}

impl<T: Authority + Ingest + Twins + Inbox + Presence + Service + Provisioning + Credentials> Backend for T {}
