//! An import: the lines of a blob, each as an item of a bulk request.
//!
//! A line may name a device that comes behind it, as its parent: what failed for that is tried again at the end, as long as it helps
//! one.

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use holm_model::{ErrorCode, ServiceError};
use holm_net::http::ResponseBody;
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::sync::mpsc;

use super::{Order, Stop, Transfers};
use crate::registry::{BulkError, BulkItem, Caller, Context, Effects, MAX_BULK, Manner};
use crate::storage::Transfer;

/// The longest line: a twin whose metadata is several times its counted size, and its device.
const MAX_LINE: usize = 1024 * 1024;
/// The most errors that are told of an import.
const MAX_ERRORS: u64 = 100_000;

/// Lines that are carried out together.
struct Batch {
    lines: Vec<Result<BulkItem, BulkError>>,
    /// Where the input goes on behind them.
    end: u64,
}

impl Transfers {
    pub(super) async fn import(&self, transfer: &Transfer, order: &Order) -> Result<(), Stop> {
        let container = order.input_container.as_deref().unwrap_or_default();
        let opened = self.blobs.open_from(container, &order.input_blob, transfer.done).await;
        let Some((size, body)) = opened? else {
            return Err(Stop::Failed(format!(
                "there is no blob `{}` in the container `{container}`; store it first",
                order.input_blob
            )));
        };
        let mut transfer = self.note(&transfer.id, move |transfer| transfer.total = size).await?;
        let mut lines = Lines::new(body, transfer.done, MAX_LINE);
        loop {
            let batch = lines.next_batch().await?;
            if batch.lines.is_empty() {
                break;
            }
            transfer = self.carry_out_batch(transfer, batch).await?;
            if transfer.ended.is_some() {
                return Err(Stop::Cancelled);
            }
        }
        while self.try_again(&transfer.id, order).await? {}
        if let Some(blob) = &order.configurations_blob {
            self.import_configurations(&transfer, container, blob).await?;
        }
        self.write_errors(&transfer.id, order).await
    }

    /// Carries out lines that failed because they name a device that came behind them; says whether that helped one.
    async fn try_again(&self, id: &str, order: &Order) -> Result<bool, Stop> {
        let wanted = self.waiting_for_another(id).await?;
        if wanted.is_empty() {
            return Ok(false);
        }
        let container = order.input_container.as_deref().unwrap_or_default();
        let Some((_, body)) = self.blobs.open_from(container, &order.input_blob, 0).await? else {
            return Ok(false);
        };
        let mut lines = Lines::new(body, 0, MAX_LINE);
        let (mut number, mut helped, mut batch) = (0, false, Vec::new());
        loop {
            let line = lines.next_line().await?;
            if let Some(line) = line.as_ref().filter(|line| !line.trim_ascii().is_empty()) {
                number += 1;
                if wanted.contains(&number)
                    && let Ok(item) = BulkItem::from_json(line)
                {
                    batch.push((number, item));
                }
            }
            if batch.len() >= MAX_BULK || (line.is_none() && !batch.is_empty()) {
                helped |= self.carry_out_again(id, std::mem::take(&mut batch)).await?;
            }
            if line.is_none() {
                return Ok(helped);
            }
        }
    }

    /// The lines whose error is that a device or a scope is not there.
    async fn waiting_for_another(&self, id: &str) -> Result<BTreeSet<u64>, ServiceError> {
        let id = id.to_owned();
        let errors = self.repository.read(move |view| view.transfer_errors(&id)).await?;
        let of_another = [
            ErrorCode::InvalidDeviceScope,
            ErrorCode::DeviceNotFound,
            ErrorCode::ModuleNotFound,
        ];
        let is_of_another = |error: &Value| {
            let code = error["errorCode"].as_str().unwrap_or_default();
            of_another.iter().any(|other| other.name() == code)
        };
        let errors = errors
            .iter()
            .filter_map(|text| serde_json::from_str::<Value>(text).ok());
        Ok(errors
            .filter(is_of_another)
            .filter_map(|error| error["line"].as_u64())
            .collect())
    }

    async fn carry_out_again(&self, id: &str, items: Vec<(u64, BulkItem)>) -> Result<bool, Stop> {
        let (id, now, hub_name) = (id.to_owned(), self.clock.now(), self.hub_name.clone());
        let (signals, presence) = (self.signals.clone(), self.presence.clone());
        let changed = self.repository.change_then(
            move |transaction| {
                let (mut effects, mut helped) = (Effects::default(), false);
                let is_open = transaction
                    .transfer(&id)?
                    .is_some_and(|transfer| transfer.ended.is_none());
                if !is_open {
                    return Ok((None, effects));
                }
                let context = Context {
                    caller: Caller::Service,
                    hub_name: &hub_name,
                    now,
                };
                for (line, item) in items {
                    match item.carry_out(transaction, &context, Manner::Import, &mut effects)? {
                        Ok(()) => {
                            helped = true;
                            transaction.remove_transfer_error(&id, line)?;
                        }
                        Err(error) => transaction.add_transfer_error(&id, line, &told(line, &error))?,
                    }
                }
                Ok((Some(helped), effects))
            },
            move |(_, effects)| effects.tell(&signals, &presence),
        );
        changed.await?.0.ok_or(Stop::Cancelled)
    }

    /// Carries out lines, with how far that is, in one transaction.
    async fn carry_out_batch(&self, transfer: Transfer, batch: Batch) -> Result<Transfer, ServiceError> {
        let (now, hub_name) = (self.clock.now(), self.hub_name.clone());
        let (signals, presence) = (self.signals.clone(), self.presence.clone());
        let changed = self.repository.change_then(
            move |transaction| {
                let Some(mut transfer) = transaction.transfer(&transfer.id)? else {
                    return Err(super::not_found(&transfer.id));
                };
                let mut effects = Effects::default();
                if transfer.ended.is_some() {
                    return Ok((transfer, effects));
                }
                let context = Context {
                    caller: Caller::Service,
                    hub_name: &hub_name,
                    now,
                };
                for item in batch.lines {
                    transfer.lines += 1;
                    let done = match item {
                        Ok(item) => item.carry_out(transaction, &context, Manner::Import, &mut effects)?,
                        Err(error) => Err(error),
                    };
                    if let Err(error) = done
                        && transfer.lines <= MAX_ERRORS
                    {
                        transaction.add_transfer_error(&transfer.id, transfer.lines, &told(transfer.lines, &error))?;
                    }
                }
                transfer.done = batch.end;
                transaction.put_transfer(&transfer)?;
                Ok((transfer, effects))
            },
            move |(_, effects)| effects.tell(&signals, &presence),
        );
        changed.await.map(|(transfer, _)| transfer)
    }

    /// Writes what lines could not be carried out, where there are such.
    pub(super) async fn write_errors(&self, id: &str, order: &Order) -> Result<(), Stop> {
        let id = id.to_owned();
        let errors = self.repository.read(move |view| view.transfer_errors(&id)).await?;
        if errors.is_empty() {
            return Ok(());
        }
        let (pieces, body) = mpsc::channel(1);
        let stored = self.blobs.store(&order.output_container, Order::ERRORS, body);
        let text = Bytes::from(errors.join("\n") + "\n");
        let (sent, stored) = tokio::join!(
            async move {
                let sent = pieces.send(Ok(text)).await;
                drop(pieces);
                sent
            },
            stored
        );
        // A store that takes nothing tells why itself.
        drop(sent);
        stored.map_err(|fault| Stop::Failed(format!("`{}` can't be written: {fault}", Order::ERRORS)))
    }
}

/// A line of the file of errors.
fn told(line: u64, error: &BulkError) -> String {
    let mut document = Value::from(error);
    document["line"] = line.into();
    document.to_string()
}

/// The lines of a blob.
pub(super) struct Lines {
    /// `None` behind its end.
    body: Option<ResponseBody>,
    left: BytesMut,
    /// Where in the blob `left` begins.
    at: u64,
    /// The most bytes of one.
    longest: usize,
}

impl Lines {
    /// The lines of what is read of a blob from the place `at`.
    pub(super) fn new(body: ResponseBody, at: u64, longest: usize) -> Self {
        Self {
            body: Some(body),
            left: BytesMut::new(),
            at,
            longest,
        }
    }

    async fn next_batch(&mut self) -> Result<Batch, Stop> {
        let mut batch = Batch {
            lines: Vec::new(),
            end: self.at,
        };
        while batch.lines.len() < MAX_BULK {
            let Some(line) = self.next_line().await? else { break };
            batch.end = self.at;
            if !line.trim_ascii().is_empty() {
                batch.lines.push(BulkItem::from_json(&line));
            }
        }
        Ok(batch)
    }

    /// The next line without its end; the last one may have none.
    pub(super) async fn next_line(&mut self) -> Result<Option<Bytes>, Stop> {
        let mut seen = 0;
        loop {
            let end = self.left.iter().skip(seen).position(|byte| *byte == b'\n');
            if let Some(end) = end {
                let line = self.left.split_to(seen + end + 1);
                self.at += line.len() as u64;
                return Ok(Some(line.freeze()));
            }
            seen = self.left.len();
            if seen > self.longest {
                return Err(Stop::Failed(format!(
                    "the line at byte {} of the input has more than {} bytes",
                    self.at, self.longest
                )));
            }
            let frame = match &mut self.body {
                Some(body) => body.frame().await,
                None => None,
            };
            match frame {
                None if self.left.is_empty() => {
                    self.body = None;
                    return Ok(None);
                }
                None => {
                    self.body = None;
                    let line = self.left.split();
                    self.at += line.len() as u64;
                    return Ok(Some(line.freeze()));
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.left.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(Stop::Failed(format!("the input can't be read: {error}"))),
            }
        }
    }
}
