//! Fragments: what is cut comes together again, whatever way it came; what is wrong ends as a naive model says.

mod common;

use common::packet;
use phalanx_wire::fragment::Cut;
use phalanx_wire::{Buffer, DropReason, IpHeader, Reassembly, ReassemblyLimits, VecBuffer, ipv4, ipv6, protocol};
use proptest::prelude::*;

const V4: [&str; 2] = ["10.77.0.10", "10.77.0.100"];
const V6: [&str; 2] = ["fd77::10", "fd77::100"];

/// What became of a fragment.
#[derive(Debug, Default, PartialEq, Eq)]
struct Result {
    whole: Option<Vec<u8>>,
    dropped: Vec<DropReason>,
}

fn add(table: &mut Reassembly<VecBuffer>, fragment: &[u8], now: u64) -> Result {
    let ip = IpHeader::parse(fragment).expect("a good header");
    let mut dropped = Vec::new();
    let large = |_: &VecBuffer, len: usize| Some(VecBuffer::with_room(16, len));
    let whole = table.add(VecBuffer::from_slice(0, fragment, 0), &ip, now, large, |_, reason| dropped.push(reason));
    Result { whole: whole.map(|w| w.bytes().to_vec()), dropped }
}

/// All fragments of a packet, at most `mtu` bytes long.
fn cut(packet: &[u8], mtu: usize, id: u32) -> Vec<Vec<u8>> {
    let ip = IpHeader::parse(packet).unwrap();
    let cut = Cut::new(packet, &ip, mtu, id).unwrap();
    let one = |n| {
        let mut out = vec![0; cut.len_of(n)];
        cut.write(packet, n, &mut out).unwrap();
        assert!(out.len() <= mtu);
        out
    };
    (0..cut.count()).map(one).collect()
}

/// A packet of either version, with what may stand between its header and its data.
fn whole_packet() -> impl Strategy<Value = Vec<u8>> {
    (0usize..5, proptest::collection::vec(any::<u8>(), 9..4000)).prop_map(|(shape, data)| match shape {
        0 => packet(V4[0], V4[1], protocol::ESP, &data),
        1 => {
            let mut b = vec![0; 32];
            let options = [0x94, 4, 0, 0, 7, 7, 4, 0, 0, 0, 0, 0]; // router alert (copied), record route (not), end
            let (src, dst) = (V4[0].parse().unwrap(), V4[1].parse().unwrap());
            let total_len = 32 + data.len() as u16;
            let (protocol, ttl, tos) = (protocol::ESP, 64, 0);
            let f = ipv4::Fields { src, dst, protocol, total_len, ttl, tos, identification: 0, dont_fragment: false };
            ipv4::write_header_with_options(&mut b, &f, &options).unwrap();
            b.extend(data);
            b
        }
        2 => packet(V6[0], V6[1], protocol::ESP, &data),
        3 => {
            let mut payload = vec![0; 16];
            ipv6::write_padding_options(&mut payload, protocol::ESP, 16).unwrap();
            payload.extend(data);
            packet(V6[0], V6[1], protocol::DESTINATION, &payload)
        }
        _ => {
            let mut payload = vec![0; 8];
            ipv6::write_padding_options(&mut payload, protocol::ESP, 8).unwrap();
            payload.extend(data);
            packet(V6[0], V6[1], protocol::HOP_BY_HOP, &payload)
        }
    })
}

proptest! {
    #[test]
    fn what_was_cut_and_cut_again_comes_together_in_any_order_with_copies(
        whole in whole_packet(),
        mtus in (700usize..1500, 600usize..1500),
        order in proptest::collection::vec(any::<u16>(), 64),
        copies in proptest::collection::vec(any::<bool>(), 64),
    ) {
        let once = cut(&whole, mtus.0, 0xabcd);
        let mut fragments: Vec<Vec<u8>> = if once.len() == 1 {
            return Ok(());
        } else {
            once.iter().flat_map(|f| cut(f, mtus.1, 7)).collect()
        };
        let mut keyed: Vec<(u16, Vec<u8>)> = order.iter().copied().zip(fragments.drain(..)).collect();
        keyed.sort();
        let mut table = Reassembly::new(ReassemblyLimits::default());
        let (mut done, last) = (None, keyed.len() - 1);
        for (at, (_, fragment)) in keyed.iter().enumerate() {
            let result = add(&mut table, fragment, at as u64);
            prop_assert_eq!(result.dropped, vec![]);
            prop_assert_eq!(result.whole.is_some(), at == last);
            done = result.whole;
            if copies[at] && at != last {
                prop_assert_eq!(add(&mut table, fragment, at as u64).dropped, vec![DropReason::FragmentDuplicate]);
            }
        }
        let mut done = done.unwrap();
        prop_assert!(IpHeader::parse(&done).is_ok(), "a good checksum");
        if done[0] >> 4 == 4 {
            prop_assert_eq!(&done[4..6], &[0xab, 0xcd]);
            // Identification and with it the checksum are all that is new.
            done[4..6].copy_from_slice(&whole[4..6]);
            done[10..12].copy_from_slice(&whole[10..12]);
        }
        prop_assert_eq!(done, whole);
        prop_assert_eq!((table.datagrams(), table.fragments()), (0, 0));
    }
}

/// A fragment of eights: source, name, where, how long, whether more follows, what is in it.
#[derive(Clone, Copy, Debug)]
struct Step {
    source: u8,
    id: u8,
    offset: usize,
    len: usize,
    more: bool,
    fill: u8,
    wait: u64,
}

fn step() -> impl Strategy<Value = Step> {
    let fill = prop_oneof![9 => Just(0u8), 1 => Just(1)];
    let wait = prop_oneof![9 => Just(1u64), 1 => Just(30)];
    (0u8..3, 0u8..3, 0usize..6, 1usize..4, prop::bool::weighted(0.7), fill, wait).prop_map(
        |(source, id, offset, len, more, fill, wait)| Step {
            source,
            id,
            offset,
            len,
            more: more || offset == 0,
            fill,
            wait,
        },
    )
}

impl Step {
    fn fragment(&self) -> Vec<u8> {
        let from = format!("10.77.0.{}", self.source);
        let mut b = packet(&from, V4[1], protocol::ESP, &vec![self.fill; self.len * 8]);
        b[4..6].copy_from_slice(&[0, self.id]);
        b[10..12].fill(0);
        let sum = phalanx_wire::checksum::internet(&b[..20]);
        b[10..12].copy_from_slice(&sum.to_be_bytes());
        ipv4::set_fragment(&mut b, self.offset as u16 * 8, self.more).unwrap();
        b
    }

    fn end(&self) -> usize {
        self.offset + self.len
    }
}

const SMALL: ReassemblyLimits = ReassemblyLimits {
    timeout_ms: 50,
    datagrams: 4,
    datagrams_per_source: 2,
    bytes_per_source: 200,
    fragments: 4,
    size: 20 + 7 * 8,
};

/// The same in the simplest words: a list of datagrams, the oldest first, each a list of fragments.
#[derive(Default)]
struct Model(Vec<Datagram>);

struct Datagram {
    source: u8,
    id: u8,
    since: u64,
    over: Option<DropReason>,
    parts: Vec<Step>,
}

impl Datagram {
    fn bytes(&self) -> usize {
        self.parts.iter().map(|part| 20 + part.len * 8).sum()
    }
}

impl Model {
    fn end(&mut self, at: usize, reason: DropReason) -> Vec<DropReason> {
        vec![reason; self.0.remove(at).parts.len()]
    }

    fn add(&mut self, step: Step, now: u64) -> (bool, Vec<DropReason>) {
        use DropReason::*;
        let mut dropped = Vec::new();
        let same = |d: &Datagram| (d.source, d.id) == (step.source, step.id);
        if let Some(at) = self.0.iter().position(|d| same(d) && now >= d.since + SMALL.timeout_ms) {
            dropped.extend(self.end(at, FragmentTimeout));
        }
        if !self.0.iter().any(same) {
            let of_source = self.0.iter().filter(|d| d.source == step.source).count();
            if of_source == SMALL.datagrams_per_source {
                let oldest = self.0.iter().position(|d| d.source == step.source).unwrap();
                dropped.extend(self.end(oldest, FragmentLimit));
            } else if self.0.len() == SMALL.datagrams {
                dropped.extend(self.end(0, FragmentLimit));
            }
            self.0.push(Datagram { source: step.source, id: step.id, since: now, over: None, parts: vec![] });
        }
        let key = |d: &Datagram| (d.source, d.id) == (step.source, step.id);
        if let Some(reason) = self.0.iter().find(|d| key(d)).unwrap().over {
            dropped.push(reason);
            return (false, dropped);
        }
        loop {
            let held: usize = self.0.iter().filter(|d| d.source == step.source).map(Datagram::bytes).sum();
            let other = self.0.iter().position(|d| d.source == step.source && !key(d) && !d.parts.is_empty());
            match other {
                Some(at) if held + 20 + step.len * 8 > SMALL.bytes_per_source => {
                    dropped.extend(self.end(at, FragmentLimit));
                }
                _ => break,
            }
        }
        let datagram = self.0.iter_mut().find(|d| key(d)).unwrap();
        let parts = &datagram.parts;
        let overlap = |p: &Step| p.offset < step.end() && step.offset < p.end();
        let contradicts =
            |p: &Step| (!p.more && (step.end() > p.end() || !step.more)) || (!step.more && p.end() > step.end());
        let copy = |p: &Step| (p.offset, p.len, p.more, p.fill) == (step.offset, step.len, step.more, step.fill);
        let verdict = if 20 + step.end() * 8 > SMALL.size {
            Err(FragmentTooBig)
        } else if datagram.bytes() + 20 + step.len * 8 > SMALL.bytes_per_source {
            Err(FragmentLimit)
        } else if parts.iter().any(copy) {
            dropped.push(FragmentDuplicate);
            return (false, dropped);
        } else if parts.iter().any(|p| overlap(p) || contradicts(p)) {
            Err(FragmentOverlap)
        } else if parts.len() == SMALL.fragments {
            Err(FragmentTooMany)
        } else {
            Ok(())
        };
        if let Err(reason) = verdict {
            dropped.extend(vec![reason; parts.len() + 1]);
            (datagram.parts, datagram.over) = (vec![], Some(reason));
            return (false, dropped);
        }
        datagram.parts.push(step);
        let end = datagram.parts.iter().find(|p| !p.more).map(Step::end);
        let whole =
            end.is_some_and(|end| (0..end).all(|n| datagram.parts.iter().any(|p| p.offset <= n && n < p.end())));
        if whole {
            self.0.retain(|d| !key(d));
        }
        (whole, dropped)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn it_does_what_a_naive_list_of_fragments_does_and_holds_no_more_than_its_limits(
        steps in proptest::collection::vec(step(), 0..150),
    ) {
        let (mut table, mut model, mut now) = (Reassembly::new(SMALL), Model::default(), 0);
        for step in steps {
            now += step.wait;
            let mut real = add(&mut table, &step.fragment(), now);
            let (whole, mut dropped) = model.add(step, now);
            real.dropped.sort();
            dropped.sort();
            prop_assert_eq!((real.whole.is_some(), real.dropped), (whole, dropped), "{:?}", step);
            prop_assert_eq!(table.datagrams(), model.0.len());
            prop_assert_eq!(table.fragments(), model.0.iter().map(|d| d.parts.len()).sum::<usize>());
            prop_assert!(table.fragments() <= SMALL.datagrams * SMALL.fragments);
        }
        let mut late = 0;
        table.tend(now + SMALL.timeout_ms, 2, |_, reason| {
            assert_eq!(reason, DropReason::FragmentTimeout);
            late += 1;
        });
        prop_assert!(table.datagrams() == model.0.len().saturating_sub(2), "two at a time");
        table.tend(now + SMALL.timeout_ms, 9, |_, _| late += 1);
        prop_assert_eq!((table.datagrams(), table.fragments()), (0, 0));
        prop_assert_eq!(late, model.0.iter().map(|d| d.parts.len()).sum::<usize>());
    }
}

#[test]
fn after_an_overlap_the_rest_is_refused_too_until_the_time_is_up() {
    let whole = packet(V6[0], V6[1], protocol::ESP, &[7; 3000]);
    let (good, other) = (cut(&whole, 1280, 5), cut(&whole, 1272, 5));
    let mut table = Reassembly::new(ReassemblyLimits::default());
    assert_eq!(add(&mut table, &good[0], 0), Result::default());
    let overlap = DropReason::FragmentOverlap;
    assert_eq!(add(&mut table, &other[1], 1).dropped, [overlap, overlap], "both buffers are free");
    assert_eq!(add(&mut table, &good[1], 2).dropped, [overlap]);
    assert_eq!(add(&mut table, &good[2], 3).dropped, [overlap]);
    // RFC 5722 §4: all of it. After its time the name may be used again.
    for fragment in &good[..2] {
        assert_eq!(add(&mut table, fragment, 2000), Result::default());
    }
    assert_eq!(add(&mut table, &good[2], 2001).whole, Some(whole));
}

#[test]
fn a_congestion_mark_on_one_fragment_is_one_on_the_packet() {
    let marked = |class: u8, mark: u8| {
        let mut whole = packet(V4[0], V4[1], protocol::ESP, &[7; 2000]);
        phalanx_wire::ip::set_traffic_class(&mut whole, class).unwrap();
        let mut fragments = cut(&whole, 1500, 5);
        phalanx_wire::ip::set_traffic_class(&mut fragments[1], mark).unwrap();
        let mut table = Reassembly::new(ReassemblyLimits::default());
        add(&mut table, &fragments[0], 0);
        add(&mut table, &fragments[1], 0)
    };
    // RFC 3168 §5.3. DSCP 10, ECT(0) is 2, CE is 3.
    let whole = marked(0x2a, 0x2b).whole.unwrap();
    assert_eq!(IpHeader::parse(&whole).unwrap().traffic_class, 0x2b);
    assert_eq!(marked(0x28, 0x2b).dropped, [DropReason::BadIp, DropReason::BadIp]);
}

#[test]
fn a_fragment_that_is_none_is_refused() {
    let mut table = Reassembly::new(ReassemblyLimits::default());
    let mut odd = packet(V4[0], V4[1], protocol::ESP, &[7; 13]);
    ipv4::set_fragment(&mut odd, 0, true).unwrap();
    assert_eq!(add(&mut table, &odd, 0).dropped, [DropReason::BadIp]);
    let mut empty = packet(V4[0], V4[1], protocol::ESP, &[]);
    ipv4::set_fragment(&mut empty, 800, false).unwrap();
    assert_eq!(add(&mut table, &empty, 0).dropped, [DropReason::BadIp]);
    assert_eq!(table.datagrams(), 0);
}

#[test]
fn without_a_large_buffer_the_datagram_is_dropped() {
    let whole = packet(V4[0], V4[1], protocol::ESP, &[7; 2000]);
    let mut table = Reassembly::<VecBuffer>::new(ReassemblyLimits::default());
    let mut dropped = Vec::new();
    for fragment in cut(&whole, 1500, 5) {
        let ip = IpHeader::parse(&fragment).unwrap();
        let buffer = VecBuffer::from_slice(0, &fragment, 0);
        assert!(table.add(buffer, &ip, 0, |_, _| None, |_, reason| dropped.push(reason)).is_none());
    }
    assert_eq!(dropped, [DropReason::NoRoom, DropReason::NoRoom]);
    assert_eq!(table.datagrams(), 0);
}
