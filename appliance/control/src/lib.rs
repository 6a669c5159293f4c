//! The control core of a node: configuration, command line, status socket, host isolation.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod cli;
pub mod config;
pub mod explain;
pub mod host;
pub mod node;
mod pcapng;
pub mod status;
