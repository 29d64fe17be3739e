//! Shared access policies: who they are, how they change, and how their keys are rotated without anybody being cut off.
//!
//! ```text
//! roll       primary -> secondary, a new primary     who holds the primary goes on by it until the next roll
//! primary    a new primary                            who holds the secondary goes on
//! secondary  a new secondary                          who holds the primary goes on
//! swap       each becomes the other
//! ```
//!
//! - A change counts at once: for the next token that is shown, and for the sessions and links that tokens have opened. Those that
//!   theirs opens no more end; connections follow the set of policies for that.
//! - One policy with all rights is always left: it alone can make and change policies.
//! - What is known in memory is what is on disk, and follows it in the order of the changes.
//!
//! The hub has policies and its provisioning service has others: they differ in their [`RightSet`] and in nothing else.

use std::sync::Arc;

use holm_identity::SymmetricKey;
use holm_model::{ErrorCode, ServiceError, Timestamp, etag};
use tokio::sync::watch;

use crate::Clock;
use crate::registry::{Keys, PolicyKey};
use crate::storage::{Policy, Repository, RightSet, Rights, Transaction};

/// The most policies. Source: `hub-service-api.md` §1.
pub const MAX_POLICIES: usize = 16;
/// The longest name of a policy.
const MAX_NAME: usize = 64;

/// Why a policy was not shown or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// There is none of this name.
    #[error("there is no policy `{0}`; list them to see what there is")]
    NotFound(String),
    /// There is one of this name.
    #[error("policy `{0}` exists already; send `If-Match` to change it")]
    Exists(String),
    /// Anything else.
    #[error(transparent)]
    Refused(#[from] ServiceError),
}

/// What a policy is to be; what is not said stays, or is made.
#[derive(Clone, Debug)]
pub struct PolicyWish<R = Rights> {
    /// What its holder may do.
    pub rights: Option<R>,
    /// The key in use, base64.
    pub primary: Option<String>,
    /// The key to change to, base64.
    pub secondary: Option<String>,
}

/// How keys are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// The primary becomes the secondary, and there is a new primary.
    Roll,
    /// A new key in one place, or both.
    New(PolicyKey),
    /// Each becomes the other.
    Swap,
}

impl Rotation {
    /// The rotation of a word.
    ///
    /// # Errors
    /// `InvalidPolicyKey`.
    pub fn of(word: &str) -> Result<Self, ServiceError> {
        match word.to_ascii_lowercase().as_str() {
            "roll" => Ok(Self::Roll),
            "swap" => Ok(Self::Swap),
            "primary" => Ok(Self::New(PolicyKey::Primary)),
            "secondary" => Ok(Self::New(PolicyKey::Secondary)),
            _ => {
                let shown: String = word.chars().take(50).collect();
                let text = format!("`key` is `{shown}`; give `roll`, `primary`, `secondary` or `swap`");
                Err(ServiceError::new(ErrorCode::InvalidPolicyKey, text))
            }
        }
    }

    fn applied_to(self, keys: &Keys) -> Result<Keys, ServiceError> {
        Ok(match self {
            Self::Roll => Keys {
                primary: Keys::generate()?.primary,
                secondary: keys.primary.clone(),
            },
            Self::New(which) => which.renewed(keys)?,
            Self::Swap => Keys {
                primary: keys.secondary.clone(),
                secondary: keys.primary.clone(),
            },
        })
    }
}

/// The policies as they are now. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct PolicySet<R = Rights>(Arc<watch::Sender<Arc<[Policy<R>]>>>);

impl<R: RightSet> PolicySet<R> {
    pub(crate) fn new(policies: Vec<Policy<R>>) -> Self {
        Self(Arc::new(watch::Sender::new(policies.into())))
    }

    pub(crate) fn all(&self) -> Arc<[Policy<R>]> {
        Arc::clone(&self.0.borrow())
    }

    pub(crate) fn find(&self, name: &str) -> Option<Policy<R>> {
        self.0.borrow().iter().find(|policy| policy.name == name).cloned()
    }

    /// The policy whose connection string is handed out.
    pub(crate) fn owner(&self) -> Option<Policy<R>> {
        owner(&self.0.borrow()).cloned()
    }

    /// Tells of each change.
    pub(crate) fn follow(&self) -> watch::Receiver<Arc<[Policy<R>]>> {
        self.0.subscribe()
    }
}

/// That of the usual name, if it may do everything, else the first that may.
fn owner<R: RightSet>(policies: &[Policy<R>]) -> Option<&Policy<R>> {
    let mut all = policies.iter().filter(|policy| policy.rights.includes(R::everything()));
    let first = all.clone().next();
    all.find(|policy| policy.name == R::OWNER).or(first)
}

/// The policies of a new hub. Source: `hub-service-api.md` §1.
pub(crate) const fn default_policies() -> [(&'static str, Rights); 5] {
    [
        (Rights::OWNER, Rights::ALL),
        ("service", Rights::SERVICE_CONNECT),
        ("device", Rights::DEVICE_CONNECT),
        ("registryRead", Rights::REGISTRY_READ),
        ("registryReadWrite", Rights::REGISTRY_READ.with(Rights::REGISTRY_WRITE)),
    ]
}

/// Changes policies. Clones are the same.
#[derive(Clone, Debug)]
pub struct Policies<R = Rights> {
    repository: Repository,
    clock: Clock,
    set: PolicySet<R>,
}

impl<R: RightSet> Policies<R> {
    pub(crate) const fn new(repository: Repository, clock: Clock, set: PolicySet<R>) -> Self {
        Self { repository, clock, set }
    }

    /// Every policy, in order of their names.
    #[must_use]
    pub fn list(&self) -> Arc<[Policy<R>]> {
        self.set.all()
    }

    /// A policy.
    ///
    /// # Errors
    /// [`PolicyError::NotFound`].
    pub fn get(&self, name: &str) -> Result<Policy<R>, PolicyError> {
        self.set
            .find(name)
            .ok_or_else(|| PolicyError::NotFound(name.to_owned()))
    }

    /// Makes or (with `if_match`) changes a policy.
    ///
    /// # Errors
    /// [`PolicyError`]; `OperationNotAllowedInCurrentState` where no policy with all rights would be left.
    pub async fn put(
        &self,
        name: &str,
        wish: PolicyWish<R>,
        if_match: Option<String>,
    ) -> Result<Policy<R>, PolicyError> {
        check_name(name)?;
        let keys = (key("primaryKey", wish.primary)?, key("secondaryKey", wish.secondary)?);
        let name = name.to_owned();
        self.change(move |transaction, now| {
            let all = transaction.policies::<R>()?;
            let current = all.iter().find(|policy| policy.name == name);
            let (policy, what) = match (current, &if_match) {
                (Some(_), None) => return Ok(Err(PolicyError::Exists(name))),
                (None, Some(_)) => return Ok(Err(PolicyError::NotFound(name))),
                (None, None) => {
                    check_room(&all)?;
                    let text = "`rights` is missing; give at least one";
                    let rights = wish.rights.ok_or_else(|| ServiceError::argument_invalid(text))?;
                    let fresh = Keys::generate()?;
                    let fresh = Policy {
                        name,
                        primary: fresh.primary,
                        secondary: fresh.secondary,
                        rights,
                    };
                    (fresh, "create")
                }
                (Some(current), Some(etag)) => {
                    check_etag(current, Some(etag))?;
                    (current.clone(), "update")
                }
            };
            let policy = Policy {
                rights: wish.rights.unwrap_or(policy.rights),
                primary: keys.0.unwrap_or(policy.primary),
                secondary: keys.1.unwrap_or(policy.secondary),
                name: policy.name,
            };
            if policy.rights.bits() == 0 {
                let text = "`rights` is empty; give at least one, or delete the policy";
                return Err(ServiceError::argument_invalid(text));
            }
            if !policy.rights.includes(R::everything()) {
                check_others_manage(&all, &policy.name)?;
            }
            write(transaction, policy, what, now).map(Ok)
        })
        .await
    }

    /// Removes a policy.
    ///
    /// # Errors
    /// [`PolicyError`]; `OperationNotAllowedInCurrentState` for the last one with all rights.
    pub async fn remove(&self, name: &str, if_match: Option<String>) -> Result<(), PolicyError> {
        let name = name.to_owned();
        self.change(move |transaction, now| {
            let all = transaction.policies::<R>()?;
            let Some(current) = all.iter().find(|policy| policy.name == name) else {
                return Ok(Err(PolicyError::NotFound(name)));
            };
            check_etag(current, if_match.as_deref())?;
            check_others_manage(&all, &name)?;
            transaction.remove_policy::<R>(&name)?;
            transaction.record(&format!("{}.delete", R::RECORDED), &name, Some(&current.etag()), now)?;
            Ok(Ok(()))
        })
        .await
    }

    /// Gives a policy other keys.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub async fn rotate(
        &self,
        name: &str,
        rotation: Rotation,
        if_match: Option<String>,
    ) -> Result<Policy<R>, PolicyError> {
        let name = name.to_owned();
        self.change(move |transaction, now| {
            let all = transaction.policies::<R>()?;
            let Some(current) = all.into_iter().find(|policy| policy.name == name) else {
                return Ok(Err(PolicyError::NotFound(name)));
            };
            check_etag(&current, if_match.as_deref())?;
            let keys = Keys {
                primary: current.primary,
                secondary: current.secondary,
            };
            let keys = rotation.applied_to(&keys)?;
            let policy = Policy {
                name: current.name,
                primary: keys.primary,
                secondary: keys.secondary,
                rights: current.rights,
            };
            write(transaction, policy, "rotate", now).map(Ok)
        })
        .await
    }

    /// What fails within `change` must have written nothing.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Transaction<'_>, Timestamp) -> Result<Result<T, PolicyError>, ServiceError> + Send + 'static,
    ) -> Result<T, PolicyError> {
        let (now, set) = (self.clock.now(), self.set.clone());
        let changed = self.repository.change_then(
            move |transaction| {
                let done = change(transaction, now)?;
                Ok((done, transaction.policies()?))
            },
            move |(_, all)| {
                set.0.send_replace(all.clone().into());
            },
        );
        changed.await?.0
    }
}

fn write<R: RightSet>(
    transaction: &Transaction<'_>,
    policy: Policy<R>,
    what: &str,
    now: Timestamp,
) -> Result<Policy<R>, ServiceError> {
    transaction.put_policy(&policy)?;
    let operation = format!("{}.{what}", R::RECORDED);
    transaction.record(&operation, &policy.name, Some(&policy.etag()), now)?;
    Ok(policy)
}

fn check_etag<R: RightSet>(policy: &Policy<R>, if_match: Option<&str>) -> Result<(), ServiceError> {
    let current = policy.etag();
    match if_match {
        Some(wanted) if !etag::matches(wanted, &current) => Err(ServiceError::precondition_failed(format!(
            "policy `{}` was changed by somebody else: its etag is `{current}`; read it and try again",
            policy.name
        ))),
        _ => Ok(()),
    }
}

fn check_others_manage<R: RightSet>(all: &[Policy<R>], name: &str) -> Result<(), ServiceError> {
    let mut others = all.iter().filter(|policy| policy.name != name);
    let had = all
        .iter()
        .any(|policy| policy.name == name && policy.rights.includes(R::everything()));
    if !had || others.any(|policy| policy.rights.includes(R::everything())) {
        return Ok(());
    }
    Err(ServiceError::new(
        ErrorCode::OperationNotAllowedInCurrentState,
        format!(
            "`{name}` is the last policy with all rights, and nobody could change policies without it; make another one first"
        ),
    ))
}

fn check_room<R>(all: &[Policy<R>]) -> Result<(), ServiceError> {
    if all.len() < MAX_POLICIES {
        return Ok(());
    }
    let text = format!("there are {MAX_POLICIES} policies, the most allowed; delete one first");
    Err(ServiceError::new(ErrorCode::InvalidOperation, text))
}

/// Names stand in connection strings and tokens, where `;`, `=` and `&` end them.
fn check_name(name: &str) -> Result<(), ServiceError> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if (1..=MAX_NAME).contains(&name.len()) && name.chars().all(is_good) {
        return Ok(());
    }
    let shown: String = name.chars().take(100).collect();
    Err(ServiceError::argument_invalid(format!(
        "`{shown}` can't be the name of a policy; give 1 to {MAX_NAME} letters, digits, `-`, `_` or `.`"
    )))
}

fn key(name: &str, text: Option<String>) -> Result<Option<SymmetricKey>, ServiceError> {
    let read = |text: String| {
        SymmetricKey::from_base64(&text)
            .map_err(|error| ServiceError::argument_invalid(format!("`{name}` can't be used: {error}")))
    };
    text.filter(|text| !text.is_empty()).map(read).transpose()
}
