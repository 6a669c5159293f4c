//! Outbound: what the application sends from a VIP is sealed here and goes straight to the network (R17-R19).

use arrayvec::ArrayVec;
use phalanx_aead::{SealOp, seal_burst};
use phalanx_ipsec::{
    Origin, OutboundIndex, PlainFront, SealJob, SeqNo, SoughtFlow, Subject, TunnelIndex, Verdict, WayOut,
};
use phalanx_steering::{ConnEvent, ConnKey, Found, Sought};
use phalanx_wire::ethernet::{self, ethertype};
use phalanx_wire::{Buffer, DropReason, Flow, Frame, IpHeader, TcpHeader, ipv4, protocol};

use crate::ahead::OutboundAhead;
use crate::bucket::Bucket;
use crate::bundle::Numbers;
use crate::clock::Now;
use crate::command::Event;
use crate::config::Limits;
use crate::engine::{Batch, Engine};
use crate::hold::{Held, HoldPool};
use crate::laps::{Span, Step};
use crate::logging::Logged;
use crate::notes::{Fact, For};
use crate::packet::{BURST, Marked, Source, trim};
use crate::stats::Stage;
use crate::tables::logged;

/// A packet waits no longer than this for a sequence number.
const WAIT_MS: u64 = 500;
/// SAs looked at for leases in one round, besides those with traffic.
const LOOK_AT: usize = 16;

pub(crate) struct OutboundSide<P> {
    pub(crate) held: HoldPool<P>,
    /// Beside [`phalanx_ipsec::ShadowCache`], by [`OutboundIndex`].
    pub(crate) sas: Box<[OutboundState]>,
    cursor: usize,
    /// How often the host is told that its packets are too big.
    pub(crate) complaints: Bucket,
}

/// Packets of an SA that wait for sequence numbers.
#[derive(Default)]
pub(crate) struct OutboundState {
    pub(crate) held: Held,
    since_ms: u64,
}

/// An inner packet that shall go through an SA.
pub(crate) struct Outgoing<P> {
    pub(crate) packet: P,
    pub(crate) sa: OutboundIndex,
    pub(crate) log: bool,
    /// Which of its burst's connections it is of, if that was sought already.
    pub(crate) connection: Option<u8>,
    /// It came by the fast path: a segment of that connection in a plain packet of IPv4, through an SA as most are, which has a front for it.
    pub(crate) plain: bool,
}

/// The connections of a burst: of its runs (`fast_outbound`), then of other packets.
pub(crate) type Connections = ArrayVec<Sought, { 2 * BURST }>;

/// What goes in front of packets of the first ones of these, and whether they end them.
pub(crate) type Fronts = Batch<(PlainFront, bool)>;

/// Inner packets that shall go through SAs.
pub(crate) struct Burst<P> {
    outgoing: Batch<Outgoing<P>>,
    connections: Connections,
    fronts: Fronts,
}

/// A burst on its way through the cipher, in step.
struct Sealing<P> {
    /// The SAs of these, and of packets that found no number; they may need more.
    touched: Batch<OutboundIndex>,
    packets: Batch<P>,
    jobs: Batch<SealJob>,
    sas: Batch<OutboundIndex>,
    /// AH to go around the ESP of that packet, and its number.
    around: Batch<(usize, OutboundIndex, SeqNo)>,
}

impl<P> Default for Sealing<P> {
    fn default() -> Sealing<P> {
        Sealing {
            touched: Batch::new(),
            packets: Batch::new(),
            jobs: Batch::new(),
            sas: Batch::new(),
            around: Batch::new(),
        }
    }
}

/// A packet from the application, and what the filters are asked about it.
struct Leaving {
    ip: IpHeader,
    subject: Subject,
    sought: Option<SoughtFlow>,
}

/// Packets of a burst that the filters are asked about, in step.
#[derive(Default)]
struct Asked {
    leaving: Batch<Result<Leaving, DropReason>>,
    ways: Batch<Result<Filtered, DropReason>>,
    ahead: OutboundAhead,
}

/// What the filters say about it.
enum Filtered {
    Clear,
    Tunnel(TunnelIndex, WayOut),
}

impl Filtered {
    fn tunnel(&self) -> Option<TunnelIndex> {
        if let Filtered::Tunnel(tunnel, ..) = self { Some(*tunnel) } else { None }
    }
}

/// How it goes.
pub(crate) enum Way {
    Clear,
    Sa(OutboundIndex, bool),
    TooBig(OutboundIndex, bool),
}

impl<P> Outgoing<P> {
    pub(crate) fn new(packet: P, sa: OutboundIndex, log: bool) -> Outgoing<P> {
        Outgoing { packet, sa, log, connection: None, plain: false }
    }
}

impl<P> Burst<P> {
    fn new() -> Burst<P> {
        Burst { outgoing: Batch::new(), connections: ArrayVec::new(), fronts: Batch::new() }
    }

    /// The place of one more connection; none where there is no room, and it is sought again.
    fn connection(&mut self, sought: Option<Sought>) -> Option<u8> {
        self.connections.try_push(sought?).ok()?;
        u8::try_from(self.connections.len() - 1).ok()
    }
}

impl<P> OutboundSide<P> {
    pub(crate) fn new(limits: &Limits) -> OutboundSide<P> {
        let sas = (0..limits.outbound).map(|_| OutboundState::default()).collect();
        let complaints = Bucket::new(crate::too_big::PER_SECOND, crate::too_big::AT_ONCE);
        OutboundSide { held: HoldPool::new(limits.held, limits.held_each), sas, cursor: 0, complaints }
    }
}

impl<S: Source> Engine<S> {
    /// What is known of a segment's flow; of any other packet the filters' answer: 1. IP, from a VIP served here; 2. filter, tunnel; 3. SA.
    /// Then through the SA, or in clear where a filter permits it.
    pub(crate) fn receive_application(&mut self, frames: impl Iterator<Item = S::Packet>, now: Now) {
        let mut frames: Batch<S::Packet> = frames.collect();
        let count = frames.len();
        let (mut burst, mut asked) = (Burst::new(), Asked::default());
        let (mut runs, mut known) = (Batch::new(), Batch::new());
        self.known_out(&frames, &mut runs, &mut known, (&mut burst.connections, &mut burst.fronts));
        if known.iter().any(Option::is_none) {
            let unknown = frames.iter_mut().zip(&known).filter(|(_, known)| known.is_none());
            self.ask_filters(unknown.map(|(packet, _)| packet), &mut asked, now);
        }
        let Asked { leaving, ways, ahead } = &mut asked;
        let (others, mut asked) = (leaving.len(), leaving.iter().zip(ways.drain(..)).enumerate());
        let mut sealing = Sealing::default();
        if others == 0 {
            self.out.lap(Step::WayOut, count);
        }
        for (packet, known) in frames.drain(..).zip(&known) {
            if let Some((known, through)) = known.and_then(|known| Some((known, known.through(&runs)?))) {
                let outgoing = known.outgoing(packet, through);
                if others == 0 {
                    self.prepare(&mut sealing, outgoing, (&burst.connections, &burst.fronts), now);
                } else {
                    self.enlist(&mut burst, outgoing, now);
                }
            } else if let Some((at, (one, way))) = asked.next() {
                self.tunnels_ahead(ahead, others + at);
                self.leave(&mut burst, packet, one, way, now);
            }
        }
        self.out.passed(Stage::RxApplication, count);
        self.out.passed(Stage::SentFast, count - others);
        if others == 0 {
            self.finish(&mut sealing, now);
        } else {
            self.out.lap(Step::WayOut, count);
            self.seal(&mut burst, now);
        }
        self.runs_were(&runs, &burst.connections);
    }

    /// Steps 1 and 2.
    fn ask_filters<'a>(&mut self, packets: impl Iterator<Item = &'a mut S::Packet>, asked: &mut Asked, now: Now)
    where
        S::Packet: 'a,
    {
        let Asked { leaving, ways, ahead } = asked;
        for packet in packets {
            leaving.push(application_ip(packet).and_then(|ip| {
                trim(packet, ip.total_len);
                self.leaving(&ip, packet.bytes(), now)
            }));
        }
        let count = leaving.len();
        for known in 1..=count {
            self.flows_ahead(known, count, |at| leaving[at].as_ref().ok()?.sought.as_ref());
        }
        for (at, one) in leaving.iter().enumerate() {
            let way = one.as_ref().map_err(|why| *why).and_then(|one| self.filter_out(one, now));
            ahead.tunnels.push(way.as_ref().ok().and_then(Filtered::tunnel));
            self.tunnels_ahead(ahead, at);
            ways.push(way);
        }
    }

    /// Step 3, and on.
    #[inline(always)]
    fn leave(
        &mut self,
        burst: &mut Burst<S::Packet>,
        packet: S::Packet,
        one: &Result<Leaving, DropReason>,
        way: Result<Filtered, DropReason>,
        now: Now,
    ) {
        let one = one.as_ref().map_err(|why| *why);
        let way = way.and_then(|way| self.through(way, one?, packet.bytes(), packet.mark()));
        match way {
            Ok(Way::Sa(sa, log)) => {
                let connection = burst.connection(one.ok().and_then(|one| self.seek_sent(sa, &one.subject)));
                self.out_or_aside(burst, Outgoing { connection, ..Outgoing::new(packet, sa, log) }, now);
            }
            Ok(Way::TooBig(sa, log)) => self.too_big(Outgoing::new(packet, sa, log), burst, now),
            Ok(Way::Clear) => {
                self.out.passed(Stage::ClearPermitted, 1);
                self.out.note(&packet, || Fact::Clear);
                self.send_to_network(packet, now);
            }
            Err(DropReason::NoSa) => self.want_sa(packet, now),
            Err(DropReason::Fragment) => self.whole_from_host(packet, burst, now),
            Err(reason) => self.out.drop(packet, reason),
        }
    }

    /// An IP packet of our own from a VIP: through the SA, or in clear, as if the application had sent it. Nothing is asked
    /// of the router first.
    pub(crate) fn send_own(&mut self, packet: S::Packet, now: Now) {
        let ip = IpHeader::parse(packet.bytes()).map_err(DropReason::from);
        match ip.and_then(|ip| self.way_out(&ip, packet.bytes(), packet.mark(), now)) {
            Ok(Way::Sa(sa, log)) => {
                let mut burst = Burst::new();
                self.enlist(&mut burst, Outgoing::new(packet, sa, log), now);
                self.seal(&mut burst, now);
            }
            Ok(Way::Clear) => self.send_to_network(packet, now),
            Ok(Way::TooBig(..)) => self.out.drop(packet, DropReason::TooBig),
            Err(reason) => self.out.drop(packet, reason),
        }
    }

    /// A packet of the application that waited for its SA.
    pub(crate) fn send_waited(&mut self, packet: S::Packet, now: Now) {
        let ip = IpHeader::parse(packet.bytes()).map_err(DropReason::from);
        let mut burst = Burst::new();
        match ip.and_then(|ip| self.way_out(&ip, packet.bytes(), packet.mark(), now)) {
            Ok(Way::Sa(sa, log)) => self.out_or_aside(&mut burst, Outgoing::new(packet, sa, log), now),
            _ => return self.send_own(packet, now),
        }
        self.seal(&mut burst, now);
    }

    /// Both halves, for a packet by itself.
    pub(crate) fn way_out(&mut self, ip: &IpHeader, packet: &[u8], mark: u32, now: Now) -> Result<Way, DropReason> {
        let leaving = self.leaving(ip, packet, now)?;
        let filtered = self.filter_out(&leaving, now)?;
        self.through(filtered, &leaving, packet, mark)
    }

    /// From a VIP that is served here.
    fn leaving(&mut self, ip: &IpHeader, packet: &[u8], now: Now) -> Result<Leaving, DropReason> {
        let Some(slot) = self.served(ip.src) else { return Err(stranger(ip)) };
        let vip = self.tables.vips.at(slot).ok_or(DropReason::SpoofedVip)?;
        let subject = self.inner.sent(ip, packet, now)?;
        // A tunnel of one VIP may carry another of the same router: IPv6 through IPv4.
        let sought = self.tables.filters.seek_way_out(vip.entry.id, &subject);
        Ok(Leaving { ip: *ip, subject, sought })
    }

    /// What the filters say.
    fn filter_out(&mut self, leaving: &Leaving, now: Now) -> Result<Filtered, DropReason> {
        let (subject, filters) = (&leaving.subject, &self.tables.filters);
        let way = leaving.sought.as_ref().and_then(|sought| filters.way_out(sought, subject));
        let mut way = way.ok_or(DropReason::NoFilter)?;
        let tunnel = filters.tunnel(&mut way, &self.tables.cache);
        // The tracker says when to log a connection that it follows.
        let followed = self.target.enabled && subject.protocol == protocol::TCP && way.verdict == Verdict::Protect;
        if way.log && way.new && !followed {
            let denied = way.verdict == Verdict::Deny;
            self.log(logged(filters, way.rule, subject, false, denied), now);
        }
        match way.verdict {
            Verdict::Permit => Ok(Filtered::Clear),
            Verdict::Deny => Err(DropReason::FilterDeny),
            Verdict::Protect => Ok(Filtered::Tunnel(tunnel.ok_or(DropReason::NoSa)?, way)),
        }
    }

    /// What the SA says.
    fn through(&self, filtered: Filtered, leaving: &Leaving, packet: &[u8], mark: u32) -> Result<Way, DropReason> {
        let Filtered::Tunnel(tunnel, way) = filtered else { return Ok(Way::Clear) };
        let at = self.tables.cache.current(tunnel).ok_or(DropReason::NoSa)?;
        let sa = self.tables.cache.outbound(at).ok_or(DropReason::NoSa)?;
        self.out.notes.note(mark, || Fact::Protect(sa.id(), sa.params().spi, leaving.subject));
        if sa.is_within() && self.tables.cache.around(at).is_none() {
            return Err(DropReason::NoSa);
        }
        // RFC 4301 §5.1: an SA carries only what its selectors name.
        if !self.tables.filters.fits(&way, sa.serial()) {
            if !sa.params().selectors.matches(&leaving.subject) {
                return Err(DropReason::WrongTunnel);
            }
            self.tables.filters.set_fits(&way, sa.serial());
        }
        let (sa, log, admitted) = (at, way.log, sa.admit_behind(&leaving.ip, packet, Origin::Host));
        match admitted {
            Err(DropReason::TooBig) => Ok(Way::TooBig(sa, log)),
            admitted => admitted.map(|()| Way::Sa(sa, log)),
        }
    }

    /// The connection of a packet through that SA, where this core is a target.
    fn seek_sent(&self, sa: OutboundIndex, subject: &Subject) -> Option<Sought> {
        let sa = self.tables.cache.outbound(sa).filter(|_| self.target.enabled)?;
        Some(self.target.tracker.seek(&ConnKey { peer: sa.peer(), flow: subject.flow()? }))
    }

    /// Adds a packet to a burst; a full one goes first.
    pub(crate) fn enlist(&mut self, burst: &mut Burst<S::Packet>, outgoing: Outgoing<S::Packet>, now: Now) {
        if burst.outgoing.is_full() {
            self.seal(burst, now);
        }
        burst.outgoing.push(outgoing);
    }

    /// 1. a number for each packet, or it waits behind those that do; 2. tracker; 3. begin: layout and lifesize;
    /// 4. the cipher over all; 5. next hop; 6. ask for more numbers.
    fn seal(&mut self, Burst { outgoing, connections, fronts }: &mut Burst<S::Packet>, now: Now) {
        let mut sealing = Sealing::default();
        let (count, sought) = (outgoing.len(), |of: Option<u8>| connections.get(usize::from(of?)));
        for known in 1..=count {
            self.tracked_ahead(known, count, |at| sought(outgoing[at].connection));
        }
        for outgoing in outgoing.drain(..) {
            self.prepare(&mut sealing, outgoing, (connections, fronts), now);
        }
        self.finish(&mut sealing, now);
    }

    /// Steps 1 to 3 of a packet.
    #[inline(always)]
    fn prepare(
        &mut self,
        sealing: &mut Sealing<S::Packet>,
        Outgoing { packet, sa: at, log, connection, plain }: Outgoing<S::Packet>,
        (connections, fronts): (&Connections, &Fronts),
        now: Now,
    ) {
        self.seal_ahead(at, packet.bytes().len());
        if sealing.touched.last() != Some(&at) {
            sealing.touched.push(at);
        }
        // Mostly no SA has any, and then none is looked at.
        let nobody_waits = self.outbound.held.held() == 0 || self.outbound.sas[at.0 as usize].held.is_empty();
        let numbers = if nobody_waits { self.numbers(at, now) } else { None };
        let Some(numbers) = numbers else { return self.hold(at, packet, now) };
        let connection = connection.map(usize::from);
        let front = connection.filter(|_| plain).and_then(|at| fronts.get(at));
        let sought = connection.and_then(|at| connections.get(at));
        self.begin(sealing, (at, sought, front), packet, numbers, log, now);
    }

    /// Numbers came: what waited goes, as far as they reach.
    pub(crate) fn release(&mut self, at: OutboundIndex, now: Now) {
        let (mut go_on, waited) = (true, self.outbound.sas[at.0 as usize].held.len());
        while go_on {
            let mut sealing = Sealing::default();
            while go_on && !sealing.packets.is_full() {
                let waiting = !self.outbound.sas[at.0 as usize].held.is_empty();
                let numbers = if waiting { self.numbers(at, now) } else { None };
                let held = &mut self.outbound.sas[at.0 as usize].held;
                match numbers.and_then(|numbers| Some((numbers, self.outbound.held.pop_since(held)?))) {
                    // Whether to log is asked again, should this open a connection.
                    Some((numbers, (packet, since))) => {
                        self.out.stats.measures.waited(Span::Lease, since, now.us());
                        self.begin(&mut sealing, (at, None, None), packet, numbers, true, now);
                    }
                    None => go_on = false,
                }
            }
            self.finish(&mut sealing, now);
        }
        // What waits for numbers of AH as well may have got none.
        let state = &mut self.outbound.sas[at.0 as usize];
        if state.held.len() < waited {
            state.since_ms = now.ms();
        }
        self.want_lease(at, now);
    }

    /// Stages 2 and 3 of one packet.
    #[inline(always)]
    fn begin(
        &mut self,
        sealing: &mut Sealing<S::Packet>,
        (at, sought, front): (OutboundIndex, Option<&Sought>, Option<&(PlainFront, bool)>),
        mut packet: S::Packet,
        Numbers { seq, around }: Numbers,
        log: bool,
        now: Now,
    ) {
        let number = seq.value();
        let begun = match sought.zip(front) {
            Some((sought, (front, ends))) => {
                self.track_segment(packet.bytes(), (at, sought, *ends), log, now).and_then(|()| {
                    self.tables.cache.outbound_mut(at).ok_or(DropReason::NoSa)?.begin_plain(front, &mut packet, seq)
                })
            }
            None => self.begin_one(&mut packet, (at, sought), seq, log, now),
        };
        match begun {
            Ok(job) => {
                self.note_sealed(at, packet.mark(), number);
                sealing.packets.push(packet);
                sealing.jobs.push(job);
                sealing.sas.push(at);
                if let Some((ah, seq)) = around {
                    sealing.around.push((sealing.sas.len() - 1, ah, seq));
                }
            }
            Err(reason) => self.out.drop(packet, reason),
        }
    }

    #[inline(never)]
    fn begin_one(
        &mut self,
        packet: &mut S::Packet,
        (at, sought): (OutboundIndex, Option<&Sought>),
        seq: SeqNo,
        log: bool,
        now: Now,
    ) -> Result<SealJob, DropReason> {
        let ip = IpHeader::parse(packet.bytes())?;
        self.track_outbound((at, sought), &ip, packet.bytes(), log, now)?;
        let sa = self.tables.cache.outbound_mut(at).ok_or(DropReason::NoSa)?;
        if sa.clamps() {
            sa.clamp_mss(packet.bytes_mut());
        }
        sa.begin_behind(&ip, packet, seq, Origin::Host)
    }

    /// Stage 2 of a segment that came by the fast path.
    #[inline(always)]
    fn track_segment(
        &mut self,
        packet: &[u8],
        (at, sought, ends): (OutboundIndex, &Sought, bool),
        log: bool,
        now: Now,
    ) -> Result<(), DropReason> {
        let tracker = &mut self.target.tracker;
        let found = tracker.find_sought(sought);
        if !ends && tracker.flows_on(found, now.ms()) {
            return Ok(());
        }
        let upper = packet.get(ipv4::MIN_LEN..).unwrap_or_default();
        let tcp = TcpHeader::parse_prefix(upper)?;
        let payload = upper.len().saturating_sub(tcp.data_offset);
        let event = tracker.outbound_sought((found, sought), &tcp, payload, now.ms());
        if event.is_none() { Ok(()) } else { self.tell_of_segment(at, sought.key(), event, log, now) }
    }

    #[inline]
    pub(crate) fn note_sealed(&self, at: OutboundIndex, mark: u32, number: u64) {
        if let (true, Some(sa)) = (mark != 0, self.tables.cache.outbound(at)) {
            self.out.notes.note(mark, || Fact::Sealed(sa.id(), sa.params().spi, number));
        }
    }

    /// Steps 4 to 6.
    fn finish(&mut self, sealing: &mut Sealing<S::Packet>, now: Now) {
        if !sealing.packets.is_empty() {
            self.send_all(sealing, now);
        }
        for at in sealing.touched.drain(..) {
            self.want_lease(at, now);
        }
    }

    /// Steps 4 and 5.
    fn send_all(&mut self, sealing: &mut Sealing<S::Packet>, now: Now) {
        let count = sealing.packets.len();
        self.out.lap(Step::Lease, count);
        let mut ops: Batch<SealOp<'_>> = Batch::new();
        for ((packet, job), at) in sealing.packets.iter_mut().zip(sealing.jobs.drain(..)).zip(&sealing.sas) {
            // Nothing took the SA out since stage 3. AH was sealed there.
            if let Some(sa) = self.tables.cache.outbound(*at).filter(|_| !job.is_done()) {
                ops.push(job.op(sa, packet.bytes_mut()));
            }
        }
        seal_burst(&mut ops);
        drop(ops);
        self.out.passed(Stage::Sealed, count);
        self.out.lap(Step::Seal, count);
        let (mut latest, mut around) = (None, sealing.around.drain(..).peekable());
        for (place, (mut packet, at)) in sealing.packets.drain(..).zip(&sealing.sas).enumerate() {
            let completed = self.tables.cache.outbound(*at).map_or(Ok(()), |sa| sa.complete(packet.bytes_mut()));
            match (completed, around.next_if(|(of, ..)| *of == place)) {
                (Ok(()), None) => self.send_sealed_next(*at, packet, &mut latest, now),
                (Ok(()), Some((_, ah, seq))) => self.send_around((ah, seq), packet, now),
                (Err(reason), _) => self.out.drop(packet, reason),
            }
        }
        self.out.lap(Step::NextHop, count);
    }

    /// Stage 2: where this core is a target, it follows its connections in both directions.
    pub(crate) fn track_outbound(
        &mut self,
        (at, sought): (OutboundIndex, Option<&Sought>),
        ip: &IpHeader,
        packet: &[u8],
        log: bool,
        now: Now,
    ) -> Result<(), DropReason> {
        let Some(sa) = self.tables.cache.outbound(at).filter(|_| self.target.enabled) else { return Ok(()) };
        let peer = sa.peer();
        if ip.upper == protocol::UDP
            && let Ok(flow) = Flow::of_outbound(ip, ip.upper_of(packet))
        {
            let key = ConnKey { peer, flow };
            let found = self.find_sent(&key, sought);
            let event = self.target.tracker.datagram_out_found(found, now.ms());
            return self.tell_of_sent(at, key, event, None, now);
        }
        if ip.upper != protocol::TCP || ip.fragment.is_some() {
            return Ok(());
        }
        let tcp = TcpHeader::parse_prefix(ip.upper_of(packet))?;
        let flow = Flow::of_outbound(ip, ip.upper_of(packet))?;
        let (key, payload) = (ConnKey { peer, flow }, ip.upper_len().saturating_sub(tcp.data_offset));
        let found = self.find_sent(&key, sought);
        let event = self.target.tracker.outbound_found(found, &key, &tcp, payload, now.ms());
        self.tell_of_segment(at, key, event, log, now)
    }

    fn tell_of_segment(
        &mut self,
        at: OutboundIndex,
        key: ConnKey,
        event: Option<ConnEvent>,
        log: bool,
        now: Now,
    ) -> Result<(), DropReason> {
        let opened = log && event == Some(ConnEvent::Opened);
        let entry = opened.then(|| self.log_of(&Subject::from(&key.flow))).flatten();
        self.tell_of_sent(at, key, event, entry, now)
    }

    fn find_sent(&self, key: &ConnKey, sought: Option<&Sought>) -> Found {
        let tracker = &self.target.tracker;
        sought.map_or_else(|| tracker.find(key), |sought| tracker.find_sought(sought))
    }

    fn tell_of_sent(
        &mut self,
        at: OutboundIndex,
        key: ConnKey,
        event: Option<ConnEvent>,
        log: Option<Logged>,
        now: Now,
    ) -> Result<(), DropReason> {
        if event.is_none() {
            return Ok(());
        }
        let vip = self.tables.cache.outbound(at).ok_or(DropReason::NoSa)?.params().vip;
        self.tell_connection(vip, key, event, log, now)
    }

    /// The entry about a connection of ours, if its rule asks for one.
    fn log_of(&self, subject: &Subject) -> Option<Logged> {
        let (vip, filters) = (self.tables.vips.by_address(subject.local)?, &self.tables.filters);
        let (at, _) = filters.seek_together(vip.entry.id, subject);
        logged(filters, at?, subject, false, false)
    }

    fn hold(&mut self, at: OutboundIndex, packet: S::Packet, now: Now) {
        let state = &mut self.outbound.sas[at.0 as usize];
        if state.held.is_empty() {
            state.since_ms = now.ms();
        }
        let mark = packet.mark();
        match self.outbound.held.push(&mut state.held, packet, now.us()) {
            Ok(()) => {
                self.out.passed(Stage::HeldForLease, 1);
                self.out.notes.note(mark, || Fact::Held(For::Lease));
            }
            Err(packet) => self.out.drop(packet, DropReason::LeaseWaitFull),
        }
    }

    pub(crate) fn send_to_network(&mut self, packet: S::Packet, now: Now) {
        match crate::station::destination(packet.bytes()).and_then(|to| self.world.route(to)) {
            Some((port, _)) => self.send(port, packet, now),
            None => self.out.drop(packet, DropReason::NoNeighbour),
        }
    }

    fn want_lease(&mut self, at: OutboundIndex, now: Now) {
        // Mostly no SA has any, and then none is looked at.
        let nobody_waits = self.outbound.held.held() == 0;
        let waiting = if nobody_waits { 0 } else { self.outbound.sas[at.0 as usize].held.len() };
        self.want_numbers(at, waiting, now);
        if let Some(ah) = self.tables.cache.around(at) {
            self.want_numbers(ah, waiting, now);
        }
    }

    fn want_numbers(&mut self, at: OutboundIndex, waiting: u32, now: Now) {
        let Some(sa) = self.tables.cache.outbound_mut(at) else { return };
        // Whoever waits for two SAs' numbers may have asked for those of one only.
        if waiting > 0 && sa.lease.remaining() == 0 {
            let _ = sa.lease.take(now.us());
        }
        if let Some(wanted) = sa.lease.wants(now.us()) {
            let want = wanted.want.max(waiting);
            let (core, sa) = (self.id, sa.id());
            let (done_below, rate_pps) = (wanted.done_below, wanted.rate);
            self.mail.tell(Event::LeaseWanted { core, sa, want, done_below, rate_pps });
        }
    }

    /// Repeats requests for SAs whose packets wait, and gives up what waited too long.
    pub(crate) fn tend_leases(&mut self, now: Now) {
        for _ in 0..LOOK_AT.min(self.outbound.sas.len()) {
            let at = self.outbound.cursor;
            self.outbound.cursor = (at + 1) % self.outbound.sas.len();
            let state = &self.outbound.sas[at];
            if state.held.is_empty() {
                continue;
            }
            let index = OutboundIndex(at as u32);
            if now.ms() >= state.since_ms + WAIT_MS {
                self.drop_held(index, DropReason::NoLease);
            } else {
                self.want_lease(index, now);
            }
        }
    }

    /// Drops what waits for an SA's numbers.
    fn drop_held(&mut self, at: OutboundIndex, reason: DropReason) {
        while let Some(packet) = self.outbound.held.pop(&mut self.outbound.sas[at.0 as usize].held) {
            self.out.drop(packet, reason);
        }
    }

    /// What waited for numbers of an SA that is gone takes the one that its tunnel has now: its peer deletes an SA that is
    /// replaced without asking who still waits (I4).
    pub(crate) fn send_held_anew(&mut self, gone: OutboundIndex, now: Now) {
        while let Some(packet) = self.outbound.held.pop(&mut self.outbound.sas[gone.0 as usize].held) {
            self.send_own(packet, now);
        }
    }
}

/// Takes the Ethernet header off; ARP and whatever else is no IP is noise of the host's stack.
fn application_ip(packet: &mut impl Buffer) -> Result<IpHeader, DropReason> {
    let frame = Frame::parse(packet.bytes())?;
    if !matches!(frame.ethertype, ethertype::IPV4 | ethertype::IPV6) {
        return Err(DropReason::NotForUs);
    }
    packet.cut_front(ethernet::HEADER_LEN);
    Ok(IpHeader::parse(packet.bytes())?)
}

/// A source that is no VIP served here: the stack's own noise (ND, MLD, mDNS), or something that must not get out.
fn stranger(ip: &IpHeader) -> DropReason {
    let link_local = match ip.src {
        std::net::IpAddr::V4(src) => src.is_link_local(),
        std::net::IpAddr::V6(src) => src.is_unicast_link_local(),
    };
    if ip.dst.is_multicast() || ip.src.is_unspecified() || link_local {
        DropReason::NotForUs
    } else {
        DropReason::SpoofedVip
    }
}
