//! The router's option to filter for its targets (R14, R12).
//!
//! The router does not open what it forwards, but it need not: counter mode shows in the peek exactly the bytes that the
//! packet has if its ICV is good, and the target delivers nothing whose ICV is not. So a verdict on the peeked header is a
//! verdict on what the target would deliver; a forged packet at worst is dropped here instead of there (I5: dropping
//! changes nothing that lasts).

use phalanx_ipsec::{InboundIndex, Subject};
use phalanx_steering::{ConnKey, Opened, Seen};
use phalanx_wire::{DropReason, VipId};

use crate::clock::Now;
use crate::engine::Engine;
use crate::packet::Source;

impl<S: Source> Engine<S> {
    /// Tunnel check and filter of a packet that is about to be forwarded as it came, if they are done here; then true.
    pub(crate) fn filter_peeked(&mut self, vip: VipId, sa: InboundIndex, seen: &Seen) -> Result<bool, DropReason> {
        if !self.tables.filters_at_router(vip) {
            return Ok(false);
        }
        // What shows no connection is left to the target's filter.
        let Some(flow) = seen.flow() else { return Ok(false) };
        let (subject, sa) = (Subject::from(&flow), self.tables.cache.inbound(sa).ok_or(DropReason::UnknownSpi)?);
        sa.fits(&subject)?;
        // Counted, but not logged: who writes into the log must have proved who he is (I5).
        self.tables.would_permit(vip, &sa.params().tunnel, &subject).map(|()| true)
    }

    /// The filter of a connection's opening, which was opened here anyhow: before it makes an entry. Logs it, once.
    pub(crate) fn filter_opening(
        &mut self,
        vip: VipId,
        sa: InboundIndex,
        opened: &Opened,
        subject: &Subject,
        now: Now,
    ) -> Result<(), DropReason> {
        if !self.tables.filters_at_router(vip) {
            return Ok(());
        }
        let sa = self.tables.cache.inbound(sa).ok_or(DropReason::UnknownSpi)?.params();
        let (peer, ruled) = (sa.peer, self.tables.permits(vip, &sa.tunnel, subject));
        let known = |flow| self.router.table.lookup(&ConnKey { peer, flow }).is_some();
        let known = opened.seen().flow().is_some_and(known);
        let log = if ruled.verdict.is_err() { ruled.at_first_sight() } else { ruled.log.filter(|_| !known) };
        self.log(log, now);
        ruled.verdict
    }
}
