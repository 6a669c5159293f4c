//! The embedded coupling facility: the contract of every engine, and what is its own: files, locks, crashes.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use phalanx_cluster::CouplingFacility;
use phalanx_cluster::contract::engine_contract;
use phalanx_fabric::{Embedded, FabricError};

#[tokio::test]
async fn the_embedded_engine_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Embedded::create(dir.path().join("store")).unwrap();
    engine_contract(&engine).await.unwrap();
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let engine = Embedded::create(&path).unwrap();
    let incarnation = engine.incarnation().await.unwrap();
    assert_eq!(engine.generation(), 1);
    assert_eq!(engine.fetch_add("seq/a", 100, u64::MAX).await.unwrap(), 0..100);
    engine.put("record", b"value").await.unwrap();
    drop(engine);

    let engine = Embedded::open(&path).unwrap();
    assert_eq!(engine.generation(), 2, "each opening has its own generation");
    assert_eq!(engine.incarnation().await.unwrap(), incarnation, "a store keeps its incarnation");
    assert_eq!(engine.fetch_add("seq/a", 1, u64::MAX).await.unwrap(), 100..101);
    assert_eq!(engine.get("record").await.unwrap().as_deref(), Some(&b"value"[..]));
}

#[tokio::test]
async fn two_stores_have_different_incarnations() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| Embedded::create(dir.path().join(name)).unwrap());
    assert_ne!(a.incarnation().await.unwrap(), b.incarnation().await.unwrap());
}

#[test]
fn a_store_is_private_complete_and_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    drop(Embedded::create(&path).unwrap());
    let mode = path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "{mode:o}");
    let names: Vec<_> = dir.path().read_dir().unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["store"], "nothing else is left behind");
    let before = std::fs::read(&path).unwrap();
    let error = Embedded::create(&path).unwrap_err();
    assert!(matches!(error, FabricError::StoreExists(_)), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_missing_store_is_not_made_but_explained() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let text = Embedded::open(&path).unwrap_err().to_string();
    for part in ["First start? `phalanx store create --config FILE`", "Lost? Give every static SA a new key first"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!path.exists(), "opening makes nothing");
}

#[test]
fn a_file_that_is_no_store_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in [("empty", vec![]), ("text", b"hello\n".repeat(1000)), ("zeros", vec![0; 65_536])] {
        let path = dir.path().join(name);
        std::fs::write(&path, &content).unwrap();
        let error = Embedded::open(&path).unwrap_err();
        assert!(matches!(error, FabricError::StoreUnusable { .. }), "{name}: {error}");
        assert_eq!(std::fs::read(&path).unwrap(), content, "{name}");
    }
}

#[test]
fn a_store_that_is_open_is_not_opened_twice() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let engine = Embedded::create(&path).unwrap();
    let error = Embedded::open(&path).unwrap_err();
    assert!(matches!(error, FabricError::StoreLocked(_)), "{error}");
    drop(engine);
    Embedded::open(&path).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_share_the_disk_and_never_a_number() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Arc::new(Embedded::create(dir.path().join("store")).unwrap());
    let tasks: Vec<_> = (0..2_000)
        .map(|i| {
            let engine = engine.clone();
            tokio::spawn(async move { engine.fetch_add("seq", 1 + i % 7, u64::MAX).await.unwrap() })
        })
        .collect();
    let mut taken = Vec::new();
    for task in tasks {
        taken.push(task.await.unwrap());
    }
    assert_disjoint(taken);
}

const CHILD: &str = "PHALANX_TEST_STORE";

/// Not a test by itself: what the child process of the next one runs.
#[tokio::test]
async fn child_that_counts_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let engine = Embedded::open(path).unwrap();
    // Four at a time, so that a transaction is of several.
    let count = || async {
        loop {
            let taken = engine.fetch_add("seq", 3, u64::MAX).await.unwrap();
            // One write per line: a line that is cut is not counted as told.
            let line = format!("took {} {}\n", taken.start, taken.end);
            std::io::stderr().write_all(line.as_bytes()).unwrap();
        }
    };
    let ((), (), (), ()) = tokio::join!(count(), count(), count(), count());
}

#[test]
fn a_number_that_was_told_is_never_told_again_however_often_the_process_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    drop(Embedded::create(&path).unwrap());
    let mut told = Vec::new();
    for round in 0..12_u64 {
        // Not the same moment of a commit each time.
        told.extend(killed_after(&path, Duration::from_micros(60_000 + round * 7_919)));
    }
    assert!(told.len() > 24, "the children hardly ran: {} answers", told.len());
    assert_disjoint(told);
    drop(Embedded::open(&path).unwrap());
}

/// What a child process was told until it was killed, that long after its first answer.
fn killed_after(store: &Path, delay: Duration) -> Vec<Range<u64>> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_counts_until_it_is_killed", "--nocapture"])
        .env(CHILD, store)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = lines.next().expect("the child says something").unwrap();
    let reader = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
    std::thread::sleep(delay);
    assert!(matches!(Embedded::open(store), Err(FabricError::StoreLocked(_))), "two processes in one store");
    child.kill().unwrap();
    child.wait().unwrap();
    let mut all = vec![first];
    all.extend(reader.join().unwrap());
    all.iter().filter_map(|line| parse(line)).collect()
}

fn parse(line: &str) -> Option<Range<u64>> {
    let mut words = line.strip_prefix("took ")?.split(' ').map(|w| w.parse().ok());
    Some(words.next()??..words.next()??)
}

fn assert_disjoint(taken: Vec<Range<u64>>) {
    let mut seen = BTreeSet::new();
    for number in taken.into_iter().flatten() {
        assert!(seen.insert(number), "{number} was told twice");
    }
}
