//! `pki`: the cluster's own certificates.

use super::{Failure, Outcome};
use clap::Subcommand;
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
    },
}

pub(super) fn run(action: Pki) -> Outcome {
    Err(Failure::new(format!("this build has no pki: {action:?}")))
}
