//! `holm edge support-bundle`: what helps to find a fault, in one archive. It is made with the edge running or not: what only a
//! running edge knows is then missing, and the archive says so.
//!
//! ```text
//! check.json  systeminfo.json  config.toml (without secrets)  system/…            always
//! status.json  plan.json  modules.json  resources.json  inspect/M.json  logs/M_log.txt     of a running edge
//! logs/holm-edge.txt                                                              where systemd keeps a journal
//! ```

use std::fs::File;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};
use holm_edge::check::{self, Subject};
use holm_edge::management::system;
use holm_edge::redact;
use holm_edge::zip::Zip;
use hyper::Method;
use serde_json::Value;

use super::systemd;
use crate::cli::SupportBundle;
use crate::management::{LogQuery, Management};
use crate::output;

/// What the kernel tells of the device.
const SYSTEM_FILES: [&str; 6] = ["loadavg", "meminfo", "mounts", "net/dev", "uptime", "version"];
/// What a running edge tells of itself, and the name in the archive.
const ANSWERS: [(&str, &str); 4] = [
    ("/holm/v1/status", "status.json"),
    ("/holm/v1/plan", "plan.json"),
    ("/modules", "modules.json"),
    ("/systeminfo/resources", "resources.json"),
];
/// Modules whose log is the whole runtime's.
const RUNTIME: &str = "edgeAgent";
/// The same log a second time.
const SAME_LOG: &str = "edgeHub";

/// How much of a text that is there already is looked at before it goes into the archive.
const PIECE: usize = 64 << 10;

/// Standard output, as everything else here writes it.
struct ToStdout;

impl Write for ToStdout {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        output::bytes(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The archive and where it goes.
struct Bundle {
    zip: Zip,
    out: Box<dyn Write + Send>,
    is_quiet: bool,
}

pub(super) async fn run(options: &SupportBundle) -> anyhow::Result<ExitCode> {
    let to_stdout = options.output == "-";
    let out: Box<dyn Write + Send> = if to_stdout {
        Box::new(ToStdout)
    } else {
        let file = File::create(&options.output);
        Box::new(file.with_context(|| format!("`{}` can't be written", options.output))?)
    };
    let mut bundle = Bundle {
        zip: Zip::default(),
        out,
        is_quiet: options.quiet,
    };
    let edge = bundle.device(options).await?;
    if let Err(error) = bundle.running(options, &edge).await {
        // The archive is asked for when something is wrong: that it is, is what it says.
        let text = format!("{error:#}\n");
        bundle.note(&format!("what only a running edge knows is missing: {}", text.trim()));
        bundle.file("edge-not-reached.txt", text.as_bytes())?;
    }
    bundle.journal(options).await?;
    let Bundle { zip, mut out, .. } = bundle;
    out.write_all(&zip.finish()?).and_then(|()| out.flush())?;
    if !options.quiet && !to_stdout {
        output::line(&format!("Created support bundle at {}", options.output));
    }
    Ok(ExitCode::SUCCESS)
}

impl Bundle {
    /// What is known with the edge running or not.
    async fn device(&mut self, options: &SupportBundle) -> anyhow::Result<Management> {
        self.note("looking at everything that can be wrong");
        let config = options.config.file();
        let mut subject = Subject::new(config.clone(), options.iothub_hostname.clone());
        let edge = super::check::management(&options.edge, &subject)?;
        let status = edge.ask(Method::GET, "/holm/v1/status").await;
        subject.status = status.map_err(|error| format!("{error:#}"));
        let report = check::run(&subject, &std::collections::BTreeSet::new()).await;
        self.json("check.json", &report.to_json(env!("CARGO_PKG_VERSION")))?;
        self.json("systeminfo.json", &system::info())?;
        match std::fs::read_to_string(&config).map(|text| redact::configuration(&text)) {
            Ok(Some(text)) => self.file("config.toml", text.as_bytes())?,
            Ok(None) => self.file(
                "config.toml",
                b"# left out: it is not TOML, so nobody knows what in it is secret\n",
            )?,
            Err(error) => self.file("config.toml", format!("# it can't be read: {error}\n").as_bytes())?,
        }
        for name in SYSTEM_FILES {
            // One that this kernel does not have is left out.
            if let Ok(text) = std::fs::read(format!("/proc/{name}")) {
                self.file(&format!("system/{}.txt", name.replace('/', "_")), &text)?;
            }
        }
        Ok(edge)
    }

    /// What a running edge tells.
    async fn running(&mut self, options: &SupportBundle, edge: &Management) -> anyhow::Result<()> {
        let mut modules = Value::Null;
        for (path, name) in ANSWERS {
            let answer = edge.ask(Method::GET, path).await?;
            self.json(name, &answer)?;
            if path == "/modules" {
                modules = answer;
            }
        }
        for module in modules["modules"].as_array().into_iter().flatten() {
            let Some(name) = module["name"].as_str() else { continue };
            self.json(&format!("inspect/{name}.json"), module)?;
            if name == SAME_LOG || (options.include_edge_runtime_only && name != RUNTIME) {
                continue;
            }
            self.note(&format!("reading the log of `{name}`"));
            self.zip.file(&format!("logs/{name}_log.txt"))?;
            if let Err(error) = self.log(options, edge, name).await {
                self.zip.write(format!("{error:#}\n").as_bytes())?;
            }
        }
        Ok(())
    }

    async fn log(&mut self, options: &SupportBundle, edge: &Management, module: &str) -> anyhow::Result<()> {
        let query = LogQuery {
            since: Some(options.since.clone()),
            until: options.until.clone(),
            ..LogQuery::default()
        };
        let mut log = edge.log(module, &query).await?;
        let mut lines = redact::Lines::default();
        while let Some((_, piece)) = log.next().await? {
            self.zip.write(lines.take(&piece).as_bytes())?;
            self.flush()?;
        }
        self.zip.write(lines.finish().as_bytes())?;
        self.flush()
    }

    /// The journal of the service, where there is one.
    async fn journal(&mut self, options: &SupportBundle) -> anyhow::Result<()> {
        match systemd::journal(&options.since, options.until.as_deref()).await {
            Ok(text) => {
                self.zip.file("logs/holm-edge.txt")?;
                self.lines(&text)
            }
            Err(error) => {
                self.note(&format!("the service's journal is missing: {error:#}"));
                Ok(())
            }
        }
    }

    fn lines(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut lines = redact::Lines::default();
        for piece in bytes.chunks(PIECE) {
            self.zip.write(lines.take(piece).as_bytes())?;
            self.flush()?;
        }
        self.zip.write(lines.finish().as_bytes())?;
        self.flush()
    }

    fn json(&mut self, name: &str, value: &Value) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(value).context("a value has no text")?;
        let lines: String = text
            .lines()
            .map(|line| redact::line(line).into_owned() + "\n")
            .collect();
        self.file(name, lines.as_bytes())
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        self.zip.file(name)?;
        self.zip.write(bytes)?;
        self.flush()
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        let ready = self.zip.take();
        if let Err(error) = self.out.write_all(&ready) {
            bail!("the bundle can't be written: {error}");
        }
        Ok(())
    }

    fn note(&self, text: &str) {
        if !self.is_quiet {
            output::note(text);
        }
    }
}
