//! Stamps the version: the package's, and the commit where git knows it.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=.git/HEAD");
    println!("cargo::rerun-if-changed=.git/refs/heads");
    let described = Command::new("git").args(["rev-parse", "--short=10", "HEAD"]).output();
    let commit = described.ok().filter(|out| out.status.success()).and_then(|out| String::from_utf8(out.stdout).ok());
    let package = env!("CARGO_PKG_VERSION");
    let version = commit.map_or_else(|| package.to_owned(), |commit| format!("{package} ({})", commit.trim()));
    println!("cargo::rustc-env=PHALANX_VERSION={version}");
}
