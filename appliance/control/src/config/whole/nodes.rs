//! The cluster: names, addresses, who needs a certificate, and whether this node has anything to do.

use super::{known, unique, unique_names};
use crate::config::PortRole;
use crate::config::read::{Sink, Span};
use crate::config::report::Problem;
use crate::config::section::{ClusterNodeDraft, CoreRole, Draft, TargetsDraft, place, text};

impl Draft {
    /// The names of all nodes, this one among them.
    pub(super) fn node_names(&self) -> impl Iterator<Item = &str> + Clone {
        let me = self.me().filter(|me| !self.cluster.nodes.iter().any(|n| text(&n.name) == Some(me)));
        self.cluster.nodes.iter().filter_map(|n| text(&n.name)).chain(me)
    }

    pub(super) fn node(&self, name: &str) -> Option<&ClusterNodeDraft> {
        self.cluster.nodes.iter().find(|n| text(&n.name) == Some(name))
    }

    /// Whether this node owns a VIP.
    pub(super) fn is_router(&self) -> bool {
        self.vips.iter().any(|v| v.owner.is_some() && text(&v.owner) == self.me())
    }

    /// Whether a VIP of this node is distributed to other nodes.
    pub(super) fn has_remote_targets(&self) -> bool {
        let me = self.me();
        self.vips.iter().flat_map(|v| &v.distribute).any(|d| match &d.targets {
            TargetsDraft::Wrong => false,
            TargetsDraft::All => self.node_names().any(|n| Some(n) != me),
            TargetsDraft::Named(names) => names.iter().any(|n| Some(n.value.as_str()) != me),
        })
    }

    /// Whether this node is a target: of others, or of itself.
    pub(super) fn is_target(&self) -> bool {
        let me = self.me();
        let has_core = self.cores.iter().any(|c| c.is(CoreRole::Target));
        !self.cluster.routers.is_empty()
            || self.vips.iter().flat_map(|v| &v.distribute).any(|d| match &d.targets {
                TargetsDraft::Wrong => false,
                TargetsDraft::All => has_core,
                TargetsDraft::Named(names) => names.iter().any(|n| Some(n.value.as_str()) == me),
            })
    }
}

pub(super) fn check(draft: &Draft, sink: &Sink) {
    let c = &draft.cluster;
    if let Some(etcd) = &c.etcd {
        let problem = Problem::error("etcd as coupling facility is not in this version")
            .at(etcd.clone(), "")
            .help("use `coupling = \"embedded\"`: it lives on the router, and VIPs then have no backups");
        sink.push(problem);
    }
    unique_names(c.nodes.iter().map(|n| n.name.as_ref()), "nodes", sink);
    let links = c.nodes.iter().flat_map(|n| n.links.iter().map(|l| (l.value, l.span.clone())));
    unique(links, |a| format!("two nodes have the link address {a}"), sink);
    let addresses = c.nodes.iter().filter_map(|n| n.address.as_ref()).map(|a| (a.value, a.span.clone()));
    unique(addresses, |a| format!("two nodes have the control address {a}"), sink);

    routers(draft, sink);
    let remote = !c.routers.is_empty() || draft.has_remote_targets();
    certificate(draft, remote, sink);
    if let Some(me) = &draft.node.name
        && (remote || !c.nodes.is_empty())
        && draft.node(&me.value).is_none()
    {
        let problem = Problem::error(format!("this node, `{}`, is not in the cluster", me.value));
        let problem = problem.at(me.span.clone(), "").help("add a [[cluster.node]] with its name and link addresses");
        sink.push(problem);
    }
    own_links(draft, remote, sink);
    work(draft, sink);
}

/// The routers this node obeys.
fn routers(draft: &Draft, sink: &Sink) {
    let c = &draft.cluster;
    unique(
        c.routers.iter().map(|r| (r.value.as_str(), r.span.clone())),
        |r| format!("router `{r}` is named twice"),
        sink,
    );
    for router in &c.routers {
        if Some(router.value.as_str()) == draft.me() {
            let problem = Problem::error("a node is no target of itself by `routers`").at(router.span.clone(), "");
            sink.push(problem.help("name it among the `targets` of its VIPs"));
            continue;
        }
        if !known(router, draft.node_names(), "node", sink) {
            continue;
        }
        let Some(node) = draft.node(&router.value) else { continue };
        for (missing, what) in [(node.address.is_none(), "`address`"), (!node.is_linked(), "`link`")] {
            if missing {
                let problem = Problem::error(format!("router `{}` has no {what}", router.value));
                sink.push(problem.at(node.span.clone(), "this node").at(router.span.clone(), "named as a router here"));
            }
        }
    }
}

/// The control channel is mutual TLS: who talks to others needs all three files.
fn certificate(draft: &Draft, remote: bool, sink: &Sink) {
    let c = &draft.cluster;
    let given = [("certificate", c.certificate.is_some()), ("key", c.key.is_some()), ("ca", c.ca.is_some())];
    if !remote && given.iter().all(|g| !g.1) {
        return;
    }
    for (key, _) in given.iter().filter(|g| !g.1) {
        let problem = Problem::error(format!("[cluster]: `{key}` is missing")).at(c.span.clone(), "here");
        sink.push(problem.help("`phalanx pki ca` and `phalanx pki node` make the cluster's certificates"));
    }
    let own_address = draft.me().and_then(|me| draft.node(me)).is_some_and(|n| n.address.is_some());
    if draft.has_remote_targets() && !c.listen_given && !own_address {
        let problem = Problem::error("[cluster]: a router needs `listen`: its targets attach there");
        sink.push(problem.at(c.span.clone(), "here").help("for example listen = \"10.79.0.1:7400\""));
    }
}

/// This node's link addresses are those of its link ports; the others' must be reachable through them.
fn own_links(draft: &Draft, remote: bool, sink: &Sink) {
    let Some(own) = draft.me().and_then(|me| draft.node(me)) else { return };
    // Memif links have no addresses.
    let ports: Vec<_> = draft.ports.iter().filter(|p| p.is(PortRole::Link) && !p.is_memif_link()).collect();
    if ports.is_empty() {
        return;
    }
    if remote && own.links.is_empty() {
        sink.push(Problem::error("this node has no `link` address in the cluster").at(own.span.clone(), "this node"));
    }
    for link in &own.links {
        if !ports.iter().any(|p| p.addresses.iter().any(|a| a.value.addr() == link.value)) {
            let problem = Problem::error(format!("no link port has this node's link address {}", link.value));
            sink.push(problem.at(link.span.clone(), "").at(ports[0].span.clone(), "link port"));
        }
    }
    for node in draft.cluster.nodes.iter().filter(|n| n.span != own.span) {
        for link in &node.links {
            if !ports.iter().any(|p| p.addresses.iter().any(|a| a.value.contains(&link.value))) {
                let problem = Problem::error(format!("no link port is in one subnet with {}", link.value));
                let help = "links between boxes are one Ethernet segment: GRE is believed only from there";
                sink.push(problem.at(link.span.clone(), "").help(help));
            }
        }
    }
}

/// What the node's roles ask of ports and cores.
fn work(draft: &Draft, sink: &Sink) {
    let at = place(&draft.node.name, &(0..0));
    let (router, target) = (draft.is_router(), draft.is_target());
    if !router && !target && draft.vips.is_empty() && draft.me().is_some() {
        let problem = Problem::error("this node has nothing to do: it owns no [[vip]] and obeys no router");
        sink.push(
            problem
                .at(at, "")
                .help("a router has [[vip]]s with itself as owner, a target names its routers in [cluster] routers"),
        );
        return;
    }
    let need = |missing: bool, who: &str, what: &str| {
        if missing {
            sink.push(Problem::error(format!("this node is a {who} and has no {what}")).at(at.clone(), ""));
        }
    };
    // A port or core whose role is missing may be the one that is needed.
    let port = |role| draft.ports.iter().any(|p| p.role.is_none() || p.is(role));
    let core = |role| draft.cores.iter().any(|c| c.is(role) || c.roles.is_empty());
    let who = if router { "router" } else { "target" };
    if router || target {
        need(!port(PortRole::Network), who, "[[port]] with role = \"network\"");
        need(!port(PortRole::Application), who, "[[port]] with role = \"application\"");
        let linked = !draft.cluster.routers.is_empty() || draft.has_remote_targets();
        need(linked && !port(PortRole::Link), who, "[[port]] with role = \"link\"");
    }
    need(router && !core(CoreRole::Router), "router", "[[core]] with roles = [\"router\"]");
    need(target && !core(CoreRole::Target), "target", "[[core]] with roles = [\"target\"]");
    let unsure = draft.vips.iter().any(|v| v.owner.is_none());
    let idle = |role, is: bool, what: &str| {
        let spans = draft
            .cores
            .iter()
            .flat_map(|c| &c.roles)
            .filter(|r| !is && !unsure && r.value == role)
            .map(|r| r.span.clone());
        for span in spans.collect::<Vec<Span>>() {
            sink.push(Problem::warning(format!("this role has nothing to do: {what}")).at(span, ""));
        }
    };
    idle(CoreRole::Router, router, "the node owns no VIP");
    idle(CoreRole::Target, target, "the node is nobody's target");
}
