//! Figures for operators: what counts, and the forms in which it is read.
//!
//! ```text
//!   Counter, Family, Summary, Series ──write──> Exposition ──> text of Prometheus, or figures as values for other forms
//! ```
//!
//! A label has few values. Where all are known when the code is written it is an enum ([`label`](crate::label)) and all are
//! shown from the start, since a figure that appears with its first event has no rate before it. Where they are names of
//! modules and devices, which a deployment or a hub gives, they stand in a [`Series`], which is bounded. What a peer says is
//! never one, so nobody outside decides how many figures there are.

mod connections;
mod exposition;
mod series;
mod summary;

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

pub use connections::{ConnectRefusal, ConnectionMetrics, End, Protocol, Throttle};
pub use exposition::{Exposition, Figure, Kind, Number, Point};
pub use series::Series;
pub use summary::{QUANTILES, Summary, SummaryView};

/// The values that one label can have.
pub trait Label: Copy {
    /// The label.
    const NAME: &'static str;
    /// Its values, in the order of [`Label::index`].
    const VALUES: &'static [&'static str];
    /// Which value this is.
    fn index(self) -> usize;
}

/// Makes an enum whose variants are the values of a label.
#[macro_export]
macro_rules! label {
    ($(#[$doc:meta])* $vis:vis enum $name:ident($label:literal) {
        $($(#[$variant_doc:meta])* $variant:ident = $value:literal,)+
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $crate::metrics::Label for $name {
            const NAME: &'static str = $label;
            const VALUES: &'static [&'static str] = &[$($value,)+];

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

/// One number.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// One less; for gauges.
    pub fn decrement(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number for each value of a label.
#[derive(Debug)]
pub struct Family<L> {
    counters: Box<[Counter]>,
    label: PhantomData<fn(L)>,
}

impl<L: Label> Default for Family<L> {
    fn default() -> Self {
        Self {
            counters: L::VALUES.iter().map(|_| Counter::default()).collect(),
            label: PhantomData,
        }
    }
}

impl<L: Label> Family<L> {
    /// Each value with its number.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
        L::VALUES.iter().copied().zip(self.counters.iter().map(Counter::get))
    }

    /// The number of a value.
    ///
    /// # Panics
    /// Never: a label knows its values.
    #[must_use]
    pub fn of(&self, value: L) -> &Counter {
        self.counters
            .get(value.index())
            .expect("there is a counter for each value of the label")
    }
}
