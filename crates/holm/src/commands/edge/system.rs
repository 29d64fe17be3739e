//! `holm edge system …`: the edge as a service of this device. What systemd does is asked of systemd; where there is none the
//! command says so and what to do instead.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use hyper::Method;
use serde_json::{Value, json};

use super::systemd::{self, UNIT, Unit};
use crate::cli::{Level, OnDevice, Socket, System};
use crate::output::{self, EXIT_FAILED};

/// Where the log level stands, of `set-log-level`.
const DROP_IN: &str = "/etc/systemd/system/holm-edge.service.d/log-level.conf";

pub(super) async fn run(command: System) -> anyhow::Result<ExitCode> {
    match command {
        System::Status(on) => return status(&on).await,
        System::Logs { options, edge } => return logs(&options, &edge).await,
        System::Restart => {
            systemd::unit().await.context("the edge can't be restarted from here")?;
            systemd::tell(&["restart", UNIT]).await?;
            output::line("The edge was restarted; its modules went on");
        }
        System::Stop => {
            systemd::unit().await.context("the edge can't be stopped from here")?;
            systemd::tell(&["stop", UNIT]).await?;
            output::line("The edge was stopped; its modules go on");
        }
        System::SetLogLevel { level } => set_level(level).await?,
        System::Reprovision(edge) => {
            super::reach(&edge)?.ask(Method::POST, "/device/reprovision").await?;
            output::line("The device provisions itself anew");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether the edge answers, and what systemd says of it. 1 when it does not answer.
async fn status(on: &OnDevice) -> anyhow::Result<ExitCode> {
    let edge = super::reach(&on.edge)?.ask(Method::GET, "/holm/v1/status").await;
    let unit = systemd::unit().await;
    let (answers, why) = match &edge {
        Ok(_) => (true, None),
        Err(error) => (false, Some(format!("{error:#}"))),
    };
    if on.json {
        let service = match &unit {
            Ok(unit) => {
                json!({"active": unit.active, "sub": unit.sub, "result": unit.result, "restarts": unit.restarts,
                "config": unit.config, "file": unit.file})
            }
            Err(_) => Value::Null,
        };
        let reason = unit.as_ref().err().map(|error| format!("{error:#}"));
        output::json(
            &json!({"edge": {"answers": answers, "reason": why}, "service": service, "serviceReason": reason}),
        );
    } else {
        for line in lines(answers, why.as_deref(), &unit) {
            output::line(&line);
        }
    }
    Ok(if answers {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FAILED)
    })
}

fn lines(answers: bool, why: Option<&str>, unit: &anyhow::Result<Unit>) -> Vec<String> {
    let word = match (answers, unit) {
        (true, _) => "Running",
        (false, Ok(unit)) if unit.active == "activating" => "Starting",
        (false, _) => "Down",
    };
    let mut lines = vec![
        "System services:".to_owned(),
        format!("    {UNIT}  {word}"),
        String::new(),
    ];
    lines.extend(why.map(|why| format!("The edge does not answer: {why}")));
    match unit {
        Ok(unit) => {
            let mut said = format!("systemd: {} ({})", unit.active, unit.sub);
            if unit.result != "success" && !unit.result.is_empty() {
                said.push_str(&format!(", last ended with `{}`", unit.result));
            }
            if unit.restarts != "0" && !unit.restarts.is_empty() {
                said.push_str(&format!(", started again {} times", unit.restarts));
            }
            lines.push(said);
            if !answers {
                lines.push("`holm edge system logs` and `holm edge check` tell more".to_owned());
            }
        }
        Err(error) => lines.push(format!("systemd: {error:#}")),
    }
    lines
}

/// The journal; without one what the edge keeps in memory.
async fn logs(options: &[String], edge: &Socket) -> anyhow::Result<ExitCode> {
    let shown = match systemd::show_journal(options).await {
        Ok(status) => Some(status),
        Err(error) => {
            output::note(&format!(
                "{error:#}; these are the last lines that the edge keeps in memory"
            ));
            None
        }
    };
    if let Some(status) = shown {
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        return Ok(code.map_or_else(|| ExitCode::from(EXIT_FAILED), ExitCode::from));
    }
    super::logs("edgeAgent", &crate::management::LogQuery::default(), edge).await?;
    Ok(ExitCode::SUCCESS)
}

async fn set_level(level: Level) -> anyhow::Result<()> {
    let word = level.as_str();
    let without =
        || format!("the level can't be set from here; start the edge with `HOLM_LOG={word}` in its environment");
    systemd::unit().await.with_context(without)?;
    let path = Path::new(DROP_IN);
    let folder = path.parent().context("a drop-in stands in a directory")?;
    let write = || {
        std::fs::create_dir_all(folder)?;
        std::fs::write(path, format!("[Service]\nEnvironment=HOLM_LOG={word}\n"))
    };
    write().with_context(|| format!("`{DROP_IN}` can't be written; it takes root"))?;
    systemd::tell(&["daemon-reload"]).await?;
    systemd::tell(&["restart", UNIT]).await?;
    output::line(&format!(
        "The edge logs at level {word} now, and was restarted; its modules went on"
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_is_down_is_told_with_the_reason_and_what_to_do() {
        let unit = Unit {
            active: "failed".to_owned(),
            sub: "failed".to_owned(),
            result: "exit-code".to_owned(),
            restarts: "5".to_owned(),
            ..Unit::default()
        };

        let down = lines(false, Some("no edge answers"), &Ok(unit)).join("\n");
        let alone = lines(true, None, &Err(anyhow::anyhow!("there is no systemd on this device"))).join("\n");

        assert!(
            down.contains("holm-edge  Down") && down.contains("no edge answers"),
            "{down}"
        );
        assert!(
            down.contains("last ended with `exit-code`, started again 5 times"),
            "{down}"
        );
        assert!(down.contains("`holm edge check`"), "{down}");
        assert!(
            alone.contains("holm-edge  Running") && alone.contains("no systemd"),
            "{alone}"
        );
    }
}
