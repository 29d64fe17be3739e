//! Who may do what with a blob: the holder of a signature over it, or a back end with a service token.
//!
//! ```text
//! ?sv=2018-03-28&sr=b&sig={base64}&se=2026-11-21T20:15:00Z&sp=rw
//! sig = HMAC-SHA256(key of the store, "sp \n se \n sv \n sr \n uploads/{blob}")
//! ```
//!
//! The query has the members and the order of the published one, because clients pass it on; what is signed is ours, since nobody
//! else makes or checks it. It is good for one blob, not for a directory or a prefix.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holm_gateway::http::query::Query;
use holm_identity::SymmetricKey;
use holm_model::Timestamp;
use holm_model::wire::percent;
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;

use super::containers::container_of;
use super::fault::{Fault, FaultCode};
use super::{Blobs, CONTAINER, CONTAINERS};
use crate::storage::Rights;

/// The version of the interface that signatures name.
const VERSION: &str = "2018-03-28";
/// How far clocks may be apart: as for tokens, 5 minutes.
const CLOCK_ERROR_MS: i64 = 300_000;

/// What a request wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    Read,
    Write,
    Delete,
}

impl Right {
    const fn letter(self) -> char {
        match self {
            Self::Read => 'r',
            Self::Write => 'w',
            Self::Delete => 'd',
        }
    }
}

/// What a signature says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signature {
    rights: String,
    expires: String,
    version: String,
    resource: String,
}

impl Signature {
    /// To store and read a blob.
    pub(crate) fn of_upload(expires: Timestamp) -> Self {
        Self {
            rights: "rw".to_owned(),
            expires: to_the_second(expires),
            version: VERSION.to_owned(),
            resource: "b".to_owned(),
        }
    }

    /// To store, read and delete the blobs of a container.
    pub(super) fn of_container(expires: Timestamp) -> Self {
        Self {
            rights: "rwd".to_owned(),
            expires: to_the_second(expires),
            version: VERSION.to_owned(),
            resource: "c".to_owned(),
        }
    }

    fn of_query(query: &Query) -> Self {
        let text = |name: &str| query.get(name).unwrap_or_default().to_owned();
        Self {
            rights: text("sp"),
            expires: text("se"),
            version: text("sv"),
            resource: text("sr"),
        }
    }

    fn signed_text(&self, blob: &str) -> String {
        let Self {
            rights,
            expires,
            version,
            resource,
        } = self;
        let place = match container_of(blob) {
            Some(container) if resource == "c" => format!("{CONTAINERS}/{container}"),
            _ => format!("{CONTAINER}/{blob}"),
        };
        format!("{rights}\n{expires}\n{version}\n{resource}\n{place}")
    }
}

/// The query with a signature over a blob.
pub(crate) fn sign(key: &SymmetricKey, signature: &Signature, blob: &str) -> String {
    let tag = percent::encode(&STANDARD.encode(key.hmac_sha256(signature.signed_text(blob).as_bytes())));
    let Signature {
        rights,
        expires,
        version,
        resource,
    } = signature;
    let expires = percent::encode(expires);
    format!("?sv={version}&sr={resource}&sig={tag}&se={expires}&sp={rights}")
}

impl Blobs {
    /// Whether the sender of a request may do this.
    pub(super) fn permit(&self, right: Right, blob: &str, query: &Query, headers: &HeaderMap) -> Result<(), Fault> {
        let Some(tag) = query.get("sig") else {
            return self.permit_service(right, blob, headers);
        };
        let signature = Signature::of_query(query);
        // Where a sender left a plus as it was, it was read as a space.
        let given = STANDARD.decode(tag.replace(' ', "+"));
        // Compared in constant time.
        let is_good = self
            .key
            .verify_hmac_sha256(signature.signed_text(blob).as_bytes(), &given.unwrap_or_default());
        let failed = |text: &str| Err(Fault::new(FaultCode::AuthenticationFailed, text));
        if !is_good {
            return failed("the signature is not this blob's; ask the hub for one, and send it as it is");
        }
        let end = Timestamp::parse(&signature.expires).unwrap_or(Timestamp::NEVER);
        if end.plus_millis(CLOCK_ERROR_MS) < self.clock.now() {
            return failed("the time of the signature is over; ask the hub for another");
        }
        if !signature.rights.contains(right.letter()) {
            let text = format!(
                "the signature is for `{}`, not for `{}`",
                signature.rights,
                right.letter()
            );
            return Err(Fault::new(FaultCode::AuthorizationPermissionMismatch, text));
        }
        Ok(())
    }

    /// Back ends read and delete what devices have stored. What jobs read and write holds keys: it is open to who may read and write
    /// the registry.
    fn permit_service(&self, right: Right, blob: &str, headers: &HeaderMap) -> Result<(), Fault> {
        let Some(token) = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()) else {
            let text = "the request has neither a signature (`sig`) nor a token of a policy (`Authorization`)";
            return Err(Fault::new(FaultCode::NoAuthenticationInformation, text));
        };
        let is_of_device = container_of(blob).is_none();
        let (path, rights) = match is_of_device {
            true => (format!("{CONTAINER}/{blob}"), Rights::SERVICE_CONNECT),
            false => (
                format!("{CONTAINERS}{blob}"),
                Rights::REGISTRY_READ.with(Rights::REGISTRY_WRITE),
            ),
        };
        self.authority
            .permit_service(Some(token), &path, &[rights])
            .map_err(|error| Fault::new(FaultCode::AuthenticationFailed, error.message))?;
        if right == Right::Write && is_of_device {
            let text = "a service token reads and deletes; files are stored with the signature that a device gets";
            return Err(Fault::new(FaultCode::AuthorizationPermissionMismatch, text));
        }
        Ok(())
    }
}

/// As signatures write it: `2026-11-21T20:15:00Z`.
fn to_the_second(moment: Timestamp) -> String {
    let text = moment.to_string();
    format!("{}Z", text.split('.').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_has_the_published_members_and_names_one_blob() {
        let key = SymmetricKey::from_bytes([7; 32]).unwrap();
        let signature = Signature::of_upload(Timestamp::parse("2026-11-21T20:15:00.5Z").unwrap());

        let query = sign(&key, &signature, "d1/a.jpg");

        assert!(query.starts_with("?sv=2018-03-28&sr=b&sig="), "{query}");
        assert!(query.ends_with("&se=2026-11-21T20%3A15%3A00Z&sp=rw"), "{query}");
        let read = Query::parse(query.trim_start_matches('?'));
        assert_eq!(Signature::of_query(&read), signature);
        assert_ne!(sign(&key, &signature, "d1/b.jpg"), query);
    }
}
