//! Raw bindings to the installed DPDK (22.11 on Debian 12), made by bindgen at build time.
//!
//! Only what `dpdk-ffi` uses is bound. `px_*` are this crate's own C shim: DPDK's static inline
//! functions that are not on the receive or transmit path. Receive and transmit go through the
//! exported table `rte_eth_fp_ops` and need no shim.
#![allow(
    non_upper_case_globals,
    non_camel_case_types,
    non_snake_case,
    missing_docs,
    unsafe_op_in_unsafe_fn,
    clippy::all,
    clippy::undocumented_unsafe_blocks
)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
