//! An SA on the one core that uses it.

use phalanx_aead::{Key, SALT_LEN, open_burst, seal_burst};
use phalanx_wire::{Buffer, DropReason, IpHeader, PeerId, Protected, SaId, Spi};
use std::net::IpAddr;
use std::sync::Arc;

use crate::esp::Shape;
use crate::esp::open::{Inner, OpenJob};
use crate::esp::seal::is_tunnel;
use crate::{
    Direction, Forwarded, IpsecError, LeaseSlot, LifesizeMeter, MssClamp, ReplayWindow, RouterNotes, SaParams,
    SaShared, SeqNo, TunnelIndex, WindowSnapshot,
};

/// What every packet of an SA needs to know of it, in one cache line.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Constants {
    pub(crate) local: IpAddr,
    pub(crate) remote: IpAddr,
    pub(crate) spi: Spi,
    pub(crate) salt: [u8; SALT_LEN],
    /// What the algorithm asks of packets.
    pub(crate) shape: Shape,
    pub(crate) path_mtu: u16,
    pub(crate) tunnel: bool,
    pub(crate) esn: bool,
    pub(crate) copy_dscp: bool,
    pub(crate) copy_ecn: bool,
    pub(crate) rare: Rare,
    /// ESP in UDP, to this port.
    pub(crate) encap: bool,
    pub(crate) remote_port: u16,
    /// Added to checksums of what comes out of transport mode.
    pub(crate) repair: u16,
    pub(crate) peer: PeerId,
    /// Which of the SAs that its cache ever had.
    pub(crate) serial: u32,
}

const _: () = assert!(size_of::<Constants>() == 64);

impl Constants {
    pub(crate) fn new(params: &SaParams) -> Constants {
        Constants {
            local: params.local,
            remote: params.remote,
            spi: params.spi,
            salt: params.key.salt(params.algorithm),
            shape: Shape::of(params.algorithm, params.local.is_ipv6()),
            path_mtu: params.path_mtu,
            tunnel: is_tunnel(&params.mode),
            esn: params.esn,
            copy_dscp: params.copy_dscp,
            copy_ecn: params.ecn,
            rare: Rare::of(params),
            encap: params.encap.is_some(),
            remote_port: params.remote_end().port(),
            repair: params.repair(),
            peer: params.peer,
            serial: 0,
        }
    }
}

/// What few SAs have, in one byte of that line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rare(u8);

impl Rare {
    const CLAMPS: u8 = 1;
    const WITHIN: u8 = 2;
    const NOT_PLAIN: u8 = 4;

    fn of(params: &SaParams) -> Rare {
        let bit = |is: bool, bit| if is { bit } else { 0 };
        let shape = Shape::of(params.algorithm, params.local.is_ipv6());
        let plain = shape.is_plain() && is_tunnel(&params.mode) && params.local.is_ipv4() && params.within.is_none();
        Rare(
            bit(params.mss_clamp != MssClamp::None, Rare::CLAMPS)
                | bit(params.within.is_some(), Rare::WITHIN)
                | bit(!plain, Rare::NOT_PLAIN),
        )
    }

    /// As most are: ESP in tunnel mode over IPv4, each IV in its packet.
    #[inline]
    pub(crate) fn is_plain(self) -> bool {
        self.0 & Rare::NOT_PLAIN == 0
    }

    /// SYNs that pass are looked at.
    #[inline]
    pub(crate) fn clamps(self) -> bool {
        self.0 & Rare::CLAMPS != 0
    }

    /// AH is around its packets.
    #[inline]
    pub(crate) fn within(self) -> bool {
        self.0 & Rare::WITHIN != 0
    }
}

/// Which of an inbound SA's windows a packet is committed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The router took it as an ordinary endpoint: [`InboundSa::verified`].
    Router,
    /// A target took it: [`InboundSa::window`].
    Target,
}

/// An inbound SA on one core.
///
/// In this order, so that what a packet needs lies together: the key, which ends with what a short packet needs of it; a cache line
/// that every packet needs; two that a router does; one that a target does.
#[derive(Debug)]
#[repr(C)]
pub struct InboundSa {
    key: Key,
    pub(crate) hot: Constants,
    /// What this core, as a router, knows to have been accepted: by itself and by those who reported.
    pub verified: ReplayWindow,
    /// What else it knows as a router.
    pub notes: RouterNotes,
    /// What it sent where as a router.
    pub forwarded: Forwarded,
    /// What this core accepted as a target.
    pub window: ReplayWindow,
    /// The bytes it may still open.
    pub meter: LifesizeMeter,
    pub(crate) shared: Arc<SaShared>,
    pub(crate) params: Arc<SaParams>,
}

/// Beside its key, of a core alone.
const _: () = assert!(size_of::<InboundSa>() == size_of::<Key>() + 4 * 64);

impl InboundSa {
    /// The SA, ready for its first packet.
    ///
    /// # Errors
    /// Those of [`SaParams::check`], and [`IpsecError::Direction`].
    pub fn new(params: impl Into<Arc<SaParams>>) -> Result<InboundSa, IpsecError> {
        let params = params.into();
        params.check()?;
        if params.direction != Direction::Inbound {
            return Err(IpsecError::Direction);
        }
        let [window, verified] = ReplayWindow::pair(params.window, params.esn);
        let shared = Arc::new(SaShared::inbound(window.shared().clone()));
        let key = params.key.expand(params.algorithm)?;
        let (hot, meter) = (Constants::new(&params), LifesizeMeter::new(params.lifesize));
        let (notes, forwarded) = (RouterNotes::default(), Forwarded::default());
        Ok(InboundSa { key, hot, verified, notes, forwarded, window, meter, shared, params })
    }

    /// The SA, with what it accepted in an earlier life under the same SPI and key.
    ///
    /// # Errors
    /// Those of [`InboundSa::new`].
    pub fn resume(params: impl Into<Arc<SaParams>>, accepted: &WindowSnapshot) -> Result<InboundSa, IpsecError> {
        let mut sa = InboundSa::new(params)?;
        sa.window.merge(accepted);
        Ok(sa)
    }

    /// Its identity.
    #[inline]
    #[must_use]
    pub fn id(&self) -> SaId {
        self.params.id
    }

    /// What it was made from.
    #[inline]
    #[must_use]
    pub fn params(&self) -> &Arc<SaParams> {
        &self.params
    }

    /// [`SaParams::spi`], from where each packet's facts are.
    #[inline]
    #[must_use]
    pub fn spi(&self) -> Spi {
        self.hot.spi
    }

    /// [`SaParams::peer`], likewise.
    #[inline]
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.hot.peer
    }

    /// Which of the inbound SAs that its [`ShadowCache`](crate::ShadowCache) ever had; 0 before it is in one. After 2^32 of them
    /// numbers come again.
    #[inline]
    #[must_use]
    pub fn serial(&self) -> u32 {
        self.hot.serial
    }

    /// AH rather than ESP, likewise.
    #[inline]
    #[must_use]
    pub fn is_ah(&self) -> bool {
        self.hot.shape.is_ah()
    }

    /// Tunnel mode, likewise.
    #[inline]
    #[must_use]
    pub fn is_tunnel(&self) -> bool {
        self.hot.tunnel
    }

    /// The key to make operations with.
    #[inline]
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Takes an *authenticated* packet: commits its number to the role's window, charges and counts its bytes.
    ///
    /// A router that opens a copy only to look at it commits to [`InboundSa::verified`] itself and does not come here:
    /// the target that takes the packet counts its bytes.
    ///
    /// # Errors
    /// Those of [`ReplayWindow::commit`], and `HardLifesize`; the number is committed then all the same.
    #[inline]
    pub fn accept(&mut self, job: &OpenJob, role: Role) -> Result<(), DropReason> {
        let window = match role {
            Role::Router => &mut self.verified,
            Role::Target => &mut self.window,
        };
        if let Err(reason) = window.commit(job.seq) {
            self.shared.count_replayed();
            return Err(reason);
        }
        let bytes = job.text_len() as u64;
        self.meter.charge(bytes)?;
        self.shared.count(1, bytes);
        Ok(())
    }

    /// Takes so many *authenticated* packets, of `bytes` in all, whose numbers follow each other from `first` on, as a target:
    /// [`InboundSa::accept`] of one after the other. False, and nothing is done, unless each of them would be taken.
    #[inline]
    pub fn accept_row(&mut self, first: u64, count: u32, bytes: u64) -> bool {
        if bytes > self.meter.left() || !self.window.commit_row(first, count) {
            return false;
        }
        // There was enough left.
        let _ = self.meter.charge(bytes);
        self.shared.count(count.into(), bytes);
        true
    }

    /// The highest number that the role's window accepted.
    #[inline]
    #[must_use]
    pub fn edge(&self, role: Role) -> u64 {
        match role {
            Role::Router => self.verified.edge(),
            Role::Target => self.window.edge(),
        }
    }

    /// Counts a packet whose ICV was wrong.
    pub fn count_failed(&self) {
        self.shared.count_failed();
    }

    /// Counts a packet that the window's check refused.
    pub fn count_replayed(&self) {
        self.shared.count_replayed();
    }

    /// All stages of opening, for one packet: tests, endpoints and offline tools.
    ///
    /// # Errors
    /// Whatever a stage says; the buffer's content is unspecified then, but holds no plaintext that is not authentic.
    pub fn open<B: Buffer>(&mut self, buf: &mut B, role: Role) -> Result<Inner, DropReason> {
        let ip = IpHeader::parse(buf.bytes())?;
        let named = Protected::of(&ip, buf.bytes())?;
        let window = if role == Role::Router { &self.verified } else { &self.window };
        let seq = window.infer(named.seq).ok_or(DropReason::SequenceWrap)?;
        window.check(seq).inspect_err(|_| self.count_replayed())?;
        let job = self.begin(buf.bytes(), &ip, seq)?;
        let authentic = job.verdict().unwrap_or_else(|| {
            let mut ops = [job.op(self, buf.bytes_mut())];
            open_burst(&mut ops);
            ops[0].authentic
        });
        if !authentic {
            self.count_failed();
            return Err(DropReason::BadIcv);
        }
        self.accept(&job, role)?;
        self.finish(buf, &job)
    }
}

/// An outbound SA on one core; what a packet needs lies together, as in [`InboundSa`].
#[derive(Debug)]
#[repr(C)]
pub struct OutboundSa {
    key: Key,
    pub(crate) hot: Constants,
    /// The bytes it may still seal.
    pub meter: LifesizeMeter,
    pub(crate) shared: Arc<SaShared>,
    /// The numbers this core holds.
    pub lease: LeaseSlot,
    params: Arc<SaParams>,
    /// [`SaParams::within`], once the SA is in a cache.
    pub(crate) around: Option<TunnelIndex>,
}

impl OutboundSa {
    /// The SA, without numbers.
    ///
    /// # Errors
    /// Those of [`SaParams::check`], and [`IpsecError::Direction`].
    pub fn new(params: impl Into<Arc<SaParams>>) -> Result<OutboundSa, IpsecError> {
        let params = params.into();
        params.check()?;
        if params.direction != Direction::Outbound {
            return Err(IpsecError::Direction);
        }
        let key = params.key.expand(params.algorithm)?;
        let (hot, meter) = (Constants::new(&params), LifesizeMeter::new(params.lifesize));
        Ok(OutboundSa { hot, lease: LeaseSlot::new(), meter, shared: Arc::default(), key, params, around: None })
    }

    /// Its identity.
    #[inline]
    #[must_use]
    pub fn id(&self) -> SaId {
        self.params.id
    }

    /// What it was made from.
    #[inline]
    #[must_use]
    pub fn params(&self) -> &Arc<SaParams> {
        &self.params
    }

    /// [`SaParams::peer`], from where each packet's facts are.
    #[inline]
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.hot.peer
    }

    /// Which of the outbound SAs that its [`ShadowCache`](crate::ShadowCache) ever had; as [`InboundSa::serial`].
    #[inline]
    #[must_use]
    pub fn serial(&self) -> u32 {
        self.hot.serial
    }

    /// The key to make operations with.
    #[inline]
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Counters that other threads read.
    #[inline]
    #[must_use]
    pub fn shared(&self) -> &Arc<SaShared> {
        &self.shared
    }

    /// All stages of sealing, for one packet of this host: tests, endpoints and offline tools.
    ///
    /// # Errors
    /// Those of [`OutboundSa::begin`].
    pub fn seal<B: Buffer>(&mut self, buf: &mut B, seq: SeqNo) -> Result<(), DropReason> {
        let job = self.begin(buf, seq)?;
        if !job.is_done() {
            seal_burst(&mut [job.op(self, buf.bytes_mut())]);
        }
        self.complete(buf.bytes_mut())
    }
}
