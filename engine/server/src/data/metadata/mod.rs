//! `metadata.redb`: what was declared. The format is in `docs/STORE_FORMAT.md`.
//!
//! ```text
//!  boot ──► open ──► Loaded ──► Control::recover
//!
//!  control thread ── poll_durable ──► thread "metadata" ── commit, flushed ──┐
//!        ▲                                                                   │
//!        └───────────────── made_durable, woken ─────────────────────────────┘
//! ```
//!
//! Commits are always flushed, whatever the option `durability` says: one flush carries all
//! declarations that waited for it, and messages mean nothing without their queue.

mod commit;
mod open;
mod read;
mod row;
mod thread;

#[cfg(test)]
mod tests;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use leveret_broker::control::Definitions;
use redb::Database;

use crate::failure::Failure;

pub(crate) use self::thread::MetadataThread;

/// The file's name in the data directory.
pub(crate) const FILE_NAME: &str = "metadata.redb";

/// The open database. Its file is locked as long as this value lives.
pub(crate) struct Metadata {
    database: Database,
    path: PathBuf,
}

/// The content of the database when it was opened.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Major and minor number of the format that it was written in.
    format: (u16, u16),
    /// Input of [`leveret_broker::control::Control::recover`]. Queues with damaged rows are in
    /// quarantine.
    pub(crate) definitions: Definitions,
    /// One sentence per damaged row.
    pub(crate) damages: Vec<String>,
    /// Distinguishes the logs of this data directory from those of others.
    pub(crate) store_id: [u8; 16],
    /// The number of shards of the last run.
    pub(crate) shards_before: u16,
    /// The database has just been created.
    pub(crate) fresh: bool,
}

impl Metadata {
    /// Opens the database of a data directory with `shards` shards, or creates it in an empty
    /// directory. Damaged rows are reported. A damaged database is refused, and nothing is deleted.
    pub(crate) fn open(data_dir: &Path, shards: u16) -> Result<(Self, Loaded), Failure> {
        open::open(data_dir, shards)
    }

    /// Reads the database of a data directory without changing anything, even while a broker uses
    /// it or after one was killed.
    pub(crate) fn peek(data_dir: &Path) -> Result<Loaded, Failure> {
        open::peek(data_dir)
    }

    fn failure(&self, error: impl Into<redb::Error>) -> Failure {
        failure(&self.path, &error.into())
    }
}

/// An error that says what is wrong and what to do.
fn failure(path: &Path, error: &redb::Error) -> Failure {
    let reason = match error {
        redb::Error::DatabaseAlreadyOpen => {
            "another process has it open. Stop that broker, or choose another directory with \
             --data-dir."
                .to_owned()
        }
        // How redb reports a file that is not a database or is too short.
        redb::Error::Io(error) if is_content(error.kind()) => damage(&error.to_string()),
        redb::Error::Io(error) => {
            format!("{error}. Check the disk, the free space and the owner of the file.")
        }
        error => damage(&error.to_string()),
    };
    Failure::Metadata { path: path.to_owned(), reason }
}

fn is_content(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::InvalidData | ErrorKind::UnexpectedEof)
}

fn damage(what: &str) -> String {
    format!(
        "it is damaged: {what}. It says whose messages the logs hold, so the broker does not start \
         without it. Nothing was deleted. Restore the file from a copy of this data directory, or \
         move the whole directory away to start empty."
    )
}
