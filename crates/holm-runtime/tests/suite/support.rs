//! A small language for the tests of runtimes: write a program, run it as a module, wait for a state, read its output.

use std::fs;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use holm_model::ModuleId;
use holm_runtime::{
    LogsOptions, ModuleRuntime, ModuleSpec, ModuleState, ProcessConfig, ProcessRuntime, RuntimeKind, RuntimeStatus,
};
use serde_json::Value;

pub(crate) const HOLM: &str = env!("CARGO_BIN_EXE_holm-supervise-test");

pub(crate) fn id(text: &str) -> ModuleId {
    ModuleId::new(text).unwrap()
}

/// Waits until `look` finds something, at most half a minute.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) async fn wait_for_status(runtime: &dyn ModuleRuntime, id: &ModuleId, status: RuntimeStatus) -> ModuleState {
    eventually(&format!("{id} to be {status}"), || async {
        let state = runtime.inspect(id).await.unwrap();
        (state.status == status).then_some(state)
    })
    .await
}

/// Frames as (stream number, text).
pub(crate) async fn read_logs(runtime: &dyn ModuleRuntime, id: &ModuleId, options: &LogsOptions) -> Vec<(u8, String)> {
    let mut stream = runtime.logs(id, options).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk.unwrap());
    }
    frames(&bytes)
}

pub(crate) fn frames(mut bytes: &[u8]) -> Vec<(u8, String)> {
    let mut frames = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let (payload, rest) = rest.split_at(length);
        frames.push((header[0], String::from_utf8(payload.to_vec()).unwrap()));
        bytes = rest;
    }
    assert!(bytes.is_empty(), "half a frame is left");
    frames
}

/// A device with a directory of its own that runs modules as processes. Ends them all when it is dropped.
pub(crate) struct Device {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) runtime: ProcessRuntime,
}

impl Device {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Modules of other users must be able to pass through.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(directory.path().join("modules")).unwrap();
        let runtime = ProcessRuntime::new(config(directory.path()));
        Self { directory, runtime }
    }

    /// Another edge over the same directory: what a restart makes.
    pub(crate) fn another_edge(&self) -> ProcessRuntime {
        ProcessRuntime::new(config(self.directory.path()))
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// The one module directory that there is.
    pub(crate) fn module_directory(&self) -> PathBuf {
        let mut entries = fs::read_dir(self.root()).unwrap();
        let only = entries.next().unwrap().unwrap().path();
        assert!(entries.next().is_none());
        only
    }

    pub(crate) fn script(&self, name: &str, body: &str) {
        let path = self.directory.path().join("modules").join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn spec(&self, image: &str, create_options: Value) -> ModuleSpec {
        let mut spec = ModuleSpec::new(id("m"), RuntimeKind::Process, image, self.directory.path().join("dir"));
        spec.create_options = create_options;
        spec
    }

    /// Creates and starts a module called `m`.
    pub(crate) async fn start(&self, image: &str, create_options: Value) -> ModuleId {
        let spec = self.spec(image, create_options);
        self.runtime.create(&spec).await.unwrap();
        self.runtime.start(&spec.id).await.unwrap();
        spec.id
    }

    pub(crate) async fn output(&self, id: &ModuleId) -> Vec<(u8, String)> {
        read_logs(&self.runtime, id, &LogsOptions::default()).await
    }

    pub(crate) async fn wait_for_output(&self, id: &ModuleId, line: &str) {
        eventually(&format!("the line `{line}`"), || async {
            self.output(id)
                .await
                .iter()
                .any(|(_, text)| text.trim_end() == line)
                .then_some(())
        })
        .await;
    }
}

fn config(directory: &Path) -> ProcessConfig {
    ProcessConfig {
        ready_made: ["sensor", "eater"].map(str::to_owned).into(),
        ..ProcessConfig::new(directory.join("root"), vec![directory.join("modules")], HOLM)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let Ok(entries) = fs::read_dir(self.root()) else { return };
        for entry in entries.flatten() {
            let text = fs::read_to_string(entry.path().join("state.json")).unwrap_or_default();
            let state: Value = serde_json::from_str(&text).unwrap_or_default();
            if state["phase"] != "ended"
                && let Some(pid) = state.pointer("/supervisor/pid").and_then(Value::as_i64)
                && let Some(pid) = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap())
            {
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
            }
        }
    }
}
