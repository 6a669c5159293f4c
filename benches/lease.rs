//! numbers: leases of the sequencer, and durable fetch_adds of the embedded coupling facility against fsync

mod harness;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use phalanx_cluster::sequencer::{Holder, Request};
use phalanx_cluster::{CouplingFacility, Sequencer, SequencerConfig};
use phalanx_fabric::Embedded;
use phalanx_ipsec::{Grant, GrantCell};
use phalanx_wire::{CoreId, SaId};

use harness::{Report, Unit, clock, measure, note};

/// The peer's replay window.
const WINDOW: u32 = 4096;
const LEASES: u32 = 4096;
const FETCHES: usize = 32;
const CLIENTS: usize = 16;

fn main() {
    let report = Report::new("lease");
    for (sas, holders) in [(1, 1), (1, 16), (1000, 16)] {
        leases(&report, sas, holders);
    }
    fetch_adds(&report);
}

/// Each holder has used what it had when it asks again; the store answers at once.
fn leases(report: &Report, sas: u64, holders: u16) {
    let mut asking = Asking::new(sas, holders);
    let cell = GrantCell::new(Grant::new(1, u64::MAX));
    let samples = measure(|| {
        let adds = || (0..LEASES).for_each(|_| assert!(std::hint::black_box(cell.take(64)).is_some()));
        [clock(|| asking.leases(LEASES)), clock(adds)].map(|ns| ns / f64::from(LEASES))
    });
    let s = |n| if n == 1 { "" } else { "s" };
    let name = format!("sequencer, {sas} SA{}, {holders} holder{}", s(sas), s(u64::from(holders)));
    report.row(&name, Unit::PerSecond("leases"), &samples[0], "an atomic add on one grant", &samples[1]);
}

struct Asking {
    sequencer: Sequencer,
    sas: u64,
    /// By SA and holder: the end of what it had.
    used: Vec<u64>,
    next: usize,
    nonce: u64,
    now: u64,
    /// The store's counters.
    counters: Vec<u64>,
}

impl Asking {
    fn new(sas: u64, holders: u16) -> Asking {
        let mut sequencer = Sequencer::new(SequencerConfig::default());
        for sa in 0..sas {
            sequencer.add(SaId(sa), Arc::from(format!("seq/{sa}")), true, WINDOW, 0).expect("room");
        }
        let used = vec![0; sas as usize * usize::from(holders)];
        let counters = vec![0; sas as usize];
        let mut asking = Asking { sequencer, sas, used, next: 0, nonce: 0, now: 0, counters };
        asking.grant();
        // Until every holder is known.
        asking.leases(4 * asking.used.len() as u32);
        asking
    }

    /// Holders ask in turn, until so many leases were given.
    fn leases(&mut self, n: u32) {
        let mut given = 0;
        while given < n {
            self.ask();
            self.grant();
            while let Some(reply) = self.sequencer.poll_reply() {
                let (lease, _) = reply.result.expect("a lease");
                let at = u64::from(reply.holder.node) * self.sas + reply.sa.0;
                self.used[at as usize] = lease.end();
                given += 1;
            }
        }
    }

    fn grant(&mut self) {
        while let Some(wanted) = self.sequencer.poll_grant_wanted() {
            let counter = &mut self.counters[wanted.sa.0 as usize];
            let range = *counter..*counter + wanted.n;
            *counter = range.end;
            self.sequencer.grant(wanted.sa, Ok(range), self.now);
        }
    }

    fn ask(&mut self) {
        let at = self.next;
        self.next = (at + 1) % self.used.len();
        (self.nonce, self.now) = (self.nonce + 1, self.now + 1);
        self.sequencer.expire(self.now);
        let request = Request {
            sa: SaId(at as u64 % self.sas),
            holder: Holder { node: (at as u64 / self.sas) as u16, core: CoreId(0) },
            nonce: self.nonce,
            incarnation: 1,
            want: WINDOW,
            done_below: self.used[at],
            rate_pps: 100_000,
            latency_us: 100,
        };
        self.sequencer.request(request, self.now);
    }
}

/// Durable before each answer, as fsync is.
fn fetch_adds(report: &Report) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    note(&format!("writing to {}", directory.path().display()));
    let store = Arc::new(Embedded::create(directory.path().join("store")).expect("a store"));
    let plain = Plain::new(directory.path());
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let samples = measure(|| {
        let [one, many] = [1, CLIENTS]
            .map(|clients| clock(|| runtime.block_on(fetch_from(&store, clients))) / (FETCHES * clients) as f64);
        [one, many, clock(|| (0..FETCHES).for_each(|_| plain.write())) / FETCHES as f64]
    });
    for (ours, name) in samples.iter().zip(["fetch_add, one after another", "fetch_add, 16 clients"]) {
        report.row(name, Unit::DurablePerSecond("fetch_adds"), ours, "write and fsync, one after another", &samples[2]);
    }
}

/// Each client takes one after another, on a counter of its own.
async fn fetch_from(store: &Arc<Embedded>, clients: usize) {
    let client = |client| {
        let store = store.clone();
        tokio::spawn(async move {
            let key = format!("seq/{client}");
            for _ in 0..FETCHES {
                store.fetch_add(&key, 4096, u64::MAX).await.expect("numbers");
            }
        })
    };
    let tasks: Vec<_> = (0..clients).map(client).collect();
    for task in tasks {
        task.await.expect("no panic");
    }
}

/// A counter in a plain file.
struct Plain(File);

impl Plain {
    fn new(directory: &Path) -> Plain {
        let file = File::create(directory.join("plain")).expect("a file");
        file.set_len(4096).and_then(|()| file.sync_all()).expect("durable");
        Plain(file)
    }

    fn write(&self) {
        self.0.write_all_at(&[7; 8], 0).and_then(|()| self.0.sync_all()).expect("durable");
    }
}
