//! The tables of `hub.db`, and how a database is opened: ours and of this version, new, or refused untouched.
//!
//! The format is described in `docs/formats/hub-database.md`; a change here is a change there and of [`FORMAT_VERSION`].

use std::fs::{File, Permissions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::ffi::{SQLITE_FULL, SQLITE_IOERR_SHMSIZE};
use rusqlite::{Connection, OpenFlags};

/// The version of the tables, in the database's `user_version`.
pub const FORMAT_VERSION: i32 = 1;
/// Marks the file as a hub's database (`application_id`): "HolH" in ASCII.
const APPLICATION_ID: i32 = 0x486F_6C48;

/// Why a hub's database could not be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file can't be made for this user alone.
    #[error("`{path}` can't be made for this user alone")]
    Private {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// It was written by another release.
    #[error(
        "`{path}` has format {found}; this release reads and writes format {FORMAT_VERSION}: use the release that wrote it"
    )]
    OtherVersion {
        /// The file.
        path: PathBuf,
        /// The version in it.
        found: i32,
    },
    /// It is a database, but not a hub's.
    #[error("`{path}` is not the database of a hub; give another data directory")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The disk has no room for what SQLite keeps beside an open database.
    #[error("the disk of `{path}` is full; free space on it and start again")]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// SQLite could not open it.
    #[error("can't open `{path}`")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rusqlite::Error,
    },
    /// The thread that writes could not be started.
    #[error("can't start the thread that writes to the database")]
    Thread(#[source] std::io::Error),
}

const TABLES: &str = "
CREATE TABLE identities (
    device TEXT NOT NULL,
    module TEXT NOT NULL,                       -- '' is the device itself
    generation TEXT NOT NULL,
    etag INTEGER NOT NULL,
    enabled INTEGER NOT NULL,
    status_reason TEXT,
    status_updated INTEGER NOT NULL,
    auth TEXT NOT NULL,                         -- sas, selfSigned, certificateAuthority, none
    primary_secret TEXT,                        -- key in base64, or thumbprint in hexadecimal
    secondary_secret TEXT,
    edge INTEGER NOT NULL,
    device_scope TEXT,
    parent_scopes TEXT NOT NULL,                -- JSON array of text
    managed_by TEXT,
    PRIMARY KEY (device, module)
) WITHOUT ROWID;
CREATE INDEX identities_by_scope ON identities (device_scope) WHERE device_scope IS NOT NULL;

CREATE TABLE activities (
    device TEXT NOT NULL,
    module TEXT NOT NULL,
    connected INTEGER NOT NULL,
    state_updated INTEGER NOT NULL,
    last_activity INTEGER NOT NULL,
    model_id TEXT NOT NULL,
    PRIMARY KEY (device, module)
) WITHOUT ROWID;

CREATE TABLE twins (
    device TEXT NOT NULL,
    module TEXT NOT NULL,
    version INTEGER NOT NULL,
    document TEXT NOT NULL,                     -- the model's stored form, JSON
    PRIMARY KEY (device, module)
) WITHOUT ROWID;

CREATE TABLE policies (
    name TEXT PRIMARY KEY,
    primary_key TEXT NOT NULL,
    secondary_key TEXT NOT NULL,
    rights INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE sessions (
    device TEXT NOT NULL,
    module TEXT NOT NULL,
    filters TEXT NOT NULL,                      -- JSON array of [filter, quality of service]
    PRIMARY KEY (device, module)
) WITHOUT ROWID;

CREATE TABLE c2d_messages (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    device TEXT NOT NULL,
    enqueued INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    deliveries INTEGER NOT NULL,
    ack TEXT NOT NULL,                          -- none, positive, negative, full
    message BLOB NOT NULL                       -- as in the event log
);
CREATE INDEX c2d_by_device ON c2d_messages (device, sequence);
CREATE INDEX c2d_by_expiry ON c2d_messages (expires);

CREATE TABLE c2d_outcomes (                     -- of releases before notices; no longer written
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    device TEXT NOT NULL,
    generation TEXT NOT NULL,
    message_id TEXT NOT NULL,
    outcome TEXT NOT NULL,                      -- Success, Expired, DeliveryCountExceeded, Rejected, Purged
    at INTEGER NOT NULL
);

CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    event_key TEXT NOT NULL,                    -- names the event for ever: what happened, to whom, which version
    device TEXT NOT NULL,
    at INTEGER NOT NULL,
    message BLOB NOT NULL
);
";

/// Made at every opening: databases of earlier releases have none of it, and it changes no format, since such a release reads and
/// writes a database with it. The index finds the children of an edge device.
const ADDED: &str = "
CREATE TABLE IF NOT EXISTS notices (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,                         -- feedback, fileNotification
    enqueued INTEGER NOT NULL,
    deliveries INTEGER NOT NULL,
    body BLOB NOT NULL                          -- JSON
);
CREATE TABLE IF NOT EXISTS consumer_groups (
    name TEXT PRIMARY KEY COLLATE NOCASE,
    created INTEGER NOT NULL                    -- that of $Default is when the Event Hub was made
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS identities_by_parent ON identities (parent_scopes, device)
    WHERE module = '' AND parent_scopes != '[]';
";

/// Files of devices: blobs, blocks that wait to become some, and uploads that are open. Made at every opening, as [`ADDED`] is:
/// a release without them leaves them alone.
const FILES: &str = "
CREATE TABLE IF NOT EXISTS blobs (
    name TEXT PRIMARY KEY,                      -- device, '/', the name that the device chose
    size INTEGER NOT NULL,
    modified INTEGER NOT NULL,
    etag TEXT NOT NULL,
    headers TEXT NOT NULL                       -- JSON object of text
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blob_parts (
    blob TEXT NOT NULL,
    place INTEGER NOT NULL,
    block TEXT NOT NULL,                        -- '' for a blob that came in one piece
    file TEXT NOT NULL,                         -- in the directory of the blob store
    size INTEGER NOT NULL,
    PRIMARY KEY (blob, place)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blob_blocks (
    blob TEXT NOT NULL,
    block TEXT NOT NULL,
    file TEXT NOT NULL,
    size INTEGER NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (blob, block)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS file_uploads (
    correlation TEXT PRIMARY KEY,
    device TEXT NOT NULL,
    blob TEXT NOT NULL,
    expires INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS file_uploads_by_device ON file_uploads (device);
CREATE TABLE IF NOT EXISTS blob_key (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    secret TEXT NOT NULL                        -- base64
);
";

/// Who changed what. Made at every opening, as [`ADDED`] is: a release without it changes things unrecorded.
const AUDIT: &str = "
CREATE TABLE IF NOT EXISTS audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,                        -- hub, policy:NAME, device:ID, module:DEVICE/MODULE, job:ID
    operation TEXT NOT NULL,
    target TEXT NOT NULL,
    mark TEXT                                   -- etag or version that the change made
);
CREATE INDEX IF NOT EXISTS audit_by_target ON audit (target);
";

/// What became of twins. Made at every opening, as [`ADDED`] is.
const TWIN_CHANGES: &str = "
CREATE TABLE IF NOT EXISTS twin_changes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    device TEXT NOT NULL,
    module TEXT NOT NULL,
    change INTEGER NOT NULL,                    -- the twin's version plus that of its reported properties, after it
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    operation TEXT NOT NULL,
    undo TEXT NOT NULL                          -- JSON, what leads back
);
CREATE UNIQUE INDEX IF NOT EXISTS twin_changes_by_twin ON twin_changes (device, module, change);
";

/// Import and export jobs. Made at every opening, as [`ADDED`] is.
const TRANSFERS: &str = "
CREATE TABLE IF NOT EXISTS transfers (
    id TEXT PRIMARY KEY,
    job TEXT NOT NULL,                          -- JSON, what was ordered
    status TEXT NOT NULL,                       -- enqueued, running, completed, failed, cancelled
    created INTEGER NOT NULL,
    ended INTEGER,
    done INTEGER NOT NULL,                      -- bytes of the input, or devices written
    total INTEGER NOT NULL,
    lines INTEGER NOT NULL,                     -- of the input, carried out
    failure TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS transfer_errors (    -- until the job ends
    transfer TEXT NOT NULL,
    line INTEGER NOT NULL,
    text TEXT NOT NULL,                         -- JSON
    PRIMARY KEY (transfer, line)
) WITHOUT ROWID;
";

/// Configurations, and what they have made of each twin. Made at every opening, as [`ADDED`] is: a release without them leaves them
/// alone, and they are put into force again by the next one with them.
const CONFIGURATIONS: &str = "
CREATE TABLE IF NOT EXISTS configurations (
    id TEXT PRIMARY KEY,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    etag INTEGER NOT NULL,
    document TEXT NOT NULL                      -- the model's stored form, JSON
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS twin_configurations (
    device TEXT NOT NULL,
    module TEXT NOT NULL,                       -- '$edgeAgent' for what is deployed to an edge device
    statuses TEXT NOT NULL,                     -- JSON object: configuration -> Targeted, Applied
    fingerprint TEXT NOT NULL,                  -- names what was applied
    written TEXT NOT NULL,                      -- JSON array of paths
    trusted INTEGER NOT NULL,                   -- 0: somebody else has written to the desired properties since
    PRIMARY KEY (device, module)
) WITHOUT ROWID;
";

/// The provisioning service. Made at every opening, as [`ADDED`] is.
const PROVISIONING: &str = "
CREATE TABLE IF NOT EXISTS provisioning (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    id_scope TEXT NOT NULL,
    secret TEXT NOT NULL                        -- base64; signs names of operations
);
CREATE TABLE IF NOT EXISTS provisioning_policies (
    name TEXT PRIMARY KEY,
    primary_key TEXT NOT NULL,
    secondary_key TEXT NOT NULL,
    rights INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS enrollments (
    kind TEXT NOT NULL,                         -- enrollment, enrollmentGroup
    id TEXT NOT NULL,                           -- in lower case
    document TEXT NOT NULL,                     -- JSON, as published, with its secrets
    etag INTEGER NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS registrations (
    id TEXT PRIMARY KEY,                        -- in lower case
    spelled TEXT NOT NULL,
    group_id TEXT,                              -- in lower case; NULL: an enrollment of its own
    status TEXT NOT NULL,                       -- assigned, failed, disabled
    substatus TEXT NOT NULL,
    hub TEXT,
    device TEXT,
    error_code INTEGER,
    error_message TEXT,
    payload TEXT,                               -- JSON
    proof TEXT NOT NULL,                        -- JSON
    etag INTEGER NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS provisioned (
    hub TEXT NOT NULL,                          -- in lower case; empty: that of this process
    device TEXT NOT NULL,
    generation TEXT NOT NULL,
    kind TEXT NOT NULL,                         -- of the enrollment
    enrollment TEXT NOT NULL,                   -- in lower case
    PRIMARY KEY (hub, device)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS registrations_by_group ON registrations (group_id, id) WHERE group_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS registrations_by_device ON registrations (device, id) WHERE device IS NOT NULL;
";

/// Hubs that the provisioning service knows, and what is on its way to them. Made at every opening, as [`ADDED`] is: a release without
/// them gives devices to its own hub alone.
const LINKED_HUBS: &str = "
CREATE TABLE IF NOT EXISTS linked_hubs (
    host TEXT PRIMARY KEY,                      -- in lower case
    spelled TEXT NOT NULL,
    connection_string TEXT,                     -- NULL: the hub of this process
    authority TEXT,                             -- PEM; NULL: the system's
    weight INTEGER NOT NULL,
    is_allocated INTEGER NOT NULL,
    etag INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS moves (
    id TEXT PRIMARY KEY,                        -- that of the registration
    document TEXT NOT NULL,                     -- JSON
    revision INTEGER NOT NULL,
    began INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leftovers (
    hub TEXT NOT NULL,                          -- in lower case
    device TEXT NOT NULL,
    if_unfinished INTEGER NOT NULL,             -- 1: goes only if it was never finished there
    PRIMARY KEY (hub, device)
) WITHOUT ROWID;
";

/// Certificates of authorities that enrollments name. Made at every opening, as [`ADDED`] is: a release without them refuses who is let
/// in by one.
const KEPT_CERTIFICATES: &str = "
CREATE TABLE IF NOT EXISTS kept_certificates (
    name TEXT PRIMARY KEY COLLATE NOCASE,
    certificate BLOB NOT NULL,                  -- DER
    is_verified INTEGER NOT NULL,
    code TEXT,                                  -- what is to be signed to show that its key is its owner's
    etag INTEGER NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL
) WITHOUT ROWID;
";

/// Message routing. Made at every opening, as [`ADDED`] is: a release without it sends everything to `events`.
const ROUTING: &str = "
CREATE TABLE IF NOT EXISTS routing (
    kind TEXT NOT NULL,                         -- route, endpoint, enrichment, fallback
    name TEXT NOT NULL COLLATE NOCASE,
    revision INTEGER NOT NULL,                  -- grows with each change of any of them
    made INTEGER NOT NULL,                      -- the revision with which it was made; names the lane of an endpoint
    document TEXT NOT NULL,                     -- JSON, with its secrets
    PRIMARY KEY (kind, name)
) WITHOUT ROWID;
";

/// Makes the file with mode 0600 before SQLite would make it with a wider one: it holds the keys of all devices. SQLite gives
/// the files beside it the same mode.
pub(super) fn make_private(path: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::Private {
        path: path.to_owned(),
        source,
    };
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    file.set_permissions(Permissions::from_mode(0o600)).map_err(failed)
}

/// Opens the database for writing; makes the tables if the file is new.
///
/// # Errors
/// [`OpenError`].
pub(super) fn open_for_writing(path: &Path) -> Result<Connection, OpenError> {
    let sqlite = refused(path);
    make_private(path)?;
    let connection = Connection::open(path).map_err(sqlite)?;
    // Asked before anything that writes: `journal_mode` changes the file.
    let number = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i32>(0));
    let (version, application) = (
        number("user_version").map_err(sqlite)?,
        number("application_id").map_err(sqlite)?,
    );
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))
        .map_err(sqlite)?;
    let new = version == 0 && application == 0 && tables == 0;
    if !new && application != APPLICATION_ID {
        return Err(OpenError::Foreign { path: path.to_owned() });
    }
    if !new && version != FORMAT_VERSION {
        return Err(OpenError::OtherVersion {
            path: path.to_owned(),
            found: version,
        });
    }
    // What a savepoint would be rolled back to is kept in memory: beyond 64 KiB it would go to a file, page by page.
    connection
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY;")
        .map_err(sqlite)?;
    if new {
        connection
            .execute_batch(&format!(
                "BEGIN IMMEDIATE; {TABLES} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT_VERSION}; COMMIT;"
            ))
            .map_err(sqlite)?;
    }
    connection.execute_batch(ADDED).map_err(sqlite)?;
    connection.execute_batch(FILES).map_err(sqlite)?;
    connection.execute_batch(CONFIGURATIONS).map_err(sqlite)?;
    super::queries::make_index(&connection).map_err(sqlite)?;
    super::queries::make_counts(&connection).map_err(sqlite)?;
    super::jobs::make_tables(&connection).map_err(sqlite)?;
    connection.execute_batch(AUDIT).map_err(sqlite)?;
    connection.execute_batch(super::audit::INDEX).map_err(sqlite)?;
    connection.execute_batch(TRANSFERS).map_err(sqlite)?;
    connection.execute_batch(TWIN_CHANGES).map_err(sqlite)?;
    connection.execute_batch(PROVISIONING).map_err(sqlite)?;
    connection.execute_batch(LINKED_HUBS).map_err(sqlite)?;
    connection.execute_batch(KEPT_CERTIFICATES).map_err(sqlite)?;
    connection.execute_batch(ROUTING).map_err(sqlite)?;
    connection.busy_timeout(BUSY).map_err(sqlite)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

fn refused(path: &Path) -> impl Fn(rusqlite::Error) -> OpenError + Copy + '_ {
    |source: rusqlite::Error| {
        let code = source.sqlite_error().map(|error| error.extended_code);
        match code {
            Some(SQLITE_FULL | SQLITE_IOERR_SHMSIZE) => OpenError::DiskFull { path: path.to_owned() },
            _ => OpenError::Sqlite {
                path: path.to_owned(),
                source,
            },
        }
    }
}

/// Opens the database for reading.
///
/// # Errors
/// [`OpenError::Sqlite`].
pub(super) fn open_for_reading(path: &Path) -> Result<Connection, OpenError> {
    let sqlite = refused(path);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(sqlite)?;
    connection.busy_timeout(BUSY).map_err(sqlite)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

/// In WAL mode only recovery and checkpoints make one connection wait for another.
const BUSY: Duration = Duration::from_secs(5);
/// Every statement of this crate stays prepared.
const STATEMENTS: usize = 128;
