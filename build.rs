//! Stamps the version: the package's, and the commit where git knows it. For the benchmarks it builds a peer if asked to.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=.git/HEAD");
    println!("cargo::rerun-if-changed=.git/refs/heads");
    let described = Command::new("git").args(["rev-parse", "--short=10", "HEAD"]).output();
    let commit = described.ok().filter(|out| out.status.success()).and_then(|out| String::from_utf8(out.stdout).ok());
    let package = env!("CARGO_PKG_VERSION");
    let version = commit.map_or_else(|| package.to_owned(), |commit| format!("{package} ({})", commit.trim()));
    println!("cargo::rustc-env=PHALANX_VERSION={version}");
    #[cfg(feature = "peer-ipsec-mb")]
    ipsec_mb();
}

/// intel-ipsec-mb and a shim for it, linked to benchmarks only.
#[cfg(feature = "peer-ipsec-mb")]
fn ipsec_mb() {
    const SHIM: &str = "benches/peer/ipsec_mb.c";
    println!("cargo::rerun-if-changed={SHIM}");
    let built = cc::Build::new().file(SHIM).opt_level(3).cargo_metadata(false).try_compile("peer_ipsec_mb");
    if let Err(error) = built {
        panic!("{SHIM} does not compile ({error}); is it there? apt-get install libipsec-mb-dev");
    }
    let directory = std::env::var("OUT_DIR").expect("cargo sets it");
    println!("cargo::rustc-link-arg-benches={directory}/libpeer_ipsec_mb.a");
    println!("cargo::rustc-link-arg-benches=-lIPSec_MB");
}
