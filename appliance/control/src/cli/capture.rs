//! `capture`: what cores see, into a pcapng file.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, Outcome, ask, print};
use crate::pcapng::Counter;
use crate::status::{CAPTURE_PATH, Capture, LONGEST_COPY, SNAPLEN, chunks};

/// What is captured, and where to.
#[derive(Args, Debug)]
pub(super) struct How {
    /// What this core sees; default: all cores
    #[arg(long, value_name = "N")]
    core: Option<u16>,
    /// What this port receives and sends; default: all ports, and what is dropped
    #[arg(long, value_name = "NAME")]
    port: Option<String>,
    /// End after so many packets; default: Ctrl-C, or an hour
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Bytes to keep of each packet
    #[arg(long, value_name = "BYTES", default_value_t = SNAPLEN, value_parser = clap::value_parser!(u32).range(1..=i64::from(LONGEST_COPY)))]
    snaplen: u32,
    /// The file to write, for its owner's eyes only: plaintext is in it. `-`: standard output
    #[arg(short, long, value_name = "FILE|-")]
    write: PathBuf,
    /// The last line as JSON
    #[arg(long)]
    json: bool,
    /// The node's socket; default: the only one in /run/phalanx
    #[arg(long, value_name = "PATH", env = "PHALANX_SOCKET")]
    socket: Option<PathBuf>,
}

/// The file, made when the first of it arrives: a refusal leaves the one before as it is.
struct Sink<'a> {
    path: &'a Path,
    file: Option<Box<dyn Write>>,
    counter: Counter,
    failed: Option<String>,
}

/// `phalanx capture`
pub(super) fn run(how: &How) -> Outcome {
    let to_stdout = how.write == Path::new("-");
    if to_stdout && io::stdout().is_terminal() {
        return Err(Failure::new("a capture is nothing for a terminal: give a file, or a command behind a pipe"));
    }
    let socket = ask::socket(how.socket.as_deref())?;
    let capture = Capture { core: how.core, port: how.port.clone(), count: how.count, snaplen: how.snaplen };
    let body = serde_json::to_vec(&capture).map_err(Failure::new)?;
    let mut sink = Sink { path: &how.write, file: None, counter: Counter::default(), failed: None };
    let ended = ask::runtime()?.block_on(async {
        let (mut int, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let pieces = chunks(&socket, CAPTURE_PATH, body, |piece| match sink.take(piece) {
            Ok(()) => ControlFlow::Continue(()),
            Err(why) => {
                sink.failed = why;
                ControlFlow::Break(())
            }
        });
        io::Result::Ok(tokio::select! {
            ended = pieces => ended,
            _ = int.recv() => Ok(()),
            _ = term.recv() => Ok(()),
        })
    });
    // What was captured is in the file, however it ended.
    if sink.file.is_some() {
        say(&last_line(&sink.counter, how), how.json && !to_stdout);
    }
    match (sink.failed, ended.map_err(Failure::new)?) {
        (Some(why), _) => Err(Failure::new(format!("cannot write {}: {why}", how.write.display()))),
        (None, ended) => ended.map_err(Failure::new),
    }
}

impl Sink<'_> {
    /// Some: what cannot be written. Nobody reading any more is no failure.
    fn take(&mut self, piece: &[u8]) -> Result<(), Option<String>> {
        let failed = |error: io::Error| (error.kind() != io::ErrorKind::BrokenPipe).then(|| error.to_string());
        let whole = self.counter.take(piece).map_err(|error| Some(error.to_string()))?;
        if self.file.is_none() {
            say("the capture holds plaintext: keep the file as you keep the keys\n", false);
            self.file = Some(open(self.path).map_err(failed)?);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(&whole).and_then(|()| file.flush()).map_err(failed)
    }
}

/// Readable by its owner alone, also if it was there before.
fn open(path: &Path) -> io::Result<Box<dyn Write>> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdout()));
    }
    let file: File = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    if file.metadata()?.is_file() {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(Box::new(file))
}

fn last_line(counter: &Counter, how: &How) -> String {
    let Counter { packets, lost, .. } = counter;
    if how.json {
        let line = serde_json::json!({ "packets": packets, "lost": lost, "file": how.write.display().to_string() });
        return format!("{line}\n");
    }
    format!("{packets} packets captured, {lost} lost because the cores were faster than they were taken away\n")
}

fn say(text: &str, to_stdout: bool) {
    if to_stdout {
        print(text);
    } else {
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_for_its_owner_alone_also_if_it_was_there_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pcapng");
        std::fs::write(&path, "a longer text that was there before").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        open(&path).unwrap().write_all(b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
