//! One module of a manifest.
//!
//! Source: `edge-agent.md` §1.2.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::create_options;
use super::fields::{Fields, text_of, whole_number};

/// The startup order of a module that names none: after all others.
pub const LAST_STARTUP_ORDER: u32 = u32::MAX;

/// How a module is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModuleType {
    /// A container of a Docker-compatible engine.
    Docker,
    /// A process under a supervisor of ours.
    Process,
    /// A WebAssembly component.
    Wasm,
}

/// Whether a module shall run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModuleStatus {
    /// It shall run.
    Running,
    /// It shall exist and not run.
    Stopped,
}

/// When a module that ended is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Not at all.
    Never,
    /// When it failed.
    OnFailure,
    /// When it failed; the original never looks at health either.
    OnUnhealthy,
    /// However it ended.
    Always,
}

/// When the registry is asked for an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImagePullPolicy {
    /// At each creation of the module.
    OnCreate,
    /// Never: the image must be there.
    Never,
}

/// A module as it shall be. Two equal specifications are the same module: a change of any member makes it anew or restarts
/// it.
#[derive(Clone, Debug, PartialEq)]
pub struct ModuleSpec {
    /// How it is run.
    pub kind: ModuleType,
    /// Whether it shall run.
    pub status: ModuleStatus,
    /// When it is started again.
    pub restart_policy: RestartPolicy,
    /// When its image is pulled.
    pub image_pull_policy: ImagePullPolicy,
    /// Lower orders are started first; nothing waits for readiness.
    pub startup_order: u32,
    /// Any text; a change of it makes the module anew.
    pub version: String,
    /// Environment variables of the manifest, besides those in the create options.
    pub env: BTreeMap<String, String>,
    /// What to run: an image reference with a tag or digest, or for a process the name of an executable.
    pub image: String,
    /// Passed on, used by nobody.
    pub digest: Option<String>,
    /// The body of Docker's create-container call, as given.
    pub create_options: Map<String, Value>,
}

const TYPES: &[(&str, ModuleType)] = &[
    ("docker", ModuleType::Docker),
    ("process", ModuleType::Process),
    ("wasm", ModuleType::Wasm),
];
const STATUSES: &[(&str, ModuleStatus)] = &[("running", ModuleStatus::Running), ("stopped", ModuleStatus::Stopped)];
const RESTART_POLICIES: &[(&str, RestartPolicy)] = &[
    ("never", RestartPolicy::Never),
    ("on-failure", RestartPolicy::OnFailure),
    ("on-unhealthy", RestartPolicy::OnUnhealthy),
    ("always", RestartPolicy::Always),
];
const PULL_POLICIES: &[(&str, ImagePullPolicy)] = &[
    ("on-create", ImagePullPolicy::OnCreate),
    ("never", ImagePullPolicy::Never),
];

/// Which members a module must give.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A user's module: its status is required.
    User,
    /// `$edgeHub`: runs always unless the manifest says otherwise.
    EdgeHub,
    /// `$edgeAgent`: has neither status nor restart policy, and comes first.
    EdgeAgent,
}

impl ModuleSpec {
    pub(super) fn read(fields: Fields<'_>, role: Role) -> Result<Self, String> {
        let kind = fields
            .word("type", TYPES)?
            .ok_or_else(|| format!("`{}` is missing", fields.path("type")))?;
        let status = match (role, fields.word("status", STATUSES)?) {
            (Role::EdgeAgent, _) => ModuleStatus::Running,
            (_, Some(status)) => status,
            (Role::EdgeHub, None) => ModuleStatus::Running,
            (Role::User, None) => {
                return Err(format!(
                    "`{}` is missing; give running or stopped",
                    fields.path("status")
                ));
            }
        };
        let default_policy = if role == Role::User {
            RestartPolicy::OnUnhealthy
        } else {
            RestartPolicy::Always
        };
        let settings_path = fields.path("");
        let settings = Fields::new(&settings_path, "settings", fields.required_object("settings")?);
        Ok(Self {
            kind,
            status,
            restart_policy: fields
                .word("restartPolicy", RESTART_POLICIES)?
                .unwrap_or(default_policy),
            image_pull_policy: fields
                .word("imagePullPolicy", PULL_POLICIES)?
                .unwrap_or(ImagePullPolicy::OnCreate),
            startup_order: if role == Role::EdgeAgent {
                0
            } else {
                startup_order(fields)?
            },
            version: fields.text("version")?.unwrap_or_default().into_owned(),
            env: env(fields)?,
            image: image(settings, kind)?,
            digest: settings.text("digest")?.map(Cow::into_owned),
            create_options: create_options::read(settings)?,
        })
    }
}

fn startup_order(fields: Fields<'_>) -> Result<u32, String> {
    match fields.get("startupOrder") {
        None => Ok(LAST_STARTUP_ORDER),
        Some(order) => whole_number(order)
            .and_then(|order| u32::try_from(order).ok())
            .ok_or_else(|| {
                format!(
                    "`{}` is {order}; give a whole number from 0 to {}",
                    fields.path("startupOrder"),
                    u32::MAX
                )
            }),
    }
}

fn env(fields: Fields<'_>) -> Result<BTreeMap<String, String>, String> {
    let mut env = BTreeMap::new();
    for (name, entry) in fields.object("env")?.into_iter().flatten() {
        let path = fields.path(&format!("env.{name}"));
        // A variable without a value is an empty one, as in the original. A plain value is one of ours: comments are
        // published in that form.
        let value = match entry {
            Value::Null => continue,
            Value::Object(entry) => match Fields::new("", &path, entry).get("value") {
                None => Cow::default(),
                Some(value) => {
                    text_of(value).ok_or_else(|| format!("`{path}.value` must be a string, a number or a boolean"))?
                }
            },
            plain => text_of(plain).ok_or_else(|| format!("`{path}` must be an object with a `value`"))?,
        };
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(format!(
                "`{path}` is not a name for an environment variable; leave out `=` and NUL"
            ));
        }
        if value.contains('\0') {
            return Err(format!("`{path}.value` holds a NUL, which no environment variable can"));
        }
        env.insert(name.clone(), value.into_owned());
    }
    Ok(env)
}

/// The image, trimmed; a container image without tag or digest gets `:latest`.
fn image(settings: Fields<'_>, kind: ModuleType) -> Result<String, String> {
    let given = settings.required_text("image")?;
    let image = given.trim();
    if image.is_empty() {
        return Err(format!("`{}` is empty; name what to run", settings.path("image")));
    }
    if kind != ModuleType::Docker {
        return Ok(image.to_owned());
    }
    if image.contains("${") {
        return Err(format!(
            "`{}` is `{image}`, which holds a placeholder; fill it in, as the tool does that the template was made for",
            settings.path("image")
        ));
    }
    if image.starts_with('$') {
        let port = image.strip_prefix("$upstream:").unwrap_or_default();
        if !port.starts_with(|first: char| ('1'..='9').contains(&first)) {
            return Err(format!(
                "Image {image} is not in the right format.If your intention is to use an environment variable, check the \
                 port is specified."
            ));
        }
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    let has_tag = last.contains([':', '@']);
    Ok(if has_tag {
        image.to_owned()
    } else {
        format!("{image}:latest")
    })
}
