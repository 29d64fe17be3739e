//! The list of blocks that make a blob, as XML.
//!
//! ```text
//! <?xml version="1.0" encoding="utf-8"?><BlockList><Latest>QQ==</Latest><Uncommitted>Qg==</Uncommitted></BlockList>
//! ```
//!
//! The format is so small that its own reader is shorter than the use of a general one, and has no entities, no nesting and no
//! references to expand.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::fault::{Fault, FaultCode};
use crate::storage::Part;

/// The most blocks of a blob, and the most that wait under a name. Published are 50,000; fewer bound what a list costs, and at
/// the 4 MiB that SDKs choose they make 40 GiB.
pub(super) const MAX_BLOCKS: usize = 10_000;
/// The largest list of that many.
pub(super) const MAX_LIST_BYTES: usize = 2 * 1024 * 1024;
/// The most bytes of a block's id, before base64.
const MAX_ID_BYTES: usize = 64;

/// Where a block of a list is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Among what waits, then in the blob.
    Latest,
    /// In the blob.
    Committed,
    /// Among what waits.
    Uncommitted,
}

const SOURCES: [(&str, Source); 3] = [
    ("Latest", Source::Latest),
    ("Committed", Source::Committed),
    ("Uncommitted", Source::Uncommitted),
];

/// Checks the id of a block.
pub(super) fn check_id(id: &str) -> Result<(), Fault> {
    let bytes = STANDARD.decode(id).map(|bytes| bytes.len());
    if bytes.is_ok_and(|bytes| (1..=MAX_ID_BYTES).contains(&bytes)) {
        return Ok(());
    }
    let text = format!("`blockid` is not base64 of 1 to {MAX_ID_BYTES} bytes");
    Err(Fault::new(FaultCode::InvalidBlockId, text))
}

/// Reads a list.
pub(super) fn read(xml: &[u8]) -> Result<Vec<(Source, String)>, Fault> {
    let wrong = |why: &str| Fault::new(FaultCode::InvalidXmlDocument, format!("the block list {why}"));
    let text = std::str::from_utf8(xml).map_err(|_| wrong("is not UTF-8"))?;
    let text = text.trim_start_matches('\u{feff}').trim();
    let text = match text.strip_prefix("<?") {
        Some(rest) => rest.split_once("?>").map_or("", |(_, rest)| rest).trim_start(),
        None => text,
    };
    if text == "<BlockList/>" || text == "<BlockList />" {
        return Ok(Vec::new());
    }
    let inner = text
        .strip_prefix("<BlockList>")
        .and_then(|rest| rest.strip_suffix("</BlockList>"));
    let mut rest = inner.ok_or_else(|| wrong("is not within `<BlockList>`"))?.trim_start();
    let mut blocks = Vec::new();
    while !rest.is_empty() {
        if blocks.len() == MAX_BLOCKS {
            let text = format!("a blob has at most {MAX_BLOCKS} blocks");
            return Err(Fault::new(FaultCode::BlockListTooLong, text));
        }
        let (source, after) = SOURCES
            .iter()
            .find_map(|(name, source)| {
                let after = rest.strip_prefix('<')?.strip_prefix(name)?.strip_prefix('>')?;
                Some(((name, *source), after))
            })
            .ok_or_else(|| wrong("has something else than `Latest`, `Committed` and `Uncommitted`"))?;
        let (id, after) = after
            .split_once("</")
            .ok_or_else(|| wrong("has an element without an end"))?;
        rest = after
            .strip_prefix(source.0)
            .and_then(|after| after.strip_prefix('>'))
            .ok_or_else(|| wrong("has an element with another end"))?
            .trim_start();
        let id = id.trim();
        check_id(id)?;
        blocks.push((source.1, id.to_owned()));
    }
    Ok(blocks)
}

/// Finds the parts that a list names.
pub(super) fn resolve(list: &[(Source, String)], committed: &[Part], waiting: &[Part]) -> Result<Vec<Part>, Fault> {
    use std::collections::HashMap;
    let by_id = |parts: &[Part]| -> HashMap<String, Part> {
        parts.iter().map(|part| (part.block.clone(), part.clone())).collect()
    };
    let (committed, waiting) = (by_id(committed), by_id(waiting));
    list.iter()
        .map(|(source, id)| {
            let found = match source {
                Source::Latest => waiting.get(id).or_else(|| committed.get(id)),
                Source::Committed => committed.get(id),
                Source::Uncommitted => waiting.get(id),
            };
            found.cloned().ok_or_else(|| {
                let text = format!("the block `{id}` was not stored; put it before it is named");
                Fault::new(FaultCode::InvalidBlockList, text)
            })
        })
        .collect()
}

/// Writes what a blob consists of, and what waits; either may be left out.
pub(super) fn write(committed: Option<&[Part]>, waiting: Option<&[Part]>) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>");
    for (name, parts) in [("CommittedBlocks", committed), ("UncommittedBlocks", waiting)] {
        let Some(parts) = parts else { continue };
        xml.push_str(&format!("<{name}>"));
        // What came in one piece has no blocks.
        for part in parts.iter().filter(|part| !part.block.is_empty()) {
            // Writing to a text does not fail.
            write!(
                xml,
                "<Block><Name>{}</Name><Size>{}</Size></Block>",
                part.block, part.size
            )
            .ok();
        }
        xml.push_str(&format!("</{name}>"));
    }
    xml.push_str("</BlockList>");
    xml
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(block: &str, file: &str) -> Part {
        Part {
            block: block.to_owned(),
            file: file.to_owned(),
            size: 1,
        }
    }

    #[test]
    fn a_list_is_read_with_and_without_what_xml_allows_around_it() {
        let expected = vec![
            (Source::Latest, "QQ==".to_owned()),
            (Source::Committed, "Qg==".to_owned()),
            (Source::Uncommitted, "Qw==".to_owned()),
        ];
        let inner = "<Latest>QQ==</Latest><Committed>Qg==</Committed><Uncommitted>Qw==</Uncommitted>";
        let spaced = inner.replace("><", ">\n  <");
        for text in [
            format!("<BlockList>{inner}</BlockList>"),
            format!("\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>\r\n<BlockList>\n  {spaced}\n</BlockList>\n"),
        ] {
            assert_eq!(read(text.as_bytes()).unwrap(), expected, "{text}");
        }
        assert!(read(b"<BlockList/>").unwrap().is_empty());
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in [
            "",
            "{}",
            "<BlockList>",
            "<BlockList><Latest>QQ==</BlockList>",
            "<BlockList><Latest>QQ==</Committed></BlockList>",
            "<BlockList><Other>QQ==</Other></BlockList>",
            "<BlockList><Latest>?</Latest></BlockList>",
            "<BlockList><Latest></Latest></BlockList>",
            "<!DOCTYPE x [<!ENTITY a \"b\">]><BlockList>&a;</BlockList>",
            "\u{fffd}",
        ] {
            assert!(read(text.as_bytes()).is_err(), "{text}");
        }
        let many = format!(
            "<BlockList>{}</BlockList>",
            "<Latest>QQ==</Latest>".repeat(MAX_BLOCKS + 1)
        );
        assert_eq!(read(many.as_bytes()).unwrap_err().code, FaultCode::BlockListTooLong);
    }

    #[test]
    fn a_block_is_found_where_the_list_says() {
        let (committed, waiting) = ([part("QQ==", "old"), part("Qg==", "b")], [part("QQ==", "new")]);
        let list = |source, id: &str| resolve(&[(source, id.to_owned())], &committed, &waiting);
        let file = |found: Result<Vec<Part>, Fault>| found.map(|parts| parts[0].file.clone()).ok();

        assert_eq!(file(list(Source::Latest, "QQ==")).as_deref(), Some("new"));
        assert_eq!(file(list(Source::Latest, "Qg==")).as_deref(), Some("b"));
        assert_eq!(file(list(Source::Committed, "QQ==")).as_deref(), Some("old"));
        assert_eq!(file(list(Source::Uncommitted, "Qg==")), None);
        assert_eq!(
            list(Source::Latest, "Qw==").unwrap_err().code,
            FaultCode::InvalidBlockList
        );
    }
}
