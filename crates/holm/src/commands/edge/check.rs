//! `holm edge check`: what is wrong with the edge and this device, and what to do. The form is the published one.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use holm_edge::check::{self, CHECKS, Finding, Group, Report, Subject, Verdict};
use hyper::Method;
use serde_json::json;

use super::reach;
use crate::cli::{Check, CheckOutput, Socket};
use crate::management::Management;
use crate::output::{self, EXIT_FAILED, WrongUse};

pub(super) async fn run(options: &Check) -> anyhow::Result<ExitCode> {
    let is_known = |id: &&String| CHECKS.iter().copied().flatten().any(|check| check.id == id.as_str());
    if let Some(unknown) = options.dont_run.iter().find(|id| !is_known(id)) {
        return Err(WrongUse(format!(
            "there is no check `{unknown}`; `holm edge check-list` names them"
        ))
        .into());
    }
    for name in options.without_effect.given() {
        output::note(&format!("`{name}` has no effect here"));
    }
    let mut subject = Subject::new(options.config.file(), options.iothub_hostname.clone());
    subject.status = match management(&options.on.edge, &subject) {
        Ok(edge) => edge
            .ask(Method::GET, "/holm/v1/status")
            .await
            .map_err(|error| format!("{error:#}")),
        Err(error) => Err(format!("{error:#}")),
    };
    let report = check::run(&subject, &options.dont_run.iter().cloned().collect()).await;
    if options.on.json || options.output == CheckOutput::Json {
        output::json(&report.to_json(env!("CARGO_PKG_VERSION")));
    } else {
        print(&report, options.verbose);
    }
    let is_bad = report.has_errors() || (options.warnings_as_errors && report.count("warning") > 0);
    Ok(if is_bad {
        ExitCode::from(EXIT_FAILED)
    } else {
        ExitCode::SUCCESS
    })
}

/// The socket that was named, else the one of the configuration, else the usual ones.
pub(super) fn management(edge: &Socket, subject: &Subject) -> anyhow::Result<Management> {
    match (edge.named()?, &subject.config) {
        (None, Ok(loaded)) => Management::new(&format!("unix://{}", loaded.config.management_socket.display())),
        _ => reach(edge),
    }
}

fn print(report: &Report, verbose: bool) {
    let mut last: Option<Group> = None;
    for (check, verdict) in report.iter() {
        if last != Some(check.group) {
            if last.is_some() {
                output::line("");
            }
            output::line(&check.group.to_string());
            output::line(&"-".repeat(check.group.to_string().len()));
            last = Some(check.group);
        }
        for line in lines(check, verdict, verbose) {
            output::line(&line);
        }
    }
    output::line("");
    let count = |word| report.count(word);
    output::line(&format!("{} checks are in order", count("ok")));
    for (word, text) in [
        ("warning", "raised a warning"),
        ("error", "found an error"),
        ("fatal", "can't go on"),
        ("skipped", "could not be made"),
    ] {
        if count(word) > 0 {
            output::line(&format!("{} {text}", count(word)));
        }
    }
}

fn lines(check: &check::Check, verdict: &Verdict, verbose: bool) -> Vec<String> {
    let told = |mark: &str, colour: &str, word: &str, finding: &Finding| {
        let mut lines = vec![paint(
            colour,
            &format!("{mark} {} ({}) - {word}", check.about, check.id),
        )];
        lines.extend(finding.reason.lines().map(|line| format!("    {line}")));
        lines.push(format!("    -> {}", finding.remedy));
        lines
    };
    match verdict {
        Verdict::Fine(note) => {
            let mut lines = vec![paint("32", &format!("√ {} ({}) - OK", check.about, check.id))];
            lines.extend(note.iter().filter(|_| verbose).map(|note| format!("    {note}")));
            lines
        }
        Verdict::Warning(finding) => told("‼", "33", "Warning", finding),
        Verdict::Error(finding) => told("×", "31", "Error", finding),
        Verdict::Fatal(finding) => told("×", "31", "Fatal", finding),
        Verdict::Skipped(why) if verbose => vec![
            format!("- {} ({}) - Skipped", check.about, check.id),
            format!("    {why}"),
        ],
        Verdict::Skipped(_) => vec![format!("- {} ({}) - Skipped", check.about, check.id)],
        Verdict::Ignored => Vec::new(),
    }
}

/// In colour on a terminal.
fn paint(colour: &str, text: &str) -> String {
    if std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        format!("\u{1b}[{colour}m{text}\u{1b}[0m")
    } else {
        text.to_owned()
    }
}

pub(super) fn list(as_json: bool) {
    let all = || CHECKS.iter().copied().flatten();
    if as_json {
        let all: Vec<_> = all()
            .map(|check| json!({"id": check.id, "group": check.group.to_string(), "about": check.about}))
            .collect();
        output::json(&json!(all));
        return;
    }
    let rows: Vec<_> = all()
        .map(|check| vec![check.id.to_owned(), check.about.to_owned()])
        .collect();
    output::table(&["ID", "IN ORDER WHEN"], &rows);
}
