//! How far it is: a bar on a terminal, a line for each measurement elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

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
    /// Of so many measurements.
    pub(super) fn new(total: usize, is_silent: bool) -> Self {
        let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let bar = if is_terminal && !is_silent {
            let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len}, {eta} left: {msg}");
            bar.set_style(style.expect("the template is constant and valid"));
            bar.enable_steady_tick(TICK);
            bar
        } else {
            ProgressBar::hidden()
        };
        Self { bar, is_silent, is_terminal, done: 0, total }
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

    /// Something that is not measured, or not as asked for.
    pub(super) fn note(&self, note: &str) {
        if self.is_silent {
            return;
        }
        if self.is_terminal { self.bar.println(note) } else { eprintln!("{note}") }
    }

    /// Takes the bar away.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
