//! What is on the wire: checked views and codecs, checksums, and the words that every other room uses.
//!
//! Every parser is total: any bytes give a value or a [`WireError`], never a panic. Nothing here allocates on a
//! packet's way, does I/O or reads a clock. A view holds a header's *meaning* (addresses, ports, offsets); the bytes
//! stay where they are, in a [`Buffer`].
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod ah;
pub mod alike;
pub mod arp;
pub mod buffer;
pub mod checksum;
pub mod drop_reason;
pub mod error;
pub mod esp;
pub mod ethernet;
pub mod flow;
pub mod fragment;
pub mod gre;
pub mod icmp;
pub mod ids;
pub mod immutable;
pub mod ip;
pub mod ipv4;
pub mod ipv6;
pub mod link;
pub mod natt;
pub mod nd;
pub mod protected;
pub mod quoted;
pub mod reassembly;
pub mod refusal;
pub mod tcp;
pub mod udp;

pub use ah::AhHeader;
pub use alike::Likeness;
pub use arp::Arp;
pub use buffer::{Buffer, NoRoom, VecBuffer};
pub use drop_reason::DropReason;
pub use error::WireError;
pub use esp::EspHeader;
pub use ethernet::{Frame, Mac};
pub use flow::{Endpoint, Flow, Flow4};
pub use gre::Gre;
pub use icmp::{Icmp4, Icmp6};
pub use ids::{CoreId, Epoch, PeerId, SaId, Spi, TargetId, VipId};
pub use immutable::Immutable;
pub use ip::{Fragment, IpHeader, protocol};
pub use link::LinkHeader;
pub use nd::{NeighborAdvertisement, NeighborSolicitation};
pub use protected::Protected;
pub use reassembly::{Reassembly, ReassemblyLimits};
pub use tcp::{TcpFlags, TcpHeader};
pub use udp::UdpHeader;
