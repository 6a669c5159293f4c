//! The coupling facility in one file on this node.
//!
//! One thread owns the store. It takes all requests that wait, applies them in one transaction, makes that durable, and
//! only then answers them: many requests share one write to the disk, and none is answered before it.
//!
//! A store is made once, explicitly, and never replaced (I1: numbers that were given out must never be given out again).

use std::io;
use std::ops::Range;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use phalanx_cluster::coupling::{advance, check_key, check_record};
use phalanx_cluster::{CouplingError, CouplingFacility};
use redb::{Database, Durability, ReadableTable, Table, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use crate::FabricError;
use crate::store;

/// Requests that wait for the thread; more wait in their callers.
const QUEUE: usize = 4096;
/// Requests of one transaction.
const GROUP: usize = 1024;
/// Fewer than this, so soon after the last transaction, wait so long for company: one that asks alone hardly notices, and where a thousand
/// SAs come each second, so many writes to the disk are spared.
const COMPANY: usize = 8;
const LINGER: Duration = Duration::from_millis(2);

/// The embedded engine. Dropping it finishes what was asked for and closes the store.
#[derive(Debug)]
pub struct Embedded {
    incarnation: u64,
    generation: u64,
    /// None only while it is dropped.
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
}

/// What is to be done inside a transaction, and then what is to be done when that is durable, or is not.
/// Without tables it only tells why there are none.
type Job = Box<dyn FnOnce(Result<&mut Tables<'_>, CouplingError>) -> Reply + Send>;
type Reply = Box<dyn FnOnce(Result<(), CouplingError>) + Send>;

struct Tables<'a> {
    counters: Table<'a, &'static str, u64>,
    records: Table<'a, &'static str, &'static [u8]>,
    /// Something was written: without it there is nothing to make durable.
    changed: bool,
}

impl Embedded {
    /// Makes an empty store with a random incarnation, mode 0600, durable when this returns; then opens it.
    ///
    /// # Errors
    /// [`FabricError::StoreExists`], and those of [`Embedded::open`].
    pub fn create(path: impl AsRef<Path>) -> Result<Self, FabricError> {
        store::create(path.as_ref())?;
        Self::open(path)
    }

    /// Opens a store.
    ///
    /// # Errors
    /// [`FabricError::StoreMissing`], [`FabricError::StoreLocked`], [`FabricError::StoreUnusable`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, FabricError> {
        let path = path.as_ref();
        let (db, store::Identity { incarnation, generation }) = store::open(path)?;
        let same = path.to_owned();
        let again = move || match store::open(&same) {
            Ok((db, identity)) if identity.incarnation == incarnation => Ok(db),
            Ok(_) => Err(CouplingError::Corrupt("another store is in its place".to_owned())),
            Err(error) => Err(failed(error)),
        };
        let (jobs, writer) = start(db, again).map_err(FabricError::file(path))?;
        Ok(Self { incarnation, generation, jobs: Some(jobs), writer: Some(writer) })
    }

    /// How often the store was opened, this time included.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Has `work` done in a transaction; its result once that is durable. Dropping the future does not undo the work.
    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tables<'_>) -> Result<T, CouplingError> + Send + 'static,
    ) -> Result<T, CouplingError> {
        let stopped = || CouplingError::Unavailable("its thread has stopped".to_owned());
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |tables| {
            let result = tables.and_then(work);
            // Whoever does not wait any more need not be told.
            Box::new(move |durable| drop(answer.send(durable.and(result))))
        });
        let jobs = self.jobs.as_ref().ok_or_else(stopped)?;
        jobs.send(job).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(writer) = self.writer.take() {
            // After this the file's lock is free. A panic there was its own report.
            let _ = writer.join();
        }
    }
}

impl CouplingFacility for Embedded {
    async fn incarnation(&self) -> Result<u64, CouplingError> {
        Ok(self.incarnation)
    }

    async fn fetch_add(&self, key: &str, n: u64, limit: u64) -> Result<Range<u64>, CouplingError> {
        check_key(key)?;
        let key = key.to_owned();
        self.ask(move |tables| {
            let taken = advance(tables.counter(&key)?, n, limit);
            if !taken.is_empty() {
                tables.set_counter(&key, taken.end)?;
            }
            Ok(taken)
        })
        .await
    }

    async fn raise(&self, key: &str, to: u64) -> Result<u64, CouplingError> {
        check_key(key)?;
        let key = key.to_owned();
        self.ask(move |tables| {
            let value = tables.counter(&key)?;
            if to > value {
                tables.set_counter(&key, to)?;
            }
            Ok(value.max(to))
        })
        .await
    }

    async fn read(&self, key: &str) -> Result<u64, CouplingError> {
        check_key(key)?;
        let key = key.to_owned();
        self.ask(move |tables| tables.counter(&key)).await
    }

    async fn put(&self, key: &str, value: &[u8]) -> Result<(), CouplingError> {
        check_key(key)?;
        check_record(value)?;
        let (key, value) = (key.to_owned(), value.to_vec());
        self.ask(move |tables| tables.set_record(&key, Some(&value))).await
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, CouplingError> {
        check_key(key)?;
        let key = key.to_owned();
        self.ask(move |tables| tables.record(&key)).await
    }

    async fn delete(&self, key: &str) -> Result<bool, CouplingError> {
        check_key(key)?;
        let key = key.to_owned();
        self.ask(move |tables| {
            let counter = tables.counters.remove(key.as_str()).map_err(failed)?.is_some();
            let record = tables.records.remove(key.as_str()).map_err(failed)?.is_some();
            tables.changed |= counter || record;
            Ok(counter || record)
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, CouplingError> {
        let prefix = prefix.to_owned();
        self.ask(move |tables| {
            let mut found = Vec::new();
            for entry in tables.records.range(prefix.as_str()..).map_err(failed)? {
                let (key, value) = entry.map_err(failed)?;
                if !key.value().starts_with(&prefix) {
                    break;
                }
                found.push((key.value().to_owned(), value.value().to_vec()));
            }
            Ok(found)
        })
        .await
    }

    async fn cas(&self, key: &str, expected: Option<&[u8]>, new: Option<&[u8]>) -> Result<bool, CouplingError> {
        check_key(key)?;
        if let Some(new) = new {
            check_record(new)?;
        }
        let (key, expected, new) = (key.to_owned(), expected.map(<[u8]>::to_vec), new.map(<[u8]>::to_vec));
        self.ask(move |tables| {
            let same = tables.record(&key)? == expected;
            if same && expected != new {
                tables.set_record(&key, new.as_deref())?;
            }
            Ok(same)
        })
        .await
    }
}

impl Tables<'_> {
    fn counter(&self, key: &str) -> Result<u64, CouplingError> {
        Ok(self.counters.get(key).map_err(failed)?.map_or(0, |v| v.value()))
    }

    fn set_counter(&mut self, key: &str, value: u64) -> Result<(), CouplingError> {
        self.changed = true;
        self.counters.insert(key, value).map_err(failed)?;
        Ok(())
    }

    fn record(&self, key: &str) -> Result<Option<Vec<u8>>, CouplingError> {
        Ok(self.records.get(key).map_err(failed)?.map(|v| v.value().to_vec()))
    }

    fn set_record(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), CouplingError> {
        self.changed = true;
        match value {
            Some(value) => drop(self.records.insert(key, value).map_err(failed)?),
            None => drop(self.records.remove(key).map_err(failed)?),
        }
        Ok(())
    }
}

fn failed(error: impl std::fmt::Display) -> CouplingError {
    CouplingError::Unavailable(error.to_string())
}

type Again = dyn FnMut() -> Result<Database, CouplingError> + Send;

fn start(
    db: Database,
    mut again: impl FnMut() -> Result<Database, CouplingError> + Send + 'static,
) -> io::Result<(mpsc::Sender<Job>, JoinHandle<()>)> {
    let (jobs, queue) = mpsc::channel(QUEUE);
    let writer = thread::Builder::new().name("coupling".to_owned()).spawn(move || write_loop(db, &mut again, queue))?;
    Ok((jobs, writer))
}

/// The thread: until the last sender is gone and the queue is empty.
///
/// After an error the store is closed and opened again for the next group: what the file then says was durable, was;
/// the rest was answered with the error. So a disk that was full for a while needs nobody's help.
fn write_loop(db: Database, again: &mut Again, mut queue: mpsc::Receiver<Job>) {
    let mut open = Ok(db);
    let mut group = Vec::with_capacity(GROUP);
    let mut written: Option<Instant> = None;
    while queue.blocking_recv_many(&mut group, GROUP) > 0 {
        if group.len() < COMPANY && written.is_some_and(|at| at.elapsed() < LINGER) {
            thread::sleep(LINGER);
            while let (true, Ok(job)) = (group.len() < GROUP, queue.try_recv()) {
                group.push(job);
            }
        }
        if open.is_err() {
            open = again();
        }
        let mut replies = Vec::with_capacity(group.len());
        let durable = match &open {
            Ok(db) => transact(db, &mut group, &mut replies),
            Err(error) => Err(error.clone()),
        };
        if let Err(error) = &durable {
            replies.extend(group.drain(..).map(|job| job(Err(error.clone()))));
            tracing::error!(%error, requests = replies.len(), "the coupling store cannot be used");
            open = Err(error.clone());
        }
        written = Some(Instant::now());
        for reply in replies {
            reply(durable.clone());
        }
    }
}

fn transact(db: &Database, group: &mut Vec<Job>, replies: &mut Vec<Reply>) -> Result<(), CouplingError> {
    let mut transaction: WriteTransaction = db.begin_write().map_err(failed)?;
    transaction.set_durability(Durability::Immediate).map_err(failed)?;
    let changed = {
        let counters = transaction.open_table(store::COUNTERS).map_err(failed)?;
        let records = transaction.open_table(store::RECORDS).map_err(failed)?;
        let mut tables = Tables { counters, records, changed: false };
        replies.extend(group.drain(..).map(|job| job(Ok(&mut tables))));
        tables.changed
    };
    if changed { transaction.commit().map_err(failed) } else { transaction.abort().map_err(failed) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redb::StorageBackend;
    use redb::backends::InMemoryBackend;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// A disk that can fail; its content outlives each use of it.
    #[derive(Debug, Clone, Default)]
    struct Disk {
        content: Arc<InMemoryBackend>,
        fails: Arc<AtomicBool>,
    }

    impl Disk {
        fn works(&self) -> io::Result<()> {
            if self.fails.load(Ordering::Relaxed) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }

        fn open(&self) -> Result<Database, CouplingError> {
            redb::Builder::new().create_with_backend(self.clone()).map_err(failed)
        }
    }

    impl StorageBackend for Disk {
        fn len(&self) -> io::Result<u64> {
            self.content.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.content.read(offset, out)
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.works().and_then(|()| self.content.set_len(len))
        }
        fn sync_data(&self) -> io::Result<()> {
            self.works().and_then(|()| self.content.sync_data())
        }
        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.works().and_then(|()| self.content.write(offset, data))
        }
    }

    #[tokio::test]
    async fn a_disk_that_fails_for_a_while_costs_answers_but_repeats_no_number() {
        let disk = Disk::default();
        let same = disk.clone();
        let (jobs, writer) = start(disk.open().unwrap(), move || same.open()).unwrap();
        let engine = Embedded { incarnation: 1, generation: 1, jobs: Some(jobs), writer: Some(writer) };
        let mut end = engine.fetch_add("seq", 10, u64::MAX).await.unwrap().end;
        for _ in 0..3 {
            disk.fails.store(true, Ordering::Relaxed);
            for _ in 0..2 {
                let error = engine.fetch_add("seq", 10, u64::MAX).await.unwrap_err();
                assert!(matches!(error, CouplingError::Unavailable(_)), "{error}");
            }
            disk.fails.store(false, Ordering::Relaxed);
            let taken = engine.fetch_add("seq", 10, u64::MAX).await.unwrap();
            assert!(taken.start >= end, "{taken:?} after {end}");
            end = taken.end;
        }
    }
}
