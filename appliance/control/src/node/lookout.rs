//! What a target sees of its host: on which ports of its VIPs somebody listens (R25), and how busy it is.
//!
//! A thread of its own: the kernel takes milliseconds to list thousands of sockets, and the control core must not wait.
//! There is no notification about sockets that begin to listen, so it looks 10 to 20 times a second and tells what changed.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use phalanx_dataplane::CoreStats;
use phalanx_wire::VipId;

use super::brain::Input;
use super::busy::Busy;
use crate::host::sock_diag::{SockDiag, Transport};

/// Between two looks: the first where they cost next to nothing, and the second at most, whatever they cost.
const OFTEN: Duration = Duration::from_millis(50);
const AT_LEAST: Duration = Duration::from_millis(100);
/// A look may cost this part of the time.
const PART: u32 = 10;
/// Between two samples of the load.
const LOAD_EVERY: Duration = Duration::from_millis(250);

/// What was seen.
#[derive(Debug)]
pub enum Seen {
    /// Of a VIP whose listeners changed: TCP ports with a listener, UDP ports with a socket, ascending.
    Ports(VipId, Vec<u16>, Vec<u16>),
    /// Another load, in permille.
    Load(u16),
    /// Nothing; the operator should know why.
    Blind(String),
}

/// What it looks at.
pub struct View {
    /// The kernel's name of the TAP that has the VIPs.
    pub tap: Option<String>,
    /// The CPUs of poll cores, which are busy by nature.
    pub polled: Vec<u32>,
    /// The target cores.
    pub cores: Vec<Arc<CoreStats>>,
    /// Where somebody else writes the load.
    pub load_file: Option<PathBuf>,
}

/// The thread. It ends when this is dropped, at its next look.
pub struct Lookout {
    vips: Sender<Vec<(VipId, IpAddr)>>,
}

impl Lookout {
    /// Starts to look for VIPs, of which there are none yet.
    ///
    /// # Errors
    /// The operating system's.
    pub fn start(view: View, inputs: tokio::sync::mpsc::Sender<Input>) -> io::Result<Lookout> {
        let (vips, told) = channel();
        let tell = move |seen| inputs.blocking_send(Input::Seen(seen)).is_ok();
        let watch = Watch::new(view);
        std::thread::Builder::new().name("phalanx-lookout".into()).spawn(move || watch.run(&told, tell))?;
        Ok(Lookout { vips })
    }

    /// Looks for these VIPs from now on, and tells of each that was not among them before.
    pub fn look_for(&self, vips: Vec<(VipId, IpAddr)>) {
        // It is there as long as its inputs are read.
        let _ = self.vips.send(vips);
    }
}

struct Watch {
    view: View,
    diag: Option<SockDiag>,
    vips: Vec<(VipId, IpAddr)>,
    /// What was told last.
    told: BTreeMap<VipId, Ports>,
    busy: Busy,
    sampled: Instant,
    told_load: Option<u16>,
    blind: bool,
}

impl Watch {
    fn new(view: View) -> Watch {
        let busy = Busy::new(view.polled.clone(), view.cores.clone(), view.load_file.clone());
        let (vips, told) = (Vec::new(), BTreeMap::new());
        Watch { view, diag: None, vips, told, busy, sampled: Instant::now(), told_load: None, blind: false }
    }

    fn run(mut self, orders: &Receiver<Vec<(VipId, IpAddr)>>, tell: impl Fn(Seen) -> bool) {
        let mut nap = OFTEN;
        loop {
            match orders.recv_timeout(nap) {
                Ok(vips) => {
                    // In order: a VIP that went and came back is told of again.
                    self.told.retain(|vip, _| vips.iter().any(|(other, _)| other == vip));
                    self.vips = vips;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let start = Instant::now();
            let mut news = self.news();
            nap = (start.elapsed() * PART).clamp(OFTEN, AT_LEAST);
            if self.sampled.elapsed() >= LOAD_EVERY {
                self.sampled = Instant::now();
                news.extend(self.load());
            }
            if !news.into_iter().all(&tell) {
                return;
            }
        }
    }

    /// What changed since the last look.
    fn news(&mut self) -> Vec<Seen> {
        if self.vips.is_empty() {
            return Vec::new();
        }
        let seen = match self.look() {
            Ok(seen) => seen,
            Err(error) => {
                // The next look tries a fresh socket.
                self.diag = None;
                let first = !std::mem::replace(&mut self.blind, true);
                let why = format!("nobody knows who listens here, so no new connections come: sock_diag: {error}");
                return first.then_some(Seen::Blind(why)).into_iter().collect();
            }
        };
        self.blind = false;
        let mut news = Vec::new();
        for (vip, ports) in seen {
            if self.told.get(&vip) != Some(&ports) {
                news.push(Seen::Ports(vip, ports.tcp.list(), ports.udp.list()));
                self.told.insert(vip, ports);
            }
        }
        news
    }

    fn look(&mut self) -> io::Result<Vec<(VipId, Ports)>> {
        let mut seen = self.once()?;
        // A long list comes in pieces, and a socket that is closed between two of them may hide another: a port is
        // believed to be gone when it was not there twice.
        if seen.iter().any(|(vip, ports)| self.told.get(vip).is_some_and(|told| told.lost(ports))) {
            for ((_, ports), (_, again)) in seen.iter_mut().zip(self.once()?) {
                ports.tcp.add(&again.tcp);
                ports.udp.add(&again.udp);
            }
        }
        Ok(seen)
    }

    fn once(&mut self) -> io::Result<Vec<(VipId, Ports)>> {
        let mut seen: Vec<_> = self.vips.iter().map(|(vip, _)| (*vip, Ports::default())).collect();
        let tap = self.view.tap.as_deref().and_then(|tap| nix::net::if_::if_nametoindex(tap).ok()).unwrap_or(0);
        let mut diag = match self.diag.take() {
            Some(diag) => diag,
            None => SockDiag::open()?,
        };
        for transport in [Transport::Tcp, Transport::Udp] {
            diag.dump(transport, |bound| {
                for ((_, address), (_, ports)) in self.vips.iter().zip(&mut seen) {
                    if bound.takes(*address, tap) {
                        ports.of(transport).set(bound.port);
                    }
                }
            })?;
        }
        self.diag = Some(diag);
        Ok(seen)
    }

    /// Another load, if it is another.
    fn load(&mut self) -> Vec<Seen> {
        let (load, problem) = self.busy.sample();
        let news = self.told_load.is_none_or(|told| told.abs_diff(load) >= 10 || (load == 0) != (told == 0));
        let load = news.then(|| Seen::Load(*self.told_load.insert(load)));
        load.into_iter().chain(problem.map(Seen::Blind)).collect()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ports {
    tcp: PortSet,
    udp: PortSet,
}

impl Ports {
    fn of(&mut self, transport: Transport) -> &mut PortSet {
        match transport {
            Transport::Tcp => &mut self.tcp,
            Transport::Udp => &mut self.udp,
        }
    }

    /// Some of these are not among `others`.
    fn lost(&self, others: &Ports) -> bool {
        self.tcp.lost(&others.tcp) || self.udp.lost(&others.udp)
    }
}

/// A set of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PortSet(Box<[u64; 1024]>);

impl Default for PortSet {
    fn default() -> Self {
        PortSet(Box::new([0; 1024]))
    }
}

impl PortSet {
    fn set(&mut self, port: u16) {
        self.0[usize::from(port / 64)] |= 1 << (port % 64);
    }

    fn add(&mut self, others: &PortSet) {
        self.0.iter_mut().zip(others.0.iter()).for_each(|(mine, theirs)| *mine |= theirs);
    }

    fn lost(&self, others: &PortSet) -> bool {
        self.0.iter().zip(others.0.iter()).any(|(mine, theirs)| mine & !theirs != 0)
    }

    fn list(&self) -> Vec<u16> {
        (0..=u16::MAX).filter(|port| self.0[usize::from(port / 64)] >> (port % 64) & 1 == 1).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn watch() -> Watch {
        Watch::new(View { tap: None, polled: Vec::new(), cores: Vec::new(), load_file: None })
    }

    fn ports(news: &[Seen]) -> Option<&[u16]> {
        news.iter().find_map(|seen| if let Seen::Ports(VipId(1), tcp, _) = seen { Some(&tcp[..]) } else { None })
    }

    #[test]
    fn a_change_is_told_once_and_a_vip_that_came_back_is_told_of_again() {
        let mut watch = watch();
        assert!(watch.news().is_empty(), "no VIP, no look");
        let vip = (VipId(1), "127.0.0.77".parse().unwrap());
        watch.vips = vec![vip];
        let before = ports(&watch.news()).expect("the first look is always told").to_vec();
        let listener = TcpListener::bind("127.0.0.77:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!before.contains(&port));
        assert!(ports(&watch.news()).expect("a change").contains(&port));
        // Other tests listen on addresses of their own.
        drop(listener);
        assert!(!ports(&watch.news()).expect("a change").contains(&port));
    }

    #[test]
    fn orders_are_taken_in_order_and_the_thread_ends_with_its_owner() {
        let (orders, told) = channel();
        let vip = (VipId(1), "127.0.0.78".parse().unwrap());
        for vips in [vec![vip], vec![], vec![vip]] {
            orders.send(vips).unwrap();
        }
        let (news, seen) = channel();
        let thread = std::thread::spawn(move || watch().run(&told, |one| news.send(one).is_ok()));
        for _ in 0..2 {
            let first = std::iter::repeat_with(|| seen.recv_timeout(Duration::from_secs(10)).expect("news"));
            assert!(first.take(20).any(|one| matches!(one, Seen::Ports(VipId(1), ..))));
        }
        drop(orders);
        thread.join().unwrap();
    }

    #[test]
    fn a_set_of_ports_gives_back_what_was_put_in() {
        let mut set = PortSet::default();
        let all = [0, 63, 64, 443, u16::MAX];
        all.into_iter().for_each(|port| set.set(port));
        assert_eq!(set.list(), all);
        let mut more = set.clone();
        more.set(80);
        assert!(more.lost(&set) && !set.lost(&more));
    }
}
