//! The embedded engine's file: made once, explicitly, under its final name only when it is complete.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use redb::{Builder, Database, DatabaseError, ReadableTable, StorageError, TableDefinition};

use crate::FabricError;

pub(crate) const COUNTERS: TableDefinition<&'static str, u64> = TableDefinition::new("counters");
pub(crate) const RECORDS: TableDefinition<&'static str, &'static [u8]> = TableDefinition::new("records");
const META: TableDefinition<&'static str, u64> = TableDefinition::new("phalanx");

/// The version of what stands in the tables.
const FORMAT: u64 = 1;
/// Counters and small records: the library's own default is a gigabyte.
const CACHE_BYTES: usize = 16 << 20;

/// Which store this is, and how often it was opened.
pub(crate) struct Identity {
    pub incarnation: u64,
    pub generation: u64,
}

/// 1. all of it under another name; 2. durable; 3. its own name, unless that is taken; 4. the name durable.
pub(crate) fn create(path: &Path) -> Result<(), FabricError> {
    let exists = || path.symlink_metadata().is_ok();
    if exists() {
        return Err(FabricError::StoreExists(path.to_owned()));
    }
    let draft = draft_name(path);
    let made = fill(&draft, path).and_then(|()| match fs::hard_link(&draft, path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(FabricError::StoreExists(path.to_owned())),
        linked => linked.map_err(FabricError::file(path)),
    });
    // Whatever happened, the draft is of no use any more; what is left of it would harm nobody.
    let _ = fs::remove_file(&draft);
    made?;
    let directory = parent(path);
    File::open(directory).and_then(|d| d.sync_all()).map_err(FabricError::file(directory))
}

fn draft_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    name.into()
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn fill(draft: &Path, path: &Path) -> Result<(), FabricError> {
    let unusable = |why: String| FabricError::StoreUnusable { path: path.to_owned(), why };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(draft)
        .map_err(FabricError::file(path))?;
    let incarnation = getrandom::u64().map_err(|e| unusable(e.to_string()))?;
    let db = builder().create_file(file).map_err(|e| unusable(e.to_string()))?;
    let write = || -> Result<(), redb::Error> {
        let transaction = db.begin_write()?;
        {
            let mut meta = transaction.open_table(META)?;
            meta.insert("format", FORMAT)?;
            meta.insert("incarnation", incarnation)?;
            meta.insert("generation", 0)?;
            transaction.open_table(COUNTERS)?;
            transaction.open_table(RECORDS)?;
        }
        Ok(transaction.commit()?)
    };
    write().map_err(|e| unusable(e.to_string()))
}

/// Opens the store and counts that, durably: two opens of one store are never taken for each other.
pub(crate) fn open(path: &Path) -> Result<(Database, Identity), FabricError> {
    let unusable = |why: String| FabricError::StoreUnusable { path: path.to_owned(), why };
    let db = builder().open(path).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => FabricError::StoreLocked(path.to_owned()),
        DatabaseError::Storage(StorageError::Io(e)) if e.kind() == io::ErrorKind::NotFound => {
            FabricError::StoreMissing(path.to_owned())
        }
        DatabaseError::Storage(StorageError::Io(e)) if e.kind() != io::ErrorKind::InvalidData => {
            FabricError::File { path: path.to_owned(), source: e }
        }
        other => unusable(other.to_string()),
    })?;
    let identity = identify(&db).map_err(|e| unusable(e.to_string()))?;
    let identity = identity.ok_or_else(|| unusable("it is not of this program or version".to_owned()))?;
    Ok((db, identity))
}

fn identify(db: &Database) -> Result<Option<Identity>, redb::Error> {
    let transaction = db.begin_write()?;
    let identity = {
        let mut meta = transaction.open_table(META)?;
        let value = |name| meta.get(name).map(|v| v.map(|v| v.value()));
        let (format, incarnation, generation) = (value("format")?, value("incarnation")?, value("generation")?);
        let (Some(FORMAT), Some(incarnation), Some(before)) = (format, incarnation, generation) else {
            drop(meta);
            transaction.abort()?;
            return Ok(None);
        };
        let generation = before.saturating_add(1);
        meta.insert("generation", generation)?;
        Identity { incarnation, generation }
    };
    transaction.commit()?;
    Ok(Some(identity))
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}
