//! What a capture shows of what the engine drops; frames are tapped where drivers are.

use super::*;
use crate::capture::{Film, Place, Shot};
use crate::command::Trash;

#[test]
fn a_dropped_packet_is_copied_with_its_reason_until_the_capture_ends() {
    let mut bench = Bench::new(1);
    bench.route_vip(&[(1, LinkEnd::Ring(CoreId(0)))]);
    let mut client = Client::new();
    let film = Film::new(2, 60);
    bench.order(Command::Capture(Some(film.tap(CoreId(0), None))));
    let mut forged = client.tcp(4000, TcpFlags::SYN);
    *forged.last_mut().unwrap() ^= 1;
    (0..3).for_each(|_| bench.receive(NETWORK, &forged));
    let seen = |shot: &Shot| (shot.place, shot.len, shot.bytes.clone());
    let dropped = (Place::Dropped(DropReason::BadIcv), forged.len(), forged[..60].to_vec());
    assert_eq!(film.next(seen), Some(dropped.clone()), "encrypted, as it came");
    assert_eq!((film.next(seen), film.next(seen), film.lost()), (Some(dropped), None, 1));

    std::iter::from_fn(|| bench.events.pop()).for_each(drop);
    bench.order(Command::Capture(None));
    bench.receive(NETWORK, &forged);
    assert_eq!((film.next(seen), film.lost()), (None, 1));
    let trash = std::iter::from_fn(|| bench.events.pop()).filter(|event| matches!(event, Event::Trash(Trash::Tap(_))));
    assert_eq!(trash.count(), 1, "control frees it");
    bench.only_dropped(&[(DropReason::BadIcv, 4)]);
}
