//! Opens the database and reads all of it.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Read};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use leveret_broker::control::Definitions;
use redb::backends::InMemoryBackend;
use redb::{Builder, Database, ReadTransaction, ReadableDatabase, StorageBackend};
use serde::de::DeserializeOwned;

use super::commit::{begin, put_fact};
use super::row::{
    self, FORMAT, FORMAT_WRITTEN, NEXT_LOG_ID, NEXT_VHOST_ID, SHARDS, STORE, STORE_ID, TABLES,
};
use super::{FILE_NAME, Loaded, Metadata, damage, failure};
use crate::failure::Failure;

/// The cache of redb. Everything is read once at the start; after that a commit touches only a path
/// of pages per row.
const CACHE_SIZE_BYTES: usize = 16 << 20;

/// The largest database that is copied into memory to be read: it has millions of queues.
const PEEK_BYTES_MAX: u64 = 1 << 30;

/// The name of a database that is still being created.
const UNFINISHED_NAME: &str = "metadata.redb.new";

pub(super) fn open(data_dir: &Path, shards: u16) -> Result<(Metadata, Loaded), Failure> {
    let path = data_dir.join(FILE_NAME);
    let failed = |source: io::Error| failure(&path, &redb::Error::Io(source));
    let fresh = !path.try_exists().map_err(failed)?;
    if fresh {
        refuse_orphaned_logs(data_dir, &path)?;
        create(data_dir, shards)?;
    }
    let database = guarded(&path, || open_database(&path))?;
    let loaded = guarded(&path, || {
        let loaded = read(&path, &database)?;
        try_writing(&database, &loaded).map_err(|error| failure(&path, &error))?;
        Ok(Loaded { fresh, ..loaded })
    });
    match loaded {
        Ok(loaded) => Ok((Metadata { database, path }, loaded)),
        Err(refusal) => {
            // Closing the database would write to a damaged file.
            std::mem::forget(database);
            Err(refusal)
        }
    }
}

/// Works on a copy in memory, because redb repairs a database that was not closed properly, and
/// takes a lock.
pub(super) fn peek(data_dir: &Path) -> Result<Loaded, Failure> {
    let path = data_dir.join(FILE_NAME);
    let read_all = || -> Result<InMemoryBackend, io::Error> {
        let file = File::open(&path)?;
        let length = file.metadata()?.len();
        if length == 0 || length > PEEK_BYTES_MAX {
            let text = format!("{length} bytes, not 1 to {PEEK_BYTES_MAX}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let mut bytes = Vec::new();
        file.take(PEEK_BYTES_MAX).read_to_end(&mut bytes)?;
        let backend = InMemoryBackend::new();
        backend.set_len(bytes.len() as u64)?;
        backend.write(0, &bytes)?;
        Ok(backend)
    };
    let backend = read_all().map_err(|source| failure(&path, &redb::Error::Io(source)))?;
    guarded(&path, || {
        let failed = |error: redb::DatabaseError| failure(&path, &error.into());
        let mut database = builder().create_with_backend(backend).map_err(failed)?;
        database.check_integrity().map_err(failed)?;
        read(&path, &database)
    })
}

/// Refuses logs without metadata: such a directory is not that of an empty broker.
fn refuse_orphaned_logs(data_dir: &Path, path: &Path) -> Result<(), Failure> {
    let failed = |source: io::Error| failure(path, &redb::Error::Io(source));
    for entry in fs::read_dir(data_dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let is_shard = entry.file_name().to_string_lossy().starts_with("shard-");
        if !is_shard || !entry.file_type().map_err(failed)?.is_dir() {
            continue;
        }
        for file in fs::read_dir(entry.path()).map_err(failed)? {
            let file = file.map_err(failed)?.path();
            if file.extension().is_some_and(|extension| extension == "segment") {
                let reason = format!(
                    "it is missing, but there are messages in {}. It says whose they are, so the \
                     broker does not start without it. Nothing was deleted. Restore the file from \
                     a copy of this data directory, or move the whole directory away to start \
                     empty.",
                    file.display()
                );
                return Err(Failure::Metadata { path: path.to_owned(), reason });
            }
        }
    }
    Ok(())
}

/// Creates a database under a temporary name, so that a database with the real name is always
/// complete.
fn create(data_dir: &Path, shards: u16) -> Result<(), Failure> {
    let unfinished = data_dir.join(UNFINISHED_NAME);
    let make = || -> Result<(), redb::Error> {
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let database = builder().create(&unfinished)?;
        let transaction = begin(&database)?;
        put_fact(&transaction, FORMAT, &FORMAT_WRITTEN)?;
        put_fact(&transaction, STORE_ID, &random_id()?)?;
        put_fact(&transaction, SHARDS, &shards)?;
        put_fact(&transaction, NEXT_LOG_ID, &1_u64)?;
        for table in TABLES {
            transaction.open_table(table)?;
        }
        transaction.commit()?;
        drop(database);
        File::open(&unfinished)?.sync_all()?;
        fs::rename(&unfinished, data_dir.join(FILE_NAME))?;
        // A name becomes durable with its directory, not with its file.
        File::open(data_dir)?.sync_all()?;
        Ok(())
    };
    make().map_err(|error| failure(&unfinished, &error))
}

fn random_id() -> io::Result<[u8; 16]> {
    let mut id = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut id)?;
    Ok(id)
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_SIZE_BYTES);
    builder
}

/// Opens a database and verifies all checksums. Otherwise redb trusts its pages, and a broken
/// pointer could make it overwrite intact ones.
fn open_database(path: &Path) -> Result<Database, Failure> {
    let failed = |error: redb::DatabaseError| failure(path, &error.into());
    let is_repaired = Arc::new(AtomicBool::new(false));
    let repaired = Arc::clone(&is_repaired);
    let mut builder = builder();
    builder.set_repair_callback(move |_| repaired.store(true, Ordering::Relaxed));
    // `create` would turn an empty file into a new database.
    let mut database = builder.open(path).map_err(failed)?;
    if is_repaired.load(Ordering::Relaxed) {
        // The database was not closed properly, so redb has already verified everything.
        return Ok(database);
    }
    // False means that the list of free pages was rebuilt, which loses nothing. Wrong checksums of
    // pages are an error, because commits have two phases.
    database.check_integrity().map_err(failed)?;
    Ok(database)
}

/// Writes a value that is there already, and all internal tables of redb. Damage in those shows
/// only on a write, and here it can be reported properly. A database of an earlier format gets the
/// tables of this one.
fn try_writing(database: &Database, loaded: &Loaded) -> Result<(), redb::Error> {
    let mut transaction = begin(database)?;
    transaction.set_quick_repair(true);
    put_fact(&transaction, SHARDS, &loaded.shards_before)?;
    put_fact(&transaction, FORMAT, &loaded.format.max(FORMAT_WRITTEN))?;
    for table in TABLES {
        transaction.open_table(table)?;
    }
    Ok(transaction.commit()?)
}

fn read(path: &Path, database: &Database) -> Result<Loaded, Failure> {
    let failed = |error: redb::Error| failure(path, &error);
    let transaction = database.begin_read().map_err(|error| failed(error.into()))?;
    let (major, minor): (u16, u16) = fact(path, &transaction, FORMAT)?;
    if major != FORMAT_WRITTEN.0 {
        let reason = format!(
            "it has format {major}.{minor}, and this broker reads {}.x. Use the broker that wrote \
             it, or choose another directory with --data-dir.",
            FORMAT_WRITTEN.0
        );
        return Err(Failure::Metadata { path: path.to_owned(), reason });
    }
    let mut loaded = Loaded {
        format: (major, minor),
        definitions: Definitions {
            next_log_id: fact(path, &transaction, NEXT_LOG_ID)?,
            next_vhost_id: later_fact(path, &transaction, NEXT_VHOST_ID)?.unwrap_or(0),
            ..Definitions::default()
        },
        damages: Vec::new(),
        store_id: fact(path, &transaction, STORE_ID)?,
        shards_before: fact(path, &transaction, SHARDS)?,
        fresh: false,
    };
    loaded.read_rows(&transaction).map_err(failed)?;
    Ok(loaded)
}

/// A value in the table of the store. Without these values no row can be interpreted.
fn fact<T: DeserializeOwned>(
    path: &Path,
    transaction: &ReadTransaction,
    key: &[u8],
) -> Result<T, Failure> {
    later_fact(path, transaction, key)?.ok_or_else(|| damaged_fact(path, key, "it is missing"))
}

/// A fact that comes later than the store; `None` before.
fn later_fact<T: DeserializeOwned>(
    path: &Path,
    transaction: &ReadTransaction,
    key: &[u8],
) -> Result<Option<T>, Failure> {
    let failed = |error: redb::Error| failure(path, &error);
    let table = transaction.open_table(STORE).map_err(|error| failed(error.into()))?;
    let value = table.get(key).map_err(|error| failed(error.into()))?;
    let row = value.map(|value| row::unseal(key, value.value())).transpose();
    row.map_err(|damage| damaged_fact(path, key, damage))
}

fn damaged_fact(path: &Path, key: &[u8], reason: impl Display) -> Failure {
    let reason = damage(&format!("of `{}`, {reason}", String::from_utf8_lossy(key)));
    Failure::Metadata { path: path.to_owned(), reason }
}

/// Runs code that may panic on a damaged file, because redb expects intact files.
fn guarded<T>(path: &Path, body: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let panicked = || Failure::Metadata {
        path: path.to_owned(),
        reason: damage("redb cannot make sense of it"),
    };
    // The release build does not unwind, so the panic hook has to report the failure.
    let hook = cfg!(panic = "abort").then(|| {
        let text = panicked().to_string();
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |_| {
            eprintln!("leveret: {text}");
            std::process::exit(1);
        }));
        before
    });
    let result = panic::catch_unwind(AssertUnwindSafe(body));
    if let Some(before) = hook {
        panic::set_hook(before);
    }
    result.unwrap_or_else(|_| Err(panicked()))
}
