//! The fast path of what the application sends, as far as its numbers: it is nearly always a segment of TCP over IPv4, of a flow whose
//! tunnel is known and through an SA that it was found to fit. Such a packet joins what is to be sealed after a look at a few fields;
//! whatever is different in any way takes the ordinary way, where alone anything is asked, dropped and counted (`tests/fast.rs`).
//! Packets stay in order: each takes a number.

use std::net::{IpAddr, Ipv4Addr};

use phalanx_ipsec::{KnownWay, OutboundIndex, SoughtFlow, Subject};
use phalanx_steering::{ConnKey, Sought};
use phalanx_wire::ethernet::{self, ethertype};
use phalanx_wire::ipv4::{self, Plain};
use phalanx_wire::{Buffer, Endpoint, Flow, Frame, TcpHeader, VipId, protocol};

use crate::ahead::OutboundAhead;
use crate::clock::Now;
use crate::engine::{Batch, Engine};
use crate::laps::Step;
use crate::outbound::{Outgoing, Segment};
use crate::packet::{Marked, Source, trim};
use crate::stats::Stage;

/// Segments of one flow, one behind the other: what there is to look up is so for the first.
struct Run {
    vip: VipId,
    ends: Ends,
    flow: SoughtFlow,
    way: Option<KnownWay>,
    through: Option<Through>,
}

/// Addresses and ports of a segment.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Ends {
    local: (Ipv4Addr, u16),
    remote: (Ipv4Addr, u16),
}

/// The SA of a run, whether its rule logs, and the connection.
struct Through {
    sa: OutboundIndex,
    log: bool,
    connection: Sought,
}

impl<S: Source> Engine<S> {
    /// Whether packets of the application have a fast path: not while somebody looks at each.
    pub(crate) fn has_fast_way_out(&self) -> bool {
        self.target.enabled && !self.is_ordinary() && self.watcher.is_none() && self.out.tap.is_none()
    }

    /// Frames of the application: 1. runs, their flows; 2. tunnel; 3. SA and connection; 4. sealed, or the ordinary way.
    pub(crate) fn receive_application_fast(&mut self, frames: &mut Batch<S::Packet>, now: Now) {
        let (mut runs, mut segments) = (Batch::<Run>::new(), Batch::<Option<(usize, Segment)>>::new());
        for frame in frames.iter() {
            // What is watched is told about step by step.
            let plain = frame.mark() == 0;
            segments.push(if plain { self.glance_out(frame.bytes(), &mut runs) } else { None });
        }
        self.runs_out(&mut runs);
        let (mut burst, mut ordinary) = (Batch::new(), Batch::new());
        for (mut packet, segment) in frames.drain(..).zip(&segments) {
            match segment.and_then(|(run, segment)| Some((segment, self.fits_out(runs[run].through.as_ref()?, &segment)?))) {
                Some((segment, Through { sa, log, connection })) => {
                    if !ordinary.is_empty() {
                        self.receive_application_frames(&mut ordinary, now);
                    }
                    packet.cut_front(ethernet::HEADER_LEN);
                    trim(&mut packet, segment.len);
                    let (sa, log, sought) = (*sa, *log, Some(connection.clone()));
                    burst.push(Outgoing { packet, sa, log, sought, segment: Some(segment) });
                }
                None => {
                    self.seal_fast(&mut burst, now);
                    ordinary.push(packet);
                }
            }
        }
        self.seal_fast(&mut burst, now);
        if !ordinary.is_empty() {
            self.receive_application_frames(&mut ordinary, now);
        }
    }

    /// Step 4.
    fn seal_fast(&mut self, burst: &mut Batch<Outgoing<S::Packet>>, now: Now) {
        if burst.is_empty() {
            return;
        }
        self.out.passed(Stage::RxApplication, burst.len());
        self.out.lap(Step::WayOut, burst.len());
        self.seal(burst, now);
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
        let ends = Ends { local: (ip.src, tcp.src_port), remote: (ip.dst, tcp.dst_port) };
        if runs.last().is_none_or(|run| run.ends != ends) {
            let known = runs.last().filter(|run| run.ends.local.0 == ip.src).map(|run| run.vip);
            let vip = known.or_else(|| Some(self.tables.vips.at(self.served(IpAddr::V4(ip.src))?)?.entry.id))?;
            let flow = self.tables.filters.seek_way_out(vip, &ends.subject())?;
            runs.push(Run { vip, ends, flow, way: None, through: None });
        }
        Some((runs.len() - 1, Segment { tcp, len: ip.total_len }))
    }

    /// Steps 2 and 3.
    fn runs_out(&self, runs: &mut Batch<Run>) {
        let (count, mut ahead) = (runs.len(), OutboundAhead::default());
        for known in 1..=count {
            self.flows_ahead(known, count, |at| Some(&runs[at].flow));
        }
        for (at, run) in runs.iter_mut().enumerate() {
            run.way = self.tables.filters.known_way(&run.flow);
            ahead.tunnels.push(run.way.map(|way| way.tunnel));
            self.tunnels_ahead(&mut ahead, at);
        }
        for (at, run) in runs.iter_mut().enumerate() {
            self.tunnels_ahead(&mut ahead, count + at);
            run.through = run.way.and_then(|way| self.through_known(&run.ends, way));
        }
        let connections = runs.iter().filter_map(|run| run.through.as_ref());
        connections.for_each(|through| self.target.tracker.entry_ahead(&through.connection));
    }

    /// Step 3.
    #[inline(always)]
    fn through_known(&self, ends: &Ends, KnownWay { tunnel, log, serial }: KnownWay) -> Option<Through> {
        let at = self.tables.cache.current(tunnel)?;
        let sa = self.tables.cache.outbound(at).filter(|sa| sa.serial() == serial)?;
        let connection = self.target.tracker.seek(&ConnKey { peer: sa.peer(), flow: ends.flow() });
        Some(Through { sa: at, log, connection })
    }

    #[inline(always)]
    fn fits_out<'a>(&self, through: &'a Through, segment: &Segment) -> Option<&'a Through> {
        let sa = self.tables.cache.outbound(through.sa)?;
        sa.admits_plain(segment.len).then_some(through)
    }
}

impl Ends {
    #[inline(always)]
    fn flow(&self) -> Flow {
        let end = |(addr, port)| Endpoint { addr: IpAddr::V4(addr), port };
        Flow { protocol: protocol::TCP, local: end(self.local), remote: end(self.remote) }
    }

    #[inline(always)]
    fn subject(&self) -> Subject {
        Subject::from(&self.flow())
    }
}
