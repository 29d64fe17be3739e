//! Queries over twins, and the conditions inside them: what `POST /devices/query`, target conditions and jobs are written in.
//!
//! ```text
//!   SELECT columns FROM collection WHERE condition GROUP BY paths ORDER BY paths
//!      │                                │
//!   rows, groups                    condition ──evaluate──> holds or not, on one JSON document
//!                                       └─────filter──────> tests that every match passes ──sql──> WHERE of SQLite
//! ```
//!
//! A [`Condition`] is what deployments and jobs hold; a [`Query`] holds one more besides what to show. Both are parsed once and
//! evaluated on documents in the published form of a twin (`hub-service-api.md` §2.4).
//!
//! - What parses can't fail when it is evaluated, and is evaluated with bounded depth.
//! - The evaluator alone says what matches. A [`Filter`] is weaker than its condition: it lets pass whatever matches, and is
//!   what an index or a database can answer. So no rounding, collation or escape of a database changes a result.
//!
//! It shares with the language of routes the numbers, the texts, the functions on them and the three-valued logic. The words
//! are read by a lexer of their own, because a route's name may hold `-`, `!` and `%`, and there is no static type: every value
//! of a twin is whatever its device has reported.
//!
//! Source: `hub-service-api.md` §3.2, §4.1.

mod ast;
mod call;
mod foreign;
mod lexer;
mod parse;
mod path;
mod times;

mod evaluate;
mod value;

mod condition;
mod filter;
mod groups;
mod query;
mod rows;
mod sql;

pub use condition::Condition;
pub use filter::{Filter, Is, Scalar, Test};
pub use groups::{Groups, TooManyGroups};
pub use path::{Collection, Path, Step};
pub use query::{Direction, Query};
pub use rows::{Roots, SortKey};
pub use sql::{Parameter, Place, Sql, json_path, successor};

/// The most characters of a text. Source: `hub-service-api.md` §9.
pub const MAX_TEXT_CHARACTERS: usize = 8192;
