//! SIGTERM leaves nothing behind: not in the host's tables, not on the disk but the store.

use crate::bed::{Bed, Tunnel};
use crate::looks::NODES;
use std::collections::HashSet;
use std::process::Command;
use std::time::Duration;

/// Everything of a host that the appliance may have touched.
fn host_state(bed: &Bed, node: &str) -> String {
    let looks = "ip -o link | sed 's/state [A-Z]* //'; ip -o addr; ip rule; ip -6 rule; ip route show table all; ip -6 route show table all | grep -v ' dev lo'; \
                 nft list ruleset; sysctl -a --pattern 'net.ipv[46].conf.(all|default|net0|link0)' 2>/dev/null | sort; ss -Hantu | sed 's,  *, ,g; s, $,,'";
    let output =
        Command::new("ip").args(["netns", "exec", &bed.namespace(node), "bash", "-c", looks]).output().expect("ip");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Lines that only one of the two has; the kernel's own memory of closed connections aside.
fn difference(before: &str, after: &str) -> Vec<String> {
    let only = |sign: &str, here: &str, there: &str| -> Vec<String> {
        let there: HashSet<&str> = there.lines().collect();
        let mine = here.lines().filter(|l| !there.contains(l) && !l.contains("TIME-WAIT"));
        mine.map(|l| format!("{sign} {l}")).collect()
    };
    [only("-", before, after), only("+", after, before)].concat()
}

#[test]
fn sigterm_leaves_nothing_behind() {
    let bed = Bed::up(Tunnel::PLAIN);
    // A first life, for what only a boot sets, and so that the web servers' sockets are in both pictures.
    for node in NODES {
        bed.terminate(node);
    }
    let before: Vec<String> = NODES.iter().map(|n| host_state(&bed, n)).collect();
    assert!(
        !before.iter().any(|s| s.contains("vip0") || s.contains("10.77.0.100") || s.contains("phalanx")),
        "{before:?}"
    );

    for node in NODES {
        bed.start(node);
    }
    bed.wait_ready();
    // A restarted router takes no number up to its durable ceiling: the client, which was idle meanwhile, has to pass it.
    bed.guest(&format!("ping -q -c 100 -i 0.01 {}", bed.host()));
    bed.guest_ok(&format!("curl -sS --max-time 10 -o /dev/null http://{}/", bed.host()));
    let download =
        bed.guest_start(&format!("curl -sS --max-time 20 -o /dev/null http://{}:8080/100/1000/100", bed.host()));
    std::thread::sleep(Duration::from_millis(500));

    for (node, before) in ["t1", "t2", "r"].iter().zip([&before[1], &before[2], &before[0]]) {
        let took = bed.terminate(node);
        bed.progress(&format!("{node} ended in {} ms", took.as_millis()));
        let after = host_state(&bed, node);
        assert_eq!(difference(before, &after), Vec::<String>::new(), "{node}'s host is as it was");
        assert!(!bed.file(&format!("{node}.sock")).exists(), "{node}'s status socket is gone");
    }
    let (code, _) = download.finish(Duration::from_secs(30));
    assert_ne!(code, 0, "what was open when the cluster ended did end");
}
