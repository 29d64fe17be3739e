//! Containers of back ends: what import and export jobs read and write. They are not made: a name is enough.
//!
//! ```text
//! https://{hub}/containers/{name}?sv=2018-03-28&sr=c&sig={base64}&se=…&sp=rwd      opens every blob in the container
//! the blob `devices.txt` in it is called `/{name}/devices.txt` in the database, which is no device's
//! ```

use std::io;

use bytes::Bytes;
use holm_gateway::http::query::Query;
use holm_model::{ErrorCode, ServiceError, Timestamp};
use holm_net::http::{ResponseBody, body};
use hyper::HeaderMap;
use hyper::http::Uri;
use serde_json::Map;
use tokio::sync::mpsc;

use super::access::{Right, Signature, sign};
use super::fault::Fault;
use super::request::{Asked, check_name};
use super::{Blobs, CONTAINERS};
use crate::storage::Part;

/// The largest blob that a job writes: as for one in one piece.
const MAX_WRITTEN: u64 = 5000 << 20;

/// The name in the database of a blob of a container.
pub(super) fn blob_name(container: &str, blob: &str) -> String {
    format!("/{container}/{blob}")
}

/// The container of a blob, if it is not in that of devices.
pub(super) fn container_of(name: &str) -> Option<&str> {
    name.strip_prefix('/')?.split('/').next()
}

/// Whether a container may have this name. Source: the published rules of names.
///
/// # Errors
/// `ArgumentInvalid`.
pub(crate) fn check_container_name(name: &str) -> Result<(), ServiceError> {
    let is_good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if (3..=63).contains(&name.len()) && name.chars().all(is_good) {
        return Ok(());
    }
    let shown: String = name.chars().take(100).collect();
    Err(ServiceError::argument_invalid(format!(
        "`{shown}` can't be the name of a container; give 3 to 63 small letters, digits or `-`"
    )))
}

impl Blobs {
    /// The query by which its holder may store, read and delete the blobs of a container until `expires`, with the `?` before it.
    pub(crate) fn container_signature(&self, container: &str, expires: Timestamp) -> String {
        sign(&self.key, &Signature::of_container(expires), &blob_name(container, ""))
    }

    /// The container of this hub that an address names, if it opens it: by its signature, or, where `is_trusted`, without one.
    ///
    /// # Errors
    /// `BlobContainerValidationError`.
    pub(crate) fn container_at(
        &self,
        address: &str,
        hosts: &[String],
        writes: bool,
        is_trusted: bool,
    ) -> Result<String, ServiceError> {
        let wrong = |text: String| ServiceError::new(ErrorCode::BlobContainerValidationError, text);
        let uri: Uri = address
            .parse()
            .map_err(|_| wrong("the address of the container can't be read".to_owned()))?;
        let host = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        if !hosts.iter().any(|known| known.eq_ignore_ascii_case(host)) {
            return Err(wrong(format!(
                "the container is at `{host}`; jobs use containers of this hub, see `PUT /holm/v1/containers/{{name}}`"
            )));
        }
        let path = uri.path().trim_matches('/');
        let name = path.strip_prefix(CONTAINERS).and_then(|rest| rest.strip_prefix('/'));
        let name = name.unwrap_or_default();
        check_container_name(name).map_err(|error| wrong(error.message))?;
        let query = Query::parse(uri.query().unwrap_or_default());
        if is_trusted && query.get("sig").is_none() {
            return Ok(name.to_owned());
        }
        let right = if writes { Right::Write } else { Right::Read };
        self.permit(right, &blob_name(name, ""), &query, &HeaderMap::new())
            .map_err(|fault| wrong(format!("the container `{name}` is not opened: {fault}")))?;
        Ok(name.to_owned())
    }

    /// Opens a blob of a container from a place on; gives its whole size with what is there.
    ///
    /// # Errors
    /// When the database can't be read.
    pub(crate) async fn open_from(
        &self,
        container: &str,
        blob: &str,
        from: u64,
    ) -> Result<Option<(u64, ResponseBody)>, ServiceError> {
        let name = blob_name(container, blob);
        let found = self.repository.read(move |view| {
            let Some(blob) = view.blob(&name)? else {
                return Ok(None);
            };
            Ok(Some((blob, view.blob_parts(&name)?)))
        });
        let Some((blob, parts)) = found.await? else {
            return Ok(None);
        };
        let content = match blob.size.saturating_sub(from) {
            0 => body::empty(),
            left => self.content(None, &parts, from, left),
        };
        Ok(Some((blob.size, content)))
    }

    /// Stores a blob of a container from pieces; nothing is stored when one of them is a failure.
    ///
    /// # Errors
    /// [`Fault`].
    pub(crate) async fn store(
        &self,
        container: &str,
        blob: &str,
        pieces: mpsc::Receiver<io::Result<Bytes>>,
    ) -> Result<(), Fault> {
        let asked = Asked {
            blob: blob_name(container, blob),
            query: Query::default(),
            headers: HeaderMap::new(),
        };
        let received = self.receive(&mut body::streamed(pieces), MAX_WRITTEN, &asked).await?;
        let blob = self.blob(&asked, received.size, &Map::new())?;
        let part = Part {
            block: String::new(),
            file: received.file.clone(),
            size: received.size,
        };
        self.commit(Some(received), move |transaction| {
            transaction.put_blob(&blob, &[part]).map(Ok)
        })
        .await
    }
}

/// Whether a blob of a container may have this name.
///
/// # Errors
/// `ArgumentInvalid`.
pub(crate) fn check_blob_name(name: &str) -> Result<(), ServiceError> {
    check_name(name).map_err(|why| ServiceError::argument_invalid(format!("the name of the blob {why}")))
}
