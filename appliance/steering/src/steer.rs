//! What the router does with an inbound packet (R10, R11): one pure function for what it has peeked at, one step that
//! makes an entry, for what it has verified.

use phalanx_wire::{DropReason, Flow, PeerId, Spi, TargetId};

use crate::ConnKey;
use crate::distribute::{Protection, Situation, Verdict, verdict};
use crate::look::{Opened, Seen};
use crate::store::Sought;
use crate::table::{Conn, ConnectionTable};

/// Where a packet came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Whose SA it came through.
    pub peer: PeerId,
    /// Its SA's SPI.
    pub spi: Spi,
    /// Its number.
    pub number: u64,
    /// What protects it.
    pub protection: Protection,
    /// ESP with a cipher, as opposed to ESP-NULL.
    pub encrypted: bool,
    /// Tunnel mode.
    pub tunnel: bool,
    /// The local address of the outer header is a VIP.
    pub outer_is_vip: bool,
    /// The local address of the inner header, [`Seen::local`], is a VIP.
    pub inner_is_vip: bool,
    /// The VIP's targets were asked for their connections and windows since this router took the VIP.
    pub settled: bool,
}

impl Arrival {
    /// R11's word on the packet.
    #[inline]
    pub fn verdict(&self, seen: &Seen) -> Verdict {
        verdict(&Situation {
            protection: self.protection,
            encrypted: self.encrypted,
            tunnel: self.tunnel,
            tcp: matches!(seen, Seen::Tcp { .. } | Seen::Udp { .. } | Seen::Error { .. }),
            outer_is_vip: self.outer_is_vip,
            inner_is_vip: self.inner_is_vip,
        })
    }
}

/// What to do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Forward it, as it came, to the target of its connection.
    Forward {
        /// Who.
        target: TargetId,
    },
    /// Open it here, and forward what is inside to the target of its connection, in clear over the trusted link
    /// (R11: connection distributed, IPsec work not).
    OpenThenForward {
        /// Who.
        target: TargetId,
    },
    /// A SYN to a distributed port, or of a known connection, or a datagram of an unknown flow to a distributed port: open a
    /// copy of it; if it is genuine, not a replay and fits its tunnel, [`admit`] names the target.
    OpenThenSelect,
    /// Process it here, as an ordinary endpoint does.
    Local,
    /// Drop it, and count it under this reason.
    Drop(DropReason),
}

/// Where connections are looked up.
pub trait Lookup {
    /// The entry of `key`.
    fn lookup(&self, key: &ConnKey) -> Option<Conn>;
}

impl Lookup for &ConnectionTable {
    #[inline]
    fn lookup(&self, key: &ConnKey) -> Option<Conn> {
        ConnectionTable::lookup(self, key)
    }
}

/// Of the packet's own key, it may have been sought already.
impl Lookup for (&ConnectionTable, Option<&Sought>) {
    #[inline]
    fn lookup(&self, key: &ConnKey) -> Option<Conn> {
        self.1.map_or_else(|| self.0.lookup(key), |sought| self.0.lookup_sought(sought))
    }
}

/// Decides about a packet of which only an unauthenticated prefix may have been seen; the table is only read (I5).
/// `distributed` tells whether a new connection or flow is distributed (R24), by protocol and local port; known ones are,
/// whatever it says.
#[inline]
pub fn decide(arrival: &Arrival, seen: &Seen, table: impl Lookup, distributed: impl FnOnce(Flow) -> bool) -> Decision {
    let verdict = arrival.verdict(seen);
    let (flow, tcp) = match seen {
        Seen::Tcp { flow, tcp } => (flow, tcp),
        // An error about a packet of a connection goes where the connection is, as it came: one window, the target's, decides
        // about its number as about those of the connection's segments (I2). One that is about none is the router's.
        Seen::Error { flow } => {
            return follow(arrival, verdict, flow, &table).unwrap_or_else(|| by_the_router(arrival));
        }
        // UDP has no SYN: what is of no known flow begins one.
        Seen::Udp { flow } => {
            return follow(arrival, verdict, flow, &table).unwrap_or_else(|| {
                let begins = verdict != Verdict::Local && distributed(*flow);
                if begins { OPEN_IF_SETTLED[usize::from(arrival.settled)] } else { by_the_router(arrival) }
            });
        }
        Seen::Other { .. } | Seen::Opaque => return by_the_router(arrival),
    };
    if verdict == Verdict::Local {
        return by_the_router(arrival);
    }
    let opens = tcp.flags.opens();
    match table.lookup(&ConnKey { peer: arrival.peer, flow: *flow }) {
        // Each SYN of a connection is opened, not only the first: the router's window then knows them all when the entry
        // goes, and a copy of one is never taken for a new one (I2).
        Some(_) if opens => OPEN_IF_SETTLED[usize::from(arrival.settled)],
        Some(conn) if conn.is_older(arrival.spi, arrival.number) => Decision::Drop(DropReason::TooOld),
        Some(conn) if verdict == Verdict::DistributeConnection => Decision::OpenThenForward { target: conn.target },
        Some(conn) => Decision::Forward { target: conn.target },
        None if opens && distributed(*flow) => OPEN_IF_SETTLED[usize::from(arrival.settled)],
        None => by_the_router(arrival),
    }
}

/// Where a packet goes that is of a known connection and begins none.
fn follow(arrival: &Arrival, verdict: Verdict, flow: &Flow, table: &impl Lookup) -> Option<Decision> {
    let known = table.lookup(&ConnKey { peer: arrival.peer, flow: *flow });
    known.filter(|_| verdict != Verdict::Local).map(|conn| match verdict {
        _ if conn.is_older(arrival.spi, arrival.number) => Decision::Drop(DropReason::TooOld),
        Verdict::DistributeConnection => Decision::OpenThenForward { target: conn.target },
        _ => Decision::Forward { target: conn.target },
    })
}

/// What the router would take itself it must not even answer before it knows what its targets have (ARCHITECTURE "Inbound
/// replay"): a reset would end a connection that a target holds, and a replay would be taken for new.
const OPEN_IF_SETTLED: [Decision; 2] = [Decision::Drop(DropReason::Settling), Decision::OpenThenSelect];

fn by_the_router(arrival: &Arrival) -> Decision {
    if arrival.settled { Decision::Local } else { Decision::Drop(DropReason::Settling) }
}

/// Makes the entry for a SYN, or a datagram of an unknown flow, that was opened: its integrity check was good, the window has
/// taken its number, and it fits its tunnel. One of a known connection gets that connection's target; half-open, it has its
/// full time again. Of a new one, `choose` names the target by protocol and local port.
///
/// # Errors
/// [`DropReason::UnknownConnection`] if what was opened is neither after all, [`DropReason::TableFull`],
/// [`DropReason::HalfOpenLimit`], and those of `choose`. No entry has changed then.
pub fn admit(
    peer: PeerId,
    opened: &Opened,
    table: &mut ConnectionTable,
    choose: impl FnOnce(Flow, &ConnectionTable) -> Result<TargetId, DropReason>,
    now: u64,
) -> Result<TargetId, DropReason> {
    let flow = match *opened.seen() {
        Seen::Tcp { flow, tcp } if tcp.flags.opens() => flow,
        Seen::Udp { flow } => flow,
        _ => return Err(DropReason::UnknownConnection),
    };
    let key = ConnKey { peer, flow };
    if table.lookup(&key).is_none() {
        table.admits(peer)?;
        let target = choose(flow, table)?;
        return table.insert(&key, target, now);
    }
    table.renew(&key, now).ok_or(DropReason::UnknownConnection)
}
