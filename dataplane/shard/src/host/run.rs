//! The loop that every host runs: turn, submit, spin, and say when to park.

use std::io;
use std::time::Duration;

use crate::port::Parkable;
use crate::spin::AdaptiveSpin;
use crate::work::Work;

/// What a host does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Sleep until the port has something; then [`Runner::woke`].
    Park,
    /// The shard is at its end.
    Done,
}

/// A port and what is done with it.
pub(super) struct Runner<'a, P> {
    pub(super) port: P,
    work: &'a mut dyn Work,
    spin: AdaptiveSpin,
}

impl<'a, P: Parkable> Runner<'a, P> {
    pub(super) fn new(port: P, work: &'a mut dyn Work, spin: Duration) -> Self {
        Self { port, work, spin: AdaptiveSpin::new(spin) }
    }

    /// Turns until there is nothing to do and looking on does not pay.
    pub(super) fn run_until_idle(&mut self) -> io::Result<Next> {
        loop {
            let turn = self.work.turn(&mut self.port);
            self.port.submit()?;
            if turn.done {
                return Ok(Next::Done);
            }
            let now = self.port.now();
            if turn.worked {
                self.spin.worked();
                continue;
            }
            if turn.deadline.is_some_and(|deadline| deadline <= now) || self.port.has_completions() {
                continue;
            }
            if self.spin.looks_on() {
                AdaptiveSpin::pause();
                continue;
            }
            if !self.work.prepare_park() {
                self.work.woke();
                continue;
            }
            self.port.set_deadline(turn.deadline);
            return Ok(Next::Park);
        }
    }

    /// The thread is awake again.
    pub(super) fn woke(&mut self) {
        self.work.woke();
    }
}
