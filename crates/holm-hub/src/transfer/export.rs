//! An export: every device and module, an object a line.

use std::io;

use bytes::Bytes;
use holm_model::{Identity, ServiceError, Twin};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Order, Stop, Transfers};
use crate::registry::{self, Entry, MAX_LEVELS};
use crate::storage::{Activity, Transfer, View};

/// Devices that are read in one snapshot.
const PAGE: u32 = 200;
/// Pages that wait for the disk.
const WAITING: usize = 2;
/// After how many pages it is written how far the job has come, and seen whether it was cancelled.
const NOTED_PAGES: u32 = 10;

impl Transfers {
    pub(super) async fn export(&self, transfer: &Transfer, order: &Order) -> Result<(), Stop> {
        let (count, _) = self.repository.read(|view| view.device_counts()).await?;
        self.note(&transfer.id, move |transfer| {
            (transfer.done, transfer.total) = (0, count.into());
        })
        .await?;
        let (pieces, body) = mpsc::channel(WAITING);
        let stored = self.blobs.store(&order.output_container, &order.output_blob, body);
        let (written, stored) = tokio::join!(self.write_all(transfer, order.exclude_keys, pieces), stored);
        written?;
        stored.map_err(|fault| Stop::Failed(format!("the output can't be written: {fault}")))?;
        match &order.configurations_blob {
            Some(blob) => self.export_configurations(order, blob).await,
            None => Ok(()),
        }
    }

    /// Sends all lines; a failure is sent too, so that the blob is not taken for whole.
    async fn write_all(
        &self,
        transfer: &Transfer,
        exclude_keys: bool,
        pieces: mpsc::Sender<io::Result<Bytes>>,
    ) -> Result<(), Stop> {
        let written = self.write_pages(transfer, exclude_keys, &pieces).await;
        if written.is_err() {
            // The store may have failed first.
            drop(pieces.send(Err(io::ErrorKind::Interrupted.into())).await);
        }
        written
    }

    async fn write_pages(
        &self,
        transfer: &Transfer,
        exclude_keys: bool,
        pieces: &mpsc::Sender<io::Result<Bytes>>,
    ) -> Result<(), Stop> {
        let (mut done, mut pages) = (0, 0);
        // How far down there are edge devices; known when all were seen once.
        let mut deepest = 0;
        let mut pass = Some(Pass::Edges(0));
        while let Some(this) = pass {
            let mut after = String::new();
            loop {
                let from = after.clone();
                let page = self
                    .repository
                    .read_list(move |view| lines(view, &from, this, exclude_keys))
                    .await?;
                let Some(last) = page.last else { break };
                after = last;
                deepest = deepest.max(page.deepest);
                done += page.devices;
                if pieces.send(Ok(page.text.into())).await.is_err() {
                    // The store tells why.
                    return Ok(());
                }
                pages += 1;
                if pages % NOTED_PAGES == 0 {
                    let noted = self.note(&transfer.id, move |transfer| transfer.done = done).await?;
                    if noted.ended.is_some() {
                        return Err(Stop::Cancelled);
                    }
                }
            }
            pass = this.next(deepest);
        }
        let noted = self.note(&transfer.id, move |transfer| transfer.done = done).await?;
        if noted.ended.is_some() {
            return Err(Stop::Cancelled);
        }
        Ok(())
    }
}

/// Which devices are written: parents before their children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    /// Edge devices with so many others above them.
    Edges(u32),
    /// All others.
    Others,
}

impl Pass {
    const fn next(self, deepest: u32) -> Option<Self> {
        match self {
            Self::Edges(level) if level < deepest => Some(Self::Edges(level + 1)),
            Self::Edges(_) => Some(Self::Others),
            Self::Others => None,
        }
    }
}

struct Page {
    text: String,
    devices: u64,
    /// The most edge devices above one of its edge devices.
    deepest: u32,
    /// The last device of the page; `None` when there was none.
    last: Option<String>,
}

fn lines(view: &View<'_>, after: &str, pass: Pass, exclude_keys: bool) -> Result<Page, ServiceError> {
    let devices = view.devices(after, PAGE)?;
    let mut page = Page {
        text: String::new(),
        devices: 0,
        deepest: 0,
        last: devices.last().map(|last| last.identity.device.to_string()),
    };
    for device in devices {
        let is_in = match pass {
            Pass::Others => !device.edge,
            Pass::Edges(_) if !device.edge => false,
            Pass::Edges(level) => {
                let above = edges_above(view, &device)?;
                page.deepest = page.deepest.max(above);
                above == level
            }
        };
        if !is_in {
            continue;
        }
        page.devices += 1;
        let modules = view.modules(&device.identity.device)?;
        for entry in std::iter::once(device).chain(modules) {
            let twin = twin(view, &entry.identity)?;
            page.text.push_str(&line(&entry, &twin, exclude_keys).to_string());
            page.text.push('\n');
        }
    }
    Ok(page)
}

/// How many edge devices stand above one; no more than may.
fn edges_above(view: &View<'_>, edge: &Entry) -> Result<u32, ServiceError> {
    let (mut above, mut current) = (0, view.parent(edge)?);
    while let Some(parent) = current.filter(|_| above < MAX_LEVELS) {
        above += 1;
        current = view.parent(&parent)?;
    }
    Ok(above)
}

fn twin(view: &View<'_>, identity: &Identity) -> Result<Twin, ServiceError> {
    view.twin(identity)?
        .ok_or_else(|| ServiceError::server_error(format!("the twin of `{identity}` is missing")))
}

fn line(entry: &Entry, twin: &Twin, exclude_keys: bool) -> Value {
    let mut document = registry::to_json(entry, &Activity::default(), 0);
    let view = twin.service_view(&holm_model::twin::TwinFacts::default());
    let mut take = |name: &str| document.get_mut(name).map(Value::take).unwrap_or_default();
    let mut line = json!({
        "id": entry.identity.device,
        "eTag": entry.etag_text(),
        "status": if entry.enabled { "enabled" } else { "disabled" },
        "authentication": take("authentication"),
        "twinETag": twin.etag(),
        "tags": twin.tags(),
        "properties": view["properties"],
    });
    if let Some(module) = &entry.identity.module {
        line["moduleId"] = json!(module);
        line["managedBy"] = json!(entry.managed_by);
    } else {
        line["statusReason"] = json!(entry.status_reason);
        line["capabilities"] = json!({ "iotEdge": entry.edge });
        line["deviceScope"] = json!(entry.device_scope);
        line["parentScopes"] = json!(entry.parent_scopes);
    }
    if exclude_keys {
        line["authentication"]["symmetricKey"] = json!({ "primaryKey": null, "secondaryKey": null });
    }
    line
}
