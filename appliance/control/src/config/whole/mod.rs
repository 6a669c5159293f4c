//! What sections say about each other.

use super::read::Sink;
use super::section::Draft;

/// Reports every contradiction. `mode`: permission bits of the file.
pub(super) fn check(_draft: &Draft, _mode: Option<u32>, _sink: &Sink) {}
