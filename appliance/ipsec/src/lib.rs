//! Security associations: what they are, the numbers they may use, the packets they turn into others.
//!
//! Free of I/O, threads and clocks: packets are [`phalanx_wire::Buffer`]s, time is an argument. Work on a burst is cut
//! into stages, so that a poll loop runs each stage over all its packets, in arrays it owns:
//!
//! | inbound | outbound |
//! |---|---|
//! | [`ShadowCache::lookup`] by VIP and SPI | [`FilterTable::find`], [`ShadowCache::current`] |
//! | [`ReplayWindow::infer`], [`ReplayWindow::check`] | [`OutboundSa::admit`] |
//! | [`InboundSa::begin`] → [`OpenJob::op`] → `open_burst` | [`LeaseSlot::take`] |
//! | [`InboundSa::accept`]: commit, count | [`OutboundSa::begin`] → [`SealJob::op`] → `seal_burst` |
//! | [`InboundSa::finish`], [`InboundSa::fits`] | |
//!
//! A router peeks in between: [`InboundSa::peek_job`] → [`PeekJob::ops`] → `peek_burst` → [`PeekJob::read`].
//!
//! ESP within AH ([`SaParams::within`]) is two SAs, one after the other: [`InboundSa::bundled`] finds the ESP behind AH, and each SA has its own
//! window, lease and counters.
//!
//! AH goes the same way without operations ([`OpenJob::verdict`], [`SealJob::is_done`]); a router looks at it by [`InboundSa::show`].
//!
//! Invariants kept here: I1 (no nonce twice) by [`Grant`], [`Lease`], [`SeqNo`], none of which can be copied, and
//! [`SealJob`], which is used up by its one operation; I2 by [`ReplayWindow`]; I5 in that nothing but
//! [`InboundSa::accept`] and [`ReplayWindow::commit`] changes what lasts, and both come after the ICV.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod ah;
mod ahead;
mod cache;
mod error;
mod esp;
mod filter;
mod forwarded;
mod index;
mod lease;
mod mtu;
mod names;
mod natt;
mod params;
mod sa;
mod selectors;
mod shared;
mod slot;
mod sync;
mod window;

pub use ah::around::Bundled;
pub use ah::header_len as ah_header_len;
pub use cache::{InboundIndex, Limits, OutboundIndex, Removed, ShadowCache, TunnelIndex};
pub use error::IpsecError;
pub use esp::glance::{GLANCE, Glance};
pub use esp::open::{Inner, OpenJob};
pub use esp::peek::{FIRST_PEEK, MAX_PEEK, Peek, PeekJob, Peeked};
pub use esp::seal::{Origin, PlainFront, SealJob, front_room};
pub use esp::{MAX_BACK, MAX_FRONT};
pub use filter::{Action, Filter, FilterTable, Flows, KnownWay, MANY_STEPS, SoughtFlow, Verdict, WayOut};
pub use forwarded::{Forwarded, RouterNotes};
pub use lease::{Grant, GrantCell, Lease, SEQUENCE_LIMIT, SeqNo};
pub use names::TunnelName;
pub use natt::{Encap, Original};
pub use params::{Direction, Lifesize, Mode, MssClamp, SaParams, SecretKey};
pub use phalanx_aead::{Algorithm, Key};
pub use sa::{InboundSa, OutboundSa, Role};
pub use selectors::{PortRange, Prefix, Selectors, Subject};
pub use shared::{LifesizeMeter, SaShared};
pub use slot::{LeaseSlot, Refusal, Want};
pub use window::{MAX_WINDOW, MIN_WINDOW, ReplayWindow, SharedWindow, SharedWindows, WindowSnapshot};
