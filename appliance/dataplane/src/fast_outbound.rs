//! The fast path of what the application sends, as far as its numbers: it is nearly always a segment of TCP over IPv4, of a flow whose
//! tunnel is known and through an SA that it was found to fit. Such a packet joins what is to be sealed after a look at a few fields;
//! of any other the filters are asked (`outbound`), and only there is anything dropped. Segments of a flow come in runs: what there is to
//! look up is so once.

use std::net::IpAddr;

use phalanx_ipsec::{KnownWay, OutboundIndex, SoughtFlow, Subject};
use phalanx_steering::{ConnKey, Sought};
use phalanx_wire::ethernet::{self, ethertype};
use phalanx_wire::ipv4::{self, Plain};
use phalanx_wire::{Buffer, Flow, Flow4, Frame, Likeness, TcpHeader, VipId, protocol, tcp};

use crate::ahead::OutboundAhead;
use crate::engine::{Batch, Engine};
use crate::outbound::{Connections, Fronts, Outgoing};
use crate::packet::{Marked, Source, trim};

/// Ethernet, IPv4, and TCP as far as its flags: packets that are alike in these are of one run.
const FRONT_OF_RUN: usize = TCP + tcp::FLAGS_FIELD + 1;
const TCP: usize = ethernet::HEADER_LEN + ipv4::MIN_LEN;
const OF_ONE_RUN: Likeness<FRONT_OF_RUN> = Likeness::ALL.but_ipv4(ethernet::HEADER_LEN).but_tcp(TCP);

/// Segments of one flow, one behind the other: what there is to look up is so for the first.
pub(crate) struct Run {
    /// Place of the first one in the burst.
    first: u8,
    vip: VipId,
    flow: Flow4,
    /// They end their connection.
    ends: bool,
    sought: SoughtFlow,
    way: Option<KnownWay>,
    through: Option<Through>,
}

/// The SA of a run, the longest packet that it takes, whether the rule logs, and which of the burst's connections it is.
pub(crate) struct Through {
    sa: OutboundIndex,
    longest: usize,
    log: bool,
    connection: u8,
}

/// The run that a packet is of, and its length.
#[derive(Clone, Copy)]
pub(crate) struct Known {
    run: u8,
    len: u16,
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
        known: &mut Batch<Option<Known>>,
        (connections, fronts): (&mut Connections, &mut Fronts),
    ) {
        let fast = self.has_fast_way_out();
        for at in 0..frames.len() {
            // What is watched is told about step by step.
            let plain = fast && frames[at].mark() == 0;
            known.push(if plain { self.glance_out(frames, at, runs) } else { None });
        }
        self.runs_out(frames, runs, connections, fronts);
        for one in known {
            let fits = |known: &Known| known.through(runs).is_some_and(|run| usize::from(known.len) <= run.longest);
            *one = one.filter(fits);
        }
    }

    /// Step 1: of a segment, whose run is the last one. A SYN is none: it may open a connection, or be clamped.
    #[inline(always)]
    fn glance_out(&self, frames: &Batch<S::Packet>, at: usize, runs: &mut Batch<Run>) -> Option<Known> {
        let (frame, before) = (frames[at].bytes(), runs.last().and_then(|run| run.front(frames)));
        if !before.is_some_and(|front| OF_ONE_RUN.holds(front, frame)) {
            let run = self.new_run_out(frame, at, runs.last())?;
            runs.push(run);
        }
        let packet = &frame[ethernet::HEADER_LEN..];
        let len = ipv4::plain_len(packet)?;
        let right = (ipv4::MIN_LEN + tcp::MIN_LEN..=packet.len()).contains(&len);
        right.then_some(Known { run: runs.len() as u8 - 1, len: len as u16 })
    }

    #[inline(always)]
    fn new_run_out(&self, frame: &[u8], at: usize, before: Option<&Run>) -> Option<Run> {
        if Frame::parse(frame).ok()?.ethertype != ethertype::IPV4 {
            return None;
        }
        let ip = Plain::of(&frame[ethernet::HEADER_LEN..]).filter(|ip| ip.protocol == protocol::TCP)?;
        let tcp = TcpHeader::parse_prefix(&frame[TCP..]).ok().filter(|tcp| !tcp.flags.syn())?;
        let flow = Flow4 { protocol: protocol::TCP, local: (ip.src, tcp.src_port), remote: (ip.dst, tcp.dst_port) };
        let known = before.filter(|run| run.flow.local.0 == ip.src).map(|run| run.vip);
        let vip = known.or_else(|| Some(self.tables.vips.at(self.served(IpAddr::V4(ip.src))?)?.entry.id))?;
        let sought = self.tables.filters.seek_way_out(vip, &Subject::from(&Flow::from(flow)))?;
        Some(Run { first: at as u8, vip, flow, ends: tcp.flags.ends(), sought, way: None, through: None })
    }

    /// Steps 2 and 3.
    fn runs_out(
        &self,
        frames: &Batch<S::Packet>,
        runs: &mut Batch<Run>,
        connections: &mut Connections,
        fronts: &mut Fronts,
    ) {
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
            run.through =
                run.way.and_then(|way| self.through_known((run, run.front(frames)?), way, connections, fronts));
        }
        connections.iter().for_each(|sought| self.target.tracker.entry_ahead(sought));
    }

    /// Behind a burst: where connections were found is remembered with their flows, and looked at first when more of them comes.
    pub(crate) fn runs_were(&self, runs: &Batch<Run>, connections: &Connections) {
        for run in runs {
            let Some((way, through)) = run.way.zip(run.through.as_ref()) else { continue };
            let slot = connections.get(usize::from(through.connection)).and_then(Sought::slot);
            if slot != way.connection {
                self.tables.filters.set_connection(&run.sought, slot);
            }
        }
    }

    /// Step 3.
    #[inline(always)]
    fn through_known(
        &self,
        (run, front): (&Run, &[u8; FRONT_OF_RUN]),
        KnownWay { tunnel, log, serial, connection: known }: KnownWay,
        connections: &mut Connections,
        fronts: &mut Fronts,
    ) -> Option<Through> {
        let at = self.tables.cache.current(tunnel)?;
        let sa = self.tables.cache.outbound(at).filter(|sa| sa.serial() == serial)?;
        let longest = sa.longest_plain()?;
        let front = sa.plain_front(front[ethernet::HEADER_LEN..].first_chunk()?)?;
        fronts.push((front, run.ends));
        let connection = connections.len() as u8;
        let (tracker, key) = (&self.target.tracker, ConnKey { peer: sa.peer(), flow: run.flow.into() });
        connections.push(known.map_or_else(|| tracker.seek(&key), |slot| tracker.seek_in(&key, slot)));
        Some(Through { sa: at, longest, log, connection })
    }
}

impl Run {
    /// What its frames are alike in.
    #[inline(always)]
    fn front<'a>(&self, frames: &'a Batch<impl Buffer>) -> Option<&'a [u8; FRONT_OF_RUN]> {
        frames[usize::from(self.first)].bytes().first_chunk()
    }
}

impl Known {
    /// Where it goes, of one of these runs.
    #[inline(always)]
    pub(crate) fn through(self, runs: &Batch<Run>) -> Option<&Through> {
        runs[usize::from(self.run)].through.as_ref()
    }

    /// Its frame.
    #[inline(always)]
    pub(crate) fn outgoing<P: Buffer>(self, mut packet: P, through: &Through) -> Outgoing<P> {
        packet.cut_front(ethernet::HEADER_LEN);
        trim(&mut packet, self.len.into());
        Outgoing { packet, sa: through.sa, log: through.log, connection: Some(through.connection), plain: true }
    }
}
