//! New keys for many identities at once.
//!
//! Source: `hub-service-api.md` §2.2, `POST /devices/keys/regenerate`.

use holm_model::{ErrorCode, Identity, ServiceError};

use super::{Authentication, Caller, Context, Effects, Entry, Keys, Registry, change, existing, rules};
use crate::storage::Transaction;

/// Which of the two keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyKey {
    /// The one in use.
    Primary,
    /// The one to change to.
    Secondary,
    /// Both.
    Both,
}

impl PolicyKey {
    /// The key of a published word, in any case.
    ///
    /// # Errors
    /// `InvalidPolicyKey`.
    pub fn of(word: &str) -> Result<Self, ServiceError> {
        let all = [
            ("primaryKey", Self::Primary),
            ("primary", Self::Primary),
            ("secondaryKey", Self::Secondary),
            ("secondary", Self::Secondary),
            ("both", Self::Both),
        ];
        let found = all.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
        found.map(|(_, key)| *key).ok_or_else(|| {
            let shown: String = word.chars().take(50).collect();
            let text = format!("`policyKey` is `{shown}`; give `primaryKey`, `secondaryKey` or `both`");
            ServiceError::new(ErrorCode::InvalidPolicyKey, text)
        })
    }

    /// These keys with new ones in their places.
    ///
    /// # Errors
    /// `ServerError` when the operating system gives no random bytes.
    pub(crate) fn renewed(self, keys: &Keys) -> Result<Keys, ServiceError> {
        let fresh = Keys::generate()?;
        Ok(match self {
            Self::Both => fresh,
            Self::Primary => Keys {
                primary: fresh.primary,
                secondary: keys.secondary.clone(),
            },
            Self::Secondary => Keys {
                primary: keys.primary.clone(),
                secondary: fresh.secondary,
            },
        })
    }
}

/// The keys that an identity has now, or why it has its old ones.
pub type Rotated = (Identity, Result<Keys, ServiceError>);

impl Registry {
    /// Gives identities new keys; each by itself, so that one that can't have any does not keep the others from it.
    ///
    /// # Errors
    /// When the database can't be written to; then nothing was done.
    pub async fn regenerate_keys(
        &self,
        identities: Vec<Identity>,
        which: PolicyKey,
    ) -> Result<Vec<Rotated>, ServiceError> {
        self.change(Caller::Service, move |transaction, context, effects| {
            let mut all = Vec::with_capacity(identities.len());
            for identity in identities {
                let mut own = Effects::default();
                let keys = transaction.attempt(|part| renew(part, &identity, which, context, &mut own))?;
                if keys.is_ok() {
                    effects.add(own);
                }
                all.push((identity, keys));
            }
            Ok(all)
        })
        .await
    }
}

fn renew(
    transaction: &Transaction<'_>,
    identity: &Identity,
    which: PolicyKey,
    context: &Context<'_>,
    effects: &mut Effects,
) -> Result<Keys, ServiceError> {
    let current: Entry = existing(transaction, identity)?;
    rules::check_change(&current, context.caller)?;
    let Authentication::Sas(keys) = &current.authentication else {
        let text = format!(
            "`{identity}` logs in by `{}` and has no keys; make it `sas` first",
            current.authentication.kind()
        );
        return Err(ServiceError::new(ErrorCode::InvalidOperation, text));
    };
    let renewed = which.renewed(keys)?;
    let mut entry = current.clone();
    entry.renew_etag()?;
    entry.authentication = Authentication::Sas(renewed.clone());
    change::write(transaction, &current, &entry, context, effects)?;
    Ok(renewed)
}
