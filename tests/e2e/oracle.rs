//! scapy as an oracle for what `phalanx explain` says, opens and seals (`oracle.py`). Needs neither bed nor root.

use std::process::Command;

/// `PX_SEED` chooses another one.
const SEED: &str = "20261";

#[test]
fn scapy_opens_what_we_seal_and_we_open_what_scapy_seals_and_hostile_packets_have_their_reasons() {
    let seed = std::env::var("PX_SEED").unwrap_or_else(|_| SEED.into());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/oracle.py");
    // Debian's own: scapy is one of its packages.
    let run =
        Command::new("/usr/bin/python3").args(["-B", script, env!("CARGO_BIN_EXE_phalanx"), &seed]).output().unwrap();
    let (said, why) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    println!("seed {seed}\n{said}");
    assert!(run.status.success(), "seed {seed}: {why}");
}
