//! Configurations: what many devices or modules shall be, whom that is for, and which of several is in force.
//!
//! ```text
//! Configuration { content, targetCondition, priority, … }       kind           whom                 written to
//!   modulesContent  -> an automatic deployment                  Edge           edge devices         twins of their modules
//!   deviceContent   -> settings of devices                      Device         devices              their twins
//!   moduleContent   -> settings of modules                      Module         modules              their twins
//!
//! those that match one device --rank: priority, then age--> EdgePlan | SettingsPlan --> what its twins say, Applied | Targeted
//! ```
//!
//! Who matches is decided elsewhere: conditions are text here. What follows from those that match is a function of them alone,
//! in whatever order they come.
//!
//! Source: `hub-service-api.md` §3, `edge-agent.md` §1.1.

mod content;
mod document;
mod explain;
mod id;
mod metrics;
mod plan;
mod target;
mod wish;

pub use content::{ConfigurationContent, ConfigurationKind, Setting};
pub use document::Configuration;
pub use explain::{Claim, Item, Verdict, claims, claims_below};
pub use id::{ConfigurationId, InvalidConfigurationId};
pub use metrics::{MAX_CUSTOM_METRICS, MetricResults, system_queries};
pub use plan::{EdgePlan, SettingsPlan, Status};
pub use target::Target;
pub use wish::ConfigurationWish;

#[cfg(test)]
mod tests;
