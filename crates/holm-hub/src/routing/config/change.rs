//! One change after the other: checked, stored, in force.

use holm_model::ServiceError;
use serde_json::{Map, Value};

use super::error::noun;
use super::{Routing, RoutingError};
use crate::actor::Actor;
use crate::routing::definition::EndpointDefinition;
use crate::routing::documents::{Rules, Wish, check, etag_of};
use crate::routing::endpoint::Surroundings;
use crate::routing::endpoints;
use crate::storage::{RoutingKind, RoutingRow};

impl Routing {
    pub(super) async fn change(
        &self,
        kind: RoutingKind,
        name: &str,
        wish: Wish,
        if_match: Option<String>,
    ) -> Result<(), RoutingError> {
        let (routing, name, actor) = (self.clone(), name.to_owned(), Actor::current());
        // A task of its own: what was stored must come into force, whether or not the caller is still there.
        let changing = self.0.scope.spawn(actor.does(async move {
            let _one = routing.0.changing.lock().await;
            let rows = routing.store(kind, name, wish, if_match).await?;
            let rules = routing.put_in_force(&rows);
            routing.bring_about(&rules).await;
            Ok(())
        }));
        let ended = changing.await;
        ended.unwrap_or_else(|_| Err(ServiceError::unavailable("the hub is stopping; try again").into()))
    }

    async fn store(
        &self,
        kind: RoutingKind,
        name: String,
        wish: Wish,
        if_match: Option<String>,
    ) -> Result<Vec<RoutingRow>, RoutingError> {
        let now = self.0.surroundings.clock.now();
        let queue = self.0.log.queue().clone();
        let surroundings = self.0.surroundings.clone();
        let stored = self.0.repository.change(move |transaction| {
            let rows = transaction.routing()?;
            let current = rows
                .iter()
                .find(|row| row.kind == kind && row.name.eq_ignore_ascii_case(&name));
            let checked = check(kind, &name, wish, if_match.as_deref(), current, &rows);
            let document = match checked {
                Ok(document) => document,
                Err(error) => return Ok(Err(error)),
            };
            let name = current.map_or(name, |current| current.name.clone());
            let word = noun(kind).split(' ').next().unwrap_or_default();
            match document {
                Some(document) => {
                    if let Err(error) = check_settings(kind, &name, &document, &surroundings) {
                        return Ok(Err(error));
                    }
                    let text = Value::Object(document).to_string();
                    let revision = transaction.put_routing(kind, &name, &text, now)?;
                    let was_there = current.is_some() || kind == RoutingKind::Fallback;
                    let verb = if was_there { "update" } else { "create" };
                    let mark = etag_of(revision);
                    transaction.record(&format!("{word}.{verb}"), &name, Some(&mark), now)?;
                }
                None => {
                    transaction.remove_routing(kind, &name)?;
                    transaction.record(&format!("{word}.delete"), &name, None, now)?;
                }
            }
            let rows = transaction.routing()?;
            for endpoint in Rules::of(&rows).endpoints {
                // Before anything can be routed to it. One that the transaction does not keep goes at the next change.
                endpoint.lane(&queue).map_err(|error| {
                    let error = holm_net::error_chain(&error);
                    ServiceError::unavailable(format!("the event log can't take the endpoint now: {error}"))
                })?;
            }
            Ok(Ok(rows))
        });
        stored.await.map_err(RoutingError::Refused)?
    }
}

/// An endpoint that can't be made is told to who defines it, and not only to who looks at its health.
fn check_settings(
    kind: RoutingKind,
    name: &str,
    document: &Map<String, Value>,
    surroundings: &Surroundings,
) -> Result<(), RoutingError> {
    if kind == RoutingKind::Endpoint {
        let definition = EndpointDefinition::read(name.parse()?, document.clone())?;
        endpoints::check(&definition.settings, surroundings)?;
    }
    Ok(())
}
