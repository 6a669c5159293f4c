//! Names of negotiated tunnels and numbers of their peers: the same for the same peer and child, so that connections outlive
//! new keys and restarts of the router.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use phalanx_ike::ChildSa;
use phalanx_ipsec::{IpsecError, SaParams, TunnelName};
use phalanx_wire::{PeerId, VipId};

/// What two CHILD_SAs that follow each other have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tunnel {
    pub name: TunnelName,
    pub peer: PeerId,
}

/// Whose tunnel it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Whose {
    vip: VipId,
    peer: Arc<str>,
    child: Arc<str>,
    who: String,
}

/// The tunnels in use.
#[derive(Debug, Default)]
pub(super) struct Tunnels {
    of: HashMap<Whose, Tunnel>,
    /// By name: whose, and how many CHILD_SAs it has.
    used: HashMap<TunnelName, (Whose, usize)>,
    /// By what names begin with.
    numbers: HashMap<String, Numbers>,
    peers: HashMap<PeerId, Whose>,
}

/// Which of `peer:child`, `peer:child:2`, `peer:child:3` and so on are free.
#[derive(Debug, Default)]
struct Numbers {
    /// So many were ever in use at a time.
    most: u32,
    /// Those of them that are not now.
    free: BTreeSet<u32>,
}

impl Numbers {
    /// The lowest that is free.
    fn lowest(&self) -> u32 {
        self.free.first().copied().unwrap_or(self.most + 1)
    }

    fn take(&mut self, number: u32) {
        self.free.remove(&number);
        self.most = self.most.max(number);
    }
}

impl Tunnels {
    /// The tunnel of a new CHILD_SA, which may follow another.
    ///
    /// # Errors
    /// Names that make no tunnel's name.
    pub fn enter(&mut self, vip: VipId, child: &ChildSa, before: Option<&SaParams>) -> Result<Tunnel, IpsecError> {
        if let Some(used) = before.and_then(|before| self.used.get_mut(&before.tunnel)) {
            used.1 += 1;
            let known = self.of.get(&used.0).cloned();
            if let Some(known) = known {
                return Ok(known);
            }
        }
        let remote = child.path.remote;
        // Two peers behind one NAT have one address.
        let who = if child.encapsulated { remote.to_string() } else { remote.ip().to_string() };
        let whose = Whose { vip, peer: child.peer.clone(), child: child.name.clone(), who };
        if let Some(tunnel) = self.of.get(&whose) {
            let tunnel = tunnel.clone();
            self.used.entry(tunnel.name).and_modify(|(_, count)| *count += 1);
            return Ok(tunnel);
        }
        let first = whose.first();
        let number = self.numbers.get(&first).map_or(1, Numbers::lowest);
        let tunnel = Tunnel { name: name(&first, number)?, peer: self.free_peer(&whose) };
        self.numbers.entry(first).or_default().take(number);
        self.of.insert(whose.clone(), tunnel.clone());
        self.peers.insert(tunnel.peer, whose.clone());
        self.used.insert(tunnel.name, (whose, 1));
        Ok(tunnel)
    }

    /// A CHILD_SA of the tunnel is gone.
    pub fn leave(&mut self, name: TunnelName) {
        let Some((_, count)) = self.used.get_mut(&name) else { return };
        *count -= 1;
        if *count == 0
            && let Some((whose, _)) = self.used.remove(&name)
            && let Some(tunnel) = self.of.remove(&whose)
        {
            self.peers.remove(&tunnel.peer);
            let first = whose.first();
            let number =
                name.as_str().strip_prefix(&first).map(|rest| rest.trim_start_matches(':').parse().unwrap_or(1));
            self.numbers.entry(first).or_default().free.extend(number);
        }
    }

    /// FNV-1a over who it is; the next one where two people meet.
    fn free_peer(&self, whose: &Whose) -> PeerId {
        let text = format!("{} {} {} {}", whose.vip, whose.peer, whose.child, whose.who);
        let hash = text.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
        let mut peer = PeerId(hash);
        while self.peers.contains_key(&peer) {
            peer = PeerId(peer.0.wrapping_add(1));
        }
        peer
    }
}

impl Whose {
    /// What the names of its tunnels begin with.
    fn first(&self) -> String {
        format!("{}:{}", self.peer, self.child)
    }
}

/// Names come again, as cores remember each that they ever heard.
fn name(first: &str, number: u32) -> Result<TunnelName, IpsecError> {
    if number == 1 { TunnelName::new(first) } else { TunnelName::new(&format!("{first}:{number}")) }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use phalanx_ike::{ChildId, ChildMode, IkeId, Keyed, Path};
    use phalanx_ipsec::{Algorithm, Prefix, SecretKey, Selectors};
    use phalanx_wire::Spi;

    /// Of a tunnel with a peer there.
    pub fn child(remote: &str, encapsulated: bool) -> ChildSa {
        let keyed =
            |spi| Keyed { spi: Spi(spi), key: SecretKey::new(Algorithm::Aes128Gcm16, &[spi as u8; 20]).unwrap() };
        ChildSa {
            id: ChildId(1),
            ike: IkeId(1),
            peer: "road".into(),
            name: "all".into(),
            replaces: None,
            initiator: false,
            inbound: keyed(4097),
            outbound: keyed(4098),
            mode: ChildMode::Tunnel,
            algorithm: Algorithm::Aes128Gcm16,
            esn: true,
            selectors: Selectors::between(Prefix::ANY_V4, Prefix::ANY_V4),
            path: Path { local: "10.77.0.100:500".parse().unwrap(), remote: remote.parse().unwrap() },
            encapsulated,
            keepalive: false,
            original: None,
            window: 32,
            soft_bytes: 0,
            hard_bytes: 0,
        }
    }

    #[test]
    fn the_same_peer_has_the_same_tunnel_and_others_have_others() {
        let mut tunnels = Tunnels::default();
        let mut enter = |remote, udp| tunnels.enter(VipId(4), &child(remote, udp), None).unwrap();
        let first = enter("10.77.0.10:500", false);
        assert_eq!(first.name.as_str(), "road:all");
        assert_eq!(enter("10.77.0.10:500", false), first);
        let second = enter("10.77.0.20:20001", true);
        assert_eq!(second.name.as_str(), "road:all:2");
        assert_ne!(second.peer, first.peer);
        assert_ne!(enter("10.77.0.20:20002", true), second, "another peer behind that NAT");
        // Of the first one there are two.
        tunnels.leave(first.name);
        assert_eq!(tunnels.enter(VipId(4), &child("10.77.0.10:500", false), None).unwrap(), first);
        tunnels.leave(second.name);
        let other = tunnels.enter(VipId(4), &child("10.77.0.30:500", false), None).unwrap();
        assert_eq!(other.name, second.name, "names come again");
        assert_ne!(other.peer, second.peer);
    }

    #[test]
    fn the_lowest_name_that_is_free_comes_next_however_many_there_are() {
        let mut tunnels = Tunnels::default();
        let mut names = Vec::new();
        for n in 0..20_000_u32 {
            let remote = std::net::Ipv4Addr::from_bits(0x0a00_0001 + n).to_string() + ":500";
            names.push(tunnels.enter(VipId(4), &child(&remote, false), None).unwrap().name);
        }
        assert_eq!(names[19_999].as_str(), "road:all:20000");
        for at in [700, 3, 0] {
            tunnels.leave(names[at]);
        }
        let mut next = |n: u8| tunnels.enter(VipId(4), &child(&format!("10.9.9.{n}:500"), false), None).unwrap().name;
        assert_eq!([next(1), next(2), next(3)], [names[0], names[3], names[700]]);
        assert_eq!(next(4).as_str(), "road:all:20001");
    }
}
