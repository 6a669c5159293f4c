//! Loads in the client guest (`client.py`). They tell how they are in files of the guest's folder, with the host's clock.

use crate::bed::{Bed, wait_until};
use crate::pace;
use std::cell::Cell;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Runs loads in a bed's guest.
pub struct Client<'a> {
    bed: &'a Bed,
    started: Cell<u32>,
}

/// An endless download.
pub struct Stream {
    path: PathBuf,
}

/// Pages fetched one after the other, each over a connection of its own.
pub struct Pages {
    path: PathBuf,
}

/// A page that came.
#[derive(Clone, Debug)]
pub struct Page {
    /// When it was asked for; microseconds since 1970.
    pub asked: u64,
    /// When it was there.
    pub there: u64,
    /// Who served it.
    pub by: String,
}

/// Now, as in [`Page`].
pub fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_micros()).expect("before the year 586,000")
}

impl Client<'_> {
    /// Loads for this bed.
    pub fn new(bed: &Bed) -> Client<'_> {
        Client { bed, started: Cell::new(0) }
    }

    fn run(&self, kind: &str, port: u16) -> PathBuf {
        let id = self.started.get();
        self.started.set(id + 1);
        fs::write(self.bed.file("guest/client.py"), include_str!("client.py")).expect("the guest's folder");
        let host = self.bed.host().trim_matches(['[', ']']);
        self.bed.guest_start(&format!("exec /usr/bin/python3 /mnt/client.py {kind} {host} {port} /mnt/load{id}"));
        self.bed.file(&format!("guest/load{id}"))
    }

    /// Starts an endless download of 100 small packets a second, and waits until it runs.
    pub fn stream(&self) -> Stream {
        let stream = Stream { path: self.run("stream", pace::PORT) };
        wait_until("a stream runs", Duration::from_secs(20), || stream.bytes() > 0);
        stream
    }

    /// An endless download from that target, however the others are spread.
    pub fn stream_from(&self, target: &str) -> Stream {
        loop {
            let stream = self.stream();
            if stream.by() == target {
                return stream;
            }
            stream.stop();
        }
    }

    /// Starts to fetch pages.
    pub fn pages(&self) -> Pages {
        let pages = Pages { path: self.run("pages", 80) };
        wait_until("pages come", Duration::from_secs(20), || !pages.after(0).is_empty());
        pages
    }
}

impl Stream {
    fn read(&self) -> (String, u64) {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let (by, bytes) = text.trim().split_once(' ').unwrap_or_default();
        (by.to_owned(), bytes.parse().unwrap_or(0))
    }

    /// Who serves it.
    pub fn by(&self) -> String {
        let mut by = String::new();
        wait_until("the stream says who serves it", Duration::from_secs(5), || {
            by = self.read().0;
            !by.is_empty()
        });
        by
    }

    /// Bytes that arrived; 0 for a moment while it is being written.
    pub fn bytes(&self) -> u64 {
        self.read().1
    }

    /// Whether its connection ended.
    pub fn ended(&self) -> bool {
        self.path.with_extension("end").exists()
    }

    /// Waits until more arrives than had.
    pub fn goes_on(&self, limit: Duration) {
        let mut before = 0;
        wait_until("the stream is there", limit, || {
            before = self.bytes();
            before > 0
        });
        wait_until("the stream goes on", limit, || self.bytes() > before + 4000);
    }

    /// Closes it.
    pub fn stop(self) {
        fs::write(self.path.with_extension("stop"), "").expect("the guest's folder");
        wait_until("the stream stops", Duration::from_secs(20), || self.ended());
    }
}

impl Pages {
    /// The pages asked for after a moment.
    pub fn after(&self, moment: u64) -> Vec<Page> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let page = |line: &str| {
            let (asked, rest) = line.split_once(' ')?;
            let (there, by) = rest.split_once(' ')?;
            Some(Page { asked: asked.parse().ok()?, there: there.parse().ok()?, by: by.to_owned() })
        };
        // Others may still be on their way in; the newest line may be cut.
        text.split_inclusive('\n')
            .filter(|l| l.ends_with('\n'))
            .filter_map(|l| page(l.trim()))
            .filter(|p| p.asked > moment)
            .collect()
    }

    /// When pages were asked for, after a moment, that did not come.
    pub fn failed_after(&self, moment: u64) -> Vec<u64> {
        let text = fs::read_to_string(self.path.with_extension("failed")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).filter(|asked| *asked > moment).collect()
    }

    /// Ends the load.
    pub fn stop(self) -> Vec<Page> {
        fs::write(self.path.with_extension("stop"), "").expect("the guest's folder");
        wait_until("the pages stop", Duration::from_secs(20), || self.path.with_extension("end").exists());
        self.after(0)
    }
}
