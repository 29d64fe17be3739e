//! The bodies that carry the state of lanes: checkpoint, reserve, definition, removal and acknowledgement.

use super::fields::{Fields, put_number, put_ranges, put_text};
use super::{Buffer, Seed, encode_entry, kind};
use crate::lane::{Lane, LaneId, LaneKind};
use crate::ranges::{Progress, Ranges};
use std::time::Duration;

/// A lane's name and kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Definition {
    pub(crate) id: LaneId,
    pub(crate) name: String,
    pub(crate) kind: LaneKind,
}

impl Definition {
    pub(crate) fn encode<B: Buffer>(buffer: &mut B, id: LaneId, name: &str, lane_kind: LaneKind) {
        put_number(buffer, id.0.into());
        match lane_kind {
            LaneKind::UntilAcknowledged => put_number(buffer, 0),
            LaneKind::Retained { max_age, max_bytes } => {
                // 0 stands for no limit, so a limit is written as one more than it is.
                let age = max_age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX - 1));
                put_number(buffer, 1);
                put_number(buffer, age.map_or(0, |age| age.saturating_add(1)));
                put_number(buffer, max_bytes.map_or(0, |bytes| bytes.saturating_add(1)));
            }
        }
        put_text(buffer, name);
    }

    pub(crate) fn decode(fields: &mut Fields<'_>) -> Option<Self> {
        let id = fields.lane()?;
        let kind = match fields.number()? {
            0 => LaneKind::UntilAcknowledged,
            1 => {
                let max_age = fields.number()?.checked_sub(1).map(Duration::from_millis);
                LaneKind::Retained {
                    max_age,
                    max_bytes: fields.number()?.checked_sub(1),
                }
            }
            _ => return None,
        };
        Some(Self {
            id,
            name: fields.text()?.to_owned(),
            kind,
        })
    }
}

/// A lane as a checkpoint holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LaneSnapshot {
    pub(crate) definition: Definition,
    pub(crate) next: u64,
    pub(crate) last_enqueued: Option<u64>,
    pub(crate) progress: Progress,
}

/// The state of all lanes at one place of the journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) next_lane: u32,
    pub(crate) lanes: Vec<LaneSnapshot>,
}

impl Snapshot {
    /// Encodes the body. Each lane's ranges beyond the low-water mark are cut after `max_ranges`, and what lies at or beyond
    /// the position that `end` gives for the lane is left out.
    pub(crate) fn encode<'l, B: Buffer>(
        buffer: &mut B,
        next_lane: u32,
        lanes: impl Iterator<Item = (LaneId, &'l Lane)> + Clone,
        end: impl Fn(&Lane) -> u64,
        max_ranges: usize,
    ) {
        put_number(buffer, next_lane.into());
        put_number(buffer, lanes.clone().count() as u64);
        for (id, lane) in lanes {
            let next = end(lane);
            let low_water = lane.progress.low_water().min(next);
            let beyond = lane
                .progress
                .beyond()
                .iter()
                .filter(|range| range.start < next)
                .take(max_ranges);
            Definition::encode(buffer, id, &lane.name, lane.kind);
            put_number(buffer, next);
            put_number(buffer, lane.last_enqueued.map_or(0, |time| time.saturating_add(1)));
            put_number(buffer, low_water);
            put_ranges(buffer, low_water, beyond.map(|range| range.start..range.end.min(next)));
        }
    }

    pub(crate) fn decode(fields: &mut Fields<'_>) -> Option<Self> {
        let next_lane = fields.number_u32()?;
        let mut lanes = Vec::new();
        for _ in 0..fields.number()? {
            let definition = Definition::decode(fields)?;
            let next = fields.position()?;
            let last_enqueued = fields.number()?.checked_sub(1);
            let low_water = fields.position()?;
            let mut progress = Progress::new(low_water);
            for range in fields.ranges(low_water)?.iter() {
                progress.acknowledge(range);
            }
            lanes.push(LaneSnapshot {
                definition,
                next,
                last_enqueued,
                progress,
            });
        }
        Some(Self { next_lane, lanes })
    }
}

/// What an acknowledgement entry holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    pub(crate) lanes: Vec<(LaneId, Ranges)>,
}

impl Acknowledged {
    pub(crate) fn encode<'l, B: Buffer>(
        buffer: &mut B,
        seed: Seed,
        base: u64,
        lanes: impl Iterator<Item = (LaneId, &'l Ranges)> + Clone,
    ) {
        encode_entry(buffer, kind::ACKNOWLEDGE, seed, base, |buffer| {
            put_number(buffer, lanes.clone().count() as u64);
            for (id, ranges) in lanes {
                put_number(buffer, id.0.into());
                put_ranges(buffer, 0, ranges.iter());
            }
        });
    }

    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(body);
        let mut lanes = Vec::new();
        for _ in 0..fields.number()? {
            lanes.push((fields.lane()?, fields.ranges(0)?));
        }
        Some(Self { lanes })
    }
}
