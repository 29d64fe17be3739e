//! The pages that say what is tried, with which SDK and for which case.

use std::collections::BTreeSet;

use holm_e2e::need;

#[test]
fn every_test_that_the_page_of_sdk_coverage_names_is_there() {
    let page = std::fs::read_to_string(need::root().join("docs/sdk-coverage.md")).expect("the page is in the tree");
    let tests = std::fs::read_dir(need::root().join("tests/tests/peers")).expect("the tests are in the tree");
    let tests: String = tests
        .map(|entry| std::fs::read_to_string(entry.expect("a file").path()).expect("a test is a text"))
        .collect();

    // A test's name is a claim of several words; nothing else on the page in backticks is.
    let named: Vec<&str> = page
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|text| text.matches('_').count() >= 3)
        .collect();

    assert!(named.len() > 30, "{named:?}");
    let lost: Vec<_> = named
        .iter()
        .filter(|name| !tests.contains(&format!("#[test]\nfn {name}(")))
        .collect();
    assert!(lost.is_empty(), "{lost:?}");
}

#[test]
fn every_test_that_the_page_of_acceptance_names_is_there() {
    let page = std::fs::read_to_string(need::root().join("docs/acceptance.md")).expect("the page is in the tree");

    assert_all_are_there(&page, 30);
}

/// Checks that every test that a page names is one of the tree, and that it names some.
#[track_caller]
fn assert_all_are_there(page: &str, least: usize) {
    let mut sources = String::new();
    for folder in ["crates", "tests"] {
        read_all(&need::root().join(folder), &mut sources);
    }

    let named: Vec<&str> = page
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|text| text.matches('_').count() >= 3)
        .collect();

    assert!(named.len() > least, "{named:?}");
    let is_test = |name: &&str| {
        let heads = [
            "#[test]\nfn",
            "#[test]\n    fn",
            "#[tokio::test]\nasync fn",
            "#[tokio::test]\n    async fn",
        ];
        heads.iter().any(|head| sources.contains(&format!("{head} {name}(")))
    };
    let lost: Vec<_> = named.into_iter().filter(|name| !is_test(name)).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

#[test]
fn every_case_of_the_service_api_and_every_row_of_its_queries_is_on_the_page_of_acceptance() {
    let page = std::fs::read_to_string(need::root().join("docs/acceptance.md")).expect("the page is in the tree");
    let (mut service, mut queries) = (BTreeSet::new(), BTreeSet::new());

    for section in page.split("\n## ").skip(1) {
        let (title, rows) = section.split_once('\n').unwrap_or_default();
        for row in rows.lines().filter(|line| line.starts_with("| ")) {
            let case = row.split('|').nth(1).unwrap_or_default().trim();
            match title {
                "Back ends"
                | "Queries and jobs"
                | "Configurations and deployments"
                | "Registry, twins and methods over HTTPS" => service.extend(numbers(case)),
                "Provisioning" => service.extend(case.strip_suffix(" (service)").into_iter().flat_map(numbers)),
                "The table of queries" => queries.extend(numbers(case)),
                _ => {}
            }
        }
    }

    assert_eq!(service, (1..=87).collect());
    assert_eq!(queries, (1..=35).collect());
}

/// `9 to 13, 86`
fn numbers(case: &str) -> Vec<u32> {
    let ranges = case.split(',').filter_map(|part| {
        let (first, last) = part.split_once(" to ").unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    });
    ranges.flatten().collect()
}

#[test]
fn every_test_that_the_page_of_faults_names_in_whole_is_there() {
    let page = std::fs::read_to_string(need::root().join("docs/faults.md")).expect("the page is in the tree");
    let bad_input = page.split("\n## Bad input\n").nth(1).expect("the section is there");

    assert_all_are_there(bad_input, 20);
}

/// Appends every source of Rust in a directory.
fn read_all(directory: &std::path::Path, sources: &mut String) {
    for entry in std::fs::read_dir(directory).expect("a directory of the tree") {
        let path = entry.expect("an entry").path();
        if path.is_dir()
            && path
                .file_name()
                .is_none_or(|name| name != "node_modules" && name != "target")
        {
            read_all(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&std::fs::read_to_string(&path).expect("a source is a text"));
        }
    }
}
