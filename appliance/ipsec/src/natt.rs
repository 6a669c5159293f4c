//! SAs whose ESP travels in UDP (RFC 3948): where the peer is by now, and packets of transport mode under addresses that a NAT
//! changed.
//!
//! An SA knows its peer by identity. Its address is only where to send to: once a packet from elsewhere proved genuine and new, the
//! peer is there (RFC 7296 §2.23). In transport mode what is inside shows the addresses of the SA's selectors, wherever the peer is:
//! connections survive its moves, and two peers behind one NAT can be told apart (RFC 3948 §5.2).

use phalanx_wire::{DropReason, IpHeader, checksum, ip, natt, protocol, udp};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

use crate::sa::Constants;
use crate::{InboundSa, IpsecError, Mode, OutboundSa, SaParams};

/// ESP in UDP, from our port 4500.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Encap {
    /// The peer's port as it was when the SA began.
    pub remote_port: u16,
    /// Transport mode: the addresses that the peer sees (NAT-OA of RFC 3948 §3.1.2). Its checksums are made over them.
    pub original: Option<Original>,
}

/// The ends of an SA as its peer sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Original {
    /// What it calls us.
    pub local: IpAddr,
    /// What it calls itself.
    pub remote: IpAddr,
}

impl SaParams {
    /// Where the peer was when the SA began.
    #[must_use]
    pub fn remote_end(&self) -> SocketAddr {
        SocketAddr::new(self.remote, self.encap.map_or(0, |encap| encap.remote_port))
    }

    pub(crate) fn check_encap(&self) -> Result<(), IpsecError> {
        let Some(Encap { remote_port, original }) = self.encap else { return Ok(()) };
        if self.algorithm.is_ah() {
            return Err(IpsecError::AhInUdp);
        }
        if remote_port == 0 {
            return Err(IpsecError::PeerPort);
        }
        if self.mode != Mode::Transport {
            return if original.is_some() { Err(IpsecError::OriginalInTunnel) } else { Ok(()) };
        }
        let Some(Original { local, remote }) = original else { return Err(IpsecError::NoOriginal) };
        let shown = self.selectors.remote;
        let bits = if shown.address().is_ipv4() { 32 } else { 128 };
        if shown.prefix_len() != bits {
            return Err(IpsecError::ManyShown);
        }
        for address in [local, remote, shown.address()] {
            if address.is_ipv4() != self.local.is_ipv4() {
                return Err(IpsecError::Family { local: self.local, remote: address });
            }
        }
        Ok(())
    }

    /// Transport mode: the remote address of what is inside.
    pub(crate) fn shown(&self) -> IpAddr {
        if self.encap.is_some() { self.selectors.remote.address() } else { self.remote }
    }

    /// What to add to the checksums of what the peer sent: the difference of the addresses it summed up and those shown here.
    /// One's complement sums of whole addresses differ as those of their words do (RFC 1624 §3).
    pub(crate) fn repair(&self) -> u16 {
        let Some(Encap { original: Some(Original { local, remote }), .. }) = self.encap else { return 0 };
        let sum = |a, b| checksum::fold(checksum::pseudo_header(a, b, 0, 0));
        let (was, is) = (sum(remote, local), sum(self.shown(), self.local));
        checksum::fold(u32::from(!was) + u32::from(is))
    }
}

impl Constants {
    /// Where the peer is by now.
    pub(crate) fn remote_end(&self) -> SocketAddr {
        SocketAddr::new(self.remote, self.remote_port)
    }

    fn move_peer(&mut self, to: SocketAddr) {
        if self.encap && to.is_ipv4() == self.remote.is_ipv4() {
            (self.remote, self.remote_port) = (to.ip(), to.port());
        }
    }
}

impl InboundSa {
    /// Where the peer is by now; port 0 without UDP.
    #[must_use]
    pub fn remote_end(&self) -> SocketAddr {
        self.hot.remote_end()
    }

    /// Where a packet comes from, if that is not where the peer is: allowed to ESP in UDP alone (RFC 3948), of an SA that has it, and
    /// believed only once the packet proved genuine.
    ///
    /// # Errors
    /// `WrongPeer`.
    #[inline]
    pub fn elsewhere(&self, packet: &[u8], ip: &IpHeader) -> Result<Option<SocketAddr>, DropReason> {
        if !self.hot.encap || ip.upper != protocol::UDP {
            // RFC 7296 §2.23: both forms are taken at any time; one without a port of its own moves nobody.
            return if ip.src == self.hot.remote { Ok(None) } else { Err(DropReason::WrongPeer) };
        }
        self.elsewhere_in_udp(packet, ip)
    }

    #[inline(never)]
    fn elsewhere_in_udp(&self, packet: &[u8], ip: &IpHeader) -> Result<Option<SocketAddr>, DropReason> {
        let port = natt::esp_of(ip, packet)?.port.unwrap_or_default();
        let from = SocketAddr::new(ip.src, port);
        if from == self.remote_end() {
            return Ok(None);
        }
        // Nothing could be sent there.
        if port == 0 || ip.src.is_multicast() || ip.src.is_unspecified() {
            return Err(DropReason::WrongPeer);
        }
        Ok(Some(from))
    }

    /// The peer is there from now on. Nothing happens to an SA without UDP.
    pub fn move_peer(&mut self, to: SocketAddr) {
        self.hot.move_peer(to);
    }
}

impl OutboundSa {
    /// Where the peer is by now; port 0 without UDP.
    #[must_use]
    pub fn remote_end(&self) -> SocketAddr {
        self.hot.remote_end()
    }

    /// The peer is there from now on. Nothing happens to an SA without UDP.
    pub fn move_peer(&mut self, to: SocketAddr) {
        self.hot.move_peer(to);
    }

    /// What is left to do once a packet is sealed: over IPv6 the UDP checksum.
    ///
    /// # Errors
    /// None for a packet that this SA sealed.
    #[inline]
    pub fn complete(&self, packet: &mut [u8]) -> Result<(), DropReason> {
        if self.hot.encap && self.hot.remote.is_ipv6() { Ok(natt::set_checksum(packet)?) } else { Ok(()) }
    }
}

/// A packet that came out of transport mode gets the addresses that are shown here, and its checksum follows (RFC 3948 §3.1.2).
pub(crate) fn show(
    params: &SaParams,
    hot: &Constants,
    packet: &mut [u8],
    header: &mut IpHeader,
) -> Result<(), DropReason> {
    let shown = params.shown();
    ip::set_source(packet, shown)?;
    header.src = shown;
    // 0 and 0xffff are both nothing in one's complement.
    if matches!(hot.repair, 0 | 0xffff) {
        return Ok(());
    }
    let at = match header.upper {
        protocol::TCP => 16,
        protocol::UDP | protocol::UDP_LITE | protocol::DCCP => 6,
        protocol::ICMPV6 => 2,
        _ => return Ok(()),
    };
    let field = packet.get_mut(header.upper_offset + at..header.total_len).and_then(|rest| rest.first_chunk_mut::<2>());
    let field = field.ok_or(DropReason::BadInner)?;
    let sum = u16::from_be_bytes(*field);
    if header.upper == protocol::UDP && sum == 0 {
        return Ok(()); // RFC 768: there is none
    }
    let sum = match checksum::finish(u32::from(!sum) + u32::from(hot.repair)) {
        0 if header.upper == protocol::UDP => 0xffff,
        sum => sum,
    };
    *field = sum.to_be_bytes();
    Ok(())
}

/// What the encapsulation puts between IP header and ESP.
pub(crate) const fn len(encap: bool) -> usize {
    if encap { udp::LEN } else { 0 }
}
