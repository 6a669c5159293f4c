//! Cutting an IP packet into fragments (RFC 791 §3.2, RFC 8200 §4.5).

use crate::ip::{Fragment, IpHeader};
use crate::{WireError, ip, ipv4, ipv6, protocol};

/// How a packet is cut. Made once, then each fragment is written into memory of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    v4: bool,
    /// Bytes in front of the data in each fragment, an IPv6 fragment header included.
    head: usize,
    /// Bytes of header that are copied from the packet.
    copied: usize,
    /// Offset of the data in the packet.
    data: usize,
    /// Bytes of data.
    len: usize,
    /// Bytes of data in each fragment but the last.
    each: usize,
    /// Where the data belongs: the packet may be a fragment already.
    offset: usize,
    /// Whether more data follows the packet's.
    more: bool,
    id: u32,
    /// IPv6: the byte that names the fragment header, and what the fragment header names.
    field: usize,
    next_header: u8,
}

impl Cut {
    /// Fragments of at most `mtu` bytes of the packet that `ip` describes. What is a fragment already keeps its
    /// identification; else it is `id`, of which IPv4 takes the low half.
    ///
    /// # Errors
    /// [`WireError::NoRoom`] if no data fits beside the headers; [`WireError::Ip`] if the packet is not what `ip` says.
    pub fn new(packet: &[u8], ip: &IpHeader, mtu: usize, id: u32) -> Result<Cut, WireError> {
        let v4 = ip.version == 4;
        let (copied, data, field) = match (v4, ip.fragment) {
            (true, _) => (ip.upper_offset, ip.upper_offset, ipv4::PROTOCOL_FIELD),
            (false, Some(_)) => {
                let (at, field) = ipv6::fragment_header(packet).ok_or(WireError::Ip)?;
                (at, at + ipv6::FRAGMENT_LEN, field)
            }
            (false, None) => {
                let (at, field) = ipv6::unfragmentable(packet).ok_or(WireError::Ip)?;
                (at, at, field)
            }
        };
        let head = copied + if v4 { 0 } else { ipv6::FRAGMENT_LEN };
        let each = mtu.checked_sub(head).ok_or(WireError::NoRoom)? / 8 * 8;
        let len = ip.total_len.min(packet.len()).checked_sub(data).ok_or(WireError::Ip)?;
        if each == 0 {
            return Err(WireError::NoRoom);
        }
        let next_header = match ip.fragment {
            Some(_) => packet.get(copied),
            None => packet.get(field),
        };
        Ok(Cut {
            v4,
            head,
            copied,
            data,
            len,
            each,
            offset: ip.fragment.map_or(0, |f| usize::from(f.offset)),
            more: ip.fragment.is_some_and(|f| f.more),
            id: ip.fragment.map_or(id, |f| f.id),
            field,
            next_header: *next_header.ok_or(WireError::Ip)?,
        })
    }

    /// How many fragments there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.len.div_ceil(self.each).max(1)
    }

    /// Bytes of fragment `n`, headers included.
    #[must_use]
    pub fn len_of(&self, n: usize) -> usize {
        self.head + self.len.saturating_sub(n * self.each).min(self.each)
    }

    /// Writes fragment `n` of `packet`, the one this was made for, to `out`, which is [`Cut::len_of`] bytes long.
    ///
    /// # Errors
    /// [`WireError::NoRoom`], [`WireError::Short`] for other lengths; [`WireError::Ip`] past the longest packet.
    pub fn write(&self, packet: &[u8], n: usize, out: &mut [u8]) -> Result<(), WireError> {
        let (start, len) = (n * self.each, self.len_of(n));
        let data = packet.get(self.data + start..self.data + start + len - self.head).ok_or(WireError::Short)?;
        let out = out.get_mut(..len).ok_or(WireError::NoRoom)?;
        out[..self.copied].copy_from_slice(packet.get(..self.copied).ok_or(WireError::Short)?);
        out[self.head..].copy_from_slice(data);
        let offset = u16::try_from(self.offset + start).map_err(|_| WireError::Ip)?;
        let more = self.more || start + self.each < self.len;
        if self.v4 {
            ipv4::change_word(out, 4, self.id as u16)?;
            ipv4::set_fragment(out, offset, more)?;
            if offset > 0 {
                ipv4::blank_options(&mut out[..self.copied]);
            }
        } else {
            if self.copied == self.data {
                ip::set_upper(out, self.field, protocol::FRAGMENT)?;
            }
            let fragment = Fragment { offset, more, id: self.id };
            ipv6::write_fragment(&mut out[self.copied..], self.next_header, &fragment)?;
        }
        ip::set_total_len(out, len)
    }
}
