//! The certificate authority of the edge: given by the operator, or made at the first start and replaced in time.
//!
//! ```text
//!   0 %                              80 %              95 %         100 % of the first authority's life
//!   first signs ─────────────────────┬─────────────────┬────────────┐
//!   in the trust bundle: first       │ first, second   │            │ second
//!                                    second is made    second signs
//! ```
//!
//! A client that trusts the first authority and has not been told of the second goes on until 95 %: the second is published
//! for long before it signs anything. (Certifying the second by the first instead would help only those that take a longer
//! chain, and an authority of ours may have none below it.)
//!
//! All of this by a time of day that may be wrong, so it can be taken back: the first is kept ([`super::kept`]), and signs again
//! when the clock shows that it is not over.

use std::path::PathBuf;
use std::sync::Arc;

use holm_identity::ca::EARLIEST;
use holm_identity::certificate::{CertificateInfo, MAX_PEM_BYTES, certificates_from_pem};
use holm_identity::{CertificateAuthority, private_file};
use holm_model::Timestamp;

use super::kept::Kept;
use super::{SecurityError, SecurityOptions};
use crate::config::EdgeCa;

/// The authority that signs, and the one that will.
#[derive(Clone, Debug)]
pub(super) struct Authorities {
    pub(super) current: Arc<CertificateAuthority>,
    next: Option<Arc<CertificateAuthority>>,
    kept: Kept,
}

impl Authorities {
    /// The given authority, or the edge's own: made if there is none, replaced if it is due.
    pub(super) fn open(options: &SecurityOptions, now: Timestamp) -> Result<Self, SecurityError> {
        let days = match &options.edge_ca {
            EdgeCa::Files { cert, pk } => {
                let given = CertificateAuthority::load(cert, pk).map_err(SecurityError::Authority)?;
                return Ok(Self::of(given));
            }
            EdgeCa::QuickStart { days } => *days,
        };
        let is_announced = file(options, NEXT.0).exists();
        let next = is_announced
            .then(|| load_or_create(options, NEXT, days, now))
            .transpose()?;
        let (current, next) = match (load_or_create(options, CURRENT, days, now), next) {
            // The power was cut when the next one took the place: it does so now.
            (Err(error), Some(next)) => {
                tracing::warn!(
                    error = %holm_net::error_chain(&error),
                    "the replacement of the edge's certificate authority was cut short and is brought to its end"
                );
                take_place(options, &next)?;
                (next, None)
            }
            // Only the end of its announcement was cut short.
            (Ok(current), Some(next)) if next.certificate_pem() == current.certificate_pem() => {
                forget_announcement(options);
                (current, None)
            }
            (current, next) => (current?, next),
        };
        let opened = Self {
            current: Arc::new(current),
            next: next.map(Arc::new),
            kept: Kept::open(options)?,
        };
        Ok(opened.maintained(options, now)?.unwrap_or(opened))
    }

    fn of(current: CertificateAuthority) -> Self {
        Self {
            current: Arc::new(current),
            next: None,
            kept: Kept::default(),
        }
    }

    /// What is to follow now, if something is: an authority that is announced, or another one in use.
    pub(super) fn maintained(&self, options: &SecurityOptions, now: Timestamp) -> Result<Option<Self>, SecurityError> {
        let EdgeCa::QuickStart { days } = options.edge_ca else {
            return Ok(None);
        };
        let info = self.current.info();
        let is_good = |kept: &&Arc<CertificateAuthority>| !is_over(kept.info(), days, now);
        let earlier = |kept: &&Arc<CertificateAuthority>| kept.info().not_after < info.not_after;
        // A clock that was never set says nothing of the past.
        let is_set = now >= EARLIEST;
        if let Some(again) = self.kept.iter().find(|kept| is_set && is_good(kept) && earlier(kept)) {
            return self.go_back(options, again).map(Some);
        }
        if is_over(info, days, now) {
            return self.advance(options, days, now).map(Some);
        }
        if !info.should_renew(days, now) || self.next.is_some() {
            return Ok(None);
        }
        let next = match self.later(days, now) {
            Some(known) => {
                let stored = known.store(&file(options, NEXT.0), &file(options, NEXT.1));
                stored.map_err(SecurityError::Authority)?;
                known
            }
            None => Arc::new(load_or_create(options, NEXT, days, now)?),
        };
        tracing::warn!(
            ends = %info.not_after,
            "the edge's certificate authority ends; give downstream devices the next one as well (`holm edge ca` prints both)"
        );
        Ok(Some(Self {
            current: Arc::clone(&self.current),
            next: Some(next),
            kept: self.kept.clone(),
        }))
    }

    /// One that was made when the clock was ahead, and can follow the current one: it is in trust bundles already.
    fn later(&self, days: u32, now: Timestamp) -> Option<Arc<CertificateAuthority>> {
        let end = self.current.info().not_after;
        let follows =
            |kept: &&Arc<CertificateAuthority>| kept.info().not_after > end && !is_over(kept.info(), days, now);
        self.kept.iter().find(follows).cloned()
    }

    /// The time of day was wrong when `again` was replaced: it takes its place again, and those since are kept.
    fn go_back(&self, options: &SecurityOptions, again: &Arc<CertificateAuthority>) -> Result<Self, SecurityError> {
        let mut kept = self.kept.clone();
        for since in self.next.iter().chain([&self.current]) {
            kept.keep(options, since, again)?;
        }
        // As at a replacement: a cut in between finds it here.
        let stored = again.store(&file(options, NEXT.0), &file(options, NEXT.1));
        stored.map_err(SecurityError::Authority)?;
        take_place(options, again)?;
        tracing::warn!(
            ends = %again.info().not_after,
            "the edge's certificate authority of before is in use again: the clock was wrong when it was replaced"
        );
        Ok(Self {
            current: Arc::clone(again),
            next: None,
            kept,
        })
    }

    /// The next authority takes the place of the current one, whose certificate is kept for the trust bundle.
    fn advance(&self, options: &SecurityOptions, days: u32, now: Timestamp) -> Result<Self, SecurityError> {
        let announced = self.next.as_ref().filter(|next| !is_over(next.info(), days, now));
        let next = match announced {
            Some(next) => Arc::clone(next),
            None => match self.later(days, now) {
                Some(known) => known,
                None => Arc::new(create(options, days, now)?),
            },
        };
        let mut kept = self.kept.clone();
        for before in self.next.iter().filter(|_| announced.is_none()).chain([&self.current]) {
            kept.keep(options, before, &self.current)?;
        }
        if announced.is_none() {
            // The two files of the current one can't be replaced in one step: a cut in between finds it here.
            let stored = next.store(&file(options, NEXT.0), &file(options, NEXT.1));
            stored.map_err(SecurityError::Authority)?;
        }
        take_place(options, &next)?;
        tracing::warn!(
            ended = %self.current.info().not_after,
            "the edge's certificate authority was replaced; downstream devices that do not trust the new one (`holm edge ca`) can't connect any more"
        );
        Ok(Self {
            current: next,
            next: None,
            kept,
        })
    }

    /// What downstream devices are to trust: the authority in use, and the one that follows if it is known.
    pub(super) fn pem(&self) -> String {
        let next = self.next.as_ref().map(|next| next.certificate_pem());
        self.current.certificate_pem() + &next.unwrap_or_default()
    }

    /// The others that were in use, or will be, if the clock is wrong now.
    pub(super) fn kept_pem(&self) -> String {
        let told = self.next.iter().chain([&self.current]);
        let is_told =
            |kept: &Arc<CertificateAuthority>| told.clone().any(|told| told.info().sha256 == kept.info().sha256);
        let kept = self.kept.iter().filter(|kept| !is_told(kept));
        kept.map(|kept| kept.certificate_pem()).collect()
    }
}

/// The files of an authority: certificate and key.
type Files = (&'static str, &'static str);
const CURRENT: Files = ("edge-ca.pem", "edge-ca.key.pem");
const NEXT: Files = ("edge-ca-next.pem", "edge-ca-next.key.pem");
const PREVIOUS: &str = "edge-ca-previous.pem";

fn file(options: &SecurityOptions, name: &str) -> PathBuf {
    options.data.join("certificates").join(name)
}

/// Whether 95 % of its life are over: what it signs from then on would not last.
fn is_over(info: &CertificateInfo, days: u32, now: Timestamp) -> bool {
    info.has_left_at_most(5, days, now)
}

/// The published name: `aziot-edge CA <device>`, cut to what a common name may hold.
fn common_name(options: &SecurityOptions) -> String {
    format!("aziot-edge CA {}", options.device).chars().take(64).collect()
}

fn create(options: &SecurityOptions, days: u32, now: Timestamp) -> Result<CertificateAuthority, SecurityError> {
    CertificateAuthority::create(&common_name(options), days, now).map_err(SecurityError::Authority)
}

/// The announced authority becomes the current one. Cut short at any point, it is found announced and does so again.
fn take_place(options: &SecurityOptions, next: &CertificateAuthority) -> Result<(), SecurityError> {
    let stored = next.store(&file(options, CURRENT.0), &file(options, CURRENT.1));
    stored.map_err(SecurityError::Authority)?;
    forget_announcement(options);
    Ok(())
}

/// Removes the files of an announced authority that is the current one now: the certificate first, which announces.
fn forget_announcement(options: &SecurityOptions) {
    for name in [NEXT.0, NEXT.1] {
        match std::fs::remove_file(file(options, name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(name, %error, "a file of the authority that is in use now could not be removed");
            }
            _ => {}
        }
    }
}

fn load_or_create(
    options: &SecurityOptions,
    (certificate, key): Files,
    days: u32,
    now: Timestamp,
) -> Result<CertificateAuthority, SecurityError> {
    let (certificate, key) = (file(options, certificate), file(options, key));
    CertificateAuthority::load_or_create(&certificate, &key, &common_name(options), days, now)
        .map_err(SecurityError::Authority)
}

/// Keeps the certificate of an authority that is not in use any more, for the trust bundle.
pub(super) fn keep_previous(options: &SecurityOptions, old: &CertificateAuthority) -> Result<(), SecurityError> {
    let pem = old.certificate_pem();
    private_file::write_public(&file(options, PREVIOUS), pem.as_bytes()).map_err(SecurityError::Directory)
}

/// The certificate of the authority before this one, as long as it is valid; else empty.
pub(super) fn previous_pem(options: &SecurityOptions, now: Timestamp) -> String {
    let read = private_file::read_public(&file(options, PREVIOUS), MAX_PEM_BYTES);
    let pem = match read {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => return String::new(),
    };
    let is_valid = certificates_from_pem(pem.as_bytes()).is_ok_and(|certificates| {
        let info = certificates.first().and_then(|first| CertificateInfo::read(first).ok());
        info.is_some_and(|info| info.is_valid_at(now))
    });
    if is_valid { pem } else { String::new() }
}
