//! A node as its router sees it.

use std::collections::{BTreeMap, BTreeSet};

use phalanx_wire::{CoreId, SaId, TargetId, VipId};

use crate::messages::{Drained, NodeName};

/// Where a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberState {
    /// No session.
    Down,
    /// A session, but it did not introduce itself.
    Connected,
    /// Welcomed: it tells what it holds.
    Gathering,
    /// Gathered, but it does not hold everything.
    Joining,
    /// It holds everything.
    Ready,
}

impl MemberState {
    /// Its name in `status`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Connected => "connected",
            Self::Gathering => "gathering",
            Self::Joining => "joining",
            Self::Ready => "ready",
        }
    }
}

/// What a request to a node is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    InstallVip(VipId),
    RemoveVip(VipId),
    InstallSa(SaId),
    RemoveSa(SaId),
}

/// On which ports of a VIP a node listens, as it told: ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listened {
    /// TCP.
    pub tcp: Vec<u16>,
    /// UDP: a socket is bound.
    pub udp: Vec<u16>,
}

impl Listened {
    pub(super) fn new(mut tcp: Vec<u16>, mut udp: Vec<u16>) -> Self {
        for ports in [&mut tcp, &mut udp] {
            ports.sort_unstable();
            ports.dedup();
        }
        Self { tcp, udp }
    }
}

/// A request that was not confirmed.
#[derive(Debug, Clone)]
pub(super) struct Outstanding {
    pub what: What,
    pub since: u64,
    /// It failed: when to try again, and why it failed.
    pub failed: Option<(u64, String)>,
}

/// Requests that were not confirmed, by number, hence in the order of time; and by what they are about.
#[derive(Debug, Default)]
pub(super) struct Requests {
    open: BTreeMap<u64, Outstanding>,
    about: BTreeSet<(What, u64)>,
}

impl Requests {
    pub(super) fn insert(&mut self, request: u64, open: Outstanding) {
        self.about.insert((open.what, request));
        self.open.insert(request, open);
    }

    pub(super) fn remove(&mut self, request: u64) -> Option<Outstanding> {
        let open = self.open.remove(&request)?;
        self.about.remove(&(open.what, request));
        Some(open)
    }

    /// Takes back all that are about this.
    pub(super) fn forget(&mut self, what: What) {
        let stale: Vec<u64> = self.about_this(what).map(|(_, request)| *request).collect();
        stale.into_iter().for_each(|request| drop(self.remove(request)));
    }

    /// The first that is about this.
    pub(super) fn find(&self, what: What) -> Option<&Outstanding> {
        self.about_this(what).next().and_then(|(_, request)| self.open.get(request))
    }

    fn about_this(&self, what: What) -> impl Iterator<Item = &(What, u64)> {
        self.about.range((what, 0)..=(what, u64::MAX))
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Outstanding)> {
        self.open.iter().map(|(request, open)| (*request, open))
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    fn clear(&mut self) {
        self.open.clear();
        self.about.clear();
    }
}

#[derive(Debug)]
pub(super) struct Member {
    pub node: NodeName,
    /// Its targets, and on which core if there are several.
    pub ids: Vec<(Option<CoreId>, TargetId)>,
    pub state: MemberState,
    pub incarnation: u64,
    pub outstanding: Requests,
    /// SAs that it said it held when it was gathered.
    pub told: BTreeSet<SaId>,
    /// VIPs that it said it served.
    pub told_vips: BTreeSet<VipId>,
    /// When to ask again for what failed.
    pub retry_at: Option<u64>,
    /// Ports with a listener, once told.
    pub listening: BTreeMap<VipId, Listened>,
    /// For which VIPs it wants no new connections.
    pub draining: Drained,
    /// For which VIPs it gets none by order of this router's operator, until that is taken back.
    pub ordered: BTreeSet<VipId>,
    /// What it dropped, as it last told.
    pub dropped: Vec<(String, u64)>,
    pub last_notice: u64,
    pub gathered_once: bool,
    pub link_mtu: u16,
    pub cores: Vec<CoreId>,
}

impl Member {
    pub(super) fn new(node: NodeName) -> Self {
        Self {
            node,
            ids: Vec::new(),
            state: MemberState::Down,
            incarnation: 0,
            outstanding: Requests::default(),
            told: BTreeSet::new(),
            told_vips: BTreeSet::new(),
            retry_at: None,
            listening: BTreeMap::new(),
            draining: Drained::Nothing,
            ordered: BTreeSet::new(),
            dropped: Vec::new(),
            last_notice: 0,
            gathered_once: false,
            link_mtu: 0,
            cores: Vec::new(),
        }
    }

    /// The target that lives on this core of the node.
    pub(super) fn target_on(&self, core: CoreId) -> Option<TargetId> {
        let exact = self.ids.iter().find(|(on, _)| *on == Some(core));
        exact.or_else(|| self.ids.iter().find(|(on, _)| on.is_none())).map(|(_, id)| *id)
    }

    /// It is told of new SAs.
    pub(super) fn live(&self) -> bool {
        self.state >= MemberState::Joining
    }

    pub(super) fn drains(&self, vip: VipId) -> bool {
        self.draining.has(vip) || self.ordered.contains(&vip)
    }

    /// Forgets what belonged to the session. What it was asked and did not confirm will be asked again when it joins.
    pub(super) fn lost(&mut self) {
        self.state = MemberState::Down;
        self.outstanding.clear();
        self.told.clear();
        self.told_vips.clear();
        self.retry_at = None;
        self.draining = Drained::Nothing;
        self.listening.clear();
    }

    /// When the oldest request was made that has no answer. Requests are numbered in the order of time.
    pub(super) fn first_since(&self) -> Option<u64> {
        self.outstanding.iter().next().map(|(_, open)| open.since)
    }

    /// Why it did not do one of these, if so.
    pub(super) fn why_missing(&self, mut whats: impl Iterator<Item = What>) -> Option<String> {
        let open = whats.find_map(|what| self.outstanding.find(what))?;
        Some(open.failed.as_ref().map_or_else(|| "no answer".to_owned(), |(_, error)| error.clone()))
    }
}

/// A node, for `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its name.
    pub node: NodeName,
    /// Its targets.
    pub targets: Vec<TargetId>,
    /// Where it stands.
    pub state: MemberState,
    /// Its boot.
    pub incarnation: u64,
    /// Requests that it did not confirm.
    pub outstanding: usize,
    /// The error of one that failed.
    pub error: Option<String>,
    /// For which of its VIPs it wants no new connections.
    pub drained: Vec<VipId>,
    /// For which it gets none by order of this router's operator.
    pub ordered: Vec<VipId>,
    /// The largest packet of its link port.
    pub link_mtu: u16,
    /// Its target cores.
    pub cores: Vec<CoreId>,
}
