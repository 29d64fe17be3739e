//! A store for uploads: as much of the published blob protocol as they use, in memory, over plain HTTP on loopback.
//!
//! ```text
//! PUT /logs/NAME?SAS                        x-ms-blob-type: AppendBlob        an empty blob
//! PUT /logs/NAME?comp=appendblock&SAS       a piece at its end
//! PUT /logs/NAME?comp=block&blockid=ID&SAS  a block            …comp=blocklist&SAS   the blob of these blocks
//! ```

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};

const SAS: &str = "sv=2020-08-04&sig=e2e";
/// The largest piece that is taken in; what is uploaded in tests is smaller.
const LARGEST: usize = 64 * 1024 * 1024;

#[derive(Debug, Default)]
struct Content {
    blobs: BTreeMap<String, Vec<u8>>,
    blocks: BTreeMap<String, Vec<u8>>,
}

/// A store. It serves until the test program ends.
#[derive(Debug)]
pub struct BlobStore {
    address: SocketAddr,
    content: Arc<Mutex<Content>>,
}

impl BlobStore {
    /// Opens an empty store.
    ///
    /// # Panics
    /// When there is no free port.
    #[must_use]
    #[track_caller]
    pub fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let address = listener.local_addr().expect("an open listener has an address");
        let content = Arc::<Mutex<Content>>::default();
        let served = Arc::clone(&content);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(std::result::Result::ok) {
                let served = Arc::clone(&served);
                std::thread::spawn(move || {
                    if let Err(error) = serve(&stream, &served) {
                        eprintln!("[blob store] {error:#}");
                    }
                });
            }
        });
        Self { address, content }
    }

    /// The URL of a container with its permission, as `sasUrl` takes it.
    #[must_use]
    pub fn sas_url(&self) -> String {
        format!("http://{}/logs?{SAS}", self.address)
    }

    /// The blobs by their names.
    #[must_use]
    pub fn blobs(&self) -> BTreeMap<String, Vec<u8>> {
        lock(&self.content).blobs.clone()
    }
}

fn lock(content: &Mutex<Content>) -> MutexGuard<'_, Content> {
    content.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(stream: &TcpStream, content: &Mutex<Content>) -> Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let target = line.split(' ').nth(1).context("a request without a target")?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").map_or(Ok(0), |length| length.parse())?;
    anyhow::ensure!(length <= LARGEST, "a piece of {length} bytes");
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let status = put(&mut lock(content), &line, &target, &headers, body);
    write!(
        &mut &*stream,
        "HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )?;
    Ok(())
}

fn put(content: &mut Content, line: &str, target: &str, headers: &BTreeMap<String, String>, body: Vec<u8>) -> u16 {
    let Some((path, query)) = target.split_once('?').filter(|(_, query)| query.ends_with(SAS)) else {
        return 403;
    };
    let Some(name) = path.strip_prefix("/logs/").filter(|_| line.starts_with("PUT ")) else {
        return 404;
    };
    let parameter = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.to_owned())
    };
    match parameter("comp").as_deref() {
        None if headers.get("x-ms-blob-type").is_some_and(|kind| kind == "AppendBlob") => {
            content.blobs.insert(name.to_owned(), Vec::new());
        }
        None => return 400,
        Some("appendblock") => match content.blobs.get_mut(name) {
            Some(blob) => blob.extend(body),
            None => return 404,
        },
        Some("block") => {
            let id = parameter("blockid").unwrap_or_default().replace("%3D", "=");
            content.blocks.insert(id, body);
        }
        Some("blocklist") => {
            let list = String::from_utf8_lossy(&body).into_owned();
            let ids = list.split("<Latest>").skip(1).filter_map(|rest| rest.split('<').next());
            let blocks: Option<Vec<_>> = ids.map(|id| content.blocks.get(id).cloned()).collect();
            let Some(blocks) = blocks else {
                return 400;
            };
            content.blobs.insert(name.to_owned(), blocks.concat());
        }
        Some(_) => return 400,
    }
    201
}
