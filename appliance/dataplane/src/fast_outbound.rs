//! The fast path of what the application sends, as far as its numbers: it is nearly always a segment of TCP over IPv4, of a flow whose
//! tunnel is known and through an SA that it was found to fit. Such a packet joins what is to be sealed after a look at a few fields;
//! of any other the filters are asked (`outbound`), and only there is anything dropped. Segments of a flow come in runs: what there is to
//! look up is so once.

use std::net::IpAddr;

use phalanx_ipsec::{KnownWay, OutboundIndex, SoughtFlow, Subject};
use phalanx_steering::ConnKey;
use phalanx_wire::ethernet::{self, ethertype};
use phalanx_wire::ipv4::{self, Plain};
use phalanx_wire::{Buffer, Flow, Flow4, Frame, TcpHeader, VipId, protocol};

use crate::ahead::OutboundAhead;
use crate::engine::{Batch, Engine};
use crate::outbound::{Connections, Outgoing};
use crate::packet::{Marked, Source, trim};

/// Segments of one flow, one behind the other: what there is to look up is so for the first.
pub(crate) struct Run {
    vip: VipId,
    flow: Flow4,
    sought: SoughtFlow,
    way: Option<KnownWay>,
    pub(crate) through: Option<Through>,
}

/// The SA of a run, whether its rule logs, and which of the burst's connections it is.
pub(crate) struct Through {
    sa: OutboundIndex,
    log: bool,
    connection: u8,
}

impl<S: Source> Engine<S> {
    /// Whether packets of the application have a fast path: not while somebody looks at each.
    fn has_fast_way_out(&self) -> bool {
        self.target.enabled && !self.is_ordinary() && self.watcher.is_none() && self.out.tap.is_none()
    }

    /// The run that each frame is of, if it needs no other way. 1. runs, their flows; 2. tunnel; 3. SA and connection.
    pub(crate) fn known_out(
        &self,
        frames: &Batch<S::Packet>,
        runs: &mut Batch<Run>,
        known: &mut Batch<Option<u8>>,
        connections: &mut Connections,
    ) {
        let fast = self.has_fast_way_out();
        for frame in frames {
            // What is watched is told about step by step.
            let plain = fast && frame.mark() == 0;
            known.push(if plain { self.glance_out(frame.bytes(), runs) } else { None });
        }
        self.runs_out(runs, connections);
        for (one, frame) in known.iter_mut().zip(frames) {
            *one = one.filter(|run| self.fits_out(&runs[usize::from(*run)], frame.bytes()));
        }
    }

    /// Step 1: of a segment, whose run is the last one. A SYN is none: it may open a connection, or be clamped.
    #[inline(always)]
    fn glance_out(&self, frame: &[u8], runs: &mut Batch<Run>) -> Option<u8> {
        let packet = frame.get(ethernet::HEADER_LEN..)?;
        if Frame::parse(frame).ok()?.ethertype != ethertype::IPV4 {
            return None;
        }
        let ip = Plain::of(packet).filter(|ip| ip.protocol == protocol::TCP)?;
        let tcp = TcpHeader::parse_prefix(packet.get(ipv4::MIN_LEN..ip.total_len)?).ok()?;
        if tcp.flags.syn() {
            return None;
        }
        let flow = Flow4 { protocol: protocol::TCP, local: (ip.src, tcp.src_port), remote: (ip.dst, tcp.dst_port) };
        if runs.last().is_none_or(|run| run.flow != flow) {
            let known = runs.last().filter(|run| run.flow.local.0 == ip.src).map(|run| run.vip);
            let vip = known.or_else(|| Some(self.tables.vips.at(self.served(IpAddr::V4(ip.src))?)?.entry.id))?;
            let sought = self.tables.filters.seek_way_out(vip, &Subject::from(&Flow::from(flow)))?;
            runs.push(Run { vip, flow, sought, way: None, through: None });
        }
        Some(runs.len() as u8 - 1)
    }

    /// Steps 2 and 3.
    fn runs_out(&self, runs: &mut Batch<Run>, connections: &mut Connections) {
        let (count, mut ahead) = (runs.len(), OutboundAhead::default());
        for known in 1..=count {
            self.flows_ahead(known, count, |at| Some(&runs[at].sought));
        }
        for (at, run) in runs.iter_mut().enumerate() {
            run.way = self.tables.filters.known_way(&run.sought);
            ahead.tunnels.push(run.way.map(|way| way.tunnel));
            self.tunnels_ahead(&mut ahead, at);
        }
        for (at, run) in runs.iter_mut().enumerate() {
            self.tunnels_ahead(&mut ahead, count + at);
            run.through = run.way.and_then(|way| self.through_known(run.flow, way, connections));
        }
        connections.iter().for_each(|sought| self.target.tracker.entry_ahead(sought));
    }

    /// Step 3.
    #[inline(always)]
    fn through_known(
        &self,
        flow: Flow4,
        KnownWay { tunnel, log, serial }: KnownWay,
        connections: &mut Connections,
    ) -> Option<Through> {
        let at = self.tables.cache.current(tunnel)?;
        let sa = self.tables.cache.outbound(at).filter(|sa| sa.serial() == serial)?;
        let connection = connections.len() as u8;
        connections.push(self.target.tracker.seek(&ConnKey { peer: sa.peer(), flow: flow.into() }));
        Some(Through { sa: at, log, connection })
    }

    #[inline(always)]
    fn fits_out(&self, run: &Run, frame: &[u8]) -> bool {
        let sa = run.through.as_ref().and_then(|through| self.tables.cache.outbound(through.sa));
        sa.zip(ipv4::total_len(&frame[ethernet::HEADER_LEN..])).is_some_and(|(sa, len)| sa.admits_plain(len))
    }
}

impl Through {
    /// A frame of its run.
    #[inline(always)]
    pub(crate) fn outgoing<P: Buffer>(&self, mut packet: P) -> Outgoing<P> {
        packet.cut_front(ethernet::HEADER_LEN);
        if let Some(len) = ipv4::total_len(packet.bytes()) {
            trim(&mut packet, len);
        }
        Outgoing { packet, sa: self.sa, log: self.log, connection: Some(self.connection), plain: true }
    }
}
