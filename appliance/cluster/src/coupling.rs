//! The coupling facility: what must be unique or survive (ARCHITECTURE, "Rooms"; R3, R18).
//!
//! Every answer is given only after its effect is durable. Keys of SAs never go here, only fingerprints of them (I8).

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// The longest key of a counter or record, in bytes.
pub const KEY_MAX: usize = 256;
/// The longest record, in bytes.
pub const RECORD_MAX: usize = 1 << 20;

/// Why the coupling facility could not answer. Whether a failed change took effect is unknown unless said otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CouplingError {
    /// Not reachable, or not writable: try again later.
    #[error("the coupling facility is not available: {0}")]
    Unavailable(String),
    /// What it holds cannot be understood.
    #[error("the coupling facility holds something else than expected: {0}")]
    Corrupt(String),
    /// The request itself is wrong; nothing was changed.
    #[error("bad request to the coupling facility: {0}")]
    BadRequest(&'static str),
}

/// Names of what is kept there.
pub mod keys {
    use std::fmt::Write;

    fn named(kind: &str, fingerprint: &[u8; 16]) -> String {
        let mut key = String::with_capacity(kind.len() + 32);
        key.push_str(kind);
        for byte in fingerprint {
            // Writing to a String cannot fail.
            let _ = write!(key, "{byte:02x}");
        }
        key
    }

    /// The outbound sequence counter of the key with that fingerprint: unique per key, so that no two SAs
    /// can share a key and not share the counter (I1).
    #[must_use]
    pub fn outbound_counter(fingerprint: &[u8; 16]) -> String {
        named("seq/", fingerprint)
    }

    /// The ceiling of what a router may have accepted itself (ARCHITECTURE, "Inbound replay").
    #[must_use]
    pub fn ceiling(fingerprint: &[u8; 16]) -> String {
        named("ceiling/", fingerprint)
    }

    /// What targets may have accepted, far ahead (ARCHITECTURE, "Inbound replay").
    #[must_use]
    pub fn reached(fingerprint: &[u8; 16]) -> String {
        named("reached/", fingerprint)
    }

    /// The lifesize ledger's record of an SA (R21).
    #[must_use]
    pub fn lifesize(fingerprint: &[u8; 16]) -> String {
        named("lifesize/", fingerprint)
    }
}

/// The shared, atomic, durable store. One trait for every engine; `contract::engine_contract` is its test.
pub trait CouplingFacility: Send + Sync {
    /// A random number chosen when the store was created. Another one means another store: numbers may repeat (I1).
    fn incarnation(&self) -> impl Future<Output = Result<u64, CouplingError>> + Send;

    /// Adds `n` to the counter `key` (0 if absent), but never beyond `limit`. The answer is what was added: `n` numbers,
    /// fewer at the limit, an empty range when it is exhausted. No number is ever in two answers.
    fn fetch_add(
        &self,
        key: &str,
        n: u64,
        limit: u64,
    ) -> impl Future<Output = Result<Range<u64>, CouplingError>> + Send;

    /// Raises the counter `key` to `to` if it is lower; answers its value.
    fn raise(&self, key: &str, to: u64) -> impl Future<Output = Result<u64, CouplingError>> + Send;

    /// The counter's value, 0 if absent.
    fn read(&self, key: &str) -> impl Future<Output = Result<u64, CouplingError>> + Send;

    /// Writes a record.
    fn put(&self, key: &str, value: &[u8]) -> impl Future<Output = Result<(), CouplingError>> + Send;

    /// Reads a record.
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Vec<u8>>, CouplingError>> + Send;

    /// Deletes a record and the counter of that name; whether there was one.
    fn delete(&self, key: &str) -> impl Future<Output = Result<bool, CouplingError>> + Send;

    /// All records whose key starts with `prefix`, in order of their keys.
    fn list(&self, prefix: &str) -> impl Future<Output = Result<Vec<(String, Vec<u8>)>, CouplingError>> + Send;

    /// Replaces the record `expected` (`None`: absent) by `new` (`None`: delete). False: it was something else.
    fn cas(
        &self,
        key: &str,
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> impl Future<Output = Result<bool, CouplingError>> + Send;
}

/// Checks a key before an engine sees it.
///
/// # Errors
/// [`CouplingError::BadRequest`] for an empty or too long key.
pub fn check_key(key: &str) -> Result<(), CouplingError> {
    match key.len() {
        0 => Err(CouplingError::BadRequest("an empty key")),
        1..=KEY_MAX => Ok(()),
        _ => Err(CouplingError::BadRequest("a key longer than 256 bytes")),
    }
}

/// Checks a record before an engine sees it.
///
/// # Errors
/// [`CouplingError::BadRequest`] for a record longer than [`RECORD_MAX`].
pub fn check_record(value: &[u8]) -> Result<(), CouplingError> {
    if value.len() > RECORD_MAX { Err(CouplingError::BadRequest("a record longer than 1 MiB")) } else { Ok(()) }
}

/// What `fetch_add` hands out of a counter that stands at `value`: the rule, for every engine.
#[must_use]
pub fn advance(value: u64, n: u64, limit: u64) -> Range<u64> {
    let end = value.saturating_add(n).min(limit).max(value);
    value..end
}

/// An engine without a disk, for tests and simulations.
#[derive(Debug, Default)]
pub struct InMemory {
    incarnation: u64,
    state: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    counters: BTreeMap<String, u64>,
    records: BTreeMap<String, Vec<u8>>,
}

impl InMemory {
    /// An empty store.
    #[must_use]
    pub fn new(incarnation: u64) -> Self {
        Self { incarnation, state: Mutex::default() }
    }

    fn with<T>(&self, key: &str, change: impl FnOnce(&mut Tables) -> T) -> Result<T, CouplingError> {
        check_key(key)?;
        Ok(change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl CouplingFacility for InMemory {
    async fn incarnation(&self) -> Result<u64, CouplingError> {
        Ok(self.incarnation)
    }

    async fn fetch_add(&self, key: &str, n: u64, limit: u64) -> Result<Range<u64>, CouplingError> {
        self.with(key, |tables| {
            let counter = tables.counters.entry(key.to_owned()).or_default();
            let taken = advance(*counter, n, limit);
            *counter = taken.end;
            taken
        })
    }

    async fn raise(&self, key: &str, to: u64) -> Result<u64, CouplingError> {
        self.with(key, |tables| {
            let counter = tables.counters.entry(key.to_owned()).or_default();
            *counter = (*counter).max(to);
            *counter
        })
    }

    async fn read(&self, key: &str) -> Result<u64, CouplingError> {
        self.with(key, |tables| tables.counters.get(key).copied().unwrap_or(0))
    }

    async fn put(&self, key: &str, value: &[u8]) -> Result<(), CouplingError> {
        check_record(value)?;
        self.with(key, |tables| drop(tables.records.insert(key.to_owned(), value.to_vec())))
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, CouplingError> {
        self.with(key, |tables| tables.records.get(key).cloned())
    }

    async fn delete(&self, key: &str) -> Result<bool, CouplingError> {
        self.with(key, |tables| {
            let counter = tables.counters.remove(key).is_some();
            tables.records.remove(key).is_some() || counter
        })
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, CouplingError> {
        let tables = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let found = tables.records.iter().filter(|(key, _)| key.starts_with(prefix));
        Ok(found.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    async fn cas(&self, key: &str, expected: Option<&[u8]>, new: Option<&[u8]>) -> Result<bool, CouplingError> {
        new.map_or(Ok(()), check_record)?;
        self.with(key, |tables| {
            if tables.records.get(key).map(Vec::as_slice) != expected {
                return false;
            }
            match new {
                Some(value) => drop(tables.records.insert(key.to_owned(), value.to_vec())),
                None => drop(tables.records.remove(key)),
            }
            true
        })
    }
}
