//! ARP for IPv4 over Ethernet (RFC 826).

use crate::ethernet::{HEADER_LEN, MIN_LEN, ethertype};
use crate::{Frame, Mac, WireError};
use std::net::Ipv4Addr;

/// Length of the message.
pub const LEN: usize = 28;
/// Length of the frames made here: padded to what Ethernet asks for.
pub const FRAME_LEN: usize = MIN_LEN;

// Hardware type Ethernet, protocol type IPv4, address lengths 6 and 4.
const FIXED: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// What an ARP message wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has it.
    Reply,
}

/// An ARP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Request or reply.
    pub operation: Operation,
    /// Who sends, and thereby tells its own address.
    pub sender_mac: Mac,
    /// The sender's IP address; unspecified in a probe (RFC 5227).
    pub sender_ip: Ipv4Addr,
    /// In a reply, who asked; meaningless in a request.
    pub target_mac: Mac,
    /// The address in question, or in a reply the asker's.
    pub target_ip: Ipv4Addr,
}

impl Arp {
    /// Reads an ARP message from the payload of its frame.
    ///
    /// # Errors
    /// [`WireError::Short`]; [`WireError::Arp`] if it is not IPv4 over Ethernet, neither request nor reply, or the
    /// sender is no single station.
    pub fn parse(b: &[u8]) -> Result<Arp, WireError> {
        let h = b.first_chunk::<LEN>().ok_or(WireError::Short)?;
        if h[..6] != FIXED {
            return Err(WireError::Arp);
        }
        let operation = match u16::from_be_bytes([h[6], h[7]]) {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return Err(WireError::Arp),
        };
        let arp = Arp {
            operation,
            sender_mac: Mac([h[8], h[9], h[10], h[11], h[12], h[13]]),
            sender_ip: Ipv4Addr::new(h[14], h[15], h[16], h[17]),
            target_mac: Mac([h[18], h[19], h[20], h[21], h[22], h[23]]),
            target_ip: Ipv4Addr::new(h[24], h[25], h[26], h[27]),
        };
        // A group as owner of an address would make us send unicast packets to everybody (RFC 1812 §3.3.2).
        if !arp.sender_mac.is_unicast() || arp.sender_ip.is_multicast() || arp.sender_ip.is_broadcast() {
            return Err(WireError::Arp);
        }
        Ok(arp)
    }

    /// Writes the message at the start of `out`.
    ///
    /// # Errors
    /// [`WireError::NoRoom`].
    pub fn write(&self, out: &mut [u8]) -> Result<(), WireError> {
        let h = out.first_chunk_mut::<LEN>().ok_or(WireError::NoRoom)?;
        h[..6].copy_from_slice(&FIXED);
        let operation: u16 = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        h[6..8].copy_from_slice(&operation.to_be_bytes());
        h[8..14].copy_from_slice(&self.sender_mac.0);
        h[14..18].copy_from_slice(&self.sender_ip.octets());
        h[18..24].copy_from_slice(&self.target_mac.0);
        h[24..28].copy_from_slice(&self.target_ip.octets());
        Ok(())
    }

    /// The message in a padded frame from its sender to `dst`.
    #[must_use]
    pub fn frame(&self, dst: Mac) -> [u8; FRAME_LEN] {
        let mut out = [0; FRAME_LEN];
        let frame = Frame { dst, src: self.sender_mac, ethertype: ethertype::ARP };
        let _ = frame.write(&mut out); // both fit: FRAME_LEN > HEADER_LEN + LEN
        let _ = self.write(&mut out[HEADER_LEN..]);
        out
    }
}

/// The broadcast frame that asks who has `target_ip`, from us.
#[must_use]
pub fn request_frame(our_mac: Mac, our_ip: Ipv4Addr, target_ip: Ipv4Addr) -> [u8; FRAME_LEN] {
    Arp { operation: Operation::Request, sender_mac: our_mac, sender_ip: our_ip, target_mac: Mac::ZERO, target_ip }
        .frame(Mac::BROADCAST)
}

/// The frame that tells who asked by `request` that `our_mac` has the address.
#[must_use]
pub fn reply_frame(our_mac: Mac, request: &Arp) -> [u8; FRAME_LEN] {
    Arp {
        operation: Operation::Reply,
        sender_mac: our_mac,
        sender_ip: request.target_ip,
        target_mac: request.sender_mac,
        target_ip: request.sender_ip,
    }
    .frame(request.sender_mac)
}

/// The broadcast frame that tells everybody that `our_mac` has `our_ip` now (RFC 5227 §2.3).
#[must_use]
pub fn announcement_frame(our_mac: Mac, our_ip: Ipv4Addr) -> [u8; FRAME_LEN] {
    request_frame(our_mac, our_ip, our_ip)
}
