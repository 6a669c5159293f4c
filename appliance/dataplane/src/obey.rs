//! Commands: what changes a core's tables between bursts.

use phalanx_ipsec::{InboundSa, IpsecError, OutboundSa, Removed};
use phalanx_wire::{SaId, VipId};

use crate::clock::Now;
use crate::command::{Command, Event, LinkEnd, Order, Outcome, Refused, TargetSet, Trash, VipEntry};
use crate::engine::Engine;
use crate::inbound_router::RouterSa;
use crate::packet::Source;
use crate::purge::Whose;
use crate::stats::Stage;
use crate::watcher::Watcher;
use phalanx_wire::DropReason;

type Answer = Result<Outcome, Refused>;

impl<S: Source> Engine<S> {
    /// Carries a command out and answers it.
    pub(crate) fn obey(&mut self, order: Order, now: Now) {
        let Order { token, command } = order;
        let answer = match command {
            Command::SetVip(entry) => Some(self.set_vip(entry, now)),
            Command::RemoveVip(id) => self.remove_vip(token, id),
            Command::Expect { vip, spi, ms } => {
                self.expect(vip, spi, ms, now);
                Some(Ok(Outcome::Applied))
            }
            Command::AddInbound(sa) => Some(self.add_inbound(sa, false, now)),
            Command::AddEarly(sa) => Some(self.add_inbound(sa, true, now)),
            Command::Spread(id) => Some(self.spread(id, now)),
            Command::PathMtu(id, mtu) => Some(self.set_path_mtu(id, mtu)),
            Command::AddOutbound(sa) => Some(self.add_outbound(sa, true, now)),
            Command::AddSuccessor(sa) => Some(self.add_outbound(sa, false, now)),
            Command::UseOutbound(id) => Some(self.use_outbound(id)),
            Command::RemoveSa(id) => Some(self.remove_sa(id, now)),
            Command::SetFilters(filters) => Some(self.set_filters(filters)),
            Command::SetTargets(id, set) => Some(self.set_targets(id, set)),
            Command::SetRouter(id, end) => {
                Some(self.on_vip(id, |vip| (vip.router, vip.router_port) = (Some(end), None)))
            }
            Command::SetRouterPort(id, port) => {
                Some(self.on_vip(id, |vip| (vip.router, vip.router_port) = (None, Some(port))))
            }
            Command::Settled(id) => Some(self.on_vip(id, |vip| vip.settled = true)),
            Command::DropLeases(id) => Some(self.drop_leases(id)),
            Command::Confirm(_, key, target) => {
                let theirs = self.router.table.lookup(&key).is_some_and(|conn| conn.target == target);
                Some(found(theirs && self.router.table.confirm(&key, now.ms())))
            }
            Command::EndConn(_, key, target) => Some(found(self.end_connection(&key, target, now))),
            Command::RestoreConn(_, key, target) => {
                let restored = self.router.table.restore(&key, target, now.ms());
                Some(restored.map(|()| Outcome::Applied).map_err(|_| Refused::TableFull))
            }
            Command::OpenConn { key, target, inbound } => Some(self.open_for_target(&key, target, inbound, now)),
            Command::ConnAnswer(key, refused) => return self.connection_answered(&key, refused, now),
            Command::PurgeTarget(id, target) => self.end_some(token, id, Whose::Dead(target, now.ms())),
            Command::PurgeStale(id, target, since) => {
                self.end_some(token, id, Whose::Stale(target, now.us_at(since) / 1000))
            }
            Command::MergeWindow(id, snapshot) => Some(self.merge_window(id, snapshot)),
            Command::RaiseFloor(id, floor) => {
                Some(self.on_inbound(id, |sa| sa.notes.floor = sa.notes.floor.max(floor)))
            }
            Command::RaiseLate(id, late) => Some(self.on_inbound(id, |sa| sa.notes.late = sa.notes.late.max(late))),
            Command::Watch(watch) => {
                self.watcher = watch.map(|watch| Watcher::new(watch, self.me));
                Some(Ok(Outcome::Applied))
            }
            Command::Capture(tap) => {
                if let Some(old) = std::mem::replace(&mut self.out.tap, tap) {
                    self.trash(Trash::Tap(old));
                }
                Some(Ok(Outcome::Applied))
            }
            Command::Call(function) => {
                function();
                Some(Ok(Outcome::Applied))
            }
            Command::Drain => {
                self.router.draining = true;
                Some(Ok(Outcome::Applied))
            }
            Command::Lease { sa, lease, expires } => return self.take_lease(sa, lease, expires, now),
            Command::Ceiling(id, upto) => return self.take_ceiling(id, upto, now),
            Command::MovePeer(id, to) => return self.move_peer(id, to),
            Command::Keepalive(vip, to) => return self.send_keepalive(vip, to, now),
            Command::HearIke(slot) => {
                if let Some(old) = self.ike.slot.replace(slot) {
                    self.trash(Trash::MailSlot(old));
                }
                Some(Ok(Outcome::Applied))
            }
            Command::SendIke(message) => return self.send_ike(message, now),
            Command::Dump(dump) => return self.dump(token, dump, now),
            // The loop looks for this one itself.
            Command::Stop => return,
        };
        if let Some(result) = answer {
            self.mail.answer(Event::Done { core: self.id, token, result });
        }
    }

    fn trash(&mut self, trash: Trash) {
        self.mail.answer(Event::Trash(trash));
    }

    fn set_vip(&mut self, entry: Box<VipEntry>, now: Now) -> Answer {
        let (address, ours) = (entry.address, entry.router_core == Some(self.id));
        let is_router = entry.router_core.is_some();
        if let Some(vip) = self.tables.vips.by_id_mut(entry.id).filter(|vip| vip.entry.address == address) {
            if entry.epoch < vip.entry.epoch {
                self.trash(Trash::Vip(entry));
                return Err(Refused::OldEpoch);
            }
            let was_router = vip.entry.router_core.is_some();
            vip.settled &= vip.entry.router_core == Some(self.id);
            let old = std::mem::replace(&mut vip.entry, entry);
            self.trash(Trash::Vip(old));
            match (was_router, is_router) {
                (false, true) => self.announce(address, now),
                (true, false) => self.stop_announcing(address),
                _ => {}
            }
            return Ok(Outcome::Applied);
        }
        // A VIP of another router is nothing that could be settled here.
        if let Err(entry) = self.tables.vips.add(entry, !ours) {
            self.trash(Trash::Vip(entry));
            return Err(Refused::TableFull);
        }
        if is_router {
            self.announce(address, now);
        }
        Ok(Outcome::Applied)
    }

    /// Answered when the VIP's connections are gone too.
    fn remove_vip(&mut self, token: u64, id: VipId) -> Option<Answer> {
        let Some(vip) = self.tables.vips.remove(id) else { return Some(Ok(Outcome::Absent)) };
        let address = vip.entry.address;
        self.stop_announcing(address);
        self.trash(Trash::Vip(vip.entry));
        if let Some(targets) = vip.targets {
            self.trash(Trash::Targets(targets));
        }
        self.purge(token, id, address, Whose::All).err().map(Err)
    }

    fn add_inbound(&mut self, mut sa: Box<InboundSa>, early: bool, now: Now) -> Answer {
        let (vip, spi) = (sa.params().vip, sa.spi());
        if self.tables.cache.find_inbound(sa.id()).is_some() {
            self.trash(Trash::Inbound(sa));
            return Ok(Outcome::Kept);
        }
        sa.notes.early = early;
        match self.tables.cache.add_inbound(sa) {
            Ok(at) => {
                self.router.sas[at.0 as usize] = RouterSa::default();
                self.expected_came(vip, spi, now);
                Ok(Outcome::Applied)
            }
            Err((error, sa)) => {
                self.trash(Trash::Inbound(sa));
                Err(refused(&error))
            }
        }
    }

    /// The targets have it: what came before goes its way.
    fn spread(&mut self, id: SaId, now: Now) -> Answer {
        let at = self.tables.cache.find_inbound(id).ok_or(Refused::NoSuchSa)?;
        self.tables.cache.inbound_mut(at).ok_or(Refused::NoSuchSa)?.notes.early = false;
        self.route_held(at, now);
        Ok(Outcome::Applied)
    }

    fn add_outbound(&mut self, sa: Box<OutboundSa>, at_once: bool, now: Now) -> Answer {
        if self.tables.cache.find_outbound(sa.id()).is_some() {
            self.trash(Trash::Outbound(sa));
            return Ok(Outcome::Kept);
        }
        let added = if at_once { self.tables.cache.add_outbound(sa) } else { self.tables.cache.add_successor(sa) };
        match added {
            Ok(at) => {
                self.sa_came(at, now);
                Ok(Outcome::Applied)
            }
            Err((error, sa)) => {
                self.trash(Trash::Outbound(sa));
                Err(refused(&error))
            }
        }
    }

    /// The packets that wait for numbers of the one before keep waiting for those.
    fn use_outbound(&mut self, id: SaId) -> Answer {
        let at = self.tables.cache.find_outbound(id).ok_or(Refused::NoSuchSa)?;
        self.tables.cache.take_over(at);
        Ok(Outcome::Applied)
    }

    fn remove_sa(&mut self, id: SaId, now: Now) -> Answer {
        if let Some(at) = self.tables.cache.find_inbound(id) {
            self.drop_above(at, DropReason::UnknownSpi);
        }
        let outbound = self.tables.cache.find_outbound(id);
        match self.tables.cache.remove(id) {
            Some(Removed::Inbound(sa)) => self.trash(Trash::Inbound(sa)),
            Some(Removed::Outbound(sa)) => self.trash(Trash::Outbound(sa)),
            None => return Ok(Outcome::Absent),
        }
        outbound.into_iter().for_each(|at| self.send_held_anew(at, now));
        Ok(Outcome::Applied)
    }

    /// Ends connections of a VIP; answered when all are gone.
    fn end_some(&mut self, token: u64, id: VipId, whose: Whose) -> Option<Answer> {
        match self.tables.vips.by_id(id).map(|vip| vip.entry.address) {
            Some(address) => self.purge(token, id, address, whose).err().map(Err),
            None => Some(Ok(Outcome::Absent)),
        }
    }

    fn set_filters(&mut self, mut filters: Box<phalanx_ipsec::FilterTable>) -> Answer {
        filters.succeed(&mut self.tables.filters);
        let old = std::mem::replace(&mut self.tables.filters, filters);
        self.trash(Trash::Filters(old));
        Ok(Outcome::Applied)
    }

    fn set_targets(&mut self, id: VipId, set: Box<TargetSet>) -> Answer {
        let exists = |end: &LinkEnd| match end {
            LinkEnd::Ring(core) => self.world.core(*core).is_some(),
            LinkEnd::Gre(gre, _) => gre.port < self.world.ports.len(),
            LinkEnd::Memif(port, _) => self.world.ports.get(*port).is_some_and(|port| port.memif),
        };
        if !set.targets.iter().all(|target| exists(&target.link)) {
            self.trash(Trash::Targets(set));
            return Err(Refused::OutOfRange);
        }
        let Some(vip) = self.tables.vips.by_id_mut(id) else {
            self.trash(Trash::Targets(set));
            return Err(Refused::NoSuchVip);
        };
        if let Some(old) = vip.set_targets(set) {
            self.trash(Trash::Targets(old));
        }
        Ok(Outcome::Applied)
    }

    fn merge_window(&mut self, id: SaId, snapshot: Box<phalanx_ipsec::WindowSnapshot>) -> Answer {
        let answer = self.on_inbound(id, |sa| sa.verified.merge(&snapshot));
        self.trash(Trash::Window(snapshot));
        answer
    }

    fn on_vip(&mut self, id: VipId, change: impl FnOnce(&mut crate::vips::Vip)) -> Answer {
        self.tables.vips.by_id_mut(id).map(change).map(|()| Outcome::Applied).ok_or(Refused::NoSuchVip)
    }

    fn on_inbound(&mut self, id: SaId, change: impl FnOnce(&mut InboundSa)) -> Answer {
        let sa = self.tables.cache.find_inbound(id).and_then(|at| self.tables.cache.inbound_mut(at));
        sa.map(change).map(|()| Outcome::Applied).ok_or(Refused::NoSuchSa)
    }

    fn take_lease(&mut self, id: SaId, lease: phalanx_ipsec::Lease, expires: std::time::Instant, now: Now) {
        let Some(at) = self.tables.cache.find_outbound(id) else { return };
        let Some(sa) = self.tables.cache.outbound_mut(at) else { return };
        let taken = sa.lease.offer(now.us(), lease, now.us_at(expires));
        self.out.passed(if taken.is_ok() { Stage::Leases } else { Stage::LeasesRefused }, 1);
        self.release(at, now);
        self.release_within(at, now);
    }

    fn drop_leases(&mut self, id: SaId) -> Answer {
        let at = self.tables.cache.find_outbound(id).ok_or(Refused::NoSuchSa)?;
        self.tables.cache.outbound_mut(at).ok_or(Refused::NoSuchSa)?.lease.clear();
        Ok(Outcome::Applied)
    }

    fn take_ceiling(&mut self, id: SaId, upto: u64, now: Now) {
        if let Some(at) = self.tables.cache.find_inbound(id) {
            self.raise_ceiling(at, upto, now);
        }
    }
}

fn found(there: bool) -> Answer {
    Ok(if there { Outcome::Applied } else { Outcome::Absent })
}

fn refused(error: &IpsecError) -> Refused {
    match error {
        IpsecError::Duplicate(_) => Refused::SpiTaken,
        _ => Refused::TableFull,
    }
}
