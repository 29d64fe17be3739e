//! The data directory: what is made once, what is kept, who may use it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use holm_hub::hub::connection_string;
use holm_hub::{Hub, HubConfig, OpenHubError};
use holm_identity::ServiceConnectionString;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_first_start_makes_everything_and_a_second_keeps_it() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let config = HubConfig::new(&data, "hub.test");

    let hub = Hub::open(config.clone()).await.unwrap();
    let first = (hub.ca_pem().unwrap(), hub.connection_string().expose().to_owned());
    let read_beside_it = connection_string(&data).unwrap().expose().to_owned();
    hub.close().await;
    let server = std::fs::read(data.join("server.pem")).unwrap();
    let hub = Hub::open(config).await.unwrap();

    assert_eq!(
        (hub.ca_pem().unwrap(), hub.connection_string().expose().to_owned()),
        first
    );
    assert_eq!(read_beside_it, first.1);
    assert_eq!(std::fs::read(data.join("server.pem")).unwrap(), server);
    let parsed = ServiceConnectionString::parse(&first.1).unwrap();
    assert_eq!(parsed.host_name, "hub.test");
    for name in ["ca-key.pem", "server-key.pem", "connection-string"] {
        assert_eq!(mode(&data.join(name)), 0o600, "{name}");
    }
    hub.close().await;
}

#[tokio::test]
async fn another_host_name_has_another_certificate_of_the_same_authority() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let hub = Hub::open(HubConfig::new(&data, "one.test")).await.unwrap();
    let (ca, server) = (hub.ca_pem().unwrap(), std::fs::read(data.join("server.pem")).unwrap());
    hub.close().await;

    let hub = Hub::open(HubConfig::new(&data, "two.test")).await.unwrap();

    assert_eq!(hub.ca_pem().unwrap(), ca);
    assert_ne!(std::fs::read(data.join("server.pem")).unwrap(), server);
    assert!(
        connection_string(&data)
            .unwrap()
            .expose()
            .starts_with("HostName=two.test;")
    );
    hub.close().await;
}

#[tokio::test]
async fn two_hubs_do_not_share_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let config = HubConfig::new(directory.path().join("data"), "hub.test");
    let hub = Hub::open(config.clone()).await.unwrap();

    let second = Hub::open(config.clone()).await.unwrap_err();

    let text = holm_net::error_chain(&second);
    assert!(text.contains("locked by another hub"), "{text}");
    hub.close().await;
    Hub::open(config).await.unwrap().close().await;
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = HubConfig::new(directory.path().join("data"), "hub.test");
    config.partitions = 1;

    let refused = Hub::open(config).await.unwrap_err();

    assert!(matches!(refused, OpenHubError::Config(text) if text.contains("`partitions`")));
    assert!(
        connection_string(directory.path())
            .unwrap_err()
            .to_string()
            .contains("holds no hub")
    );
}

#[tokio::test]
async fn the_database_with_every_key_is_for_its_user_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();

    let hub = Hub::open(HubConfig::new(&data, "hub.test")).await.unwrap();

    for name in ["hub.db", "hub.db-wal", "connection-string", "ca-key.pem"] {
        let mode = std::fs::metadata(data.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    hub.close().await;
}
