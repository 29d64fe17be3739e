//! The groups, in memory: a device that registers names none, so they are looked up by what it shows.
//!
//! ```text
//! its last registration    its group, by id
//! a certificate            groups whose certificate has the name of an issuer in the chain it shows
//! a token                  nothing tells by which group's key it was signed: all groups by keys, see searches.rs
//! ```
//!
//! They change after the commit that changes them, in the order of the commits.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};

use holm_identity::CertificateDetails;
use holm_model::RegistrationId;

use super::certificates::Certificates;
use super::enrollment::{Attestation, Enrollment, Kind};

/// All groups. What is read is one state of them.
#[derive(Debug)]
pub(super) struct Groups(RwLock<Arc<Index>>);

/// One state of the groups.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// By the id in lower case.
    by_id: HashMap<String, Arc<Enrollment>>,
    /// Those that go by keys.
    keyed: Vec<Arc<Enrollment>>,
    /// By the subjects, in DER, of the certificates that sign for their devices.
    by_subject: HashMap<Vec<u8>, Vec<Arc<Enrollment>>>,
    /// By the names, in lower case, of the kept certificates that do.
    by_authority: HashMap<String, Vec<Arc<Enrollment>>>,
}

impl Groups {
    pub(super) fn new(groups: Vec<Enrollment>) -> Self {
        Self(RwLock::new(Arc::new(Index::new(groups.into_iter().map(Arc::new)))))
    }

    pub(super) fn now(&self) -> Arc<Index> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes up a group, new or changed; an individual enrollment is none.
    pub(super) fn put(&self, enrollment: &Enrollment) {
        if enrollment.kind == Kind::Group {
            self.change(&enrollment.id, Some(enrollment));
        }
    }

    pub(super) fn remove(&self, id: &RegistrationId) {
        self.change(id, None);
    }

    fn change(&self, id: &RegistrationId, next: Option<&Enrollment>) {
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let others = held.by_id.values().filter(|group| group.id != *id).cloned();
        let next = next.cloned().map(Arc::new);
        *held = Arc::new(Index::new(others.chain(next)));
    }
}

impl Index {
    fn new(groups: impl Iterator<Item = Arc<Enrollment>>) -> Self {
        let mut index = Self::default();
        for group in groups {
            index.by_id.insert(group.id.key().to_owned(), Arc::clone(&group));
            match &group.attestation {
                Attestation::SymmetricKey(_) => index.keyed.push(Arc::clone(&group)),
                Attestation::SigningCertificates(primary, secondary) => {
                    for signer in std::iter::once(primary).chain(secondary) {
                        let subject = signer.verifier.details().subject_der().to_vec();
                        index.by_subject.entry(subject).or_default().push(Arc::clone(&group));
                    }
                }
                Attestation::Authorities(primary, secondary) => {
                    for name in std::iter::once(primary).chain(secondary) {
                        let name = name.to_ascii_lowercase();
                        index.by_authority.entry(name).or_default().push(Arc::clone(&group));
                    }
                }
                Attestation::ClientCertificates(..) | Attestation::Tpm(_) => {}
            }
        }
        index
    }

    /// A group by its id in lower case.
    pub(super) fn find(&self, id: &str) -> Option<&Arc<Enrollment>> {
        self.by_id.get(id)
    }

    /// Those that go by keys.
    pub(super) fn keyed(&self) -> &[Arc<Enrollment>] {
        &self.keyed
    }

    /// Those whose certificates may have signed something in a chain, leaf first, by the names in it: each once, the nearest to the leaf
    /// first. No signature is looked at.
    ///
    /// What is near is told by who names whom as issuer: the order in which certificates are shown is the device's to choose.
    pub(super) fn named_in(&self, chain: &[CertificateDetails], kept: &Certificates) -> Vec<Arc<Enrollment>> {
        let Some((leaf, mut above)) = chain.split_first().map(|(leaf, above)| (leaf, Vec::from_iter(above))) else {
            return Vec::new();
        };
        let mut found: Vec<Arc<Enrollment>> = Vec::new();
        // Each certificate adds a name once, so this ends.
        let mut names = VecDeque::from([leaf.issuer_der()]);
        while let Some(name) = names.pop_front() {
            let own = self.by_subject.get(name).into_iter().flatten();
            let kept = kept.named(name);
            let by_kept = kept.iter().filter_map(|name| self.by_authority.get(name)).flatten();
            for group in own.chain(by_kept) {
                if !found.iter().any(|known| Arc::ptr_eq(known, group)) {
                    found.push(Arc::clone(group));
                }
            }
            let (of_name, others) = above.into_iter().partition(|shown| shown.subject_der() == name);
            let of_name: Vec<&CertificateDetails> = of_name;
            names.extend(of_name.into_iter().map(CertificateDetails::issuer_der));
            above = others;
        }
        found
    }
}
