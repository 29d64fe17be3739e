//! A blob store on this machine: the part of the published protocol that uploads use, in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

#[derive(Default)]
struct Content {
    /// By path.
    blobs: BTreeMap<String, Vec<u8>>,
    blocks: BTreeMap<String, Vec<u8>>,
    /// The largest body of a request.
    largest: usize,
    /// So many requests are carried out, and then not answered.
    lost_answers: usize,
    refuses: bool,
}

pub(super) struct Store {
    content: Arc<Mutex<Content>>,
    url: String,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Store {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Store {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/logs?sv=2020&sig=secret", listener.local_addr().unwrap());
        let content = Arc::<Mutex<Content>>::default();
        let served = Arc::clone(&content);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, Arc::clone(&served)));
            }
        });
        Self { content, url, task }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn blobs(&self) -> BTreeMap<String, Vec<u8>> {
        self.content.lock().unwrap().blobs.clone()
    }

    pub(super) fn largest(&self) -> usize {
        self.content.lock().unwrap().largest
    }

    pub(super) fn lose_answers(&self, count: usize) {
        self.content.lock().unwrap().lost_answers = count;
    }

    pub(super) fn refuse(&self) {
        self.content.lock().unwrap().refuses = true;
    }
}

async fn serve(stream: TcpStream, content: Arc<Mutex<Content>>) {
    let mut stream = BufReader::new(stream);
    let (mut line, mut headers) = (String::new(), BTreeMap::new());
    stream.read_line(&mut line).await.unwrap();
    let target = line.split(' ').nth(1).unwrap().to_owned();
    assert!(line.starts_with("PUT "), "{line}");
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        let Some((name, value)) = line.trim().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length: usize = headers
        .get("content-length")
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    let (status, is_lost) = {
        let mut content = content.lock().unwrap();
        let status = put(&mut content, &target, &headers, body);
        let is_lost = content.lost_answers > 0 && target.contains("appendblock");
        content.lost_answers -= usize::from(is_lost);
        (status, is_lost)
    };
    if !is_lost {
        let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

fn put(content: &mut Content, target: &str, headers: &BTreeMap<String, String>, body: Vec<u8>) -> u16 {
    let (path, query) = target.split_once('?').unwrap();
    let header = |name: &str| headers.get(name).map_or("", String::as_str);
    if content.refuses || !query.ends_with("sv=2020&sig=secret") || header("x-ms-version").is_empty() {
        return 403;
    }
    content.largest = content.largest.max(body.len());
    let operation = query.split('&').next().unwrap_or_default();
    match operation {
        "comp=appendblock" => {
            let Some(blob) = content.blobs.get_mut(path) else {
                return 404;
            };
            if header("x-ms-blob-condition-appendpos") != blob.len().to_string() {
                return 412;
            }
            blob.extend_from_slice(&body);
        }
        "comp=block" => {
            let id = query.split('&').nth(1).unwrap().strip_prefix("blockid=").unwrap();
            content.blocks.insert(id.replace("%3D", "="), body);
        }
        "comp=blocklist" => {
            let list = String::from_utf8(body).unwrap();
            let ids = list
                .split("<Latest>")
                .skip(1)
                .map(|rest| rest.split('<').next().unwrap());
            let whole = ids.flat_map(|id| content.blocks[id].clone()).collect();
            content.blobs.insert(path.to_owned(), whole);
        }
        _ => {
            if header("x-ms-blob-type") != "AppendBlob" {
                return 400;
            }
            content.blobs.insert(path.to_owned(), body);
        }
    }
    201
}
