//! The files of a store: their names, and the lock that keeps a second process out.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::replay::store::StoreError;

const LOCK: &str = "lock";
const META: &str = "meta.db";
const PROBE: &str = "probe";
/// More than file systems keep inside an inode, and than is left over in the last block of a file.
const PROBE_BYTES: usize = 64 * 1024;

/// Keeps other processes out.
#[derive(Debug)]
pub struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // A process that is just being started has the file open, too, until it runs its program.
        drop(self.0.unlock());
    }
}

/// Takes the directory for this process, making it if need be.
pub fn lock(directory: &Path) -> Result<Lock, StoreError> {
    let failure = |error: io::Error| {
        StoreError::Unavailable(format!("cannot use {} for replay: {error}", directory.display()))
    };
    fs::create_dir_all(directory).map_err(failure)?;
    let options = OpenOptions::new().create(true).truncate(false).write(true).clone();
    let file = options.open(directory.join(LOCK)).map_err(failure)?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(StoreError::Unavailable(format!(
            "{} is in use by another process; each server needs a directory of its own",
            directory.display()
        ))),
        Err(TryLockError::Error(error)) => Err(failure(error)),
    }
}

pub fn meta_path(directory: &Path) -> PathBuf {
    directory.join(META)
}

pub fn slice_path(directory: &Path, start_ms: u64) -> PathBuf {
    directory.join(format!("slice-{start_ms}.db"))
}

/// The file beside a database in which SQLite keeps what is not checkpointed.
pub fn wal_path(database: &Path) -> PathBuf {
    with_suffix(database, "-wal")
}

/// Whether something may be left to be moved into the database.
pub fn has_wal(database: &Path) -> bool {
    fs::metadata(wal_path(database)).is_ok_and(|wal| wal.len() > 0)
}

/// Start times of all slices, in ascending order.
pub fn slices(directory: &Path) -> io::Result<Vec<u64>> {
    let mut starts = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let digits = name
            .to_str()
            .and_then(|name| name.strip_prefix("slice-"))
            .and_then(|name| name.strip_suffix(".db"));
        // SQLite counts in i64.
        let start = digits
            .and_then(|digits| digits.parse::<u64>().ok())
            .filter(|start| i64::try_from(*start).is_ok());
        starts.extend(start.filter(|start| digits == Some(&*start.to_string())));
    }
    starts.sort_unstable();
    Ok(starts)
}

/// Makes new, renamed and removed files of the directory safe.
pub fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Bytes of a database and what is beside it.
pub fn size(database: &Path) -> u64 {
    let length = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
    length(database) + length(&wal_path(database))
}

/// Deletes a database that no connection of this process uses any more.
pub fn remove(database: &Path) {
    for path in with_companions(database) {
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(target: "tidewire::replay", path = %path.display(), %error, "cannot delete a file");
        }
    }
}

/// Renames a damaged database with what is beside it, so that SQLite still finds them together. Returns its new
/// name; one that is not there is no error.
pub fn set_aside(database: &Path, now_ms: u64) -> io::Result<PathBuf> {
    let mut aside = with_suffix(database, &format!(".damaged-{now_ms}"));
    for attempt in 1.. {
        if !aside.exists() {
            break;
        }
        aside = with_suffix(database, &format!(".damaged-{now_ms}.{attempt}"));
    }
    for (from, to) in with_companions(database).into_iter().zip(with_companions(&aside)) {
        match fs::rename(from, to) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}

/// Whether the disk, or the share of it that this process may use, is full: SQLite tells it from other errors only
/// in some places.
pub fn is_full(directory: &Path) -> bool {
    let path = directory.join(PROBE);
    let write = || {
        let mut file = File::create(&path)?;
        file.write_all(&[0; PROBE_BYTES])?;
        file.sync_data()
    };
    let outcome: io::Result<()> = write();
    // What is left of it is overwritten by the next.
    drop(fs::remove_file(&path));
    let full = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded];
    outcome.is_err_and(|error| full.contains(&error.kind()))
}

fn with_companions(database: &Path) -> [PathBuf; 4] {
    // A journal that is left would be taken for that of the next database of this name.
    let [shm, journal] = ["-shm", "-journal"].map(|suffix| with_suffix(database, suffix));
    [database.to_owned(), wal_path(database), shm, journal]
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
