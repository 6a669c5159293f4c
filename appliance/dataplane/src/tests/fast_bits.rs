//! Whatever bit of a frame is another, and wherever a frame ends too early, a fast path does what the ordinary way
//! does: two cores get the same bursts, and one of them has no fast path. Where `fast.rs` and `fast_outbound.rs` try
//! what chance brings, here every bit is flipped and every length tried, in the middle of a run of good segments of one
//! connection and at its beginning.

use super::fast::{burst, crossed, old_or_forged, router_of_one, set_checksum, target};
use super::fast_outbound::{KNOWN, client_answers, key, seen};
use super::*;
use phalanx_aead::seal_burst;
use phalanx_steering::ConnState;

/// Text in an ESP packet is behind IPv4 header, SPI, number and IV, and before the ICV.
const TEXT: usize = 20 + 16;
const ICV_LEN: usize = 16;

/// Which frames of a burst are changed ones. Those behind the second one of an SA are compared with that.
const IN_THE_MIDDLE: [bool; 6] = [false, false, false, true, false, false];
const AT_THE_BEGINNING: [bool; 6] = [true, true, false, false, true, false];

/// What is other than in a good frame.
#[derive(Clone, Copy, Debug)]
enum Change {
    Nothing,
    Bit(usize),
    /// One of the IPv4 header that begins there, whose checksum is right again.
    HeaderBit(usize, usize),
    CutTo(usize),
}

impl Change {
    fn make(self, bytes: &mut [u8]) {
        match self {
            // It is for the frame's owner to cut.
            Change::Nothing | Change::CutTo(_) => {}
            Change::Bit(bit) => bytes[bit / 8] ^= 1 << (bit % 8),
            Change::HeaderBit(at, bit) => {
                let packet = &mut bytes[at..];
                packet[bit / 8] ^= 1 << (bit % 8);
                // As long as it says that it is.
                let len = (4 * usize::from(packet[0] & 15)).clamp(20, packet.len());
                set_checksum(&mut packet[..len]);
            }
        }
    }
}

/// Segments of one connection in frames, with the same in front of each packet.
struct Sender {
    front: Vec<u8>,
    /// If there is none, they are the application's.
    client: Option<Client>,
    /// The client itself makes the changes, in the text that it seals.
    inside: bool,
}

impl Sender {
    fn frame(&mut self, change: Change) -> Vec<u8> {
        let (inside, outside) = if self.inside { (change, Change::Nothing) } else { (Change::Nothing, change) };
        let client = self.client.as_mut();
        let packet =
            client.map_or_else(|| filled(answer(4000, TcpFlags::ACK)), |client| sealed(client, TcpFlags::ACK, inside));
        let mut frame = [&self.front[..], &packet].concat();
        outside.make(&mut frame);
        frame.truncate(if let Change::CutTo(len) = outside { len } else { frame.len() });
        frame
    }

    /// Every bit, those of IPv4 headers twice, and every shorter length of a frame; of a text no length.
    fn changes(&mut self) -> Vec<Change> {
        let (front, whole) = (self.front.len(), self.frame(Change::Nothing).len());
        let over_ip = self.front[12..14] == ethertype::IPV4.to_be_bytes() && front > ethernet::HEADER_LEN;
        let (len, headers, lengths) = match self.inside {
            true => (whole - front - TEXT - ICV_LEN, vec![0], 0),
            false if over_ip => (whole, vec![ethernet::HEADER_LEN, front], whole),
            false => (whole, vec![front], whole),
        };
        let of_header = |at| (0..8 * 20).map(move |bit| Change::HeaderBit(at, bit));
        let bits = (0..8 * len).map(Change::Bit).chain(headers.into_iter().flat_map(of_header));
        bits.chain((0..lengths).map(Change::CutTo)).collect()
    }
}

/// With data, behind which there is padding in ESP; and ECT(0), of which one bit makes a mark of congestion.
fn filled(mut packet: Vec<u8>) -> Vec<u8> {
    packet.extend([9; 7]);
    (packet[1], packet[3]) = (0b10, packet.len() as u8);
    set_checksum(&mut packet[..20]);
    packet
}

/// A segment of the client, with a number of its own and a change in its text.
fn sealed(client: &mut Client, flags: u8, change: Change) -> Vec<u8> {
    let packet = filled(segment("10.99.0.10", 4000, "10.77.0.100", 80, flags));
    let mut buffer = VecBuffer::from_slice(128, &packet, 128);
    let job = client.out.begin(&mut buffer, client.numbers.take().unwrap()).unwrap();
    let text = TEXT..buffer.bytes().len() - ICV_LEN;
    change.make(&mut buffer.bytes_mut()[text]);
    seal_burst(&mut [job.op(&client.out, buffer.bytes_mut())]);
    buffer.bytes().to_vec()
}

/// The Ethernet header of packets to that port.
fn ethernet_to(host: u8, port: usize) -> Vec<u8> {
    framed(&[0x45], Bench::mac_of(host, port), CLIENT_MAC)[..ethernet::HEADER_LEN].to_vec()
}

/// Connections that were ended are there again, or all are as new.
fn restore(core: &mut Bench, all: bool) {
    let (tracker, now) = (&mut core.engine.target.tracker, core.now.ms());
    for key in (0..KNOWN).map(|flow| key(TUNNEL, flow)) {
        if all || tracker.state(&key) != Some(ConnState::Established) {
            tracker.forget_connection(&key);
            assert!(tracker.restore(&key, now));
        }
    }
}

/// Bursts with every change come by the port to both cores; packets of the fast path are counted at the stage.
fn both_do_the_same(mut cores: [Bench; 2], mut sender: Sender, port: usize, stage: Stage) {
    cores[1].engine.ordinary = true;
    let alike: fn(DropReason) -> DropReason = if port == LINK { old_or_forged } else { |why| why };
    let changes = sender.changes();
    for change in &changes {
        for (turns, anew) in [(IN_THE_MIDDLE, true), (AT_THE_BEGINNING, false)] {
            let frames = turns.map(|changed| sender.frame(if changed { *change } else { Change::Nothing }));
            let [fast, ordinary] = cores.each_mut().map(|core| {
                restore(core, anew);
                burst(core, port, &frames);
                // A router sends what it knows before what it has to open.
                let ordered = core.engine.out.frames.iter().flatten().filter(|_| port != NETWORK);
                let ordered: Vec<_> = ordered.map(|frame| frame.bytes().to_vec()).collect();
                let state = |flow| core.engine.target.tracker.state(&key(TUNNEL, flow));
                let states: Vec<_> = (0..KNOWN).map(state).collect();
                (ordered, states, seen(core, alike))
            });
            assert_eq!(fast, ordinary, "{change:?} of {turns:?}");
        }
    }
    let ([fast, ordinary], bursts) = (cores.each_ref().map(|core| core.stats.stage(stage)), 2 * changes.len() as u64);
    assert!(fast > bursts && ordinary == 0, "{fast} and {ordinary} of {bursts} bursts");
}

/// Two targets behind such a router.
fn both_targets_do_the_same(mut router: Bench, targets: [Bench; 2], inside: bool) {
    let mut client = Client::new();
    let packet = sealed(&mut client, TcpFlags::SYN, Change::Nothing);
    let mut front = crossed(&mut router, &[ethernet_to(1, NETWORK), packet.clone()].concat()).remove(0);
    front.truncate(front.len() - packet.len());
    both_do_the_same(targets, Sender { front, client: Some(client), inside }, LINK, Stage::OpenedFast);
}

#[test]
fn a_target_over_gre_does_the_same_of_any_frame() {
    both_targets_do_the_same(router_of_one(TUNNEL), [target(TUNNEL), target(TUNNEL)], false);
}

#[test]
fn a_target_over_memif_does_the_same_of_any_frame() {
    both_targets_do_the_same(memif::pair().0, [memif::pair().1, memif::pair().1], false);
}

#[test]
fn a_target_does_the_same_of_anything_that_its_client_seals() {
    both_targets_do_the_same(router_of_one(TUNNEL), [target(TUNNEL), target(TUNNEL)], true);
}

#[test]
fn a_router_does_the_same_of_any_frame() {
    let (mut client, mut cores) = (Client::new(), [router_of_one(TUNNEL), router_of_one(TUNNEL)]);
    let front = ethernet_to(1, NETWORK);
    let opening = [&front[..], &sealed(&mut client, TcpFlags::SYN, Change::Nothing)].concat();
    cores.iter_mut().for_each(|core| assert_eq!(crossed(core, &opening).len(), 1));
    both_do_the_same(cores, Sender { front, client: Some(client), inside: false }, NETWORK, Stage::RoutedFast);
}

#[test]
fn a_target_does_the_same_of_any_frame_of_its_application() {
    let mut cores = [target(TUNNEL), target(TUNNEL)];
    let mut sender = Sender { front: ethernet_to(11, APPLICATION), client: None, inside: false };
    for core in &mut cores {
        restore(core, true);
        burst(core, APPLICATION, &[sender.frame(Change::Nothing)]);
        client_answers(core);
    }
    both_do_the_same(cores, sender, APPLICATION, Stage::SentFast);
}
