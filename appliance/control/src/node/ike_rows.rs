//! IKE as the status socket shows it, and what it can be told to do.

use std::time::UNIX_EPOCH;

use phalanx_ike::{Begun, ChildId, ChildMode, ChildRow, Command, CommandError, IkeId, IkeRow, Which};

use phalanx_ipsec::{PortRange, Selectors};

use super::brain::Brain;
use super::ike::{Happened, Ike};
use crate::status::ike::{IkeChild, IkeEvent, IkeSa, IkeStatus};
use crate::status::{Done, OneIke, OnePeer};

impl Brain {
    pub(super) fn ike_status(&self) -> IkeStatus {
        let now = self.ike_now();
        let peers = self.config.peers.iter().map(|peer| peer.ike.name.to_string()).collect();
        let Some(ike) = &self.ike else { return IkeStatus::default() };
        let counters = ike.endpoint.counters().named();
        IkeStatus {
            peers,
            sas: ike.endpoint.list(now).into_iter().map(|row| sa_row(ike, row)).collect(),
            counters: counters.into_iter().map(|(name, n)| (name.replace('_', "-"), n)).collect(),
            set_up: ike.times.shown(),
            events: ike.events.iter().map(event).collect(),
        }
    }

    /// Begins with a peer, or makes one more child with it.
    pub(super) fn ike_initiate(&mut self, which: OnePeer) -> Result<Done, String> {
        let OnePeer { peer, child } = which;
        let words = child.as_ref().map_or_else(|| peer.clone(), |child| format!("{peer}, child {child}"));
        let begun = self.ike_command(Command::Initiate { peer, child })?;
        let done = if begun.already { format!("{words}: it is up already") } else { format!("{words}: begun") };
        Ok(Done { done, notes: vec!["`phalanx ike` shows how far it comes, `phalanx ike events` why not".to_owned()] })
    }

    /// New keys for an IKE SA or a CHILD_SA.
    pub(super) fn ike_rekey(&mut self, which: &OneIke) -> Result<Done, String> {
        let commands = match self.ike_meant(&which.sa)? {
            Which::Ike(ike) => vec![Command::RekeyIke { ike }],
            Which::Child(child) => vec![Command::RekeyChild { child }],
            Which::Peer(name) => {
                let of = |row: &IkeRow| row.peer.as_deref() == Some(name.as_str());
                let now = self.ike_now();
                let rows = self.ike.as_ref().map(|ike| ike.endpoint.list(now)).unwrap_or_default();
                let children = rows.iter().filter(|row| of(row)).flat_map(|row| &row.children);
                children.filter(|row| row.state == "up").map(|row| Command::RekeyChild { child: row.id }).collect()
            }
            Which::All => return Err("name an IKE SA, a child or a peer: all of them at once is too much".to_owned()),
        };
        if commands.is_empty() {
            return Err(format!("{} has no child that is up", which.sa));
        }
        for command in commands {
            self.ike_command(command)?;
        }
        Ok(Done { done: format!("{}: new keys are on their way", which.sa), notes: Vec::new() })
    }

    /// An end, told to the peer.
    pub(super) fn ike_terminate(&mut self, which: &OneIke) -> Result<Done, String> {
        let meant = self.ike_meant(&which.sa)?;
        self.ike_command(Command::Terminate(meant))?;
        let notes = vec!["a peer or child that is to `start` by itself begins again after a reload".to_owned()];
        Ok(Done { done: format!("{}: it ends", which.sa), notes })
    }

    fn ike_command(&mut self, command: Command) -> Result<Begun, String> {
        let now = self.ike_now();
        let ike = self.ike.as_mut().ok_or("this node owns no VIP: IKE is its routers' business")?;
        let begun = ike.endpoint.command(now, command).map_err(|error: CommandError| error.to_string())?;
        self.settle();
        Ok(begun)
    }

    /// Sixteen hexadecimal digits are an IKE SA, a number is a child, `all` is everything, the rest a peer's name.
    fn ike_meant(&self, text: &str) -> Result<Which, String> {
        let hex = text.strip_prefix("0x").unwrap_or(text);
        if hex.len() == 16
            && let Ok(id) = u64::from_str_radix(hex, 16)
        {
            return Ok(Which::Ike(IkeId(id)));
        }
        if let Ok(id) = text.parse() {
            return Ok(Which::Child(ChildId(id)));
        }
        if text == "all" {
            return Ok(Which::All);
        }
        let names: Vec<&str> = self.config.peers.iter().map(|peer| &*peer.ike.name).collect();
        if names.contains(&text) {
            return Ok(Which::Peer(text.to_owned()));
        }
        Err(format!("{text} is no IKE SA, no child and no peer; the peers are {}", names.join(", ")))
    }
}

fn sa_row(ike: &Ike, row: IkeRow) -> IkeSa {
    let hex = |spi: u64| format!("{spi:016x}");
    IkeSa {
        id: row.id.to_string(),
        spi_initiator: hex(row.spis.0),
        spi_responder: hex(row.spis.1),
        role: if row.initiator { "initiator" } else { "responder" }.to_owned(),
        peer: row.peer.map(|peer| peer.to_string()),
        identity: row.identity,
        local: row.path.local.to_string(),
        remote: row.path.remote.to_string(),
        state: row.state.to_owned(),
        suite: row.suite,
        age_ms: row.age_ms,
        rekey_in_ms: row.rekey_in_ms,
        silent_ms: row.silent_ms,
        nat_here: row.nat.0,
        nat_there: row.nat.1,
        next_out: row.message_ids.0,
        next_in: row.message_ids.1,
        children: row.children.into_iter().map(|child| child_row(ike, child)).collect(),
    }
}

fn child_row(ike: &Ike, row: ChildRow) -> IkeChild {
    let tunnel = ike.children.get(&row.id).map(|child| child.pair.inbound.tunnel.to_string());
    IkeChild {
        id: row.id.0,
        name: row.name.to_string(),
        tunnel: tunnel.unwrap_or_default(),
        state: row.state.to_owned(),
        mode: match row.mode {
            ChildMode::Tunnel => "tunnel",
            ChildMode::Transport => "transport",
        }
        .to_owned(),
        inbound: format!("{:#010x}", row.inbound.0),
        outbound: format!("{:#010x}", row.outbound.0),
        selectors: selectors(&row.selectors),
        suite: row.suite,
        esn: row.esn,
        age_ms: row.age_ms,
        rekey_in_ms: row.rekey_in_ms,
        replaces: row.replaces.map(|old| old.0),
    }
}

/// `10.77.0.100 tcp 80 = 10.99.0.0/24`: ours, theirs; what is not said is any.
fn selectors(s: &Selectors) -> String {
    let ports = |ports: PortRange| if ports == PortRange::ANY { String::new() } else { format!(" {ports}") };
    let protocol = s.protocol.map_or_else(String::new, |protocol| format!(" protocol {protocol}"));
    format!("{}{protocol}{} = {}{}", s.local, ports(s.local_ports), s.remote, ports(s.remote_ports))
}

fn event(happened: &Happened) -> IkeEvent {
    let unix_ms = happened.at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    IkeEvent { unix_ms, failure: happened.bad, words: happened.words.clone() }
}
