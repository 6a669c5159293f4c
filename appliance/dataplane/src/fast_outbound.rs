//! The fast path of what the application sends, as far as its numbers: it is nearly always a segment of TCP over IPv4, of a flow whose
//! tunnel is known and through an SA that it was found to fit. Such a packet joins what is to be sealed after a look at a few fields;
//! of any other the filters are asked (`outbound`), and only there is anything dropped. Segments of a flow come in runs: what there is to
//! look up is so once.

use std::net::IpAddr;

use phalanx_ipsec::{KnownWay, OutboundIndex, SoughtFlow, Subject};
use phalanx_steering::{ConnKey, Sought};
use phalanx_wire::ethernet::{self, ethertype};
use phalanx_wire::ipv4::{self, Plain};
use phalanx_wire::{Buffer, Flow, Flow4, Frame, TcpHeader, VipId, protocol};

use crate::ahead::OutboundAhead;
use crate::engine::{Batch, Engine};
use crate::outbound::{Outgoing, Segment};
use crate::packet::{Marked, Source, trim};

/// Segments of one flow, one behind the other: what there is to look up is so for the first.
pub(crate) struct Run {
    vip: VipId,
    flow: Flow4,
    sought: SoughtFlow,
    way: Option<KnownWay>,
    pub(crate) through: Option<Through>,
}

/// The SA of a run, whether its rule logs, and the connection.
pub(crate) struct Through {
    sa: OutboundIndex,
    log: bool,
    connection: Sought,
}

impl<S: Source> Engine<S> {
    /// Whether packets of the application have a fast path: not while somebody looks at each.
    fn has_fast_way_out(&self) -> bool {
        self.target.enabled && !self.is_ordinary() && self.watcher.is_none() && self.out.tap.is_none()
    }

    /// What is known of each frame: its segment and the run that it is of. 1. runs, their flows; 2. tunnel; 3. SA and connection.
    pub(crate) fn known_out(
        &self,
        frames: &Batch<S::Packet>,
        runs: &mut Batch<Run>,
        known: &mut Batch<Option<(usize, Segment)>>,
    ) {
        let fast = self.has_fast_way_out();
        for frame in frames {
            // What is watched is told about step by step.
            let plain = fast && frame.mark() == 0;
            known.push(if plain { self.glance_out(frame.bytes(), runs) } else { None });
        }
        self.runs_out(runs);
        for one in known {
            *one = one.filter(|(run, segment)| self.fits_out(&runs[*run], segment));
        }
    }

    /// Step 1. The segment's run is the last one. A SYN is none: it may open a connection, or be clamped.
    #[inline(always)]
    fn glance_out(&self, frame: &[u8], runs: &mut Batch<Run>) -> Option<(usize, Segment)> {
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
        Some((runs.len() - 1, Segment { tcp, len: ip.total_len }))
    }

    /// Steps 2 and 3.
    fn runs_out(&self, runs: &mut Batch<Run>) {
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
            run.through = run.way.and_then(|way| self.through_known(run.flow, way));
        }
        let connections = runs.iter().filter_map(|run| run.through.as_ref());
        connections.for_each(|through| self.target.tracker.entry_ahead(&through.connection));
    }

    /// Step 3.
    #[inline(always)]
    fn through_known(&self, flow: Flow4, KnownWay { tunnel, log, serial }: KnownWay) -> Option<Through> {
        let at = self.tables.cache.current(tunnel)?;
        let sa = self.tables.cache.outbound(at).filter(|sa| sa.serial() == serial)?;
        let connection = self.target.tracker.seek(&ConnKey { peer: sa.peer(), flow: flow.into() });
        Some(Through { sa: at, log, connection })
    }

    #[inline(always)]
    fn fits_out(&self, run: &Run, segment: &Segment) -> bool {
        let sa = run.through.as_ref().and_then(|through| self.tables.cache.outbound(through.sa));
        sa.is_some_and(|sa| sa.admits_plain(segment.len))
    }
}

impl Through {
    /// A frame of its run.
    #[inline(always)]
    pub(crate) fn outgoing<P: Buffer>(&self, mut packet: P, segment: Segment) -> Outgoing<P> {
        packet.cut_front(ethernet::HEADER_LEN);
        trim(&mut packet, segment.len);
        let (sought, segment) = (Some(self.connection.clone()), Some(segment));
        Outgoing { packet, sa: self.sa, log: self.log, sought, segment }
    }
}
