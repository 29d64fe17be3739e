//! `holm edge dead-letters …`: messages that came to their end elsewhere than at their destination.

use anyhow::{Context, bail};
use hyper::Method;
use serde_json::{Value, json};

use crate::cli::{DeadLetters, OnDevice};
use crate::output;

const PATH: &str = "/holm/v1/dead-letters";
/// Letters asked for at a time.
const PAGE: usize = 1000;

pub(super) async fn run(command: DeadLetters) -> anyhow::Result<()> {
    match command {
        DeadLetters::List(on) => list(&on).await,
        DeadLetters::Show { id, on } => show(id, &on).await,
        DeadLetters::Resend { ids, all, on } => resend(&ids, all, &on).await,
        DeadLetters::Purge(on) => {
            let answer = super::reach(&on.edge)?.ask(Method::DELETE, PATH).await?;
            match on.json {
                true => output::json(&answer),
                false => output::line(&format!("Removed {}", count(&answer, "purged"))),
            }
            Ok(())
        }
    }
}

async fn list(on: &OnDevice) -> anyhow::Result<()> {
    let management = super::reach(&on.edge)?;
    let mut letters = Vec::new();
    let mut from = 0;
    loop {
        let path = format!("{PATH}?from={from}&most={PAGE}");
        let page = management.ask(Method::GET, &path).await?;
        let found = page.get("deadLetters").and_then(Value::as_array);
        let found = found.context("the edge's answer has no `deadLetters`")?;
        letters.extend(found.iter().cloned());
        match page.get("next").and_then(Value::as_u64) {
            Some(next) if next > from => from = next,
            _ => break,
        }
    }
    if on.json {
        output::json(&Value::Array(letters));
        return Ok(());
    }
    if letters.is_empty() {
        output::line("No dead letters");
        return Ok(());
    }
    let cell = |letter: &Value, name: &str| match letter.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => "-".to_owned(),
        Some(other) => other.to_string(),
    };
    let names = ["id", "time", "reason", "sender", "endpoint", "bytes", "detail"];
    let rows: Vec<_> = letters
        .iter()
        .map(|letter| names.iter().map(|name| cell(letter, name)).collect())
        .collect();
    output::table(&["ID", "TIME", "REASON", "SENDER", "FOR", "BYTES", "DETAIL"], &rows);
    Ok(())
}

async fn show(id: u64, on: &OnDevice) -> anyhow::Result<()> {
    let letter = super::reach(&on.edge)?
        .ask(Method::GET, &format!("{PATH}/{id}"))
        .await?;
    output::json(&letter);
    Ok(())
}

async fn resend(ids: &[u64], all: bool, on: &OnDevice) -> anyhow::Result<()> {
    let management = super::reach(&on.edge)?;
    let (mut resent, mut failed) = (0, Vec::new());
    if all {
        let answer = management.ask(Method::POST, &format!("{PATH}/resend")).await?;
        resent = count(&answer, "resent");
        failed = answer
            .get("failed")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
    }
    for id in ids {
        match management.ask(Method::POST, &format!("{PATH}/{id}/resend")).await {
            Ok(_) => resent += 1,
            Err(error) => failed.push(json!({"id": id, "message": format!("{error:#}")})),
        }
    }
    if on.json {
        output::json(&json!({"resent": resent, "failed": failed}));
    } else {
        output::line(&format!("Sent {resent} again"));
    }
    let message = |failure: &Value| failure.get("message").and_then(Value::as_str).map(str::to_owned);
    match failed.iter().find_map(message) {
        None => Ok(()),
        Some(first) => bail!("{} not sent again; the first: {first}", failed.len()),
    }
}

fn count(answer: &Value, name: &str) -> u64 {
    answer.get(name).and_then(Value::as_u64).unwrap_or_default()
}
