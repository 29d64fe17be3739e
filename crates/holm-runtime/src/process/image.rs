//! What `settings.image` means for a process: a program on this device.
//!
//! ```text
//!   holm/NAME      a ready-made module of this very program, if it has one of this name:  HOLM run NAME
//!   NAME           in each module path in turn:  PATH/NAME, an executable file
//!                                                PATH/NAME/NAME, or the only executable file in PATH/NAME/
//! ```
//!
//! NAME may have parts (`vendor/pump`). The tag `latest`, which a manifest's reader adds, is taken off; any other tag is part
//! of the name. An image never leads out of the module paths: what a hub sends can start only what somebody put there. (An
//! entry point may, as in a container it may run anything that is in the image; whoever deploys is trusted that far.)

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use holm_model::hex;
use sha2::{Digest, Sha256};

/// What an image is on this device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    /// The program, absolute.
    pub(crate) program: PathBuf,
    /// Arguments that belong to the image, before those of the create options.
    pub(crate) arguments: Vec<String>,
    /// The directory that the image is, if it is one.
    pub(crate) directory: Option<PathBuf>,
    /// Whether it is a ready-made module.
    pub(crate) built_in: bool,
}

impl Image {
    /// What the content is: the hash of the program, or for a ready-made module the release that it belongs to.
    pub(crate) fn hash(&self) -> io::Result<String> {
        if self.built_in {
            return Ok(format!("holm:{}", env!("CARGO_PKG_VERSION")));
        }
        let mut file = fs::File::open(&self.program)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let length = file.read(&mut buffer)?;
            if length == 0 {
                return Ok(format!("sha256:{}", hex::encode(&hasher.finalize())));
            }
            hasher.update(buffer.get(..length).unwrap_or_default());
        }
    }
}

/// Where images come from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places<'a> {
    /// Directories, looked through in this order.
    pub(crate) module_paths: &'a [PathBuf],
    /// The `holm` program.
    pub(crate) holm: &'a Path,
    /// The modules that it has ready.
    pub(crate) ready_made: &'a [String],
}

/// Finds an image.
///
/// # Errors
/// Where it was looked for and what was wrong there.
pub(crate) fn find(image: &str, places: Places<'_>) -> Result<Image, String> {
    let name = image.strip_suffix(":latest").unwrap_or(image);
    if let Some(built_in) = name.strip_prefix("holm/") {
        let (module, _tag) = built_in.split_once(':').unwrap_or((built_in, ""));
        return find_ready_made(module, places);
    }
    let parts = name.split('/');
    if name.is_empty() || parts.clone().any(|part| matches!(part, "" | "." | "..")) {
        return Err(
            "the image of a process is the name of a program in the module paths, without a leading `/` and without `..`"
                .to_owned(),
        );
    }
    let mut tried = Vec::new();
    for path in places.module_paths {
        match find_at(&path.join(name)) {
            Ok(image) => return Ok(image),
            Err(reason) => tried.push(reason),
        }
    }
    if tried.is_empty() {
        return Err("there are no module paths to look in; set `module_paths` in the configuration".to_owned());
    }
    Err(tried.join("; "))
}

fn find_ready_made(module: &str, places: Places<'_>) -> Result<Image, String> {
    if !places.ready_made.iter().any(|name| name == module) {
        let names: Vec<_> = places.ready_made.iter().map(|name| format!("`holm/{name}`")).collect();
        return Err(match names.is_empty() {
            true => "this release has no ready-made modules".to_owned(),
            false => format!(
                "this release has no ready-made module of that name; it has {}",
                names.join(", ")
            ),
        });
    }
    Ok(Image {
        program: places.holm.to_owned(),
        arguments: vec!["run".to_owned(), module.to_owned()],
        directory: None,
        built_in: true,
    })
}

fn find_at(path: &Path) -> Result<Image, String> {
    let shown = path.display();
    // Links are followed: a package may keep its programs elsewhere.
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => return Err(format!("`{shown}`: {error}")),
    };
    if metadata.is_file() {
        if !is_executable(path) {
            return Err(format!("`{shown}` is not executable; make it so with `chmod +x`"));
        }
        return Ok(image(path.to_owned(), None));
    }
    let same_name = path.join(path.file_name().unwrap_or_default());
    if is_executable(&same_name) {
        return Ok(image(same_name, Some(path.to_owned())));
    }
    let mut programs = executables(path).map_err(|error| format!("`{shown}`: {error}"))?;
    match (programs.pop(), programs.len()) {
        (Some(only), 0) => Ok(image(path.join(only), Some(path.to_owned()))),
        (None, _) => Err(format!("`{shown}` holds no executable file")),
        (Some(_), others) => Err(format!(
            "`{shown}` holds {} executable files; name one of them as the directory, or as `Entrypoint` in the create options",
            others + 1
        )),
    }
}

const fn image(program: PathBuf, directory: Option<PathBuf>) -> Image {
    Image {
        program,
        arguments: Vec::new(),
        directory,
        built_in: false,
    }
}

fn executables(directory: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if is_executable(&entry.path()) {
            names.push(entry.file_name());
        }
    }
    Ok(names)
}

/// Whether this is a file that somebody may execute.
pub(crate) fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// The program that an entry point names: a path as it is, else a file of the image's directory, else a program in `PATH` of
/// the module's environment.
///
/// # Errors
/// Where it was looked for.
pub(crate) fn find_entrypoint(name: &str, image: &Image, search_path: &str) -> Result<PathBuf, String> {
    if name.starts_with('/') {
        return Ok(PathBuf::from(name));
    }
    let beside = image.directory.as_ref().map(|directory| directory.join(name));
    if let Some(path) = beside.filter(|path| is_executable(path)) {
        return Ok(path);
    }
    let mut in_path = search_path.split(':').filter(|directory| directory.starts_with('/'));
    let found = in_path.find_map(|directory| Some(Path::new(directory).join(name)).filter(|path| is_executable(path)));
    found.filter(|_| !name.contains('/')).ok_or_else(|| {
        format!(
            "the entry point `{name}` is neither a program of the image nor in the PATH `{search_path}` of the module"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn find_in(root: &Path, image: &str) -> Result<Image, String> {
        let paths = [root.join("first"), root.join("second")];
        find(image, places(&paths))
    }

    fn places(module_paths: &[PathBuf]) -> Places<'_> {
        static READY_MADE: std::sync::LazyLock<[String; 2]> =
            std::sync::LazyLock::new(|| ["sensor", "watcher"].map(str::to_owned));
        Places {
            module_paths,
            holm: Path::new("/opt/holm"),
            ready_made: &*READY_MADE,
        }
    }

    #[test]
    fn an_image_is_a_file_or_a_directory_in_the_first_path_that_has_it() {
        let root = tempfile::tempdir().unwrap();
        program(&root.path().join("second/pump"));
        program(&root.path().join("first/vendor/fan/fan"));
        program(&root.path().join("first/vendor/fan/helper"));
        program(&root.path().join("first/single/main.py"));

        let pump = find_in(root.path(), "pump:latest").unwrap();
        let fan = find_in(root.path(), "vendor/fan").unwrap();
        let single = find_in(root.path(), "single").unwrap();

        assert_eq!(pump.program, root.path().join("second/pump"));
        assert_eq!(pump.directory, None);
        assert_eq!(fan.program, root.path().join("first/vendor/fan/fan"));
        assert_eq!(fan.directory, Some(root.path().join("first/vendor/fan")));
        assert_eq!(single.program, root.path().join("first/single/main.py"));
    }

    #[test]
    fn ready_made_modules_are_this_program() {
        let image = find("holm/sensor:latest", places(&[])).unwrap();

        assert_eq!(image.program, Path::new("/opt/holm"));
        assert_eq!(image.arguments, ["run", "sensor"]);
    }

    #[test]
    fn a_ready_made_module_that_the_program_has_not_is_no_image() {
        for image in ["holm/nosuch", "holm/nosuch:1.0", "holm/", "holm/sensor/x"] {
            let reason = find(image, places(&[])).unwrap_err();

            assert!(reason.ends_with("it has `holm/sensor`, `holm/watcher`"), "{reason}");
        }
    }

    #[test]
    fn an_image_never_leads_out_of_the_module_paths() {
        let root = tempfile::tempdir().unwrap();
        for image in ["/bin/sh", "../pump", "a/../../pump", "", "a//b", "./pump"] {
            let reason = find_in(root.path(), image).unwrap_err();
            assert!(reason.contains("module paths"), "{image}: {reason}");
        }
    }

    #[test]
    fn what_cannot_be_found_names_every_place() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("first/empty")).unwrap();
        fs::create_dir_all(root.path().join("second")).unwrap();
        fs::write(root.path().join("second/empty"), "text").unwrap();

        let reason = find_in(root.path(), "empty").unwrap_err();

        assert!(reason.contains("first/empty` holds no executable file"), "{reason}");
        assert!(reason.contains("second/empty` is not executable"), "{reason}");
        assert!(find("x", places(&[])).unwrap_err().contains("module_paths"));
    }

    #[test]
    fn entry_points_are_found_beside_the_image_then_in_path() {
        let root = tempfile::tempdir().unwrap();
        program(&root.path().join("first/fan/fan"));
        program(&root.path().join("first/fan/tool"));
        program(&root.path().join("bin/tool"));
        program(&root.path().join("bin/other"));
        let image = find_in(root.path(), "fan").unwrap();
        let path = root.path().join("bin").display().to_string();

        assert_eq!(
            find_entrypoint("tool", &image, &path).unwrap(),
            root.path().join("first/fan/tool")
        );
        assert_eq!(
            find_entrypoint("other", &image, &path).unwrap(),
            root.path().join("bin/other")
        );
        assert_eq!(find_entrypoint("/abs", &image, &path).unwrap(), Path::new("/abs"));
        assert!(find_entrypoint("missing", &image, &path).is_err());
    }
}
