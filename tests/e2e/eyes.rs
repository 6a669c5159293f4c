//! The bed alone, without an appliance: the eyes of the other stories see what they are there to see.

use crate::bed::{Bed, Tunnel, wait_until};
use crate::looks::Wire;
use crate::raw::RawSender;
use crate::wire::{ATTACKER, clear_syn, sequences};
use std::time::Duration;

#[test]
fn a_packet_in_clear_and_a_claim_to_the_vip_are_seen() {
    let bed = Bed::bare(Tunnel::PLAIN);
    bed.capture("sw", "n-cl", "n-cl", &[]);
    let attacker = RawSender::open(&bed.namespace("at"), "net0");
    attacker.send(&clear_syn([0xff; 6], 80));
    // RFC 826: a reply that says "10.77.0.100 is me".
    let mut claim = [&[0xff; 6][..], &ATTACKER, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2], &ATTACKER].concat();
    claim.extend([10, 77, 0, 100, 255, 255, 255, 255, 255, 255, 10, 77, 0, 10]);
    attacker.send(&claim);

    bed.progress("the guest asks for the VIP by ARP and ND, and sends ESP to a neighbour that it was told");
    let sa = "src 10.77.0.10 dst 10.77.0.100 proto esp spi 4097 mode transport aead 'rfc4106(gcm(aes))' 0x000102030405060708090a0b0c0d0e0f01020304 128";
    bed.guest_ok(&format!(
        "ip addr add 10.77.0.10/24 dev vec0; ip neigh replace 10.77.0.100 lladdr 02:70:77:00:01:66 dev vec0; ip xfrm state add {sa} && \
         ip xfrm policy add src 10.77.0.10 dst 10.77.0.100 dir out tmpl proto esp mode transport"
    ));
    assert_eq!(bed.guest("ping -c 3 -i 0.2 -W 0.2 10.77.0.100 >/dev/null; echo $?").1, "1\n", "nobody answers");
    assert_eq!(bed.xfrm_errors(), []);
    let path = bed.capture_end("n-cl");
    let wire = Wire::of(&path);
    assert_eq!(wire.to_vip, 3, "{wire:?}");
    assert_eq!(wire.clear.iter().filter(|f| f.from == ATTACKER).count(), 1, "{wire:?}");
    assert_eq!(wire.claims.get(&ATTACKER), Some(&1), "{wire:?}");
    assert_eq!(sequences(&path)[&4097].packets, 3);
}

#[test]
fn the_guest_runs_many_commands_at_once_in_real_time() {
    let bed = Bed::bare(Tunnel::PLAIN);
    let jobs: Vec<_> = (0..8).map(|i| bed.guest_start(&format!("sleep 1; echo {i}; exit {i}"))).collect();
    let took = wait_until("all end", Duration::from_secs(10), || jobs.iter().all(|j| j.ended()));
    assert!((0.7..3.0).contains(&took.as_secs_f64()), "{took:?}");
    for (i, job) in jobs.into_iter().enumerate() {
        assert_eq!(job.finish(Duration::from_secs(1)), (i as i32, format!("{i}\n")));
    }
}
