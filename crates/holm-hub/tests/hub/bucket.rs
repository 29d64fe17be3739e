//! Files in a bucket: against a small store in this process, or, with `HOLM_S3_ENDPOINT` set, against that one, in its bucket
//! `holm-test` with the access key `test`.
//!
//! The small store checks no signatures: they are the library's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holm_hub::{FileConfig, HubConfig, S3Config};
use holm_identity::Secret;
use holm_net::http::{Handler, ResponseBody, body, serve_connection};
use holm_net::{Peer, Scope};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use tokio::net::TcpListener;

use crate::files::{assert_fault, target};
use crate::support::TestHub;

/// A store that keeps objects in memory, and can be told to fail.
#[derive(Default)]
struct Shelf {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    fails: Mutex<bool>,
}

impl Shelf {
    fn names(&self) -> Vec<String> {
        self.objects.lock().unwrap().keys().cloned().collect()
    }

    fn list(&self, prefix: &str) -> String {
        let objects = self.objects.lock().unwrap();
        let entry = |(name, bytes): (&String, &Vec<u8>)| {
            let size = bytes.len();
            format!(
                "<Contents><Key>{name}</Key><LastModified>2026-11-21T00:00:00Z</LastModified><ETag>x</ETag><Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            )
        };
        let contents: String = objects
            .iter()
            .filter(|(name, _)| name.starts_with(prefix))
            .map(entry)
            .collect();
        format!(
            "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>"
        )
    }
}

impl Handler for Shelf {
    async fn handle(&self, request: Request<Incoming>, _peer: Peer) -> Response<ResponseBody> {
        let (head, content) = request.into_parts();
        let content = body::read(content, 1 << 24).await.unwrap();
        let object = head
            .uri
            .path()
            .strip_prefix("/holm-test/")
            .unwrap_or_default()
            .to_owned();
        let status = |status| {
            let mut response = Response::new(body::empty());
            *response.status_mut() = status;
            response
        };
        if *self.fails.lock().unwrap() {
            return status(StatusCode::SERVICE_UNAVAILABLE);
        }
        assert!(head.uri.query().is_some_and(|query| query.contains("X-Amz-Signature=")));
        match head.method {
            Method::GET if object.is_empty() => Response::new(body::full(self.list("holm/"))),
            Method::GET => {
                let objects = self.objects.lock().unwrap();
                let Some(bytes) = objects.get(&object) else {
                    return status(StatusCode::NOT_FOUND);
                };
                let range = head.headers["range"].to_str().unwrap().trim_start_matches("bytes=");
                let (from, to) = range.split_once('-').unwrap();
                let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
                let mut response = Response::new(body::full(bytes[from..=to].to_vec()));
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                response
            }
            Method::PUT => {
                let length = head.headers["content-length"].to_str().unwrap();
                assert_eq!(length, content.len().to_string());
                self.objects.lock().unwrap().insert(object, content.to_vec());
                status(StatusCode::OK)
            }
            _ => {
                self.objects.lock().unwrap().remove(&object);
                status(StatusCode::NO_CONTENT)
            }
        }
    }
}

async fn shelf() -> (Arc<Shelf>, String) {
    let shelf = Arc::<Shelf>::default();
    if let Ok(endpoint) = std::env::var("HOLM_S3_ENDPOINT") {
        return (shelf, endpoint);
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let served = Arc::clone(&shelf);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve_connection(
                Scope::new(),
                stream,
                Peer::default(),
                Arc::clone(&served),
            ));
        }
    });
    (shelf, endpoint)
}

fn in_bucket(endpoint: &str) -> impl FnOnce(&mut HubConfig) + use<> {
    let s3 = S3Config {
        endpoint: endpoint.to_owned(),
        bucket: "holm-test".to_owned(),
        region: "us-east-1".to_owned(),
        prefix: "holm/".to_owned(),
        access_key: "test".to_owned(),
        secret_key: Secret::new("test"),
    };
    move |config| {
        config.files = Some(FileConfig {
            s3: Some(s3),
            ..FileConfig::default()
        });
    }
}

/// Waits until the store holds so many objects; nothing where it is another's.
async fn until(shelf: &Shelf, count: usize) {
    if std::env::var("HOLM_S3_ENDPOINT").is_ok() {
        return;
    }
    let wait = async {
        while shelf.names().len() != count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
    waited.unwrap_or_else(|_| panic!("{count} objects are expected: {:?}", shelf.names()));
}

#[tokio::test]
async fn files_live_in_the_bucket_and_are_read_replaced_and_removed_there() {
    let (shelf, endpoint) = shelf().await;
    let hub = TestHub::start_with(in_bucket(&endpoint)).await;
    hub.device("d1").await;
    let target = target(&hub.begin("d1", "a").await.ok());
    let block = |id: &str| format!("{target}&comp=block&blockid={id}");
    let large = "x".repeat(300_000);

    for (id, text) in [("QQ%3D%3D", "one "), ("Qg%3D%3D", large.as_str())] {
        let stored = hub.blob(Method::PUT, &block(id), &[], text.to_owned()).await;
        assert_eq!(stored.status, 201, "{:?}", stored.body);
    }
    until(&shelf, 2).await;
    let here = hub.stored_files().len();
    let xml = "<BlockList><Latest>Qg==</Latest><Latest>QQ==</Latest></BlockList>";
    let made = hub
        .blob(Method::PUT, &format!("{target}&comp=blocklist"), &[], xml)
        .await
        .status;
    let whole = hub.blob(Method::GET, &target, &[], "").await;
    let range = hub
        .blob(Method::GET, &target, &[("range", "bytes=299999-300002")], "")
        .await;
    let replaced = hub.put_blob(&target, "short").await.status;
    until(&shelf, 1).await;
    let short = hub.blob(Method::GET, &target, &[], "").await;
    let service = hub.token_of("service").await;
    let deleted = hub
        .blob(Method::DELETE, "/uploads/d1/a", &[("authorization", &service)], "")
        .await;
    until(&shelf, 0).await;

    assert_eq!((here, made, replaced, deleted.status), (0, 201, 201, 202));
    assert!(whole.body == format!("{large}one "), "{} bytes", whole.body.len());
    assert_eq!((range.status, range.body.as_ref()), (206, b"xone".as_slice()));
    assert_eq!(short.body, "short");
}

#[tokio::test]
async fn a_bucket_that_fails_costs_the_upload_and_leaves_nothing_and_the_hub_goes_on() {
    let (shelf, endpoint) = shelf().await;
    if std::env::var("HOLM_S3_ENDPOINT").is_ok() {
        return;
    }
    let hub = TestHub::start_with(in_bucket(&endpoint)).await;
    hub.device("d1").await;
    let target = target(&hub.begin("d1", "a").await.ok());

    *shelf.fails.lock().unwrap() = true;
    let refused = hub.put_blob(&target, "hello").await;
    let here = hub.stored_files().len();
    *shelf.fails.lock().unwrap() = false;
    let stored = hub.put_blob(&target, "hello").await.status;
    let headers = [("x-ms-blob-type", "BlockBlob"), ("if-none-match", "*")];
    let not_named = hub.blob(Method::PUT, &target, &headers, "other").await;
    until(&shelf, 1).await;

    assert_fault(&refused, 503, "ServerBusy");
    assert_eq!((here, stored), (0, 201));
    assert_fault(&not_named, 409, "BlobAlreadyExists");
    assert_eq!(hub.hub.files().unwrap().blobs().used(), 4096);
}

#[tokio::test]
async fn objects_of_an_earlier_process_without_a_name_are_removed_at_a_start_and_others_stay() {
    let (shelf, endpoint) = shelf().await;
    if std::env::var("HOLM_S3_ENDPOINT").is_ok() {
        return;
    }
    let garbage = format!("holm/{}", "0".repeat(32));
    for name in [garbage.as_str(), "holm/notes.txt", "other/file"] {
        shelf.objects.lock().unwrap().insert(name.to_owned(), vec![1]);
    }

    let _hub = TestHub::start_with(in_bucket(&endpoint)).await;
    until(&shelf, 2).await;

    assert_eq!(shelf.names(), ["holm/notes.txt", "other/file"]);
}
