//! Mounts of a manifest that lie within the module's own directory.
//!
//! ```text
//!   the edge's     DATA/modules/1f…  ->  /var/run/iotedge              read-only
//!   a manifest's   /run/mgmt.sock    ->  /var/run/iotedge/mgmt.sock    needs a place to be mounted on
//! ```
//!
//! The original mounts single sockets there, and manifests are published that mount others beside them. In a read-only
//! directory the engine can't make the place for such a mount, so it is made here, in the directory itself, before the
//! container is.

use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::body::{MODULE_DIRECTORY, find};
use crate::error::RuntimeError;

/// Where a module finds its directory in an image whose `/var/run` is a link, as in most.
const REAL_MODULE_DIRECTORY: &str = "/run/iotedge";

/// A place within the module's directory, and what is mounted on it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Below the module's directory.
    path: PathBuf,
    /// On the device; none for what the engine makes, which is a directory.
    source: Option<PathBuf>,
}

/// The places that a create request needs.
pub(super) fn needed(body: &Value) -> Vec<Place> {
    let host = body.as_object().and_then(|body| find(body, "HostConfig")?.as_object());
    let list = |name: &str| host.and_then(|host| find(host, name)?.as_array()).into_iter().flatten();
    let binds = list("Binds").filter_map(|bind| {
        let mut parts = bind.as_str()?.split(':');
        place(parts.next()?, parts.next()?)
    });
    let mounts = list("Mounts").filter_map(|mount| {
        let mount = mount.as_object()?;
        let text = |name: &str| find(mount, name)?.as_str();
        let source = text("Source").filter(|_| text("Type") == Some("bind"));
        place(source.unwrap_or_default(), text("Target")?)
    });
    binds.chain(mounts).collect()
}

fn place(source: &str, target: &str) -> Option<Place> {
    let target = Path::new(target);
    let path = [MODULE_DIRECTORY, REAL_MODULE_DIRECTORY]
        .iter()
        .find_map(|directory| target.strip_prefix(directory).ok())?;
    let is_within = path.components().next().is_some();
    // What leads out again is left to the engine, which refuses it.
    let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    // A name without a slash is a volume's.
    let source = source.starts_with('/').then(|| PathBuf::from(source));
    (is_within && is_plain).then(|| Place {
        path: path.to_owned(),
        source,
    })
}

/// Makes the places: a file for what is a file on the device, else a directory.
///
/// # Errors
/// When one can't be made.
pub(super) async fn make(places: &[Place], module_dir: &Path) -> Result<(), RuntimeError> {
    for place in places {
        let path = module_dir.join(&place.path);
        if tokio::fs::symlink_metadata(&path).await.is_ok() {
            continue;
        }
        let source = match &place.source {
            Some(source) => tokio::fs::metadata(source).await.ok(),
            None => None,
        };
        let is_file = source.is_some_and(|source| !source.is_dir());
        let directory = if is_file {
            path.parent().unwrap_or(module_dir)
        } else {
            &path
        };
        let failed = tokio::fs::create_dir_all(directory).await;
        failed.map_err(RuntimeError::io("make", directory))?;
        if is_file {
            let file = tokio::fs::File::create(&path).await;
            file.map_err(RuntimeError::io("make", &path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_lies_within_the_modules_directory_needs_a_place() {
        let body = json!({"hostconfig": {
            "Binds": [
                "/run/mgmt.sock:/var/run/iotedge/mgmt.sock", "store:/run/iotedge/a/b:ro", "/data:/data",
                "/x:/var/run/iotedge", "/x:/var/run/iotedge-more", "/x:/var/run/iotedge/../../etc", 1, "/x",
            ],
            "Mounts": [
                {"Type": "bind", "Source": "/c", "Target": "/var/run/iotedge/c"},
                {"Type": "tmpfs", "Target": "/var/run/iotedge/d/"}, {"Target": "/e"}, 1,
            ],
        }});

        let needed = needed(&body);

        let shown: Vec<_> = needed
            .iter()
            .map(|place| {
                (
                    place.path.to_str().unwrap(),
                    place.source.as_deref().and_then(Path::to_str),
                )
            })
            .collect();
        let expected = [
            ("mgmt.sock", Some("/run/mgmt.sock")),
            ("a/b", None),
            ("c", Some("/c")),
            ("d", None),
        ];
        assert_eq!(shown, expected);
        assert_eq!(super::needed(&json!({})), []);
    }

    #[tokio::test]
    async fn a_place_is_of_the_kind_of_what_is_mounted_on_it_and_what_is_there_stays() {
        let directory = tempfile::tempdir().unwrap();
        let module = directory.path().join("module");
        std::fs::create_dir(&module).unwrap();
        std::fs::write(module.join("workload.sock"), "socket").unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let place = |path: &str, source: Option<&Path>| Place {
            path: path.into(),
            source: source.map(Path::to_owned),
        };
        let places = [
            place("in/file", Some(&file)),
            place("directory", Some(directory.path())),
            place("missing", Some(Path::new("/not/there"))),
            place("volume", None),
            place("workload.sock", None),
        ];

        make(&places, &module).await.unwrap();
        make(&places, &module).await.unwrap();

        assert!(module.join("in/file").is_file());
        for name in ["directory", "missing", "volume"] {
            assert!(module.join(name).is_dir(), "{name}");
        }
        assert_eq!(std::fs::read_to_string(module.join("workload.sock")).unwrap(), "socket");
    }
}
