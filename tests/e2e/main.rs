//! End to end: real packets between a real Linux IPsec client, three `phalanx run`, and real servers.
//!
//! Each test stands a bed of its own (`scripts/lib/bed.sh`) and needs root. A lock keeps them one after the other whatever the number of
//! test threads; `scripts/test` runs them. A story per file:

mod ah;
mod algorithms;
mod attacker;
mod bundle;
mod chains;
mod exits;
mod eyes;
mod fragments;
mod ike;
mod killed;
mod lifesize;
mod links;
mod listeners;
mod metrics;
mod mtu;
mod nat;
mod oracle;
mod reborn;
mod rekeys;
mod reload;
mod served;
mod story;
mod strangers;
mod suites;
mod udp;
mod watched;
mod windows;

mod bed;
mod client;
mod looks;
mod negotiated;
mod pace;
mod raw;
mod swan;
mod wire;
