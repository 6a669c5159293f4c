//! Opening a burst of ESP or AH packets: what a target does with what it was sent, and a router with what it keeps.

use std::net::SocketAddr;

use phalanx_aead::{OpenOp, open_burst};
use phalanx_ipsec::{InboundIndex, OpenJob, Role, Subject};
use phalanx_steering::{ConnEvent, ConnKey, Opened, Ruling, Seen, Sought};
use phalanx_wire::{Buffer, DropReason, Flow4, IpHeader, Likeness, TcpHeader, VipId, ipv4, protocol, tcp};

use crate::bundle::Around;
use crate::clock::Now;
use crate::command::Event;
use crate::engine::{Batch, Engine};
use crate::laps::Step;
use crate::logging::Logged;
use crate::notes::Fact;
use crate::packet::{Marked, Source, trim};
use crate::stats::Stage;
use crate::tables::Ruled;

/// An ESP or AH packet whose number passed the window's check.
pub(crate) struct Opening<P> {
    pub(crate) packet: P,
    pub(crate) ip: IpHeader,
    pub(crate) vip: VipId,
    pub(crate) sa: InboundIndex,
    pub(crate) seq: u64,
    /// AH around it, if it is of ESP.
    pub(crate) around: Option<Around>,
    /// The router did the inbound filter (R14).
    pub(crate) filtered: bool,
}

/// What is known beside its bytes of a packet that waits for the cipher.
pub(crate) struct Begun {
    pub(crate) job: OpenJob,
    pub(crate) vip: VipId,
    pub(crate) sa: InboundIndex,
    pub(crate) filtered: bool,
    /// Where it came from, if its peer was elsewhere.
    pub(crate) from: Option<SocketAddr>,
}

/// What came out of ESP or AH. Of a burst there are many, so each is a byte and where to find more.
#[derive(Clone, Copy)]
enum Inside {
    /// A segment of that run, in a packet of so many bytes; it is in there yet.
    Plain(u8, u16),
    /// That one of those that were taken out.
    Any(u8),
    Nothing(DropReason),
}

/// What came out of a burst.
#[derive(Default)]
struct Insides {
    each: Batch<Inside>,
    runs: Batch<Run>,
    within: Batch<Within>,
}

/// IPv4, and TCP as far as its flags: packets that are alike in these are of one connection and mean the same for it.
const FRONT_OF_RUN: usize = ipv4::MIN_LEN + tcp::FLAGS_FIELD + 1;
const OF_ONE_RUN: Likeness<FRONT_OF_RUN> = Likeness::ALL.but_ipv4(0).but_tcp(ipv4::MIN_LEN);

/// Segments of one connection in plain packets, one behind the other: it is looked up for the first.
struct Run {
    front: [u8; FRONT_OF_RUN],
    /// Of the packets around them.
    outer_class: u8,
    sa: InboundIndex,
    sought: Sought,
    /// What remains to be said of an established connection whose packets passed tunnel check and filter.
    ruling: Ruling,
    /// They end it.
    ends: bool,
}

impl Run {
    #[inline(always)]
    fn holds(&self, packet: &[u8], facts: &Begun) -> bool {
        let around = self.sa == facts.sa && self.outer_class == facts.job.outer_class();
        around && OF_ONE_RUN.holds(&self.front, facts.job.text(packet))
    }
}

impl Insides {
    fn sought(&self, at: usize) -> Option<&Sought> {
        match self.each[at] {
            Inside::Plain(run, _) => Some(&self.runs[usize::from(run)].sought),
            Inside::Any(at) => self.within[usize::from(at)].sought.as_ref(),
            Inside::Nothing(_) => None,
        }
    }

    fn push_within(&mut self, within: Result<Within, DropReason>) {
        let one = within.map(|within| {
            self.within.push(within);
            Inside::Any(self.within.len() as u8 - 1)
        });
        self.each.push(one.unwrap_or_else(Inside::Nothing));
    }
}

/// A packet that was taken out.
struct Within {
    opened: Opened,
    /// Bytes behind IP header and extension headers.
    upper_len: usize,
    subject: Subject,
    /// Its connection, at a target.
    sought: Option<Sought>,
}

impl<S: Source> Engine<S> {
    /// 0. AH around ESP comes off; 1. begin: find the parts; 2. the cipher over all; 3. ICV, commit, charge; 4. finish: padding, decapsulation;
    /// 5. tunnel check; 6. filter; 7. the connection's tracker (targets); 8. deliver.
    pub(crate) fn open(&mut self, burst: &mut Batch<Opening<S::Packet>>, role: Role, now: Now) {
        if burst.is_empty() {
            return;
        }
        let (mut packets, mut facts) = (Batch::new(), Batch::new());
        for mut one in burst.drain(..) {
            if one.around.is_some()
                && let Err(reason) = self.take_ah_off(&mut one, role, now)
            {
                self.out.drop(one.packet, reason);
                continue;
            }
            match self.begin_opening(&one) {
                Ok(begun) => {
                    packets.push(one.packet);
                    facts.push(begun);
                }
                Err(reason) => self.out.drop(one.packet, reason),
            }
        }
        self.open_begun(&mut packets, &facts, role, now);
    }

    /// Steps 2 to 8.
    pub(crate) fn open_begun(&mut self, packets: &mut Batch<S::Packet>, facts: &Batch<Begun>, role: Role, now: Now) {
        let authentic = self.decrypt(packets, facts);
        let ciphered = packets.len();
        self.out.lap(Step::Open, ciphered);
        let mut inside = Insides::default();
        let committed = role == Role::Target && !self.is_ordinary() && self.commit_row(facts, &authentic);
        for ((packet, facts), authentic) in packets.iter_mut().zip(facts).zip(authentic) {
            let accepted = if committed { Ok(()) } else { self.commit(facts, authentic, role, now) };
            self.accept(packet, facts, accepted, role, &mut inside, now);
            self.tracked_ahead(inside.each.len(), ciphered, |at| inside.sought(at));
        }
        let (mut opened, mut opened_fast, mut delivered) = (0, 0, 0);
        let way = self.way_to_application();
        for ((mut packet, facts), one) in packets.drain(..).zip(facts).zip(&inside.each) {
            let taken = match *one {
                Inside::Plain(run, len) => {
                    let (run, len) = (&inside.runs[usize::from(run)], usize::from(len));
                    self.take_plain(&mut packet, facts, (run, len), now).map(|fast| opened_fast += usize::from(fast))
                }
                Inside::Any(at) => self.take(&mut packet, facts, &inside.within[usize::from(at)], now),
                Inside::Nothing(reason) => Err(reason),
            };
            match taken {
                Ok(()) => {
                    opened += 1;
                    match &way {
                        Some(way) if matches!(one, Inside::Plain(..)) && way.takes(&packet) => {
                            delivered += 1;
                            self.frame_by(way, packet);
                        }
                        _ => self.deliver(packet),
                    }
                }
                Err(reason) => self.out.drop(packet, reason),
            }
        }
        self.out.passed(Stage::Opened, opened);
        self.out.passed(Stage::Delivered, delivered);
        self.out.passed(Stage::OpenedFast, opened_fast);
        self.out.lap(Step::Deliver, ciphered);
    }

    /// Stage 1.
    #[inline(always)]
    fn begin_opening(&self, one: &Opening<S::Packet>) -> Result<Begun, DropReason> {
        let sa = self.tables.cache.inbound(one.sa).ok_or(DropReason::UnknownSpi)?;
        let packet = one.packet.bytes();
        let from = sa.elsewhere(packet, &one.ip)?;
        let job = sa.begin(packet, &one.ip, one.seq)?;
        Ok(Begun { job, vip: one.vip, sa: one.sa, filtered: one.filtered, from })
    }

    /// Stage 2; of AH nothing is left to do.
    fn decrypt(&self, packets: &mut Batch<S::Packet>, facts: &Batch<Begun>) -> Batch<bool> {
        let mut ops: Batch<OpenOp<'_>> = Batch::new();
        for (packet, facts) in packets.iter_mut().zip(facts) {
            if facts.job.verdict().is_some() {
                continue;
            }
            // Nothing took the SA out since stage 1.
            if let Some(sa) = self.tables.cache.inbound(facts.sa) {
                ops.push(facts.job.op(sa, packet.bytes_mut()));
            }
        }
        open_burst(&mut ops);
        let mut opened = ops.iter().map(|op| op.authentic);
        let verdict = |facts: &Begun| facts.job.verdict().unwrap_or_else(|| opened.next().unwrap_or(false));
        facts.iter().map(verdict).collect()
    }

    /// The end of stage 3, and stage 4; of a plain packet that comes when its connection is known.
    #[inline(always)]
    fn accept(
        &mut self,
        packet: &mut S::Packet,
        facts: &Begun,
        accepted: Result<(), DropReason>,
        role: Role,
        inside: &mut Insides,
        now: Now,
    ) {
        if let Err(reason) = accepted {
            return inside.each.push(Inside::Nothing(reason));
        }
        let plain = role == Role::Target && !self.is_ordinary();
        match plain.then(|| self.plain_inside(packet, facts, &mut inside.runs)).flatten() {
            Some((run, len)) => inside.each.push(Inside::Plain(run, len)),
            None => inside.push_within(self.take_out(packet, facts, role, now)),
        }
    }

    /// Stage 3.
    #[inline(always)]
    fn commit(&mut self, facts: &Begun, authentic: bool, role: Role, now: Now) -> Result<(), DropReason> {
        let sa = self.tables.cache.inbound_mut(facts.sa).ok_or(DropReason::UnknownSpi)?;
        if !authentic {
            sa.count_failed();
            return Err(DropReason::BadIcv);
        }
        let news = facts.from.filter(|_| facts.job.seq > sa.edge(role));
        sa.accept(&facts.job, role)?;
        if let Some(from) = news {
            self.peer_seen(facts.sa, from, facts.job.seq, now);
        }
        if role == Role::Router {
            self.near_ceiling(facts.sa, facts.job.seq, now);
        }
        Ok(())
    }

    /// Stage 3 of a whole burst at once, as it is when it came through one SA, nothing missing, double or late; else false, and one packet after
    /// the other is.
    #[inline(always)]
    fn commit_row(&mut self, facts: &Batch<Begun>, authentic: &Batch<bool>) -> bool {
        let Some(&Begun { sa, job, .. }) = facts.first() else { return false };
        let (mut next, mut bytes) = (job.seq, 0);
        for (facts, authentic) in facts.iter().zip(authentic) {
            if !authentic || facts.sa != sa || facts.job.seq != next || facts.from.is_some() {
                return false;
            }
            next = next.wrapping_add(1);
            bytes += facts.job.text_len() as u64;
        }
        let sa = self.tables.cache.inbound_mut(sa);
        sa.is_some_and(|sa| sa.accept_row(job.seq, facts.len() as u32, bytes))
    }

    /// Stage 4.
    fn take_out(&mut self, packet: &mut S::Packet, facts: &Begun, role: Role, now: Now) -> Result<Within, DropReason> {
        let sa = self.tables.cache.inbound(facts.sa).ok_or(DropReason::UnknownSpi)?;
        let inner = sa.finish(packet, &facts.job)?;
        let subject = self.inner.opened(role, sa.peer(), facts.job.seq, (&inner.header, packet.bytes()), now)?;
        self.out.note(packet, || Fact::Opened(subject));
        let opened = Opened::behind(&inner.header, packet.bytes());
        let flow = opened.seen().flow().filter(|_| role == Role::Target);
        let sought = flow.map(|flow| self.target.tracker.seek(&ConnKey { peer: sa.peer(), flow }));
        Ok(Within { opened, upper_len: inner.header.upper_len(), subject, sought })
    }

    /// A segment of TCP in a packet that needs nothing but to be cut out, and that nobody watches: its run, which is the last one, and its
    /// length.
    #[inline(always)]
    fn plain_inside(&self, packet: &S::Packet, facts: &Begun, runs: &mut Batch<Run>) -> Option<(u8, u16)> {
        let bytes = packet.bytes();
        let len = facts.job.inner_len(bytes).filter(|len| *len >= ipv4::MIN_LEN + tcp::MIN_LEN)?;
        if packet.mark() != 0 {
            return None;
        }
        if !runs.last().is_some_and(|run| run.holds(bytes, facts)) {
            let run = self.new_run_inside(bytes, facts)?;
            runs.push(run);
        }
        Some((runs.len() as u8 - 1, len as u16))
    }

    #[inline(always)]
    fn new_run_inside(&self, packet: &[u8], &Begun { job, sa: at, .. }: &Begun) -> Option<Run> {
        let sa = self.tables.cache.inbound(at).filter(|sa| !sa.clamps())?;
        let inner = sa.inner(packet, &job).filter(|inner| inner.protocol == protocol::TCP)?;
        let front = *job.text(packet).first_chunk::<FRONT_OF_RUN>()?;
        let tcp = TcpHeader::parse_prefix(&job.text(packet)[ipv4::MIN_LEN..]).ok()?;
        let (local, remote) = ((inner.dst, tcp.dst_port), (inner.src, tcp.src_port));
        let flow = Flow4 { protocol: protocol::TCP, local, remote };
        let sought = self.target.tracker.seek(&ConnKey { peer: sa.peer(), flow: flow.into() });
        let (ruling, ends) = (self.tables.ruling(sa), tcp.flags.ends());
        Some(Run { front, outer_class: job.outer_class(), sa: at, sought, ruling, ends })
    }

    /// Stages 4 to 7 of a packet of so many bytes whose connection is known and was ruled on; of any other all that they are, and false.
    #[inline(always)]
    fn take_plain(
        &mut self,
        packet: &mut S::Packet,
        facts: &Begun,
        (run, len): (&Run, usize),
        now: Now,
    ) -> Result<bool, DropReason> {
        let (tracker, sought) = (&mut self.target.tracker, &run.sought);
        let found = tracker.find_sought(sought);
        if found.is_none() || tracker.ruling(found) != run.ruling {
            let within = self.take_out(packet, facts, Role::Target, now)?;
            return self.take(packet, facts, &within, now).map(|()| false);
        }
        packet.cut_front(facts.job.start());
        trim(packet, len);
        if !run.ends && tracker.flows_on(found, now.ms()) {
            return Ok(true);
        }
        let upper = packet.bytes().get(ipv4::MIN_LEN..).unwrap_or_default();
        let tcp = TcpHeader::parse_prefix(upper)?;
        let payload = upper.len().saturating_sub(tcp.data_offset);
        let event = tracker.inbound_sought((found, sought), &tcp, payload, now.ms());
        self.tell_connection(facts.vip, sought.key(), event, None, now).map(|()| true)
    }

    /// Stages 5 to 7.
    fn take(
        &mut self,
        packet: &mut S::Packet,
        facts: &Begun,
        Within { opened, upper_len, subject, sought }: &Within,
        now: Now,
    ) -> Result<(), DropReason> {
        let sa = self.tables.cache.inbound(facts.sa).ok_or(DropReason::UnknownSpi)?;
        let (peer, clamps) = (sa.peer(), sa.clamps());
        // Decided for the connection, not for each packet (R16).
        let ruling = self.tables.ruling(sa);
        let tracker = &self.target.tracker;
        let found = sought.as_ref().map(|sought| tracker.find_sought(sought));
        let known = found.is_some_and(|found| tracker.ruling(found) == ruling);
        let ruled = if known { None } else { self.rule(facts, subject, now)? };
        if clamps {
            self.clamp_mss(facts, packet.bytes_mut());
        }
        let (Some(flow), Some(found)) = (opened.seen().flow(), found) else {
            self.log(ruled.and_then(|ruled| ruled.at_first_sight()), now);
            return Ok(());
        };
        let key = ConnKey { peer, flow };
        let (tracker, now_ms) = (&mut self.target.tracker, now.ms());
        let (event, log, at_first_sight) = match opened.seen() {
            Seen::Tcp { tcp, .. } => {
                let payload = upper_len.saturating_sub(tcp.data_offset);
                let log = ruled.as_ref().and_then(|ruled| ruled.log);
                (tracker.inbound_found(found, &key, tcp, payload, now_ms), log, None)
            }
            _ => {
                let log = ruled.as_ref().and_then(Ruled::at_first_sight);
                (tracker.datagram_in_found(found, &key, now_ms), None, log)
            }
        };
        if event.is_none() && ruled.is_some() {
            tracker.rule(found, ruling);
        }
        self.tell_connection(facts.vip, key, event, log, now)?;
        self.log(at_first_sight, now);
        Ok(())
    }

    /// Tunnel check and filter. R14: what the router looked up by the same bytes, which the ICV has confirmed now, it also
    /// logged.
    fn rule(&mut self, facts: &Begun, subject: &Subject, now: Now) -> Result<Option<Ruled>, DropReason> {
        let sa = self.tables.cache.inbound(facts.sa).ok_or(DropReason::UnknownSpi)?;
        sa.fits(subject)?;
        if facts.filtered {
            return Ok(None);
        }
        let ruled = self.tables.permits(facts.vip, &sa.params().tunnel, subject);
        if ruled.verdict.is_err() {
            self.log(ruled.at_first_sight(), now);
        }
        ruled.verdict.map(|()| Some(ruled))
    }

    /// The other half of the tunnel knows how large our answers may be.
    fn clamp_mss(&self, facts: &Begun, packet: &mut [u8]) {
        let Some(sa) = self.tables.cache.inbound(facts.sa) else { return };
        let half = self.tables.cache.current_of(sa.params().vip, sa.params().tunnel);
        if let Some(half) = half.and_then(|half| self.tables.cache.outbound(half)) {
            half.clamp_mss(packet);
        }
    }

    /// What the tracker found goes to control. A connection that cannot be followed may not begin.
    pub(crate) fn tell_connection(
        &mut self,
        vip: VipId,
        key: ConnKey,
        event: Option<ConnEvent>,
        log: Option<Logged>,
        now: Now,
    ) -> Result<(), DropReason> {
        let core = self.id;
        match event {
            None => {}
            Some(ConnEvent::Opened) => {
                self.mail.tell(Event::ConnOpened { core, vip, key });
                // Once per connection (R16).
                self.log(log, now);
            }
            Some(ConnEvent::Closed) => self.mail.tell(Event::ConnClosed { core, vip, key }),
            Some(ConnEvent::Refused) => return Err(DropReason::TableFull),
        }
        Ok(())
    }
}
