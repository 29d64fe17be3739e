//! What shall be at a target because of the configurations that match it, with a name by which it is known again.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use holm_model::configuration::{Configuration, ConfigurationId, ConfigurationKind, EdgePlan, SettingsPlan, Status};
use holm_model::manifest::DeploymentContent;

/// What shall be at a target.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Intent {
    /// Every configuration that matches.
    pub(super) statuses: BTreeMap<ConfigurationId, Status>,
    /// What to write.
    pub(super) effect: Effect,
    /// Of two intents with one fingerprint nothing differs. Empty where nothing matches.
    pub(super) fingerprint: String,
}

/// What to write.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Effect {
    /// Nothing: no base deployment is for this edge device.
    #[default]
    Nothing,
    /// Whole sections of modules of an edge device.
    Modules(DeploymentContent),
    /// Some desired properties of the target's own twin.
    Settings(SettingsPlan),
}

impl Intent {
    /// What follows from configurations of a kind.
    pub(super) fn of(kind: ConfigurationKind, matching: &[&Configuration]) -> Self {
        let (statuses, effect) = match kind {
            ConfigurationKind::Edge => {
                let plan = EdgePlan::of(matching);
                let effect = plan.content.map_or(Effect::Nothing, Effect::Modules);
                (plan.statuses, effect)
            }
            ConfigurationKind::Device | ConfigurationKind::Module => {
                let plan = SettingsPlan::of(matching);
                (plan.statuses.clone(), Effect::Settings(plan))
            }
        };
        Self {
            fingerprint: fingerprint(matching),
            statuses,
            effect,
        }
    }

    /// Those in force.
    pub(super) fn applied(&self) -> impl Iterator<Item = &ConfigurationId> {
        let applied = self.statuses.iter().filter(|(_, status)| **status == Status::Applied);
        applied.map(|(id, _)| id)
    }
}

/// All that the intent follows from: who matches, made when (content never changes), and how they stand to each other: their order,
/// and which of them are equal in priority.
pub(super) fn fingerprint(matching: &[&Configuration]) -> String {
    let mut sorted = matching.to_vec();
    sorted.sort_by_key(|it| it.rank());
    let mut text = String::new();
    let mut before = None;
    for it in sorted {
        let join = match before {
            None => "",
            Some(priority) if priority == it.priority() => "=",
            Some(_) => "<",
        };
        before = Some(it.priority());
        // Writing to a text can't fail.
        write!(text, "{join}{}@{}", it.id(), it.created().unix_millis()).ok();
    }
    text
}
