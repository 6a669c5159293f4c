//! `POST /v1/capture`: what is asked; the answer is a pcapng file as it grows.

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

/// Where a capture is asked for.
pub const PATH: &str = "/v1/capture";
/// Bytes of a packet that are kept unless told otherwise: whole frames, except on ports with jumbo frames.
pub const SNAPLEN: u32 = 2048;
/// Bytes of a packet that are kept at most.
pub const LONGEST: u32 = 65_535;

/// What is to be captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Capture {
    /// What this core sees; none: all cores.
    pub core: Option<u16>,
    /// What this port receives and sends; none: all ports, and what is dropped.
    pub port: Option<String>,
    /// It ends after so many packets.
    pub count: Option<u64>,
    /// Bytes kept of each packet, at most [`LONGEST`].
    pub snaplen: u32,
}

impl Default for Capture {
    fn default() -> Capture {
        Capture { core: None, port: None, count: None, snaplen: SNAPLEN }
    }
}

impl Capture {
    /// What is wrong with it, if anything is.
    ///
    /// # Errors
    /// In words.
    pub fn check(&self) -> Result<(), String> {
        if self.count == Some(0) {
            return Err("a capture is of at least one packet".to_owned());
        }
        if self.snaplen == 0 || self.snaplen > LONGEST {
            return Err(format!("1 to {LONGEST} bytes of a packet are kept"));
        }
        Ok(())
    }
}

/// A capture that somebody wants.
#[derive(Debug)]
pub struct CaptureRequest {
    /// What is to be captured.
    pub capture: Capture,
    /// Pieces of the file; closed at its end. Who asked is gone when it is closed there.
    pub pieces: mpsc::Sender<Vec<u8>>,
    /// Whether it began.
    pub reply: oneshot::Sender<Result<(), String>>,
}
