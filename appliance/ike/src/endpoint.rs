//! All IKE SAs of one router.

use std::collections::VecDeque;

use crate::crypto::Random;
use crate::{Answer, Begun, Command, CommandError, Config, Counters, IkeRow, Millis, Output, Path};

/// All IKE SAs of one router. Does nothing by itself: give it datagrams, commands and time, and do what [`Endpoint::outputs`] says.
pub struct Endpoint {
    config: Config,
    epoch: u32,
    random: Box<dyn Random + Send>,
    outputs: VecDeque<Output>,
    counters: Counters,
}

impl Endpoint {
    /// `epoch` never comes twice in the life of a router: the IVs of IKE's own messages begin with it.
    #[must_use]
    pub fn new(config: Config, epoch: u32, random: Box<dyn Random + Send>) -> Endpoint {
        Endpoint { config, epoch, random, outputs: VecDeque::new(), counters: Counters::default() }
    }

    /// What is in both configurations goes on, what is not there any more ends.
    pub fn reconfigure(&mut self, _now: Millis, config: Config) {
        self.config = config;
    }

    /// A datagram came. `unix`: seconds since 1970, for certificates.
    pub fn datagram(&mut self, _now: Millis, _unix: u64, _path: Path, _bytes: &[u8]) {
        self.counters.received += 1;
    }

    /// To be called when [`Endpoint::deadline`] is reached.
    pub fn tick(&mut self, _now: Millis, _unix: u64) {}

    /// When something is to be done next.
    #[must_use]
    pub fn deadline(&self) -> Option<Millis> {
        None
    }

    /// Follows a command.
    ///
    /// # Errors
    /// Why it cannot be followed.
    pub fn command(&mut self, _now: Millis, command: Command) -> Result<Begun, CommandError> {
        match command {
            Command::Initiate { peer, .. } | Command::Acquire { peer, .. } => Err(CommandError::NoPeer(peer)),
            _ => Err(CommandError::NotNow("nothing is up")),
        }
    }

    /// What became of an output, or what a child went through. What is not known any more is ignored.
    pub fn answer(&mut self, _now: Millis, _answer: Answer) {}

    /// What is to be done, in order.
    pub fn outputs(&mut self) -> impl Iterator<Item = Output> + '_ {
        self.outputs.drain(..)
    }

    /// Every IKE SA.
    #[must_use]
    pub fn list(&self, _now: Millis) -> Vec<IkeRow> {
        Vec::new()
    }

    /// What was counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Milliseconds that set-ups took, from the first message to the last, since the last call; the latest 4096.
    pub fn set_up_times(&mut self) -> Vec<Millis> {
        let mut byte = [0; 1];
        self.random.fill(&mut byte);
        let _ = self.epoch;
        Vec::new()
    }
}
