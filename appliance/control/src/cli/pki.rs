//! `pki`: the cluster's own certificates.

use super::{Failure, Outcome, print};
use clap::Subcommand;
use phalanx_fabric::pki;
use std::net::IpAddr;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(super) enum Pki {
    /// Make the cluster's CA: ca.pem and ca.key
    #[command(visible_alias = "ca")]
    Init {
        /// The folder to write to
        #[arg(long, value_name = "FOLDER", default_value = ".")]
        dir: PathBuf,
        /// The cluster's name, for people who look at certificates
        #[arg(long, value_name = "NAME", default_value = "phalanx")]
        cluster: String,
    },
    /// Make a node's certificate: NAME.pem and NAME.key
    #[command(visible_alias = "node")]
    Issue {
        /// The node's name, as in [node] name
        name: String,
        /// The folder with the CA; the certificate is written there too
        #[arg(long, value_name = "FOLDER", default_value = ".")]
        dir: PathBuf,
        /// Addresses to put into the certificate as well; nodes know each other by name and need none
        #[arg(long, value_name = "ADDRESS")]
        address: Vec<IpAddr>,
    },
}

/// `phalanx pki`
pub(super) fn run(action: Pki) -> Outcome {
    let made = match action {
        Pki::Init { dir, cluster } => pki::create_ca(dir, &cluster),
        Pki::Issue { name, dir, address } => pki::issue(dir, &name, &address),
    };
    let made = made.map_err(|error| Failure::new(error.to_string()))?;
    print(&format!("{}\n{}\n", made.certificate.display(), made.key.display()));
    Ok(())
}
