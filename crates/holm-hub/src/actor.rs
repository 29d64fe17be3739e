//! Who makes a change: what the audit log and the history of twins say.
//!
//! ```text
//! request -> proof -> Actor -> Actor::does(work) -> … -> Repository::change -> Transaction::actor()
//! ```
//!
//! The actor goes with the task and not through every signature between the front and the storage: many parts make changes, on
//! behalf of whoever asked, and none of them decides by it. What is done outside of [`Actor::does`], or in a task that was spawned
//! within, is the hub's own doing.

use std::fmt;
use std::future::Future;

use holm_gateway::Principal;
use holm_model::Identity;

tokio::task_local! {
    static ACTOR: Actor;
}

/// Who makes a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Actor {
    /// The hub itself.
    #[default]
    Hub,
    /// The holder of a key of a shared access policy.
    Policy(String),
    /// The holder of a key of a policy of the provisioning service.
    ProvisioningPolicy(String),
    /// A device or module.
    Identity(Identity),
    /// A job that somebody has ordered, by its id.
    Job(String),
    /// Automatic deployments or configurations, by their ids, with commas between them.
    Deployment(String),
    /// The provisioning service, for an enrolment or group of this id.
    Enrollment(String),
}

impl Actor {
    /// Who makes the changes of this task.
    #[must_use]
    pub fn current() -> Self {
        ACTOR.try_with(Self::clone).unwrap_or_default()
    }

    /// Does something as this actor.
    pub async fn does<F: Future>(self, work: F) -> F::Output {
        ACTOR.scope(self, work).await
    }
}

impl From<&Principal> for Actor {
    fn from(principal: &Principal) -> Self {
        match principal {
            Principal::Identity(identity) => Self::Identity(identity.clone()),
            Principal::Policy(name) => Self::Policy(name.clone()),
        }
    }
}

/// `hub`, `policy:service`, `provisioningPolicy:provisioningserviceowner`, `device:d1`, `module:d1/m1`, `job:29af…`, `deployment:base`, `enrollment:line-4`.
impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub => f.write_str("hub"),
            Self::Policy(name) => write!(f, "policy:{name}"),
            Self::ProvisioningPolicy(name) => write!(f, "provisioningPolicy:{name}"),
            Self::Identity(identity) if identity.is_module() => write!(f, "module:{identity}"),
            Self::Identity(identity) => write!(f, "device:{identity}"),
            Self::Job(id) => write!(f, "job:{id}"),
            Self::Deployment(id) => write!(f, "deployment:{id}"),
            Self::Enrollment(id) => write!(f, "enrollment:{id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_asks_is_known_where_the_work_is_done_and_nowhere_else() {
        let before = Actor::current();

        let within = Actor::Policy("service".to_owned())
            .does(async { Actor::current().to_string() })
            .await;

        assert_eq!((before, within.as_str()), (Actor::Hub, "policy:service"));
        assert_eq!(Actor::current(), Actor::Hub);
        assert_eq!(Actor::Identity("d1/m".parse().unwrap()).to_string(), "module:d1/m");
    }
}
