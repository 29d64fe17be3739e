//! Files of devices: row 75 of `hub-device-protocols.md` §8, and what hostile clients try with the blob store.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holm_hub::FileConfig;
use holm_hub::notices::{NoticeKind, ReaderId};
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request};
use serde_json::{Value, json};

use crate::support::{HOST, Reply, TestHub};

impl TestHub {
    /// A request of a device to the service API.
    async fn as_device(&self, device: &str, path: &str, body: Value) -> Reply {
        let token = self.device_token(device).await;
        let path = format!("{path}?api-version=2021-04-12");
        let headers = [("authorization", token.as_str())];
        self.raw(Method::POST, &path, &headers, body.to_string().into()).await
    }

    pub(crate) async fn begin(&self, device: &str, name: &str) -> Reply {
        self.as_device(device, &format!("/devices/{device}/files"), json!({"blobName": name}))
            .await
    }

    /// Ends an upload that was begun.
    pub(crate) async fn close_upload(&self, device: &str, correlation: &Value) {
        assert_eq!(self.report(device, correlation, true).await.status, 204);
    }

    async fn report(&self, device: &str, correlation: &Value, is_success: bool) -> Reply {
        let body = json!({"correlationId": correlation, "isSuccess": is_success, "statusCode": 200, "statusDescription": "ok"});
        self.as_device(device, &format!("/devices/{device}/files/notifications"), body)
            .await
    }

    pub(crate) async fn blob(
        &self,
        method: Method,
        target: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let store = self.hub.files().expect("the hub takes files").blobs();
        let answer = store.answer(request.body(Full::new(body.into())).unwrap()).await;
        let (head, body) = answer.into_parts();
        Reply {
            status: head.status.as_u16(),
            headers: head.headers,
            body: body.collect().await.map(|body| body.to_bytes()).unwrap_or_default(),
        }
    }

    pub(crate) async fn put_blob(&self, target: &str, body: impl Into<Bytes>) -> Reply {
        self.blob(Method::PUT, target, &[("x-ms-blob-type", "BlockBlob")], body)
            .await
    }

    pub(crate) fn stored_files(&self) -> Vec<PathBuf> {
        let directory = self.directory.path().join("data/blobs");
        std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| !path.ends_with("hub"))
            .collect()
    }

    /// What back ends are told of files.
    async fn told(&self) -> Vec<Value> {
        let (notices, reader) = (self.hub.backend().notices(), ReaderId::next());
        let mut told = Vec::new();
        while let Some(notice) = notices.try_receive(NoticeKind::FileNotification, reader).await.unwrap() {
            told.push(serde_json::from_slice(&notice.body).unwrap());
        }
        told
    }
}

/// Where a begun upload goes.
pub(crate) fn target(begun: &Value) -> String {
    let text = |name: &str| begun[name].as_str().unwrap().replace(' ', "%20");
    format!("/{}/{}{}", text("containerName"), text("blobName"), text("sasToken"))
}

#[track_caller]
pub(crate) fn assert_fault(reply: &Reply, status: u16, code: &str) {
    let text = String::from_utf8_lossy(&reply.body);
    assert_eq!(
        (reply.status, reply.header("x-ms-error-code")),
        (status, Some(code)),
        "{text}"
    );
    assert!(
        text.starts_with("<?xml") && text.contains(&format!("<Error><Code>{code}</Code><Message>")),
        "{text}"
    );
}

#[tokio::test]
async fn a_file_is_begun_stored_reported_and_told_to_back_ends() {
    // Row 75.
    let hub = TestHub::start().await;
    hub.device("d1").await;

    let begun = hub.begin("d1", "a/b.txt").await.ok();
    let stored = hub.put_blob(&target(&begun), "hello").await;
    let reported = hub.report("d1", &begun["correlationId"], true).await;
    let again = hub.report("d1", &begun["correlationId"], true).await;
    let read = hub.blob(Method::GET, &target(&begun), &[], "").await;

    assert_eq!(begun["hostName"], HOST);
    assert_eq!(
        (&begun["containerName"], &begun["blobName"]),
        (&json!("uploads"), &json!("d1/a/b.txt"))
    );
    assert_eq!(
        (stored.status, reported.status),
        (201, 204),
        "{:?} {:?}",
        stored.body,
        reported.body
    );
    for name in [
        "etag",
        "last-modified",
        "content-md5",
        "x-ms-request-id",
        "x-ms-version",
    ] {
        assert!(stored.header(name).is_some(), "{name}");
    }
    again.assert_error(400, "ArgumentInvalid");
    assert_eq!((read.status, read.body.as_ref()), (200, b"hello".as_slice()));
    let told = hub.told().await;
    let [notice] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(notice["deviceId"], "d1");
    assert_eq!(notice["blobName"], "d1/a/b.txt");
    assert_eq!(notice["blobUri"], "https://hub.test/uploads/d1/a/b.txt");
    assert_eq!(notice["blobSizeInBytes"], 5);
    for name in ["lastUpdatedTime", "enqueuedTimeUtc"] {
        assert_eq!(notice[name], "2027-01-15T08:00:00.0000000Z", "{name}");
    }
}

#[tokio::test]
async fn the_eleventh_open_upload_is_refused_until_one_is_reported_or_over() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    hub.device("d2").await;
    let mut open = Vec::new();
    for number in 0..10 {
        open.push(hub.begin("d1", &number.to_string()).await.ok());
    }

    let eleventh = hub.begin("d1", "x").await;
    let of_another = hub.begin("d2", "x").await.status;
    let failed = hub.report("d1", &open[0]["correlationId"], false).await.status;
    let after_report = hub.begin("d1", "x").await.status;
    let full = hub.begin("d1", "y").await.status;
    let hub = hub.restart().await;
    let after_restart = hub.begin("d1", "y").await.status;
    hub.turn_clock(3600);
    let later = hub.begin("d1", "y").await.status;

    eleventh.assert_error(403, "DeviceMaximumActiveFileUploadLimitExceeded");
    assert_eq!((of_another, failed, after_report), (200, 204, 200));
    assert_eq!((full, after_restart, later), (403, 403, 200));
    assert!(hub.told().await.is_empty());
}

#[tokio::test]
async fn an_upload_and_its_signature_outlive_a_restart_and_no_longer_than_their_time() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let begun = hub.begin("d1", "a").await.ok();

    let hub = hub.restart().await;
    let stored = hub.put_blob(&target(&begun), "x").await.status;
    let hub = hub.cut_power().await;
    let reported = hub.report("d1", &begun["correlationId"], true).await.status;
    let told = hub.told().await.len();
    let other = hub.begin("d1", "b").await.ok();
    hub.turn_clock(3600 + 301);
    let late = hub.put_blob(&target(&other), "x").await;
    let late_report = hub.report("d1", &other["correlationId"], false).await;

    assert_eq!((stored, reported, told), (201, 204, 1));
    assert_fault(&late, 403, "AuthenticationFailed");
    late_report.assert_error(400, "ArgumentInvalid");
}

#[tokio::test]
async fn what_was_not_stored_and_what_another_has_begun_can_not_be_reported() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    hub.device("d2").await;
    let begun = hub.begin("d1", "a").await.ok();

    let not_stored = hub.report("d1", &begun["correlationId"], true).await;
    let foreign = hub.report("d2", &begun["correlationId"], false).await;
    let unknown = hub.report("d1", &json!("nonsense"), false).await;
    let nameless = hub
        .as_device("d1", "/devices/d1/files/notifications", json!({"isSuccess": true}))
        .await;
    hub.put_blob(&target(&begun), "x").await;
    let path = format!(
        "/devices/d1/files/notifications/{}",
        begun["correlationId"].as_str().unwrap()
    );
    let by_path = hub
        .as_device("d1", &path, json!({"isSuccess": true, "statusCode": 201}))
        .await;

    for refused in [not_stored, foreign, unknown, nameless] {
        refused.assert_error(400, "ArgumentInvalid");
    }
    assert_eq!(by_path.status, 204);
    assert_eq!(hub.told().await.len(), 1);
}

#[tokio::test]
async fn only_the_device_itself_begins_uploads_and_only_with_names_that_blobs_may_have() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    hub.device("d2").await;
    let body = json!({"blobName": "x"});

    let foreign = hub.as_device("d2", "/devices/d1/files", body.clone()).await;
    let service = hub
        .call(Method::POST, "/devices/d1/files/", &[], body.to_string())
        .await
        .status;
    let token = hub.token_of("registryReadWrite").await;
    let headers = [("authorization", token.as_str())];
    let path = "/devices/d1/files?api-version=2021-04-12";
    let registry = hub.raw(Method::POST, path, &headers, body.to_string().into()).await;

    foreign.assert_error(401, "IotHubUnauthorized");
    registry.assert_error(401, "IotHubUnauthorized");
    // `iothubowner` may speak for devices.
    assert_eq!(service, 200);
    let long = "x".repeat(1025);
    for name in [
        "",
        ".",
        "..",
        "../d2/x",
        "a/../../d2/x",
        "a/./b",
        "a\u{0}b",
        "a\nb",
        "a/",
        &long,
    ] {
        hub.begin("d1", name).await.assert_error(400, "ArgumentInvalid");
    }
    for body in [json!({}), json!([]), json!({"blobName": 1})] {
        let refused = hub.as_device("d1", "/devices/d1/files", body).await;
        refused.assert_error(400, "ArgumentInvalid");
    }
}

#[tokio::test]
async fn a_signature_opens_its_own_blob_and_nothing_else() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let begun = hub.begin("d1", "a").await.ok();
    let target = target(&begun);
    let (_, signature) = target.split_once('?').unwrap();
    hub.put_blob(&target, "mine").await;

    for path in ["d1/b", "d2/a", "d1", "d1/a/b", "D1/a"] {
        let refused = hub.put_blob(&format!("/uploads/{path}?{signature}"), "x").await;
        assert_fault(&refused, 403, "AuthenticationFailed");
    }
    for path in [
        "d1/..%2Fd2%2Fa",
        "d1/../d1/a",
        "..%2F..%2Fhub.db",
        "%2e%2e/hub.db",
        "d1/%00",
        "",
    ] {
        let refused = hub.put_blob(&format!("/uploads/{path}?{signature}"), "x").await;
        assert_fault(&refused, 400, "InvalidUri");
    }
    let longer = target.replace("se=2027", "se=2028");
    let stronger = target.replace("sp=rw", "sp=rwd");
    for forged in [
        longer,
        stronger,
        target.replace("sig=", "sig=A"),
        "/uploads/d1/a?sig=".to_owned(),
    ] {
        assert_fault(&hub.put_blob(&forged, "x").await, 403, "AuthenticationFailed");
    }
    assert_fault(
        &hub.blob(Method::GET, "/uploads/d1/a", &[], "").await,
        401,
        "NoAuthenticationInformation",
    );
    let delete = hub.blob(Method::DELETE, &target, &[], "").await;
    assert_fault(&delete, 403, "AuthorizationPermissionMismatch");
    let read = hub.blob(Method::GET, &target, &[], "").await;
    assert_eq!(read.body, "mine");
    assert_eq!(hub.stored_files().len(), 1);
}

#[tokio::test]
async fn blocks_become_a_blob_in_the_order_of_the_list_and_leave_nothing_behind() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let target = target(&hub.begin("d1", "a").await.ok());
    let block = |id: &str| format!("{target}&comp=block&blockid={id}");
    let list = format!("{target}&comp=blocklist");

    for (id, text) in [("QQ%3D%3D", "one "), ("Qg%3D%3D", "two "), ("Qw%3D%3D", "never named")] {
        assert_eq!(hub.blob(Method::PUT, &block(id), &[], text).await.status, 201);
    }
    let waiting = hub
        .blob(Method::GET, &format!("{list}&blocklisttype=all"), &[], "")
        .await;
    let missing = hub.blob(Method::GET, &target, &[], "").await;
    let unknown = hub
        .blob(Method::PUT, &list, &[], "<BlockList><Latest>eA==</Latest></BlockList>")
        .await;
    let xml = "<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList><Latest>Qg==</Latest><Uncommitted>QQ==</Uncommitted><Latest>Qg==</Latest></BlockList>";
    let headers = [("x-ms-blob-content-type", "text/plain"), ("x-ms-meta-line", "4")];
    let made = hub.blob(Method::PUT, &list, &headers, xml).await;
    let whole = hub.blob(Method::GET, &target, &[], "").await;
    let range = hub.blob(Method::GET, &target, &[("x-ms-range", "bytes=2-6")], "").await;
    let head = hub.blob(Method::HEAD, &target, &[], "").await;

    let waiting = String::from_utf8_lossy(&waiting.body).into_owned();
    assert!(
        waiting.contains("<UncommittedBlocks><Block><Name>QQ==</Name><Size>4</Size></Block>"),
        "{waiting}"
    );
    assert_fault(&missing, 404, "BlobNotFound");
    assert_fault(&unknown, 400, "InvalidBlockList");
    assert_eq!(made.status, 201, "{:?}", made.body);
    assert_eq!((whole.status, whole.body.as_ref()), (200, b"two one two ".as_slice()));
    assert_eq!(
        (whole.header("content-type"), whole.header("x-ms-meta-line")),
        (Some("text/plain"), Some("4"))
    );
    assert!(
        whole
            .header("content-security-policy")
            .is_some_and(|policy| policy.contains("sandbox"))
    );
    assert_eq!((range.status, range.body.as_ref()), (206, b"o one".as_slice()));
    assert_eq!(range.header("content-range"), Some("bytes 2-6/12"));
    assert_eq!((head.status, head.header("content-length")), (200, Some("12")));
    // The block that nobody named is gone, and so is what a new blob replaces.
    assert_eq!(hub.stored_files().len(), 2);
    assert_eq!(hub.put_blob(&target, "short").await.status, 201);
    assert_eq!(hub.stored_files().len(), 1);
    assert_eq!(hub.hub.files().unwrap().blobs().used(), 4096);
}

#[tokio::test]
async fn conditions_and_digests_are_kept_and_what_is_not_served_is_not_ignored() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let target = target(&hub.begin("d1", "a").await.ok());
    let kind = ("x-ms-blob-type", "BlockBlob");
    let put = async |header: (&'static str, &str)| {
        let headers = [kind, header];
        hub.blob(Method::PUT, &target, &headers, "hello").await
    };

    assert_eq!(put(("if-none-match", "*")).await.status, 201);
    assert_fault(&put(("if-none-match", "*")).await, 409, "BlobAlreadyExists");
    assert_fault(&put(("if-match", "\"0x1\"")).await, 412, "ConditionNotMet");
    assert_eq!(put(("content-md5", "XUFAKrxLKna5cZ2REBfFkg==")).await.status, 201);
    assert_fault(
        &put(("content-md5", "XUFAKrxLKna5cZ2REBfFkA==")).await,
        400,
        "Md5Mismatch",
    );
    assert_fault(
        &put(("x-ms-structured-body", "XSM/1.0; properties=crc64")).await,
        400,
        "UnsupportedHeader",
    );
    let append = hub
        .blob(Method::PUT, &target, &[("x-ms-blob-type", "AppendBlob")], "")
        .await;
    assert_fault(&append, 400, "InvalidHeaderValue");
    let other = hub.blob(Method::PUT, &format!("{target}&comp=metadata"), &[], "").await;
    assert_fault(&other, 400, "InvalidQueryParameterValue");
    assert_fault(
        &hub.blob(Method::POST, &target, &[], "").await,
        405,
        "UnsupportedHttpVerb",
    );
    let id = hub
        .blob(Method::PUT, &format!("{target}&comp=block&blockid=%25"), &[], "")
        .await;
    assert_fault(&id, 400, "InvalidBlockId");
    assert_eq!(hub.stored_files().len(), 1);
}

#[tokio::test]
async fn operators_list_read_and_delete_files_with_a_service_token() {
    let hub = TestHub::start().await;
    for device in ["d1", "d2", "d10"] {
        hub.device(device).await;
        let target = target(&hub.begin(device, "a b").await.ok());
        assert_eq!(hub.put_blob(&target, device).await.status, 201);
    }
    let service = hub.token_of("service").await;
    let with = |token: &str| token.to_owned();
    let ask = async |method: Method, token: &str| {
        let token = with(token);
        hub.blob(method, "/uploads/d1/a%20b", &[("authorization", &token)], "")
            .await
    };

    let all = hub.get("/holm/v1/files").await.ok();
    let one = hub.get("/holm/v1/files?device=d1").await.ok();
    let page = hub.get("/holm/v1/files?top=1&after=d1%2Fa%20b").await.ok();
    let read = ask(Method::GET, &service).await;
    let registry = ask(Method::GET, &hub.token_of("registryRead").await).await;
    let write = ask(Method::PUT, &service).await;
    let deleted = ask(Method::DELETE, &service).await.status;
    let gone = ask(Method::DELETE, &service).await;

    let names = |files: &Value| -> Vec<String> {
        let files = files.as_array().unwrap().iter();
        files
            .map(|file| file["blobName"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&all), ["d1/a b", "d10/a b", "d2/a b"]);
    assert_eq!(
        (names(&one), names(&page)),
        (vec!["d1/a b".to_owned()], vec!["d10/a b".to_owned()])
    );
    assert_eq!(one[0]["blobUri"], "https://hub.test/uploads/d1/a%20b");
    assert_eq!(
        (&one[0]["blobSizeInBytes"], &one[0]["deviceId"]),
        (&json!(2), &json!("d1"))
    );
    assert_eq!(read.body, "d1");
    assert_fault(&registry, 403, "AuthenticationFailed");
    assert_fault(&write, 403, "AuthorizationPermissionMismatch");
    assert_eq!(deleted, 202);
    assert_fault(&gone, 404, "BlobNotFound");
    hub.get("/holm/v1/files?top=0")
        .await
        .assert_error(400, "ArgumentInvalid");
    hub.get("/holm/v1/files?name=x")
        .await
        .assert_error(400, "ArgumentInvalid");
}

#[tokio::test]
async fn what_exceeds_the_quota_is_refused_and_leaves_nothing() {
    let hub = TestHub::start_with(|config| {
        config.files = Some(FileConfig {
            quota: 12_000,
            ..FileConfig::default()
        });
    })
    .await;
    hub.device("d1").await;
    let first = target(&hub.begin("d1", "a").await.ok());
    let second = target(&hub.begin("d1", "b").await.ok());

    let stored = hub.put_blob(&first, vec![0; 6000]).await.status;
    let refused = hub.put_blob(&second, vec![0; 6001]).await;
    let fits = hub.put_blob(&second, vec![0; 6000]).await.status;

    assert_eq!((stored, fits), (201, 201));
    assert_fault(&refused, 507, "InsufficientStorage");
    assert_eq!(hub.stored_files().len(), 2);
}

#[tokio::test]
async fn empty_blocks_fill_the_quota_too() {
    let hub = TestHub::start_with(|config| {
        config.files = Some(FileConfig {
            quota: 3 * 4096,
            ..FileConfig::default()
        });
    })
    .await;
    hub.device("d1").await;
    let target = target(&hub.begin("d1", "a").await.ok());

    let mut refused = None;
    for id in ["QQ==", "Qg==", "Qw==", "RA=="] {
        let block = format!("{target}&comp=block&blockid={}", id.replace('=', "%3D"));
        let reply = hub.blob(Method::PUT, &block, &[], "").await;
        if reply.status != 201 {
            refused = Some((id, reply));
        }
    }

    let (id, reply) = refused.expect("the fourth block is too much");
    assert_eq!(id, "RA==");
    assert_fault(&reply, 507, "InsufficientStorage");
}

#[tokio::test]
async fn a_blob_of_no_blocks_is_there_and_fills_the_quota_too() {
    let hub = TestHub::start_with(|config| {
        config.files = Some(FileConfig {
            quota: 4096,
            ..FileConfig::default()
        });
    })
    .await;
    hub.device("d1").await;
    let (first, second) = (
        target(&hub.begin("d1", "a").await.ok()),
        target(&hub.begin("d1", "b").await.ok()),
    );
    let commit = async |target: &str| {
        let list = format!("{target}&comp=blocklist");
        hub.blob(Method::PUT, &list, &[], "<BlockList/>").await
    };

    let made = commit(&first).await;
    let read = hub.blob(Method::GET, &first, &[], "").await;
    let refused = commit(&second).await;

    assert_eq!((made.status, read.status, read.body.len()), (201, 200, 0));
    assert_fault(&refused, 507, "InsufficientStorage");
    assert_eq!(hub.stored_files().len(), 1);
}

#[tokio::test]
async fn readers_of_a_devices_files_who_stall_leave_no_more_files_open_than_are_sent_at_once() {
    const MOST: usize = 32;
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let target = target(&hub.begin("d1", "a").await.ok());
    // More than waits for a reader.
    hub.put_blob(&target, vec![0; 512 * 1024]).await;
    let store = hub.hub.files().unwrap().blobs();
    let open = async || {
        let request = Request::get(&target).body(Full::new(Bytes::new()));
        store.answer(request.unwrap()).await
    };

    let mut stalled = Vec::new();
    for _ in 0..MOST {
        stalled.push(open().await);
    }
    let refused = hub.blob(Method::GET, &target, &[], "").await;
    stalled.pop();
    let later = async {
        // The file is closed when the next piece finds nobody.
        while open().await.status() != 200 {
            tokio::task::yield_now().await;
        }
    };
    let later = tokio::time::timeout(Duration::from_secs(60), later).await;

    assert!(stalled.iter().all(|answer| answer.status() == 200));
    assert_fault(&refused, 503, "ServerBusy");
    assert!(later.is_ok(), "a turn that is over is taken again");
}

#[tokio::test]
async fn a_reader_that_has_a_blob_is_told_so_and_one_that_wants_another_is_refused() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let target = target(&hub.begin("d1", "a").await.ok());
    hub.put_blob(&target, "hello").await;
    let etag = hub.blob(Method::HEAD, &target, &[], "").await;
    let etag = etag.header("etag").unwrap().to_owned();
    let get = async |header, value: &str| hub.blob(Method::GET, &target, &[(header, value)], "").await;

    let known = get("if-none-match", &etag).await;
    let any = get("if-none-match", "*").await;
    let changed = get("if-none-match", "\"0x1\"").await;
    let same = get("if-match", &etag).await;
    let another = get("if-match", "\"0x1\"").await;

    for told in [&known, &any] {
        assert_eq!((told.status, told.body.len()), (304, 0));
        assert_eq!(told.header("etag"), Some(etag.as_str()));
        assert_eq!(told.header("x-ms-error-code"), Some("ConditionNotMet"));
    }
    assert_eq!((changed.status, same.status), (200, 200));
    assert_eq!(changed.body, "hello");
    assert_fault(&another, 412, "ConditionNotMet");
}

#[tokio::test]
async fn a_hub_without_storage_and_one_without_notifications_say_so_and_keep_quiet() {
    let without = TestHub::start_with(|config| config.files = None).await;
    let quiet = TestHub::start_with(|config| {
        config.files = Some(FileConfig {
            notifications: false,
            ..FileConfig::default()
        });
    })
    .await;
    without.device("d1").await;
    quiet.device("d1").await;

    let refused = without.begin("d1", "a").await;
    let begun = quiet.begin("d1", "a").await.ok();
    quiet.put_blob(&target(&begun), "x").await;
    let reported = quiet.report("d1", &begun["correlationId"], true).await.status;

    assert_eq!(refused.status, 403);
    assert!(
        refused.json()["Message"].as_str().unwrap().contains("takes no files"),
        "{:?}",
        refused.body
    );
    assert_eq!(reported, 204);
    assert!(quiet.told().await.is_empty());
}

#[tokio::test]
async fn files_that_no_name_is_left_for_are_removed_at_a_start_and_open_uploads_with_their_device() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let begun = hub.begin("d1", "a").await.ok();
    hub.put_blob(&target(&begun), "x").await;
    let directory = hub.directory.path().join("data/blobs");
    std::fs::write(directory.join("0".repeat(32)), "half").unwrap();

    let hub = hub.restart().await;
    let files = hub.stored_files().len();
    hub.delete("/devices/d1").await;
    hub.device("d1").await;
    let report = hub.report("d1", &begun["correlationId"], true).await;

    assert_eq!(files, 1);
    report.assert_error(400, "ArgumentInvalid");
}

#[tokio::test]
async fn many_writers_of_one_blob_leave_one_of_their_contents_whole() {
    let hub = Arc::new(TestHub::start().await);
    hub.device("d1").await;
    let target = target(&hub.begin("d1", "a").await.ok());
    let writers: Vec<_> = (0..16_u8)
        .map(|number| {
            let (hub, target) = (Arc::clone(&hub), target.clone());
            tokio::spawn(async move { hub.put_blob(&target, vec![b'a' + number; 1000]).await.status })
        })
        .collect();

    for writer in writers {
        assert_eq!(writer.await.unwrap(), 201);
    }

    let read = hub.blob(Method::GET, &target, &[], "").await;
    assert_eq!(read.body.len(), 1000);
    assert!(read.body.iter().all(|byte| *byte == read.body[0]));
    assert_eq!(hub.stored_files().len(), 1);
}
