//! The pages that say what is tried, with which SDK and for which case.

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

    assert!(named.len() > 30, "{named:?}");
    let is_test = |name: &&str| {
        ["#[test]\nfn", "#[test]\n    fn", "#[tokio::test]\nasync fn"]
            .iter()
            .any(|head| sources.contains(&format!("{head} {name}(")))
    };
    let lost: Vec<_> = named.into_iter().filter(|name| !is_test(name)).collect();
    assert!(lost.is_empty(), "{lost:?}");
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
