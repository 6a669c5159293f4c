//! CHILD_SAs: installed, switched to, removed (I4).

use std::sync::Arc;

use phalanx_ipsec::{Original, SecretKey, Selectors};
use phalanx_wire::Spi;

use super::exchange::{Asking, Work};
use super::{Cx, IkeSa, Stage, Todo};
use crate::codec::{ChildSpi, NotifyKind, Protocol};
use crate::crypto::Secret;
use crate::suite::{EspSuite, esp_key_len};
use crate::{ChildConfig, ChildId, ChildMode, ChildSa, Ending, Keyed, Millis, Output, Reason, What, narrow};

/// How long a replaced SA is kept: after the switch before it is deleted, and after the delete before it goes, so that what is on
/// its way arrives.
pub const LINGER_MS: Millis = 250;
/// As responder of a rekey: when the peer has not used the new SA by then, we do.
const SWITCH_MS: Millis = 3_000;
/// Without 64-bit numbers an SA ends before they do (RFC 4303 §3.3.3).
const SHORT_NUMBERS: u64 = u32::MAX as u64 - 65_536;
/// How long before a hard limit a successor is asked for, at the rate of late.
const LEAD_MS: Millis = 10_000;
/// Over how long a rate is measured, at least.
const RATE_MS: Millis = 500;
/// How long after a failure a rekey is tried again.
pub const RETRY_MS: Millis = 5_000;

/// Where a child is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Installing,
    Up,
    /// We told the peer that it ends.
    Deleting,
    /// It is being removed.
    Removing,
}

/// One CHILD_SA. Its keys are where packets are.
pub struct Child {
    pub id: ChildId,
    pub config: Arc<ChildConfig>,
    pub life: Life,
    /// We asked for it.
    pub initiator: bool,
    pub spi_in: Spi,
    pub spi_out: Spi,
    pub mode: ChildMode,
    pub suite: EspSuite,
    pub selectors: Selectors,
    pub replaces: Option<ChildId>,
    /// The one that takes its place.
    pub successor: Option<ChildId>,
    /// Its outbound half is used, or never will be.
    pub switched: bool,
    /// A rekey is asked for, or about to be.
    pub rekeying: bool,
    pub was_up: bool,
    pub since: Millis,
    pub install_by: Millis,
    pub rekey_at: Millis,
    pub end_at: Millis,
    pub switch_at: Millis,
    pub remove_at: Millis,
    /// Soft limits in bytes and packets.
    pub soft: (u64, u64),
    /// Hard limits.
    pub hard: (u64, u64),
    /// What it had carried at the last report, and when that was.
    pub carried: (u64, u64, Millis),
    /// Packets from the peer by then.
    pub heard: u64,
    pub ending: Ending,
}

/// What a child is made of.
pub struct NewChild {
    pub config: Arc<ChildConfig>,
    pub initiator: bool,
    pub spi_in: Spi,
    pub spi_out: Spi,
    pub mode: ChildMode,
    pub suite: EspSuite,
    pub selectors: Selectors,
    pub original: Option<Original>,
    pub replaces: Option<ChildId>,
    /// Of both directions.
    pub keys: Secret,
}

impl Child {
    pub fn protocol(&self) -> Protocol {
        self.suite.protocol()
    }

    /// What we call it.
    pub fn name_in(&self) -> ChildSpi {
        (self.protocol(), self.spi_in)
    }

    /// Packets may go through it.
    pub fn is_installed(&self) -> bool {
        matches!(self.life, Life::Installing | Life::Up | Life::Deleting)
    }

    /// It serves, and nothing is about to take its place.
    pub fn is_current(&self) -> bool {
        matches!(self.life, Life::Installing | Life::Up) && self.successor.is_none()
    }

    /// When something is to be done about it.
    pub fn deadline(&self) -> Millis {
        let rekey = if self.life == Life::Up && !self.rekeying && self.successor.is_none() {
            self.rekey_at
        } else {
            Millis::MAX
        };
        let install = if self.life == Life::Installing { self.install_by } else { Millis::MAX };
        let end = if self.life == Life::Removing { Millis::MAX } else { self.end_at.min(self.remove_at) };
        let switch = if self.switched { Millis::MAX } else { self.switch_at };
        rekey.min(install).min(end).min(switch)
    }
}

/// A limit by which nothing ends is the greatest number.
fn limit(value: u64) -> u64 {
    if value == 0 { u64::MAX } else { value }
}

impl IkeSa {
    pub fn child(&mut self, id: ChildId) -> Option<&mut Child> {
        self.children.iter_mut().find(|c| c.id == id)
    }

    /// Has a child installed. The answer comes by [`IkeSa::installed`] or [`IkeSa::refused`].
    pub(super) fn install(&mut self, cx: &mut Cx, new: NewChild) -> ChildId {
        cx.names.last_child += 1;
        let id = ChildId(cx.names.last_child);
        cx.names.owners.insert(id, self.id);
        let life = &new.config.lifetime;
        let jitter = u64::from(life.jitter_percent.min(90));
        let soft = |cx: &mut Cx, limit: u64| limit - cx.chance(limit / 100 * jitter);
        let rekey_ms = soft(cx, life.soft_ms);
        let mut soft_bytes = soft(cx, life.soft_bytes);
        let mut soft_packets = soft(cx, life.soft_packets);
        let hard_bytes = limit(life.hard_bytes);
        let mut hard_packets = limit(life.hard_packets);
        if !new.suite.esn {
            hard_packets = hard_packets.min(SHORT_NUMBERS);
            soft_packets = limit(soft_packets).min(hard_packets / 8 * 7);
        }
        soft_bytes = limit(soft_bytes).min(hard_bytes);
        let after = |ms: Millis| if ms == 0 { Millis::MAX } else { cx.now.saturating_add(ms) };
        let child = Child {
            id,
            life: Life::Installing,
            initiator: new.initiator,
            spi_in: new.spi_in,
            spi_out: new.spi_out,
            mode: new.mode,
            suite: new.suite,
            selectors: new.selectors,
            replaces: new.replaces,
            successor: None,
            switched: new.replaces.is_none(),
            rekeying: false,
            was_up: false,
            since: cx.now,
            install_by: cx.now + cx.config.limits.install_ms,
            rekey_at: after(rekey_ms),
            end_at: after(life.hard_ms),
            switch_at: Millis::MAX,
            remove_at: Millis::MAX,
            soft: (soft_bytes, limit(soft_packets)),
            hard: (hard_bytes, hard_packets),
            carried: (0, 0, cx.now),
            heard: 0,
            ending: Ending::WithIke,
            config: new.config.clone(),
        };
        if let Some(old) = new.replaces.and_then(|old| self.child(old)) {
            old.successor = Some(id);
        }
        let sa = self.as_output(&child, &new);
        self.children.push(child);
        cx.out.push_back(Output::Install(Box::new(sa)));
        id
    }

    fn as_output(&self, child: &Child, new: &NewChild) -> ChildSa {
        // RFC 7296 §2.17: what the initiator of the exchange sends with comes first.
        let (first, second) = new.keys.as_bytes().split_at(esp_key_len(new.suite.algorithm));
        let (outbound, inbound) = if new.initiator { (first, second) } else { (second, first) };
        let keyed = |spi, key| Keyed {
            spi,
            key: SecretKey::new(new.suite.algorithm, key)
                .expect("the keying material was cut to the algorithm's length"),
        };
        let peer = self.peer.as_ref();
        ChildSa {
            id: child.id,
            ike: self.id,
            peer: peer.map_or_else(|| "".into(), |p| p.name.clone()),
            name: new.config.name.clone(),
            replaces: new.replaces,
            initiator: new.initiator,
            inbound: keyed(new.spi_in, inbound),
            outbound: keyed(new.spi_out, outbound),
            mode: new.mode,
            algorithm: new.suite.algorithm,
            esn: new.suite.esn,
            selectors: new.selectors,
            path: self.path,
            encapsulated: self.nat.us || self.nat.peer,
            keepalive: self.nat.us,
            original: new.original,
            window: new.config.window,
            soft_bytes: child.soft.0,
            hard_bytes: child.hard.0,
        }
    }

    /// All who need it have it.
    pub fn installed(&mut self, cx: &mut Cx, id: ChildId) {
        let Some(child) = self.child(id).filter(|c| c.life == Life::Installing) else { return };
        child.life = Life::Up;
        child.was_up = true;
        child.since = cx.now;
        let (name, replaces, ours) = (child.config.name.clone(), child.replaces, child.initiator);
        let detail = format!("{}, {}", narrow::show(&child.selectors), child.suite.name());
        cx.counters.children += 1;
        cx.counters.children_rekeyed += u64::from(replaces.is_some());
        self.event(cx, What::ChildUp { child: id, name, replaces, detail });
        match self.working.take().map(|w| *w) {
            Some(w) if matches!(&w.what, Work::Install { child, .. } if *child == id) => {
                if let Work::Install { mut base, good, .. } = w.what {
                    base.append(&good);
                    self.reply(cx, w.exchange, w.id, &base);
                }
            }
            other => self.working = other.map(Box::new),
        }
        if replaces.is_some() {
            if ours {
                // The peer has it since before its answer.
                self.switch(cx, id);
            } else if let Some(child) = self.child(id) {
                child.switch_at = cx.now + SWITCH_MS;
            }
        }
        self.next_task(cx);
    }

    /// It cannot be installed.
    pub fn refused(&mut self, cx: &mut Cx, id: ChildId, why: String) {
        let Some(at) = self.children.iter().position(|c| c.id == id && c.life == Life::Installing) else { return };
        let child = self.children.swap_remove(at);
        cx.names.owners.remove(&id);
        self.not_installed(cx, &child, why);
        if !child.initiator {
            cx.names.spis.remove(&child.spi_in.0);
        }
        self.next_task(cx);
    }

    /// The peer is told, and the one that it was to replace tries again.
    fn not_installed(&mut self, cx: &mut Cx, child: &Child, why: String) {
        cx.counters.children_failed += 1;
        let name = Some(child.config.name.clone());
        self.event(cx, What::ChildFailed { name, reason: Reason::NotInstalled(why) });
        if let Some(old) = child.replaces.and_then(|old| self.child(old)) {
            (old.successor, old.rekeying, old.rekey_at) = (None, false, cx.now + RETRY_MS);
        }
        if child.initiator {
            return self.later(cx.now, Todo::Disclaim(child.name_in()));
        }
        match self.working.take().map(|w| *w) {
            Some(w) if matches!(&w.what, Work::Install { child: waiting, .. } if *waiting == child.id) => {
                if let Work::Install { mut base, .. } = w.what {
                    base.notify(NotifyKind::TEMPORARY_FAILURE, &[]);
                    self.reply(cx, w.exchange, w.id, &base);
                }
            }
            other => self.working = other.map(Box::new),
        }
    }

    /// Nobody said in time that it is installed: it will not be used.
    pub(super) fn install_timeout(&mut self, cx: &mut Cx, id: ChildId) {
        let Some(at) = self.children.iter().position(|c| c.id == id && c.life == Life::Installing) else { return };
        cx.out.push_back(Output::Remove { child: id });
        let child = self.children.swap_remove(at);
        cx.names.owners.remove(&id);
        if child.initiator {
            // The SPI stays taken until the peer knows.
            cx.names.orphans.insert(id, Spi(0));
        } else {
            cx.names.orphans.insert(id, child.spi_in);
        }
        let ms = cx.config.limits.install_ms;
        self.not_installed(cx, &child, format!("it took longer than {ms} ms"));
    }

    /// From now on it is used in place of the one it replaces, which is deleted if that is our part.
    pub fn switch(&mut self, cx: &mut Cx, id: ChildId) {
        let now = cx.now;
        let Some(child) = self.child(id).filter(|c| !c.switched && c.life == Life::Up) else { return };
        child.switched = true;
        let (old, ours) = (child.replaces, child.initiator);
        cx.out.push_back(Output::SwitchOutbound { child: id });
        let (Some(old), replaced_ms) = (old, cx.config.limits.replaced_ms) else { return };
        let Some(child) = self.child(old) else { return };
        // Should the peer forget to delete it.
        child.end_at = child.end_at.min(now + replaced_ms);
        child.ending = Ending::Replaced;
        if ours {
            self.later(now + LINGER_MS, Todo::DeleteChild(old, Ending::Replaced));
        }
    }

    /// Has a child removed.
    pub(super) fn remove(&mut self, cx: &mut Cx, id: ChildId, ending: Ending) {
        let Some(child) = self.child(id).filter(|c| c.is_installed()) else { return };
        child.life = Life::Removing;
        child.ending = ending;
        cx.out.push_back(Output::Remove { child: id });
        // A request for it that was never answered is not worth an answer any more.
        if self.working.as_ref().is_some_and(|w| matches!(w.what, Work::Install { child, .. } if child == id)) {
            self.working = None;
        }
    }

    /// Nobody uses it any more.
    pub fn removed(&mut self, cx: &mut Cx, id: ChildId) {
        let Some(at) = self.children.iter().position(|c| c.id == id && c.life == Life::Removing) else { return };
        let child = self.children.swap_remove(at);
        cx.names.owners.remove(&id);
        cx.names.spis.remove(&child.spi_in.0);
        self.forget(&child);
        if child.was_up {
            let name = child.config.name.clone();
            self.event(cx, What::ChildDown { child: id, name, ending: child.ending });
        }
        self.check_removed(cx);
        self.next_task(cx);
    }

    /// Nobody points at it any more.
    fn forget(&mut self, gone: &Child) {
        for child in &mut self.children {
            if child.successor == Some(gone.id) {
                (child.successor, child.rekeying) = (None, false);
            }
            if child.replaces == Some(gone.id) {
                child.replaces = None;
            }
        }
    }

    /// The peer's delete is answered when everything it names is removed.
    pub(super) fn check_removed(&mut self, cx: &mut Cx) {
        let Some(working) = self.working.take() else { return };
        let waits = match &working.what {
            Work::Remove { children, .. } if cx.now < working.until => {
                children.iter().any(|id| self.children.iter().any(|c| c.id == *id))
            }
            Work::Remove { .. } => false,
            Work::Install { .. } => true,
        };
        if waits {
            self.working = Some(working);
            return;
        }
        let Work::Remove { answer, close, .. } = working.what else { return };
        self.reply(cx, working.exchange, working.id, &answer);
        if let Some(ending) = close {
            self.close(cx, ending);
        }
    }

    /// Its IKE SA is over: what is installed is removed, and nobody waits for it.
    pub(super) fn drop_children(&mut self, cx: &mut Cx, ending: Ending) {
        for child in std::mem::take(&mut self.children) {
            cx.names.owners.remove(&child.id);
            cx.names.orphans.insert(child.id, child.spi_in);
            if child.is_installed() {
                cx.out.push_back(Output::Remove { child: child.id });
            }
            if child.was_up {
                let ending = if child.life == Life::Removing { child.ending } else { ending };
                self.event(cx, What::ChildDown { child: child.id, name: child.config.name.clone(), ending });
            }
        }
        self.forget_asked(cx);
        let first = if let Stage::Auth(setup) = &self.stage { setup.child_spi } else { None };
        first.map(|spi| cx.names.spis.remove(&spi.0));
    }

    /// What we asked for is of no interest any more.
    pub(super) fn forget_asked(&mut self, cx: &mut Cx) {
        let Some(asked) = self.asked.take().map(|asked| asked.what) else { return };
        if let Asking::RekeyIke(ask) = &asked {
            cx.names.ikes.remove(&ask.id.0);
        }
        asked.reserved().map(|spi| cx.names.spis.remove(&spi.0));
    }

    /// What it has carried: soft limits ask for a successor, hard ones end it. At a rate that would reach a hard limit before a
    /// successor can be there, one is asked for earlier. `from_peer`: packets that came from the peer, which is a sign of life.
    pub fn used(&mut self, cx: &mut Cx, id: ChildId, (bytes, packets): (u64, u64), from_peer: u64) {
        let now = cx.now;
        let Some(child) = self.child(id).filter(|c| c.life == Life::Up) else { return };
        let (old_bytes, old_packets, at) = child.carried;
        // A rate wants its time: bursts are none.
        let measured = now.saturating_sub(at) >= RATE_MS;
        if measured {
            child.carried = (bytes, packets, now);
        }
        let alive = from_peer > std::mem::replace(&mut child.heard, from_peer);
        let ms = now.saturating_sub(at).max(1);
        // What will have gone by when a successor asked for now is there.
        let then = |is: u64, was: u64| {
            let more = u128::from(is.saturating_sub(was)) * u128::from(LEAD_MS) / u128::from(ms);
            is.saturating_add(u64::try_from(more).unwrap_or(u64::MAX))
        };
        let over = |limits: (u64, u64), bytes, packets| bytes >= limits.0 || packets >= limits.1;
        let hard = over(child.hard, bytes, packets);
        let soon = measured && at > child.since && over(child.hard, then(bytes, old_bytes), then(packets, old_packets));
        if soon || over(child.soft, bytes, packets) {
            child.rekey_at = child.rekey_at.min(now);
        }
        if alive {
            self.heard_at = now;
        }
        if hard {
            self.hard_limit(cx, id);
        } else {
            self.tick(cx);
        }
    }

    /// It stops at once; the peer is told.
    pub fn hard_limit(&mut self, cx: &mut Cx, id: ChildId) {
        let Some(child) = self.child(id).filter(|c| c.is_installed()) else { return };
        let (spi, config) = (child.name_in(), child.config.clone());
        let replaced = child.successor.is_some();
        let told = child.life == Life::Deleting;
        let ending = if replaced { Ending::Replaced } else { Ending::HardLimit };
        self.remove(cx, id, ending);
        if !told {
            self.later(cx.now, Todo::Disclaim(spi));
        }
        if !replaced && config.start {
            self.later(cx.now, Todo::Child { config, replaces: None });
        }
        self.next_task(cx);
    }
}
