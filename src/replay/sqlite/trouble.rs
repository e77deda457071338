//! What an error of SQLite means for the store.

use rusqlite::{ErrorCode, ffi};

use crate::replay::store::StoreError;

/// Why a call of SQLite failed.
#[derive(Debug)]
pub enum Trouble {
    /// The file is no sound database: it is set aside, and everything else goes on.
    Damaged(String),
    /// The disk cannot give back what is in the file. As bad as damage, unless the file is still written to.
    Unreadable(String),
    /// No space is left.
    Full,
    /// The operating system refuses to read or write.
    Io(String),
    /// What was written may not be safe, and the operating system will not say so again.
    Sync(String),
    /// Something else, which may pass.
    Other(String),
}

pub type Outcome<T> = Result<T, Trouble>;

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        let reason = error.to_string();
        let rusqlite::Error::SqliteFailure(failure, _) = error else {
            return match error {
                // A value of another kind than the schema allows.
                rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::InvalidColumnType(..)
                // A name in the schema is another one.
                | rusqlite::Error::SqlInputError { .. }
                | rusqlite::Error::Utf8Error(..) => Self::Damaged(reason),
                _ => Self::Other(reason),
            };
        };
        match failure.extended_code {
            ffi::SQLITE_IOERR_CORRUPTFS | ffi::SQLITE_IOERR_DATA | ffi::SQLITE_READONLY_DBMOVED => {
                return Self::Damaged(reason);
            }
            ffi::SQLITE_IOERR_READ | ffi::SQLITE_IOERR_SHORT_READ => return Self::Unreadable(reason),
            ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC => return Self::Sync(reason),
            _ => {}
        }
        match failure.code {
            // A serial that is there already: what is counted and what is stored do not fit.
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::ConstraintViolation => {
                Self::Damaged(reason)
            }
            ErrorCode::Unknown if reason.contains("no such") => Self::Damaged(reason),
            ErrorCode::DiskFull => Self::Full,
            ErrorCode::SystemIoFailure | ErrorCode::ReadOnly | ErrorCode::PermissionDenied => {
                Self::Io(reason)
            }
            _ => Self::Other(reason),
        }
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io(error.to_string()),
        }
    }
}

impl From<Trouble> for StoreError {
    /// Of a call that only reads.
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Full => Self::Full,
            Trouble::Sync(reason) => Self::Failed(reason),
            Trouble::Damaged(reason)
            | Trouble::Unreadable(reason)
            | Trouble::Io(reason)
            | Trouble::Other(reason) => Self::Unavailable(reason),
        }
    }
}
