//! How far it is: a bar on a terminal, a line for each measurement elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::args::{Scenario, ServicesArgs};

/// How often the bar moves.
const TICK: Duration = Duration::from_millis(500);

/// Counts measurements, which take about the same time each.
pub(super) struct Progress {
    bar: ProgressBar,
    /// Neither a bar nor lines.
    is_silent: bool,
    is_terminal: bool,
    done: usize,
    total: usize,
}

impl Progress {
    /// Of everything that is asked for.
    pub(super) fn new(args: &ServicesArgs) -> Self {
        let parts = 1 + usize::from(args.fan_out.stalled_streams() > 0);
        let of = |scenario: &Scenario| match scenario {
            Scenario::FanOut => args.fan_out.rounds * parts,
            _ => args.connections.len(),
        };
        let total = args.transport.len() * args.scenarios().iter().map(of).sum::<usize>();
        let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let bar = if is_terminal && !args.json {
            let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len}, {eta} left: {msg}");
            bar.set_style(style.expect("the template is constant and valid"));
            bar.enable_steady_tick(TICK);
            bar
        } else {
            ProgressBar::hidden()
        };
        Self { bar, is_silent: args.json, is_terminal, done: 0, total }
    }

    /// A measurement begins.
    pub(super) fn begin(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// It is done.
    pub(super) fn done(&mut self, result: &str) {
        self.done += 1;
        self.bar.inc(1);
        if !self.is_silent && !self.is_terminal {
            eprintln!("[{}/{}] {result}", self.done, self.total);
        }
    }

    /// Takes the bar away.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
