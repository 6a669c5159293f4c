//! `phalanx capture` on a running node: cores are lent copies to fill, and what they saw becomes a file.
//!
//! One capture at a time; it ends with its last packet, when who asked is gone, or after an hour.

use std::time::{Duration, Instant, SystemTime};

use pcap_file::PcapError;
use phalanx_dataplane::{Command, Film};
use phalanx_wire::CoreId;
use tokio::sync::mpsc;

use super::brain::{Brain, Input};
use crate::pcapng::Writer;
use crate::status::{Capture, CaptureRequest};

/// The longest capture.
const LONGEST: Duration = Duration::from_secs(3600);
/// How often copies are taken in.
const EVERY: Duration = Duration::from_millis(1);
/// Bytes of all copies together.
const MEMORY: usize = 16 << 20;
/// Copies at most.
const MOST: usize = 8192;
/// A piece of the file is sent on once it is as long as this.
const PIECE: usize = 256 << 10;

/// Turns copies into a file.
struct Developer {
    film: Film,
    left: u64,
    pieces: mpsc::Sender<Vec<u8>>,
    writer: Writer,
    /// The same moment on both clocks.
    start: (Instant, Duration),
    /// As the file says.
    lost: Option<u64>,
}

impl Brain {
    /// Somebody wants a capture.
    pub(super) fn capture(&mut self, request: CaptureRequest) {
        let CaptureRequest { capture, pieces, reply } = request;
        let (developer, cores, port) = match self.prepare(&capture, pieces) {
            Ok(prepared) => prepared,
            Err(why) => {
                let _ = reply.send(Err(why));
                return;
            }
        };
        self.capturing = true;
        for core in cores {
            self.cores.tell(core, Command::Capture(Some(developer.film.tap(core, port))));
        }
        tracing::info!(?capture, "a capture begins; plaintext is in it");
        let _ = reply.send(Ok(()));
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            if let Err(error) = developer.run().await {
                tracing::warn!(%error, "the capture broke off");
            }
            let _ = inputs.send(Input::CaptureOver).await;
        });
    }

    /// It ended, one way or another.
    pub(super) fn capture_over(&mut self) {
        self.capturing = false;
        for core in self.cores.all() {
            self.cores.tell(core, Command::Capture(None));
        }
        tracing::info!("the capture is over");
    }

    fn prepare(
        &self,
        capture: &Capture,
        pieces: mpsc::Sender<Vec<u8>>,
    ) -> Result<(Developer, Vec<CoreId>, Option<usize>), String> {
        capture.check()?;
        if self.capturing {
            return Err("another capture goes on; there is one at a time".to_owned());
        }
        let mut cores = self.cores.all();
        if let Some(core) = capture.core {
            let all: Vec<String> = cores.iter().map(|core| core.0.to_string()).collect();
            cores.retain(|one| one.0 == core);
            if cores.is_empty() {
                return Err(format!("there is no core {core}; there is {}", all.join(", ")));
            }
        }
        let ports = &self.config.ports;
        let at = |name: &String| {
            let names = || ports.iter().map(|port| port.name.as_str()).collect::<Vec<_>>().join(", ");
            let found = ports.iter().position(|port| port.name == *name);
            found.ok_or_else(|| format!("there is no port {name}; there is {}", names()))
        };
        let port = capture.port.as_ref().map(at).transpose()?;
        let named = ports.iter().map(|port| (port.name.as_str(), port.role));
        let writer = Writer::new(named, capture.snaplen).map_err(|error| error.to_string())?;
        let snaplen = capture.snaplen as usize;
        let developer = Developer {
            film: Film::new((MEMORY / snaplen).min(MOST), snaplen),
            left: capture.count.unwrap_or(u64::MAX),
            pieces,
            writer,
            start: (Instant::now(), SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()),
            lost: None,
        };
        Ok((developer, cores, port))
    }
}

impl Developer {
    async fn run(mut self) -> Result<(), PcapError> {
        let end = Instant::now() + LONGEST;
        loop {
            let full = self.gather()?;
            let over = self.left == 0 || self.pieces.is_closed() || Instant::now() >= end;
            let lost = self.film.lost();
            if self.lost != Some(lost) || over {
                self.lost = Some(lost);
                self.writer.lost(lost, self.wall_clock(Instant::now()))?;
            }
            let piece = self.writer.take();
            if !piece.is_empty() && self.pieces.send(piece).await.is_err() || over {
                return Ok(());
            }
            if !full {
                tokio::time::sleep(EVERY).await;
            }
        }
    }

    /// Takes in copies for a piece of the file. True: there may be more.
    fn gather(&mut self) -> Result<bool, PcapError> {
        while self.left > 0 && self.writer.len() < PIECE {
            let (writer, start) = (&mut self.writer, self.start);
            match self.film.next(|shot| writer.add(shot, on_wall_clock(start, shot.at))) {
                Some(added) => added?,
                None => return Ok(false),
            }
            self.left -= 1;
        }
        Ok(true)
    }

    fn wall_clock(&self, at: Instant) -> Duration {
        on_wall_clock(self.start, at)
    }
}

fn on_wall_clock((start, epoch): (Instant, Duration), at: Instant) -> Duration {
    epoch + at.saturating_duration_since(start)
}
