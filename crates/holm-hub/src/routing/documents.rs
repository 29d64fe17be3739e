//! The documents of routing together: what they say, what may be written, and what is told of them.
//!
//! ```text
//! rows -> Rules                        what is in force
//! rows + wish -> check -> document     what is stored: as it reads back, of endpoints with the secrets that stay
//! row -> Told                          what is answered: with an etag, without secrets
//! ```

use std::collections::BTreeSet;

use holm_model::{ErrorCode, ServiceError, etag};
use serde_json::{Map, Value, json};

use super::config::{RoutingError, noun};
use super::definition::{DefinitionError, EndpointDefinition, EndpointName, Members, Secrets};
use super::live::Stored;
use super::rules::{Destination, Enrichment, Route};
use super::source::Source;
use super::table::{MAX_ENDPOINTS, MAX_ENRICHMENTS, MAX_ROUTES};
use crate::storage::{RoutingKind, RoutingRow};

/// The name of the route of what no route takes.
pub const FALLBACK: &str = "$fallback";

/// All documents, read and checked with each other.
pub(super) struct Rules {
    pub(super) routes: Vec<Route>,
    pub(super) enrichments: Vec<Enrichment>,
    pub(super) endpoints: Vec<Stored>,
    pub(super) fallback: bool,
}

/// What is to become of a document.
pub(super) enum Wish {
    Put(Map<String, Value>),
    Remove,
}

/// A document as it is told: without secrets.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) kind: RoutingKind,
    pub(super) name: String,
    /// Its members, with `etag`.
    pub(super) document: Map<String, Value>,
}

impl Rules {
    /// What the rows say. A row that this release can't read, since another one wrote it, is left out and told.
    pub(super) fn of(rows: &[RoutingRow]) -> Self {
        let mut rules = Self {
            routes: Vec::new(),
            enrichments: Vec::new(),
            endpoints: Vec::new(),
            fallback: true,
        };
        for row in rows {
            if let Err(error) = rules.take(row) {
                let (kind, name) = (noun(row.kind), row.name.as_str());
                tracing::error!(kind, name, %error, "a rule of message routing can't be read and does not count");
            }
        }
        rules
    }

    fn take(&mut self, row: &RoutingRow) -> Result<(), DefinitionError> {
        let document = parsed(row)?;
        match row.kind {
            RoutingKind::Route => self.routes.push(Route::read(&row.name, document)?),
            RoutingKind::Enrichment => self.enrichments.push(Enrichment::read(&row.name, document)?),
            RoutingKind::Fallback => self.fallback = read_fallback(document)?,
            RoutingKind::Endpoint => self.endpoints.push(Stored {
                definition: EndpointDefinition::read(row.name.parse()?, document)?,
                revision: row.revision,
                made: row.made,
            }),
        }
        Ok(())
    }

    fn endpoint_names(&self) -> BTreeSet<&EndpointName> {
        self.endpoints.iter().map(|stored| &stored.definition.name).collect()
    }
}

fn parsed(row: &RoutingRow) -> Result<Map<String, Value>, DefinitionError> {
    serde_json::from_str(&row.document).map_err(|error| DefinitionError::new("document", error.to_string()))
}

fn read_fallback(document: Map<String, Value>) -> Result<bool, DefinitionError> {
    let mut members = Members::new(document);
    for told in ["etag", "name", "source", "condition", "endpoint"] {
        members.ignore(told);
    }
    let enabled = members.boolean("enabled", true)?;
    members.finish()?;
    Ok(enabled)
}

pub(super) fn fallback_document(enabled: bool) -> Map<String, Value> {
    let told = json!({
        "name": FALLBACK,
        "source": Source::DeviceMessages.name(),
        "condition": "true",
        "endpoint": EndpointName::EVENTS,
        "enabled": enabled,
    });
    told.as_object().cloned().unwrap_or_default()
}

pub(super) fn etag_of(revision: i64) -> String {
    etag::of_counter(u64::try_from(revision).unwrap_or_default())
}

pub(super) fn told(row: &RoutingRow) -> Option<Told> {
    let document = parsed(row).ok()?;
    let mut document = match row.kind {
        RoutingKind::Route => Route::read(&row.name, document).ok()?.write(),
        RoutingKind::Enrichment => Enrichment::read(&row.name, document).ok()?.write(),
        RoutingKind::Fallback => fallback_document(read_fallback(document).ok()?),
        RoutingKind::Endpoint => EndpointDefinition::read(row.name.parse().ok()?, document)
            .ok()?
            .write(Secrets::Named),
    };
    document.insert("etag".to_owned(), json!(etag_of(row.revision)));
    Some(Told {
        kind: row.kind,
        name: row.name.clone(),
        document,
    })
}

/// What is to be stored, with its secrets; `None` to remove it.
pub(super) fn check(
    kind: RoutingKind,
    name: &str,
    wish: Wish,
    if_match: Option<&str>,
    current: Option<&RoutingRow>,
    rows: &[RoutingRow],
) -> Result<Option<Map<String, Value>>, RoutingError> {
    let (named, is_fallback) = (name.to_owned(), kind == RoutingKind::Fallback);
    match (&wish, current, if_match) {
        (Wish::Put(_), Some(_), None) if !is_fallback => return Err(RoutingError::Exists { kind, name: named }),
        (Wish::Put(_), None, Some(_)) if !is_fallback => return Err(RoutingError::NotFound { kind, name: named }),
        (Wish::Remove, None, _) => return Err(RoutingError::NotFound { kind, name: named }),
        (_, Some(current), Some(if_match)) if !etag::matches(if_match, &etag_of(current.revision)) => {
            let text = format!("the {} `{name}` was changed meanwhile; read it again", noun(kind));
            return Err(ServiceError::new(ErrorCode::PreconditionFailed, text).into());
        }
        _ => {}
    }
    let rules = Rules::of(rows);
    let name = current.map_or(name, |current| current.name.as_str());
    match wish {
        Wish::Remove => {
            check_unused(kind, name, &rules)?;
            Ok(None)
        }
        Wish::Put(document) => {
            let document = completed(kind, name, document, &rules)?;
            check_against(kind, name, &document, current.is_none(), &rules)?;
            Ok(Some(document))
        }
    }
}

/// The document as it is stored: as it reads back, of an endpoint with the secrets that stay.
fn completed(
    kind: RoutingKind,
    name: &str,
    mut document: Map<String, Value>,
    rules: &Rules,
) -> Result<Map<String, Value>, DefinitionError> {
    Ok(match kind {
        RoutingKind::Route => Route::read(name, document)?.write(),
        RoutingKind::Enrichment => Enrichment::read(name, document)?.write(),
        RoutingKind::Fallback => fallback_document(read_fallback(document)?),
        RoutingKind::Endpoint => {
            let name: EndpointName = name.parse()?;
            document.remove("health");
            let mut endpoints = rules.endpoints.iter();
            if let Some(old) = endpoints.find(|stored| stored.definition.name == name) {
                old.definition.keep_secrets(&mut document)?;
            }
            EndpointDefinition::read(name, document)?.write(Secrets::Written)
        }
    })
}

/// What it names must be there, and there must be room.
fn check_against(
    kind: RoutingKind,
    name: &str,
    document: &Map<String, Value>,
    is_new: bool,
    rules: &Rules,
) -> Result<(), RoutingError> {
    let known = rules.endpoint_names();
    let unknown = |to: &Destination| match to {
        Destination::Endpoint(endpoint) if !known.contains(endpoint) => Some(endpoint.to_string()),
        _ => None,
    };
    let (missing, member) = match kind {
        RoutingKind::Route => (unknown(&Route::read(name, document.clone())?.to), "endpoint"),
        RoutingKind::Enrichment => {
            let enrichment = Enrichment::read(name, document.clone())?;
            (enrichment.to.iter().find_map(unknown), "endpoints")
        }
        RoutingKind::Endpoint => {
            let definition = EndpointDefinition::read(name.parse()?, document.clone())?;
            (
                definition
                    .dead_letter
                    .map(Destination::Endpoint)
                    .as_ref()
                    .and_then(unknown),
                "deadLetter",
            )
        }
        RoutingKind::Fallback => (None, ""),
    };
    if let Some(missing) = missing {
        let text = format!("there is no endpoint `{missing}`; make it first, or name another");
        return Err(DefinitionError::new(member, text).into());
    }
    let (count, most) = match kind {
        RoutingKind::Route => (rules.routes.len(), MAX_ROUTES),
        RoutingKind::Enrichment => (rules.enrichments.len(), MAX_ENRICHMENTS),
        RoutingKind::Endpoint => (rules.endpoints.len(), MAX_ENDPOINTS),
        RoutingKind::Fallback => (0, 1),
    };
    if is_new && count >= most {
        let text = format!("there are {most} of them, the most allowed; remove one first");
        return Err(ServiceError::new(ErrorCode::InvalidOperation, text).into());
    }
    Ok(())
}

fn check_unused(kind: RoutingKind, name: &str, rules: &Rules) -> Result<(), RoutingError> {
    if kind != RoutingKind::Endpoint {
        return Ok(());
    }
    let is = |to: &Destination| to.name() == name;
    let routes = rules.routes.iter().filter(|route| is(&route.to));
    let routes = routes.map(|route| format!("the route `{}`", route.name));
    let enrichments = rules
        .enrichments
        .iter()
        .filter(|enrichment| enrichment.to.iter().any(is));
    let enrichments = enrichments.map(|enrichment| format!("the enrichment `{}`", enrichment.key));
    let others = rules.endpoints.iter().map(|stored| &stored.definition);
    let others = others.filter(|other| other.dead_letter.as_ref().is_some_and(|to| to.as_str() == name));
    let others = others.map(|other| format!("the endpoint `{}` for its dead letters", other.name));
    match routes.chain(enrichments).chain(others).next() {
        Some(by) => Err(RoutingError::InUse {
            name: name.to_owned(),
            by,
        }),
        None => Ok(()),
    }
}
