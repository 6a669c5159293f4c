//! What the stages need of a packet's memory. On a core it is an mbuf; in tests of stages it may be a `Vec`.

use phalanx_wire::{Buffer, DropReason};

/// Packets under way through the stages at a time.
pub(crate) const BURST: usize = 32;

/// What a packet's memory bears beside its bytes.
pub(crate) trait Marked {
    /// 0: nobody watches it. See [`notes`](crate::notes).
    fn mark(&self) -> u32;
    fn set_mark(&mut self, mark: u32);
}

/// Where a stage gets memory for a packet of its own.
pub(crate) trait Source {
    /// The packets of this data plane.
    type Packet: Buffer + Marked;
    /// An empty packet with headroom, unless there is none left.
    fn fresh(&mut self) -> Option<Self::Packet>;
    /// The same with room for [`Limits::large_frame`](crate::config::Limits::large_frame) bytes.
    fn fresh_large(&mut self) -> Option<Self::Packet>;
}

/// A packet that holds `bytes`.
pub(crate) fn filled<S: Source>(source: &mut S, bytes: &[u8]) -> Result<S::Packet, DropReason> {
    let mut packet = source.fresh().ok_or(DropReason::NoRoom)?;
    packet.grow_back(bytes.len())?;
    packet.bytes_mut().copy_from_slice(bytes);
    Ok(packet)
}

/// Puts `header` in front.
#[inline]
pub(crate) fn prepend<const N: usize>(packet: &mut impl Buffer, header: &[u8; N]) -> Result<(), DropReason> {
    packet.grow_front(N)?;
    packet.bytes_mut()[..N].copy_from_slice(header);
    Ok(())
}

/// Cuts what Ethernet padded behind the IP packet.
#[inline]
pub(crate) fn trim(packet: &mut impl Buffer, len: usize) {
    let padding = packet.bytes().len().saturating_sub(len);
    packet.cut_back(padding);
}

/// What a packet in a ring between cores is: four bytes in front of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parcel {
    /// A link header and an encrypted packet, for the core as a target.
    Link,
    /// An IP packet from a network port, for the core as the router of its VIP.
    Router(usize),
    /// An IP packet to send by this port of the core.
    Send(usize),
    /// An inner IP packet to deliver by this application port of the core.
    Deliver(usize),
}

impl Parcel {
    pub(crate) const LEN: usize = 4;

    pub(crate) fn wrap(self, packet: &mut impl Buffer) -> Result<(), DropReason> {
        let (kind, port) = match self {
            Parcel::Link => (1, 0),
            Parcel::Router(port) => (2, port),
            Parcel::Send(port) => (3, port),
            Parcel::Deliver(port) => (4, port),
        };
        let [high, low] = (port as u16).to_be_bytes();
        prepend(packet, &[kind, 0, high, low])
    }

    pub(crate) fn unwrap(packet: &mut impl Buffer) -> Result<Parcel, DropReason> {
        let &[kind, _, high, low] = packet.bytes().first_chunk::<{ Parcel::LEN }>().ok_or(DropReason::Runt)?;
        let port = usize::from(u16::from_be_bytes([high, low]));
        packet.cut_front(Parcel::LEN);
        match kind {
            1 => Ok(Parcel::Link),
            2 => Ok(Parcel::Router(port)),
            3 => Ok(Parcel::Send(port)),
            4 => Ok(Parcel::Deliver(port)),
            _ => Err(DropReason::LinkForged),
        }
    }
}

/// Most tests of stages watch nobody; those that do run a [`LoneCore`](crate::LoneCore).
#[cfg(test)]
impl Marked for phalanx_wire::VecBuffer {
    fn mark(&self) -> u32 {
        0
    }
    fn set_mark(&mut self, _: u32) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use phalanx_wire::VecBuffer;

    #[test]
    fn a_parcel_comes_out_of_a_ring_as_it_went_in() {
        for parcel in [Parcel::Link, Parcel::Router(1), Parcel::Send(300), Parcel::Deliver(7)] {
            let mut packet = VecBuffer::from_slice(8, b"payload", 0);
            parcel.wrap(&mut packet).unwrap();
            assert_eq!(Parcel::unwrap(&mut packet), Ok(parcel));
            assert_eq!(packet.bytes(), b"payload");
        }
        assert_eq!(Parcel::unwrap(&mut VecBuffer::from_slice(0, b"abc", 0)), Err(DropReason::Runt));
    }

    #[test]
    fn a_parcel_needs_headroom() {
        let mut packet = VecBuffer::from_slice(3, b"payload", 0);
        assert_eq!(Parcel::Link.wrap(&mut packet), Err(DropReason::NoRoom));
    }
}
