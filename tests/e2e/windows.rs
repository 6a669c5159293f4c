//! Must show 2: both targets send on one SA at once, and the client's replay window loses nothing.

use crate::bed::{Bed, TO_CLIENT, Tunnel};
use crate::looks::{Wire, network_mac};
use crate::pace;
use crate::wire::sequences;
use std::time::Duration;

const SECONDS: u32 = 6;

#[test]
fn a_window_of_32_loses_nothing_at_up_to_1000_packets_a_second() {
    paced(32);
}

#[test]
fn a_window_of_64_loses_nothing_at_up_to_1000_packets_a_second() {
    paced(64);
}

/// Two even streams, one from each target, at several rates; then bursts at the same mean rate.
fn paced(window: u32) {
    let bed = Bed::up(Tunnel { window, ..Tunnel::PLAIN });
    for total in [50, 200, 600, 1000] {
        let name = format!("at-{total}");
        bed.capture("sw", "n-cl", &name, &["-s", "120"]);
        let (rate, size) = (total / 2, 400);
        let url = format!("http://{}:{}/{rate}/{}/{size}", bed.host(), pace::PORT, rate * SECONDS);
        let fetch = format!("curl -sS --max-time 30 -o /dev/null -w '%{{size_download}}' {url}");
        let jobs = [bed.guest_start(&fetch), bed.guest_start(&fetch)];
        for job in jobs {
            let (code, size_seen) = job.finish(Duration::from_secs(40));
            assert_eq!((code, size_seen), (0, (rate * SECONDS * size).to_string()), "every byte arrives");
        }
        let path = bed.capture_end(&name);
        let wire = Wire::of(&path);
        let sequence = &sequences(&path)[&TO_CLIENT];
        let done = format!(
            "window {window}, {total} packets/s: {} packets, the latest {} behind",
            sequence.packets, sequence.latest
        );
        bed.progress(&done);
        // Less than one each write: TCP puts together what waited.
        let each = u64::from(rate * SECONDS) / 2;
        for target in ["t1", "t2"] {
            assert!(wire.from_vip[&network_mac(target)] > each, "{target} sent its half: {wire:?}");
        }
        sequence.assert_unique();
        assert_eq!(bed.xfrm_errors(), [], "the client's replay and integrity counters stay 0: {done}");
        assert!(sequence.latest < u64::from(window), "{done}");
    }
    judge_prediction(&bed, window.into());
}

#[test]
fn a_window_of_4096_loses_less_than_one_in_1000_at_full_rate() {
    let bed = Bed::up(Tunnel { window: 4096, ..Tunnel::PLAIN });
    bed.capture("sw", "n-cl", "full", &["-s", "60"]);
    let fetch =
        format!("curl -sS --max-time 60 -o /dev/null -H 'Connection: close' 'http://{}/megabyte?[1-40]'", bed.host());
    let jobs: Vec<_> = (0..4).map(|_| bed.guest_start(&fetch)).collect();
    for job in jobs {
        let (code, output) = job.finish(Duration::from_secs(70));
        assert_eq!(code, 0, "{output}");
    }
    let path = bed.capture_end("full");
    let sequence = &sequences(&path)[&TO_CLIENT];
    let errors = bed.xfrm_errors();
    let late: u64 = errors.iter().map(|(_, n)| n).sum();
    bed.progress(&format!(
        "{} packets, the latest {} behind, {late} late: {errors:?}",
        sequence.packets, sequence.latest
    ));
    assert!(errors.iter().all(|(name, _)| name == "XfrmInStateSeqError"), "{errors:?}");
    assert!(sequence.packets > 100_000, "160 megabytes are more than 100,000 packets: {}", sequence.packets);
    assert!(late * 1000 < sequence.packets, "{late} of {} were late", sequence.packets);
    sequence.assert_unique();
    judge_prediction(&bed, 4096);
}

/// `status` says beforehand whether the senders' numbers fit the peer's window.
fn judge_prediction(bed: &Bed, window: u64) {
    let status = bed.query("r", "status");
    let predictions = status["predictions"].as_array().expect("a list");
    let [prediction] = &predictions[..] else { panic!("one SA, one prediction: {status}") };
    bed.progress(&format!("predicted: {prediction}"));
    assert_eq!(prediction["window"].as_u64(), Some(window));
    let number = |key: &str| prediction[key].as_u64().expect("a number");
    assert!(number("senders") >= 2 && number("block") * number("senders") <= window / 2, "{prediction}");
    assert!(number("fits_pps") >= 1000, "{prediction}");
}
