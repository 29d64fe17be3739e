//! `holm run NAME`: a ready-made module, until it is told to stop.

use anyhow::Context;

use crate::signals::{Signals, Told};

pub(crate) async fn run(name: &str) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let stop = async move { while signals.next().await != Told::Stop {} };
    holm_modules::run(name, stop)
        .await
        .with_context(|| format!("module `{name}`"))
}
