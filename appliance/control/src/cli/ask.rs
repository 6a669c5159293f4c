//! The commands that ask a running node, or tell it to do something.

use super::{Ask, Failure, Outcome, print, table};
use crate::status::{Action, Answer, Done, What, fetch, order};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where nodes put their sockets unless told otherwise.
const RUN: &str = "/run/phalanx";

pub(super) fn ask(what: What, how: &Ask) -> Outcome {
    let socket = socket(how.socket.as_deref())?;
    runtime()?.block_on(async {
        loop {
            let text = once(&socket, what, how).await?;
            if how.watch.is_some() && std::io::stdout().is_terminal() {
                // Home, and clear what is below.
                print("\x1b[H\x1b[J");
            }
            print(&text);
            match how.watch {
                Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
                None => return Ok(()),
            }
        }
    })
}

/// Tells the node to do something, and shows what it did.
pub(super) fn act(action: &Action, how: &Ask) -> Outcome {
    let socket = socket(how.socket.as_deref())?;
    let json = runtime()?.block_on(order(&socket, action)).map_err(Failure::new)?;
    if how.json {
        print(&format!("{}\n", String::from_utf8_lossy(&json)));
        return Ok(());
    }
    let done: Done = serde_json::from_slice(&json).map_err(another_version)?;
    print(&format!("{}\n", done.done));
    done.notes.iter().for_each(|note| print(&format!("note: {note}\n")));
    Ok(())
}

/// The one that was named, or the only one there is.
pub(super) fn socket(named: Option<&Path>) -> Result<PathBuf, Failure> {
    match named {
        Some(socket) => Ok(socket.to_owned()),
        None => only_socket(Path::new(RUN)).map_err(Failure::new),
    }
}

pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::new)
}

fn another_version(error: serde_json::Error) -> Failure {
    Failure::new(format!("the node's answer is of another version ({error}); --json shows it as it is"))
}

async fn once(socket: &Path, what: What, how: &Ask) -> Result<String, Failure> {
    let json = fetch(socket, what).await.map_err(Failure::new)?;
    if how.json {
        let mut text = String::from_utf8_lossy(&json).into_owned();
        text.push('\n');
        return Ok(text);
    }
    let answer = Answer::parse(what, &json).map_err(another_version)?;
    Ok(table::render(&answer, how.all, std::io::stdout().is_terminal()))
}

/// The one socket in `folder`.
fn only_socket(folder: &Path) -> Result<PathBuf, String> {
    let mut sockets: Vec<PathBuf> = match std::fs::read_dir(folder) {
        Ok(entries) => {
            entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "sock")).collect()
        }
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(format!("no permission for {}: run this as root or with the node's group", folder.display()));
        }
        Err(_) => Vec::new(),
    };
    sockets.sort();
    match sockets.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(format!(
            "there is no socket in {}: is `phalanx run` running? --socket or PHALANX_SOCKET names one elsewhere",
            folder.display()
        )),
        many => {
            let names: Vec<String> = many.iter().map(|p| p.display().to_string()).collect();
            Err(format!("several nodes run here; choose one with --socket: {}", names.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_socket_is_found_and_otherwise_the_choice_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        assert!(only_socket(folder.path()).unwrap_err().contains("is `phalanx run` running?"));
        assert!(only_socket(Path::new("/nonexistent")).unwrap_err().contains("is `phalanx run` running?"));
        std::fs::write(folder.path().join("r1.sock"), "").unwrap();
        std::fs::write(folder.path().join("r1.sock.77"), "").unwrap();
        assert_eq!(only_socket(folder.path()), Ok(folder.path().join("r1.sock")));
        std::fs::write(folder.path().join("t1.sock"), "").unwrap();
        let many = only_socket(folder.path()).unwrap_err();
        assert!(many.contains("r1.sock") && many.contains("t1.sock"), "{many}");
    }
}
