//! The conditions of a lane, and which of them must be asked of whom.
//!
//! ```text
//! (tags.site, 3) -> [v2]         conditions that need this value
//! others         -> [v1]         conditions that are asked of everyone
//! ```

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use holm_model::configuration::Configuration;

use super::super::facts::Column;
use super::super::matcher::Matcher;
use super::super::terms::Terms;

/// Answers of conditions that are remembered, of all together: some 30 MB. Beyond it all are forgotten, and found again.
pub(super) const MAX_REMEMBERED: usize = if cfg!(test) { 64 } else { 1 << 18 };

/// Conditions, each with its configuration. They are known by their places.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    matchers: Vec<Matcher>,
    by_term: HashMap<(usize, u32), Vec<u16>>,
    others: Vec<u16>,
    /// How many more answers may be remembered.
    room: usize,
}

/// Memory of one who asks much.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// The places of the conditions that hold, growing.
    pub(super) matches: Vec<u16>,
    key: Vec<u32>,
}

impl Conditions {
    /// The conditions of these configurations; [`Conditions::place`] makes them ready.
    pub(super) fn of(configurations: &[Arc<Configuration>]) -> Self {
        let mut matchers = Vec::new();
        for configuration in configurations {
            match Matcher::new(Arc::clone(configuration)) {
                Ok(matcher) => matchers.push(matcher),
                // It was read before it was kept; another release may have known more.
                Err(error) => {
                    tracing::error!(configuration = %configuration.id(), %error, "a configuration is for nobody");
                }
            }
        }
        Self {
            matchers,
            ..Self::default()
        }
    }

    /// What must be known of a twin, in order.
    pub(super) fn columns(&self) -> BTreeSet<Column> {
        self.matchers.iter().flat_map(|it| it.columns().to_vec()).collect()
    }

    /// Learns where the columns stand, and what their values are called.
    pub(super) fn place(&mut self, columns: &[Column], terms: &mut Terms) {
        let place_of = |column: &Column| columns.iter().position(|it| it == column);
        (self.by_term, self.others) = (HashMap::new(), Vec::new());
        for (number, matcher) in self.matchers.iter_mut().enumerate() {
            matcher.place(|column| place_of(column).unwrap_or(usize::MAX));
            let Ok(number) = u16::try_from(number) else { continue };
            // A need that reads within another column is not in the index.
            let needs = matcher.needs().and_then(|needs| {
                let placed = needs
                    .into_iter()
                    .map(|(column, value)| Some((place_of(&column)?, value)));
                placed.collect::<Option<Vec<_>>>()
            });
            match needs {
                None => self.others.push(number),
                Some(needs) => {
                    for (place, value) in needs {
                        let term = terms.intern(&value);
                        self.by_term.entry((place, term)).or_default().push(number);
                    }
                }
            }
        }
        self.room = MAX_REMEMBERED;
    }

    /// Asks the conditions that can hold for a twin of these facts; those that do stand in the scratch.
    pub(super) fn matching(&mut self, facts: &[u32], terms: &Terms, scratch: &mut Scratch) {
        let Scratch { matches, key } = scratch;
        matches.clear();
        for (place, term) in facts.iter().enumerate() {
            if let Some(asked) = self.by_term.get(&(place, *term)) {
                matches.extend(asked);
            }
        }
        matches.extend(&self.others);
        matches.sort_unstable();
        matches.dedup();
        if self.room < matches.len() {
            self.matchers.iter_mut().for_each(Matcher::forget);
            self.room = MAX_REMEMBERED;
        }
        matches.retain(|number| {
            let Some(matcher) = self.matchers.get_mut(usize::from(*number)) else {
                return false;
            };
            let before = matcher.remembered();
            let holds = matcher.holds(facts, terms, key);
            self.room = self.room.saturating_sub(matcher.remembered() - before);
            holds
        });
    }

    /// The configurations at these places.
    pub(super) fn configurations(&self, places: &[u16]) -> impl Iterator<Item = &Arc<Configuration>> {
        let matchers = places
            .iter()
            .filter_map(|number| self.matchers.get(usize::from(*number)));
        matchers.map(|matcher| &matcher.configuration)
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.matchers.is_empty()
    }

    /// How many answers are remembered.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.matchers.iter().map(Matcher::remembered).sum()
    }
}
