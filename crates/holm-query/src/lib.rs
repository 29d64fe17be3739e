//! One expression language: text is parsed and checked once, then evaluated for each message.
//!
//! ```text
//!   text ──lexer──> tokens ──parse──> ast ──types──> Program ──evaluate──> Value / Truth
//!                                            │                     │
//!                                         Dialect               Lookup       what a name means: `message`
//!   FROM path WHERE condition INTO sink ── route ── route_set        (many routes, one message, deliveries)
//!   SELECT … FROM devices WHERE condition ── twin                    (queries over twins, conditions of deployments and jobs)
//! ```
//!
//! `lexer`, `ast`, `parse`, `types`, `functions` and `evaluate` are the core, which knows nothing of routes or messages: a
//! dialect gives names their meaning. `body`, `message` and `condition` are the dialect of messages; `route` and
//! `route_set` are the routes of the edge; `hub_condition` is the dialect of the routes of a hub; `twin` is what services ask a hub. This crate never knows a socket, a clock, a file or a random number.

pub mod problem;

pub mod ast;
pub mod lexer;
pub mod parse;

pub mod evaluate;
pub mod functions;
mod numbers;
mod strings;
pub mod types;

pub mod body;
pub mod condition;
pub mod hub_condition;
pub mod message;

pub mod route;
pub mod route_set;

pub mod twin;

pub use hub_condition::{HubCondition, HubFields, TwinPath};
pub use problem::Problem;
pub use route::{MessageSource, Route, RouteProblem, Sink};
pub use route_set::{Delivery, Priority, RouteSet, RouteSetError, RouteSpec};
