//! The page that says what is tried with which SDK.

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
