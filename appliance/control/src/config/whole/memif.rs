//! Links to other processes of this box: a memif port leads to exactly one node, and a node is reached over one.

use super::{known, unique};
use crate::config::Device;
use crate::config::PortRole;
use crate::config::read::Sink;
use crate::config::report::Problem;
use crate::config::section::{Draft, PortDraft, place, text};

/// A packet is one buffer: 2,048 bytes, with the Ethernet header and a VLAN tag.
const MTU_MAX: u16 = 2048 - 18;
/// What a unix socket's address can hold, less `.server`: the sockets' of the drivers have such endings.
const PATH_MAX: usize = 107 - 7;

pub(super) fn check(draft: &Draft, sink: &Sink) {
    let named = draft.cluster.nodes.iter().flat_map(|n| &n.memifs).map(|m| (m.value.as_str(), m.span.clone()));
    unique(named, |port| format!("`memif:{port}` is named twice: it leads to one node, and a node has one"), sink);
    for node in &draft.cluster.nodes {
        let names = draft.ports.iter().filter_map(|p| text(&p.name));
        if let Some(second) = node.memifs.get(1) {
            sink.push(Problem::error("a node is reached over one memif port").at(second.span.clone(), ""));
        }
        for memif in &node.memifs {
            if text(&node.name) == draft.me() {
                let problem = Problem::error("this node has no link to itself").at(memif.span.clone(), "");
                sink.push(problem.help("`memif:` stands with the node that the port leads to"));
            } else if known(memif, names.clone(), "port", sink)
                && let Some(port) = draft.ports.iter().find(|p| text(&p.name) == Some(&memif.value))
                && port.role.is_some()
                && port.device.is_some()
                && !port.is_memif_link()
            {
                let message = format!("port `{}` is no memif link", memif.value);
                let problem = Problem::error(message).at(memif.span.clone(), "").at(port.span.clone(), "this port");
                sink.push(problem.help("a memif link has device = \"net_memif,…\" and role = \"link\""));
            }
        }
    }
    for port in draft.ports.iter().filter(|p| p.is_memif_link()) {
        self::port(draft, port, sink);
    }
    let sockets = draft
        .ports
        .iter()
        .filter(|p| p.is_memif_link())
        .filter_map(|p| p.device.as_ref())
        .filter_map(|device| Some((argument(&device.value, "socket")?, device.span.clone())));
    unique(sockets, |file| format!("two ports have the socket `{file}`: each link needs its own"), sink);
    reached(draft, sink);
}

fn port(draft: &Draft, port: &PortDraft, sink: &Sink) {
    let at = place(&port.name, &port.span);
    let spans = port.addresses.iter().map(|a| &a.span).chain(port.next_hops.iter().map(|n| &n.span));
    if let Some(span) = spans.min_by_key(|s| s.start) {
        let problem = Problem::error("a memif link has no addresses and next hops").at(span.clone(), "");
        sink.push(problem.help("it leads to one other process and nowhere else"));
    }
    if let Some(name) = text(&port.name)
        && !draft.cluster.nodes.iter().any(|n| n.memifs.iter().any(|m| m.value == name))
    {
        let problem = Problem::error(format!("no node is at the other end of the memif link `{name}`")).at(at, "");
        sink.push(problem.help(format!("a [[cluster.node]] needs link = [\"memif:{name}\"]")));
    }
    if let Some(mtu) = port.mtu.as_ref().filter(|mtu| mtu.value > MTU_MAX) {
        let problem = Problem::error(format!("a memif link's `mtu` is at most {MTU_MAX}")).at(mtu.span.clone(), "");
        sink.push(problem.help("larger packets cross it in fragments"));
    }
    let Some(device) = &port.device else { return };
    let argument = |key: &str| argument(&device.value, key);
    let wrong = |message: &str, help: &str| sink.push(Problem::error(message).at(device.span.clone(), "").help(help));
    if !matches!(argument("role"), Some("server" | "client")) {
        wrong(
            "a memif link needs `role=server` or `role=client`",
            "one end is the server; the other finds it again when it restarts",
        );
    }
    match argument("socket") {
        Some(file) if file.starts_with('/') && file.len() <= PATH_MAX => {}
        _ => wrong(
            "a memif link needs `socket=`, a path from the root of at most 100 bytes",
            "both ends name the same file",
        ),
    }
    if argument("socket-abstract").is_some_and(|value| value != "no") {
        wrong("`socket-abstract` must be `no`", "leave it out: of a file it can be said who may connect");
    }
    if argument("zero-copy").is_some_and(|value| value != "no") || argument("bsize").is_some_and(|size| size != "2048")
    {
        wrong(
            "`zero-copy` and `bsize` cannot be chosen",
            "leave them out: packets are copied, to buffers of 2,048 bytes",
        );
    }
    if let Some(other) = argument("id").filter(|id| id.parse::<u32>().is_err()) {
        wrong(&format!("`id={other}` is no number"), "both ends of a link have the same");
    }
}

fn argument<'a>(device: &'a Device, key: &str) -> Option<&'a str> {
    let Device::Vdev { args, .. } = device else { return None };
    args.iter().find(|a| a.0 == key).map(|a| a.1.as_str())
}

/// With memif links only, every node that we exchange packets with needs one.
fn reached(draft: &Draft, sink: &Sink) {
    let mut links = draft.ports.iter().filter(|p| p.is(PortRole::Link)).peekable();
    if links.peek().is_none() || !links.all(PortDraft::is_memif_link) {
        return;
    }
    let routers = |name: &str| draft.cluster.routers.iter().any(|r| r.value == name);
    for node in draft.cluster.nodes.iter().filter(|n| text(&n.name) != draft.me() && n.memifs.is_empty()) {
        let needed = draft.has_remote_targets() || text(&node.name).is_some_and(routers);
        if let (true, Some(link)) = (needed, node.links.first()) {
            let problem = Problem::error(format!("no link port of ours leads to {}", link.value));
            sink.push(
                problem
                    .at(link.span.clone(), "")
                    .help("all our links are memif: name one of them, or add a port for GRE"),
            );
        }
    }
}
