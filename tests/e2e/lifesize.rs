//! Lifesize of negotiated SAs (R21, R22, I3): targets report, the router adds up, IKE makes a successor in time; without one the SA stops.

use crate::bed::{Bed, Tunnel};
use crate::looks::{all_drops, assert_invariants, pages};
use crate::negotiated::{assert_one_pair, events, peer};
use crate::swan::{Connection, Swan};
use crate::wire::Capture;
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

const REKEY: u64 = 30_000_000;
const LIFE: u64 = 60_000_000;
const LIMITED: Tunnel = Tunnel {
    esn: true,
    window: 4096,
    peer: peer!(
        "remote = \"10.77.0.10\"",
        "remote = \"10.99.0.10\"\nwindow = 4096\nrekey_bytes = 30000000\nlife_bytes = 60000000"
    ),
    ..Tunnel::PLAIN
};
const CLIENT: Connection = Connection { esp: "aes128gcm16-esn", child: "replay_window = 4096", ..Connection::PLAIN };

#[test]
fn a_download_from_both_targets_outlives_many_lifesizes_and_none_is_exceeded() {
    let bed = Bed::up(LIMITED);
    let swan = Swan::start(&bed, &CLIENT);
    swan.initiate();
    bed.capture("sw", "n-cl", "n-cl", &["-s", "60", "esp"]);
    let megabytes = 200u32;
    let fetch = format!(
        "curl -sS --max-time 200 -o /dev/null -w '%{{size_download}}\\n' -H 'Connection: close' 'http://{}/megabyte?[1-{megabytes}]' | \
         sort | uniq -c",
        bed.host()
    );
    let downloads = [bed.guest_start(&fetch), bed.guest_start(&fetch)];
    for download in downloads {
        let (code, sizes) = download.finish(Duration::from_secs(210));
        assert_eq!((code, sizes.trim()), (0, format!("{megabytes} 1000000").as_str()), "{}", events(&bed));
    }
    let used = bytes_by_spi(&bed.capture_end("n-cl"));
    let mut down: Vec<u64> = used.values().copied().filter(|bytes| *bytes > 1_000_000).collect();
    down.sort_unstable();
    bed.progress(&format!("bytes of each SA to the client: {down:?}"));
    let most = u64::from(megabytes) * 2 * 1_000_000;
    assert!(down.len() as u64 > most / LIFE, "there were as many as are needed");
    assert!(down.iter().all(|bytes| *bytes <= LIFE), "I3: {down:?}");
    assert!(down.len() as u64 <= most / REKEY * 4, "no more than makes sense: {}", down.len());
    let counters = bed.query("r", "ike")["counters"].clone();
    assert!(counters["children-rekeyed"].as_u64() >= Some(down.len() as u64 - 1), "{counters}");
    assert_eq!(all_drops(&bed)["hard-lifesize"], 0, "{}", events(&bed));
    assert_one_pair(&bed);
    pages(&bed, 10);
    assert_invariants(&bed);
}

#[test]
fn an_sa_whose_peer_makes_no_successor_stops_at_its_lifesize() {
    let bed = Bed::up(LIMITED);
    let swan = Swan::start(&bed, &CLIENT);
    swan.initiate();
    bed.capture("sw", "n-cl", "n-cl", &["-s", "60", "esp"]);
    bed.progress("the client's daemon stands still, its kernel does not");
    bed.guest_ok("kill -STOP $(cat /run/charon.pid)");
    let fetch = format!("timeout 20 curl -sS -o /dev/null 'http://{}/megabyte?[1-200]'", bed.host());
    let (code, said) = bed.guest_start(&fetch).finish(Duration::from_secs(40));
    assert_ne!(code, 0, "200 megabytes went through an SA of 60: {said}");
    let used = bytes_by_spi(&bed.capture_end("n-cl"));
    let most = used.values().copied().max().expect("an SA");
    bed.progress(&format!("{most} bytes went to the client; {}", events(&bed).lines().last().unwrap_or_default()));
    assert!((REKEY..=LIFE).contains(&most), "{used:?}");
    assert!(events(&bed).contains("hard limit"), "{}", events(&bed));
}

/// What each SA protected, at least: of an IPv4 packet all but its header, ESP's, the ICV and the trailer with its longest padding.
fn bytes_by_spi(path: &Path) -> HashMap<u32, u64> {
    let mut used: HashMap<u32, u64> = HashMap::new();
    for frame in Capture::open(path) {
        let ip = u64::from(u16::from_be_bytes([frame[16], frame[17]]));
        let spi = u32::from_be_bytes([frame[34], frame[35], frame[36], frame[37]]);
        *used.entry(spi).or_default() += ip.saturating_sub(20 + 16 + 16 + 2 + 3);
    }
    used
}
