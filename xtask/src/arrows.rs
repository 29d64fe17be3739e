//! The arrows between crates, held: what `cargo metadata` says against the table in ARCHITECTURE.md.
//!
//! ```text
//! | crate | what lives there | uses |
//! | — services — | (a section) | |            rows below belong to it
//! | `holm-hub` | the cloud side … | model |    `uses`: short names, `—` for none, `any` for no limit
//! ```
//!
//! - A crate of the workspace has a row, and uses only what its row allows. A row without a crate is a crate to come.
//! - Crates of the section *services* never use each other, whatever their rows say.
//! - Crates of the section *pure core* have no async runtime, clock or randomness among what they use, however deep.
//!
//! - Every path that the page names exists.
//!
//! Only what ships counts: normal and build dependencies. Tests may use what they like.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::run::{cargo, output, root};

/// Crates that a pure crate must not reach: they bring sockets, time or chance.
const IMPURE: &[&str] = &["tokio", "mio", "async-io", "socket2", "rand", "fastrand", "getrandom"];

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    section: String,
    /// Names of crates; `None`: no limit.
    uses: Option<BTreeSet<String>>,
}

/// The table, by name of crate.
type Table = BTreeMap<String, Row>;
/// Who uses whom directly, among the crates of the workspace.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// Every disagreement between the table and the workspace, in words; empty when there is none.
///
/// # Errors
/// When ARCHITECTURE.md or what cargo says can't be read.
pub(crate) fn broken() -> Result<Vec<String>> {
    let path = root().join("ARCHITECTURE.md");
    let text = std::fs::read_to_string(&path).with_context(|| format!("`{}` can't be read", path.display()))?;
    let table = parse(&text).context("ARCHITECTURE.md")?;
    let metadata = metadata(&["--locked"])?;
    let mut broken = compare(&table, &workspace_graph(&metadata));
    let is_there = |path: &str| root().join(path).exists();
    broken.extend(dead_paths(&text, is_there));
    for (name, row) in &table {
        if row.section == "pure core" {
            broken.extend(impurities(&metadata, name));
        }
    }
    Ok(broken)
}

/// Paths from the root of the project that stand in backticks, and lead nowhere.
fn dead_paths(text: &str, is_there: impl Fn(&str) -> bool) -> Vec<String> {
    const FOLDERS: &[&str] = &[
        "crates/",
        "docs/",
        "tests/",
        "packaging/",
        "fuzz/",
        "xtask/",
        "examples/",
    ];
    let quoted = text.split('`').skip(1).step_by(2);
    let paths = quoted.filter(|word| FOLDERS.iter().any(|folder| word.starts_with(folder)));
    let paths = paths.filter(|path| !path.contains(['*', '…', ' ', '<']) && !path.contains(char::is_uppercase));
    paths
        .filter(|path| !is_there(path))
        .map(|path| format!("ARCHITECTURE.md names `{path}`, which does not exist"))
        .collect()
}

/// What cargo says about the workspace.
///
/// # Errors
/// When cargo fails or its answer is not JSON.
pub(crate) fn metadata(arguments: &[&str]) -> Result<Value> {
    let text = output(cargo(["metadata", "--format-version", "1"]).args(arguments))?;
    serde_json::from_str(&text).context("`cargo metadata` did not answer with JSON")
}

fn parse(text: &str) -> Result<Table> {
    let mut table = Table::new();
    let mut section = String::new();
    let lines = text
        .lines()
        .skip_while(|line| !line.starts_with("| crate | what lives there | uses |"));
    for line in lines.skip(2).take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, _, uses] = cells.as_slice() else {
            anyhow::bail!("the row `{line}` has {} cells; 3 are needed", cells.len());
        };
        if let Some(title) = name.strip_prefix('—').and_then(|it| it.strip_suffix('—')) {
            title.trim().clone_into(&mut section);
            continue;
        }
        let row = Row {
            section: section.clone(),
            uses: parse_uses(uses),
        };
        table.insert(name.trim_matches('`').to_owned(), row);
    }
    anyhow::ensure!(
        !table.is_empty(),
        "the table `| crate | what lives there | uses |` is missing"
    );
    Ok(table)
}

fn parse_uses(cell: &str) -> Option<BTreeSet<String>> {
    if cell == "any" {
        return None;
    }
    let names = cell.split(',').map(str::trim).filter(|name| !matches!(*name, "" | "—"));
    Some(names.map(|name| format!("holm-{name}")).collect())
}

fn compare(table: &Table, graph: &Graph) -> Vec<String> {
    let mut broken = Vec::new();
    for (name, used) in graph {
        let Some(row) = table.get(name) else {
            broken.push(format!(
                "`{name}` has no row in the table; add one that says what it may use"
            ));
            continue;
        };
        for other in used {
            let allowed = row.uses.as_ref().is_none_or(|uses| uses.contains(other));
            if !allowed {
                broken.push(format!("`{name}` uses `{other}`, which its row does not allow"));
            }
            if row.section == "services" && table.get(other).is_some_and(|it| it.section == "services") {
                broken.push(format!(
                    "`{name}` uses `{other}`: services meet over the protocols only"
                ));
            }
        }
    }
    broken
}

fn workspace_graph(metadata: &Value) -> Graph {
    let members: BTreeSet<&str> = list(metadata, "workspace_members").filter_map(Value::as_str).collect();
    let packages: Vec<&Value> = list(metadata, "packages")
        .filter(|package| members.contains(text(package, "id")))
        .collect();
    let names: BTreeSet<&str> = packages.iter().map(|package| text(package, "name")).collect();
    let used = |package: &Value| {
        list(package, "dependencies")
            .filter(|dependency| text(dependency, "kind") != "dev" && names.contains(text(dependency, "name")))
            .map(|dependency| text(dependency, "name").to_owned())
            .collect()
    };
    packages
        .iter()
        .map(|package| (text(package, "name").to_owned(), used(package)))
        .collect()
}

/// What a pure crate reaches and must not, each with the way to it.
fn impurities(metadata: &Value, name: &str) -> Vec<String> {
    let names: BTreeMap<&str, &str> = list(metadata, "packages")
        .map(|it| (text(it, "id"), text(it, "name")))
        .collect();
    let nodes = metadata
        .get("resolve")
        .map_or(&Value::Null, |resolve| &resolve["nodes"]);
    let nodes: BTreeMap<&str, &Value> = nodes
        .as_array()
        .into_iter()
        .flatten()
        .map(|node| (text(node, "id"), node))
        .collect();
    let Some((start, _)) = names
        .iter()
        .find(|(id, known)| **known == name && nodes.contains_key(*id))
    else {
        return Vec::new();
    };
    let mut ways = BTreeMap::from([(*start, name.to_owned())]);
    let mut ahead = vec![*start];
    let mut found = Vec::new();
    while let Some(id) = ahead.pop() {
        let way = ways.get(id).cloned().unwrap_or_default();
        for next in list(nodes[id], "deps")
            .filter(|edge| is_normal(edge))
            .map(|edge| text(edge, "pkg"))
        {
            if ways.contains_key(next) {
                continue;
            }
            let next_name = names.get(next).copied().unwrap_or_default();
            let way = format!("{way} → {next_name}");
            if IMPURE.contains(&next_name) {
                found.push(format!("`{name}` is pure and must not reach `{next_name}`: {way}"));
            }
            ways.insert(next, way);
            ahead.push(next);
        }
    }
    found
}

fn is_normal(edge: &Value) -> bool {
    list(edge, "dep_kinds").any(|kind| kind["kind"].is_null())
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
| crate | what lives there | uses |
| --- | --- | --- |
| `holm` | shell | hub, edge |
| — services — | | |
| `holm-hub` | cloud | model, edge |
| `holm-edge` | device | model |
| — pure core — | | |
| `holm-model` | nouns | — |
| `xtask` | tools | any |

text";

    fn graph(edges: &[(&str, &[&str])]) -> Graph {
        let owned = |names: &[&str]| names.iter().map(|&it| it.to_owned()).collect();
        edges
            .iter()
            .map(|(name, used)| ((*name).to_owned(), owned(used)))
            .collect()
    }

    #[test]
    fn a_path_on_the_page_that_leads_nowhere_is_told() {
        let text = "see `crates/here/`, `docs/gone.md`, `crates/*/src`, and `gone.md`";

        let dead = dead_paths(text, |path| path == "crates/here/");

        assert_eq!(dead, ["ARCHITECTURE.md names `docs/gone.md`, which does not exist"]);
    }

    #[test]
    fn arrows_of_the_workspace_are_those_of_the_table() {
        let broken = broken().unwrap();

        assert!(broken.is_empty(), "{}", broken.join("\n"));
    }

    #[test]
    fn arrows_that_the_table_allows_are_no_disagreement() {
        let table = parse(TABLE).unwrap();
        let workspace = graph(&[("holm", &["holm-hub"]), ("holm-model", &[]), ("xtask", &["holm-hub"])]);

        let broken = compare(&table, &workspace);

        assert!(broken.is_empty(), "{broken:?}");
        assert_eq!(table["holm-model"].section, "pure core");
    }

    #[test]
    fn an_arrow_that_points_up_is_named() {
        let table = parse(TABLE).unwrap();

        let broken = compare(&table, &graph(&[("holm-model", &["holm-hub"])]));

        assert_eq!(broken, ["`holm-model` uses `holm-hub`, which its row does not allow"]);
    }

    #[test]
    fn a_service_that_uses_a_service_is_named_even_when_its_row_allows_it() {
        let table = parse(TABLE).unwrap();

        let broken = compare(&table, &graph(&[("holm-hub", &["holm-edge"])]));

        assert_eq!(
            broken,
            ["`holm-hub` uses `holm-edge`: services meet over the protocols only"]
        );
    }

    #[test]
    fn a_crate_without_a_row_is_named() {
        let table = parse(TABLE).unwrap();

        let broken = compare(&table, &graph(&[("holm-new", &[])]));

        assert_eq!(
            broken,
            ["`holm-new` has no row in the table; add one that says what it may use"]
        );
    }

    #[test]
    fn a_text_without_the_table_is_refused() {
        assert!(parse("# Architecture").is_err());
    }

    #[test]
    fn a_pure_crate_that_reaches_a_runtime_through_another_is_named_with_the_way() {
        let edge = |to: &str| serde_json::json!({"pkg": to, "dep_kinds": [{"kind": null}]});
        let metadata = serde_json::json!({
            "packages": [{"id": "1", "name": "holm-model"}, {"id": "2", "name": "between"}, {"id": "3", "name": "tokio"}],
            "resolve": {"nodes": [
                {"id": "1", "deps": [edge("2")]},
                {"id": "2", "deps": [edge("3")]},
                {"id": "3", "deps": []},
            ]},
        });

        let found = impurities(&metadata, "holm-model");

        assert_eq!(
            found,
            ["`holm-model` is pure and must not reach `tokio`: holm-model → between → tokio"]
        );
    }
}
