//! Ports and cores: devices, subnets, MTUs, and who owns which port.

use super::{known, unique, unique_names};
use crate::config::read::{At, Sink, Span};
use crate::config::report::Problem;
use crate::config::section::{Draft, PortDraft, place, text};
use crate::config::{Device, Kernel, PortRole};
use phalanx_aead::KernelError;
use phalanx_wire::link;

pub(super) fn check(draft: &Draft, sink: &Sink) {
    if let Some(At { value: Some(kernel), span }) = &draft.node.cipher_kernel {
        runs_here(kernel.that_is_here(), span, sink);
    }
    unique_names(draft.ports.iter().map(|p| p.name.as_ref()), "ports", sink);
    let devices = draft.ports.iter().filter_map(|p| p.device.as_ref());
    let devices =
        devices.map(|d| (d.value.netdev().map_or_else(|| format!("{:?}", d.value), str::to_owned), d.span.clone()));
    unique(devices, |_| "two ports have the same device".to_owned(), sink);
    let addresses = draft.ports.iter().flat_map(|p| &p.addresses).map(|a| (a.value.addr(), a.span.clone()));
    unique(addresses, |a| format!("two ports have the address {a}"), sink);
    for port in &draft.ports {
        addresses_of(port, sink);
        device_of(port, sink);
    }
    subnets(draft, sink);
    link_mtu(draft, sink);
    cores(draft, sink);
}

/// A node does not run on another kernel than the one that it is told.
fn runs_here(kernel: Result<Kernel, KernelError>, span: &Span, sink: &Sink) {
    if let Err(error) = kernel {
        let problem = Problem::error(format!("[node]: `cipher_kernel`: {error}")).at(span.clone(), "");
        sink.push(problem.help("`auto` takes the best that the processor has"));
    }
}

fn addresses_of(port: &PortDraft, sink: &Sink) {
    let Some(role) = &port.role else { return };
    if role.value == PortRole::Application {
        let spans = port.addresses.iter().map(|a| &a.span).chain(port.next_hops.iter().map(|n| &n.span));
        if let Some(span) = spans.min_by_key(|s| s.start) {
            let problem =
                Problem::error("an application port has no addresses and next hops of its own").at(span.clone(), "");
            sink.push(problem.help("the VIPs this node serves are put on it when it runs"));
        }
        return;
    }
    if port.is_memif_link() {
        return; // see `memif`
    }
    if port.addresses.is_empty() {
        let problem = Problem::error("this port has no address").at(place(&port.name, &port.span), "");
        sink.push(
            problem.help("`addresses = [\"10.77.0.1/24\"]`: its own, never a VIP; it resolves next hops with it"),
        );
    }
    for address in &port.addresses {
        let ip = address.value.addr();
        if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
            sink.push(Problem::error(format!("{ip} is no address of a port")).at(address.span.clone(), ""));
        }
    }
    for hop in &port.next_hops {
        if !port.addresses.iter().any(|a| a.value.contains(&hop.value)) {
            let problem = Problem::error(format!("the next hop {} is in no subnet of this port", hop.value));
            sink.push(problem.at(hop.span.clone(), ""));
        } else if port.addresses.iter().any(|a| a.value.addr() == hop.value) {
            sink.push(Problem::error("the next hop is the port itself").at(hop.span.clone(), ""));
        }
    }
    let families = port.next_hops.iter().map(|h| (h.value.is_ipv4(), h.span.clone()));
    unique(families, |v4| format!("a port has at most one next hop for IPv{}", if *v4 { 4 } else { 6 }), sink);
}

fn device_of(port: &PortDraft, sink: &Sink) {
    let (Some(role), Some(device)) = (&port.role, &port.device) else { return };
    let wrong = |message: &str, help: &str| sink.push(Problem::error(message).at(device.span.clone(), "").help(help));
    if role.value == PortRole::Application && device.value.driver() != Some("net_tap") {
        wrong("an application port is a TAP", "for example device = \"net_tap,iface=px0\"");
    }
    let Device::Vdev { driver, args } = &device.value else { return };
    let needs_interface = ["net_tap", "net_af_packet", "net_af_xdp"].contains(&driver.as_str());
    match device.value.netdev() {
        None if needs_interface => {
            wrong(&format!("`{driver}` needs the name of an interface"), &format!("`{driver},iface=NAME`"));
        }
        // IFNAMSIZ counts the terminating zero.
        Some(name) if name.len() > 15 => wrong("an interface's name has at most 15 characters", "choose a shorter one"),
        _ => {}
    }
    if driver == "net_af_packet" && args.iter().any(|(k, v)| k == "qdisc_bypass" && v != "1") {
        let help = "leave it out: it is 1, so that the host's own packets can be stopped and ours not";
        wrong("`qdisc_bypass` must be 1", help);
    }
}

/// A packet must have one way: the subnets of ports with different roles are apart.
fn subnets(draft: &Draft, sink: &Sink) {
    let nets = |role| draft.ports.iter().filter(move |p| p.is(role)).flat_map(|p| &p.addresses);
    for network in nets(PortRole::Network) {
        for link in nets(PortRole::Link) {
            if network.value.contains(&link.value.network()) || link.value.contains(&network.value.network()) {
                let problem = Problem::error("the link is not apart from the network: their subnets overlap");
                sink.push(problem.at(link.span.clone(), "link").at(network.span.clone(), "network"));
            }
        }
    }
}

/// Link MTU ≥ network MTU + overhead: a packet that came in must fit the link (R14).
fn link_mtu(draft: &Draft, sink: &Sink) {
    let largest = draft.ports.iter().filter(|p| p.is(PortRole::Network)).max_by_key(|p| p.mtu());
    let Some((network, network_mtu)) = largest.and_then(|p| Some((p, p.mtu()?))) else { return };
    for port in draft.ports.iter().filter(|p| p.is(PortRole::Link)) {
        let v6 = !port.addresses.is_empty() && port.addresses.iter().all(|a| a.value.addr().is_ipv6());
        let overhead = match (port.is_memif_link(), v6) {
            (true, _) => link::LEN,
            (_, true) => link::OVERHEAD_V6,
            _ => link::OVERHEAD_V4,
        };
        let needed = usize::from(network_mtu) + overhead;
        let Some(mtu) = port.mtu() else { continue };
        if usize::from(mtu) < needed {
            let message =
                format!("the link's MTU {mtu} cannot carry the network's {network_mtu} and {overhead} of header");
            let problem = Problem::error(message)
                .at(place(&port.mtu, &port.span), format!("must be at least {needed}"))
                .at(place(&network.mtu, &network.span), "network port");
            sink.push(problem);
        }
    }
}

/// A port belongs to exactly one core.
fn cores(draft: &Draft, sink: &Sink) {
    let cpus = draft.cores.iter().filter_map(|c| c.cpu.as_ref()).map(|c| (c.value, c.span.clone()));
    unique(cpus, |cpu| format!("two cores are pinned to CPU {cpu}"), sink);
    let used = draft.cores.iter().flat_map(|c| &c.ports).map(|p| (p.value.as_str(), p.span.clone()));
    unique(used, |port| format!("port `{port}` is used by two cores; it belongs to exactly one"), sink);
    let names = draft.ports.iter().filter_map(|p| text(&p.name));
    for core in &draft.cores {
        for port in &core.ports {
            known(port, names.clone(), "port", sink);
        }
        unique(
            core.roles.iter().map(|r| (r.value as u8, r.span.clone())),
            |_| "this role is given twice".to_owned(),
            sink,
        );
        if core.idler {
            let problem = Problem::error("a core must have a role").at(place(&core.cpu, &core.span), "");
            sink.push(problem.help("`roles = [\"router\"]`, `[\"target\"]` or both"));
        }
    }
    for port in draft.ports.iter().filter_map(|p| p.name.as_ref()) {
        if !draft.cores.iter().any(|c| c.ports.iter().any(|p| p.value == port.value)) {
            let problem = Problem::error(format!("no core polls port `{}`", port.value)).at(port.span.clone(), "");
            sink.push(problem.help(format!("add it to a core: `ports = [\"{}\"]`", port.value)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_the_processor_cannot_run_is_refused_and_the_best_is_named_as_a_way_out() {
        let sink = Sink::default();
        runs_here(Ok(Kernel::Portable), &(3..9), &sink);
        assert!(!sink.has_errors());
        runs_here(Err(KernelError::NotHere(Kernel::Avx512)), &(3..9), &sink);
        let (problems, _) = sink.into_parts();
        let message = problems[0].message();
        let named = "[node]: `cipher_kernel`: this processor cannot run the cipher kernel `vaes-avx512`, but portable";
        assert!(message.starts_with(named), "{message}");
    }
}
