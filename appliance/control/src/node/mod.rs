//! One running node: everything started in the right order, joined by the [`brain`], and ended in the reverse order.
//!
//! 1. the coupling store is opened, if this node owns VIPs: without it no number is handed out (I1);
//! 2. the host is isolated, before a port is up: from here on it fails closed (I9);
//! 3. the data plane starts; 4. the TAP gets its routes; 5. VIPs and static SAs go to this node's own core;
//! 6. targets may attach, routers are dialled; 7. the status socket answers.

mod actions;
mod answers;
pub(crate) mod books;
mod brain;
mod busy;
mod capturing;
mod core_events;
mod cores;
pub(crate) mod distribution;
mod dumps;
mod figures;
mod ike;
mod ike_lifesize;
mod ike_rows;
mod ike_tell;
mod ike_tunnels;
mod key_log;
mod listeners;
mod lookout;
mod looks;
mod mtu;
mod new_connections;
mod peers;
pub(crate) mod plan;
mod reload;
mod router_side;
mod rules;
mod start;
mod tap;
mod target_rows;
mod target_side;
mod watching;

pub use start::store_path;

use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::config::Config;
use brain::{Brain, Input, Phase};

/// How many inputs may wait for the brain; who has more waits.
const INPUTS: usize = 8192;
/// How long connections may go on after SIGTERM. A second signal ends the wait.
const DRAIN: Duration = Duration::from_secs(5);
/// How often the poll cores are asked for events: the control core's share of a lease's latency.
const COURIER_NAP: Duration = Duration::from_micros(100);

/// Why a node did not start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The data plane: DPDK, ports, limits.
    #[error("data plane: {0}")]
    Dataplane(#[from] phalanx_dataplane::DataplaneError),
    /// The coupling store, or a session.
    #[error("{0}")]
    Fabric(#[from] phalanx_fabric::FabricError),
    /// The coupling store does not answer.
    #[error("coupling store: {0}")]
    Coupling(#[from] phalanx_cluster::CouplingError),
    /// An SA or filter that no data path takes.
    #[error("{0}")]
    Ipsec(#[from] phalanx_ipsec::IpsecError),
    /// The host could not be isolated.
    #[error("host isolation: {0}")]
    Host(#[from] crate::host::HostError),
    /// The status socket.
    #[error("status socket: {0}")]
    Status(#[from] crate::status::StatusError),
    /// The operating system.
    #[error("{0}")]
    System(#[from] std::io::Error),
}

/// Runs a node until SIGTERM or SIGINT.
///
/// # Errors
/// [`NodeError`] when it cannot start; what was set up by then is taken down again, except what keeps clear packets in.
pub fn run(config: Config, version: &'static str) -> Result<(), NodeError> {
    no_core_dumps()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(serve(config, version))
}

/// I8: a core dump would hold every key.
fn no_core_dumps() -> std::io::Result<()> {
    use nix::sys::resource::{Resource, setrlimit};
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(std::io::Error::from)
}

async fn serve(config: Config, version: &'static str) -> Result<(), NodeError> {
    let status = crate::status::Server::bind(&config.node.status_socket).await?;
    let metrics = match config.node.metrics {
        Some(address) => Some(crate::status::MetricsPort::bind(address).await?),
        None => None,
    };
    let (inputs, mut received) = mpsc::channel(INPUTS);
    let mut brain = start::node(config, version, inputs.clone()).await?;
    let (queries, mut asked) = crate::status::channel();
    metrics.map(|port| tokio::spawn(port.serve(queries.clone())));
    tokio::spawn(status.serve(queries));
    forward_signals(inputs.clone())?;
    brain.phase = Phase::Running;
    let ciphers = phalanx_aead::Kernel::chosen().name();
    tracing::info!(node = brain.config.node.name, ciphers, "running");

    let mut tick = tokio::time::interval(brain::TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut over: Option<Instant> = None;
    loop {
        tokio::select! {
            Some(input) = received.recv() => {
                if brain.handle(input) {
                    if over.is_some() { break }
                    over = Some(Instant::now() + DRAIN);
                    brain.drain();
                }
            }
            Some(request) = asked.recv() => drop(brain.handle(Input::Request(request))),
            _ = tick.tick() => brain.tick(),
        }
        if over.is_some_and(|at| brain.drained() || Instant::now() >= at) {
            break;
        }
    }
    tracing::info!(node = brain.config.node.name, "ending");
    brain.end();
    Ok(())
}

/// Signals become inputs: SIGHUP reads the configuration again, SIGTERM and SIGINT end the node, the second of them without
/// waiting for connections.
fn forward_signals(inputs: mpsc::Sender<Input>) -> std::io::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        loop {
            let input = tokio::select! {
                _ = term.recv() => Input::Shutdown,
                _ = int.recv() => Input::Shutdown,
                _ = hangup.recv() => Input::Reload,
            };
            if inputs.send(input).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

impl Brain {
    /// No new connections: the routers are told, our own core too.
    fn drain(&mut self) {
        self.phase = Phase::Draining;
        tracing::info!("draining: no new connections; a second signal ends at once");
        for target in self.routers.values_mut() {
            target.drain(None);
        }
        self.tell_router(phalanx_dataplane::Command::Drain);
        self.settle();
    }

    /// No connection is left on this node as a target.
    fn drained(&self) -> bool {
        self.stats.iter().all(|(_, stats)| stats.tracked.value() == 0)
    }

    /// Takes everything down in the reverse order of its start.
    fn end(mut self) {
        self.ike_end();
        let Brain { dataplane, tap, courier, .. } = self;
        if let Err(error) = tap.release() {
            tracing::error!(%error, "the host stays closed for the VIPs");
        }
        courier.stop();
        dataplane.stop();
    }
}
