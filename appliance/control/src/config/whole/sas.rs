//! Static SAs: keys, SPIs, selectors, limits.

use super::selectors::{overlap, sound};
use super::{known, unique, unique_names};
use crate::config::read::{At, Sink, Span};
use crate::config::report::Problem;
use crate::config::section::{Draft, HalfDraft, SaDraft, VipDraft, place, text};
use crate::config::{Algorithm, PortRole, SaMode, Selectors, build};
use ipnet::IpNet;
use std::collections::HashSet;
use std::net::IpAddr;

pub(super) fn check(draft: &Draft, sink: &Sink) {
    unique_names(draft.sas.iter().map(|s| s.name.as_ref()), "SAs", sink);
    keys(draft, sink);
    spis(draft, sink);
    let mut usable: Vec<(&SaDraft, Selectors)> = Vec::new();
    for sa in &draft.sas {
        lifesize(sa, sink);
        if let Some(algorithm) = &sa.algorithm {
            hides_nothing(algorithm.value, &algorithm.span, sink);
        }
        let Some(vip) = vip_of(draft, sa, sink) else { continue };
        peer(draft, sa, vip, sink);
        super::natt::check(sa, vip, sink);
        if let Some(selectors) = selectors_of(draft, sa, vip, sink) {
            usable.push((sa, selectors));
        }
    }
    one_way(&usable, sink);
    let most = draft.limits.sas.as_ref().map_or(1_024, |l| l.value) as usize;
    if 2 * draft.sas.len() > most {
        let problem =
            Problem::error(format!("{} SAs, both directions counted, and [limits] sas = {most}", 2 * draft.sas.len()));
        sink.push(problem.at(draft.sas[most / 2].span.clone(), "one too many").help("raise `sas` in [limits]"));
    }
}

/// The VIP, if it is one and this node's.
fn vip_of<'a>(draft: &'a Draft, sa: &SaDraft, sink: &Sink) -> Option<&'a VipDraft> {
    let name = sa.vip.as_ref()?;
    if !known(name, draft.vips.iter().filter_map(|v| text(&v.name)), "VIP", sink) {
        return None;
    }
    let vip = draft.vips.iter().find(|v| text(&v.name) == Some(&name.value))?;
    if vip.owner.is_some() && draft.me().is_some() && text(&vip.owner) != draft.me() {
        let problem = Problem::error(format!("this node does not own `{}`", name.value)).at(name.span.clone(), "");
        sink.push(problem.help("static SAs stand in the router's configuration only; targets get them from it"));
        return None;
    }
    Some(vip)
}

/// Key lengths, and no key for two SAs: same numbers under one key is the end of counter modes (I1).
fn keys(draft: &Draft, sink: &Sink) {
    for sa in &draft.sas {
        let algorithm = sa.algorithm.as_ref().map_or(Algorithm::Aes128Gcm16, |a| a.value);
        let want = algorithm.material_len();
        for (_, half) in sa.halves() {
            let Some(key) = &half.key else { continue };
            let len = key.value.bytes().len();
            if len != want {
                let message = format!("the key has {len} bytes; {} wants {want}", algorithm.name());
                let help = format!("{}: {} hex digits", parts(algorithm), 2 * want);
                sink.push(Problem::error(message).at(key.span.clone(), format!("{len} bytes, not shown")).help(help));
            }
        }
    }
    let all = draft.sas.iter().flat_map(|s| s.halves()).filter_map(|(_, h)| h.key.as_ref());
    let keys = all.map(|k| (k.value.bytes(), k.span.clone()));
    let message = "two SAs have one key and salt: a number used by both would give the plaintext away";
    unique(keys, |_| message.to_owned(), sink);
}

/// What keying material is made of.
fn parts(algorithm: Algorithm) -> String {
    let (encryption, integrity) = (algorithm.encryption_key_len(), algorithm.integrity_key_len());
    match algorithm.salt_len() {
        0 if encryption == 0 => format!("{integrity} of integrity key"),
        0 => format!("{encryption} of encryption key and {integrity} of integrity key"),
        salt => format!("{encryption} of key and {salt} of salt"),
    }
}

/// Without a word of warning only AH: nobody takes that for encryption.
pub(super) fn hides_nothing(algorithm: Algorithm, span: &Span, sink: &Sink) {
    if algorithm.is_clear() && !algorithm.is_ah() {
        let message =
            format!("{} encrypts nothing: whoever is on the way can read what goes through", algorithm.name());
        sink.push(Problem::warning(message).at(span.clone(), "authenticated only"));
    }
}

/// SPIs of AH are others than those of ESP (RFC 4301 §4.4.2.1).
fn is_ah(sa: &SaDraft) -> bool {
    sa.algorithm.as_ref().is_some_and(|algorithm| algorithm.value.is_ah())
}

/// Inbound we choose: once per VIP. Outbound the peer chose: once per peer.
fn spis(draft: &Draft, sink: &Sink) {
    let spi = |half: &Option<HalfDraft>| half.as_ref()?.spi.clone();
    let inbound = draft.sas.iter().filter_map(|s| {
        let spi: At<u32> = spi(&s.inbound)?;
        Some(((text(&s.vip)?, is_ah(s), spi.value), spi.span))
    });
    unique(inbound, |(vip, _, spi)| format!("two SAs of `{vip}` have the inbound SPI {spi:#010x}"), sink);
    let outbound = draft.sas.iter().filter_map(|s| {
        let spi: At<u32> = spi(&s.outbound)?;
        // Two hosts behind one NAT choose on their own.
        let port = s.natt.peer_port.as_ref().map(|p| p.value);
        Some(((s.peer.as_ref()?.value, is_ah(s), port, spi.value), spi.span))
    });
    unique(outbound, |(peer, _, _, spi)| format!("two SAs towards {peer} have the outbound SPI {spi:#010x}"), sink);
}

fn lifesize(sa: &SaDraft, sink: &Sink) {
    if let Some(hard) = sa.hard_bytes.as_ref().filter(|h| h.value == 0) {
        sink.push(Problem::error("`hard_bytes` is 0: the SA could carry nothing").at(hard.span.clone(), ""));
    }
    if let (Some(soft), Some(hard)) = (&sa.soft_bytes, &sa.hard_bytes)
        && hard.value < soft.value
    {
        let problem = Problem::error("the hard limit is below the soft one: the SA would stop before it is renewed");
        sink.push(problem.at(hard.span.clone(), "hard").at(soft.span.clone(), "soft"));
    }
}

/// The outer remote address.
fn peer(draft: &Draft, sa: &SaDraft, vip: &VipDraft, sink: &Sink) {
    let (Some(peer), Some(address)) = (&sa.peer, &vip.address) else { return };
    let error = |message: String| Problem::error(message).at(peer.span.clone(), "");
    if peer.value.is_ipv4() != address.value.addr().is_ipv4() {
        let problem =
            error(format!("the peer {} and the VIP {} are of different families", peer.value, address.value.addr()));
        sink.push(problem.at(address.span.clone(), "the VIP"));
    }
    let ours = draft.vips.iter().filter_map(|v| v.address.as_ref());
    let ours = ours.chain(draft.ports.iter().flat_map(|p| &p.addresses));
    for own in ours.filter(|a| a.value.addr() == peer.value) {
        sink.push(error(format!("the peer {} is this node itself", peer.value)).at(own.span.clone(), "own address"));
    }
    if peer.value.is_unspecified() || peer.value.is_multicast() {
        sink.push(error(format!("{} is no peer's address", peer.value)));
    }
    let floor = if peer.value.is_ipv6() { 1280 } else { 576 };
    let largest = draft.ports.iter().filter(|p| p.is(PortRole::Network)).filter_map(|p| p.mtu()).max();
    let mtu = sa.path_mtu.as_ref().map_or(1500, |m| m.value);
    if mtu < floor {
        sink.push(
            Problem::error(format!("a path's MTU is at least {floor} here")).at(place(&sa.path_mtu, &sa.span), ""),
        );
    }
    if let Some(largest) = largest.filter(|l| mtu > *l) {
        let problem = Problem::error(format!("the path MTU {mtu} is above the network port's {largest}"));
        sink.push(problem.at(place(&sa.path_mtu, &sa.span), ""));
    }
}

/// The selectors with defaults, where they can be used.
fn selectors_of(draft: &Draft, sa: &SaDraft, vip: &VipDraft, sink: &Sink) -> Option<Selectors> {
    let address = vip.address.as_ref()?.value.addr();
    let peer = sa.peer.as_ref()?.value;
    let whole = build::selectors(&sa.selectors, address, IpNet::from(peer));
    if !sound(&sa.selectors, &whole, &sa.span, sink) {
        return None;
    }
    let at = |block: &Option<At<IpNet>>| place(block, &sa.span);
    match sa.mode.as_ref()?.value {
        SaMode::Transport => {
            for (what, block, must, span) in [
                ("local", whole.local, address, at(&sa.selectors.local)),
                ("remote", whole.remote, peer, at(&sa.selectors.remote)),
            ] {
                // In UDP what is inside may show any one address, wherever the peer is (RFC 3948 §5.2).
                let must = if what == "remote" && sa.natt.is_udp() { block.addr() } else { must };
                if block != IpNet::from(must) {
                    let problem = Problem::error(format!("in transport mode `{what}` is {must} itself, not {block}"));
                    sink.push(problem.at(span, "").help("leave it out, or use mode = \"tunnel\""));
                }
            }
        }
        SaMode::Tunnel => {
            let vips = || draft.vips.iter().filter_map(|v| v.address.as_ref()).map(|a| a.value.addr());
            if !vips().any(|ip: IpAddr| whole.local.contains(&ip)) {
                let problem =
                    Problem::error(format!("`local` {} holds no VIP: nothing that comes through fits", whole.local));
                sink.push(problem.at(at(&sa.selectors.local), "").help(format!("the VIP of this SA is {address}")));
                return None;
            }
        }
    }
    Some(whole)
}

/// Where selectors overlap, an outbound packet fits two SAs and takes the first.
fn one_way(usable: &[(&SaDraft, Selectors)], sink: &Sink) {
    // What is around another is not what packets leave by.
    let around: HashSet<&str> = usable.iter().filter_map(|(sa, _)| text(&sa.within)).collect();
    let leaves = |sa: &SaDraft| text(&sa.name).is_none_or(|name| !around.contains(name));
    for (i, (sa, selectors)) in usable.iter().enumerate() {
        let before =
            usable[..i].iter().find(|(b, s)| leaves(b) && text(&b.vip) == text(&sa.vip) && overlap(s, selectors));
        let before = before.filter(|_| leaves(sa));
        let Some((before, _)) = before else { continue };
        let (Some(name), Some(first)) = (&sa.name, &before.name) else { continue };
        let message =
            format!("selectors of `{}` and `{}` overlap: what fits both leaves by `{1}`", name.value, first.value);
        sink.push(Problem::warning(message).at(name.span.clone(), "").at(first.span.clone(), "comes first"));
    }
}
