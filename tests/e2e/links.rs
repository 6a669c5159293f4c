//! Links between processes of one box: memif instead of GRE.

use crate::bed::{Bed, Tunnel, amount, wait_until};
use crate::client::{Client, now};
use crate::looks::{NODES, all_drops, assert_invariants};
use crate::wire::{Capture, Frame, What};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(15);
/// Of targets, and of the router.
fn kills() -> usize {
    amount(20, 8) as usize
}

#[test]
fn processes_of_one_box_are_linked_by_memif_and_find_each_other_again_after_a_crash() {
    let bed = Bed::up(Tunnel { link: "memif", ..Tunnel::PLAIN });
    for target in ["t1", "t2"] {
        bed.capture("sw", &format!("l-{target}"), &format!("link-{target}"), &[]);
    }
    wait_until("the memif links are up", SOON, || served_by_both(&bed));
    let large = format!("curl -sS --max-time 20 -o /dev/null -w '%{{size_download}}' http://{}/megabyte", bed.host());
    assert_eq!(bed.guest_ok(&large), "1000000");
    let rows = bed.query("r", "target");
    let links: Vec<_> = rows.as_array().expect("a list").iter().map(|row| row["link"].as_str().unwrap_or("")).collect();
    assert_eq!(links, ["memif:to-t1", "memif:to-t2"]);

    bed.progress("a target is killed");
    bed.kill_hard("t1");
    // The router's packets to it are counted and dropped, and the router goes on.
    wait_until("t2 serves alone", SOON, || {
        let before = bed.served("t2");
        pages(&bed, 2) && bed.served("t2") == before + 2
    });
    bed.start("t1");
    bed.wait_ready();
    wait_until("t1 serves again", SOON, || served_by_both(&bed));

    bed.progress("the router is killed: its targets' drivers have to connect again");
    bed.kill_hard("r");
    bed.start("r");
    bed.wait_ready();
    // A restarted router takes no number up to its durable ceiling, here at most 1,024 ahead: the client, which was idle meanwhile,
    // has to pass it.
    bed.guest(&format!("ping -q -c 1100 -i 0.002 {}", bed.host()));
    wait_until("both serve again", SOON, || served_by_both(&bed));

    for target in ["t1", "t2"] {
        let capture = bed.capture_end(&format!("link-{target}"));
        let seen = Capture::open(&capture).filter(|frame| is_link_traffic(frame)).count();
        assert_eq!(seen, 0, "packets on the link bridge");
    }
    let dropped = all_drops(&bed);
    assert_eq!(dropped.get("link-forged").copied().unwrap_or(0), 0, "{dropped:?}");
    for node in ["t1", "r", "t2"] {
        bed.terminate(node);
    }
    for socket in
        ["memif-t1", "memif-t2"].iter().flat_map(|name| ["", ".server", ".client"].map(|end| format!("{name}{end}")))
    {
        assert!(!bed.file(&socket).exists(), "{socket} is still there");
    }
}

/// Whoever lives is in the shared memory of whoever dies, when it dies: it must not be torn away under it.
#[test]
fn linked_processes_survive_each_others_deaths_under_load() {
    let bed = Bed::up(Tunnel { link: "memif", ..Tunnel::PLAIN });
    let client = Client::new(&bed);
    let pages = [client.pages(), client.pages()];
    let megabyte = format!("while :; do curl -sS --max-time 5 -o /dev/null http://{}/megabyte; done", bed.host());
    let _downloads = [bed.guest_start(&megabyte), bed.guest_start(&megabyte)];
    // A restarted router takes no SYN until the client's numbers are above the durable ceiling.
    let _numbers = bed.guest_start(&format!("ping -q -i 0.001 {}", bed.host()));
    let kills = kills();
    for round in 1..=2 * kills {
        let victim = if round > kills { "r" } else { ["t1", "t2"][round % 2] };
        random_moment(500);
        bed.kill_hard(victim);
        random_moment(500);
        for survivor in NODES.into_iter().filter(|node| *node != victim) {
            assert!(bed.try_query(survivor, "status").is_some(), "{survivor} died of {victim}'s death {round}");
        }
        bed.start(victim);
        bed.wait_ready();
        let ready = now();
        let by = |target: &str| pages.iter().any(|load| load.after(ready).iter().any(|page| page.by == target));
        let served = wait_until("both serve again", Duration::from_secs(40), || by("t1") && by("t2")).as_millis();
        bed.progress(&format!("kill {round} of {}: {victim}; both served {served} ms after it was ready", 2 * kills));
    }
    bed.progress(&format!("{} pages in all", pages.map(|load| load.stop().len()).iter().sum::<usize>()));
    assert_invariants(&bed);
}

/// Waits for a time that nobody chose, below so many milliseconds.
fn random_moment(below: u64) {
    std::thread::sleep(Duration::from_micros(now() % (below * 1000)));
}

/// GRE, whatever is inside, or a link header on a wire.
fn is_link_traffic(frame: &[u8]) -> bool {
    const LINK: u16 = 0x88b5;
    const GRE: u8 = 47;
    matches!(
        Frame::parse(frame).what,
        What::Esp { .. } | What::Clear { protocol: GRE, .. } | What::Other { ethertype: LINK }
    )
}

/// Pages over connections of their own; whether all came.
fn pages(bed: &Bed, n: u32) -> bool {
    let host = bed.host();
    bed.guest(&format!("curl -sS --max-time 2 -o /dev/null 'http://{host}/?[1-{n}]' -H 'Connection: close'")).0 == 0
}

fn served_by_both(bed: &Bed) -> bool {
    let before = (bed.served("t1"), bed.served("t2"));
    pages(bed, 4) && bed.served("t1") > before.0 && bed.served("t2") > before.1
}
