//! Makes the message types out of `proto/fabric.proto`.

use std::error::Error;
use std::process::{Command, ExitCode, Stdio};

const PROTO: &str = "proto/fabric.proto";

fn main() -> ExitCode {
    println!("cargo:rerun-if-changed={PROTO}");
    println!("cargo:rerun-if-env-changed=PROTOC");
    let protoc = std::env::var_os("PROTOC").unwrap_or_else(|| "protoc".into());
    let found = Command::new(&protoc).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        eprintln!("\nphalanx-fabric needs the protocol buffer compiler ({}). Type:\n", protoc.display());
        eprintln!("    apt-get install --yes protobuf-compiler\n");
        return ExitCode::FAILURE;
    }
    match generate() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{PROTO}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn generate() -> Result<(), Box<dyn Error>> {
    let node = std::env::var_os("CARGO_FEATURE_NODE").is_some();
    tonic_prost_build::configure()
        .build_client(node)
        .build_server(node)
        // I8: what was decoded or is to be encoded does not stay in freed memory, nor show in a log.
        .type_attribute(".phalanx.fabric.v1.Secret", "#[derive(zeroize::Zeroize, zeroize::ZeroizeOnDrop)]")
        .skip_debug([".phalanx.fabric.v1.Secret"])
        .compile_protos(&[PROTO], &["proto"])?;
    Ok(())
}
