//! How far it is: a bar on a terminal, a line for each group of measurements elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::model::{Outcome, Workload};
use super::plan::{Task, group_estimate_s};

const TICK: Duration = Duration::from_millis(500);

/// Counts in estimated seconds.
pub(super) struct Progress {
    bar: ProgressBar,
    is_terminal: bool,
    done_s: f64,
    total_s: f64,
    group: usize,
    groups: usize,
}

impl Progress {
    /// Of groups that take so long in all.
    pub(super) fn new(groups: usize, total_s: f64) -> Self {
        let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let bar = if is_terminal { ProgressBar::new(total_s as u64) } else { ProgressBar::hidden() };
        if is_terminal {
            bar.set_draw_target(ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{bar:30} {prefix} {msg}");
            bar.set_style(style.expect("the template is constant and valid"));
        }
        Self { bar, is_terminal, done_s: 0.0, total_s, group: 0, groups }
    }

    /// Moves the bar while a group is measured; it never ends.
    pub(super) async fn during(&mut self, group: &[Task]) {
        self.bar.set_message(describe(group));
        let (started, estimate_s) = (Instant::now(), group_estimate_s(group));
        let mut ticks = tokio::time::interval(TICK);
        loop {
            ticks.tick().await;
            let done_s = self.done_s + started.elapsed().as_secs_f64().min(estimate_s);
            self.bar.set_position(done_s as u64);
            self.bar.set_prefix(format!("{}/{}, {} left", self.group + 1, self.groups, span(self.total_s - done_s)));
        }
    }

    /// A group is measured.
    pub(super) fn done(&mut self, group: &[Task], outcomes: &[Outcome]) {
        self.done_s += group_estimate_s(group);
        self.group += 1;
        let failures = group.iter().zip(outcomes).filter_map(|(task, outcome)| match outcome {
            Outcome::Failed(reason) => Some(format!("{} failed: {reason}", task.peer)),
            _ => None,
        });
        let failures: Vec<String> = failures.collect();
        let left = span(self.total_s - self.done_s);
        if !self.is_terminal {
            eprintln!("[{}/{}] {}; {left} left", self.group, self.groups, describe(group));
        }
        for failure in failures {
            let line = format!("  {}: {failure}", describe(group));
            if self.is_terminal { self.bar.println(line) } else { eprintln!("{line}") }
        }
    }

    /// Takes the bar away.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

fn describe(group: &[Task]) -> String {
    let Some(first) = group.first() else { return String::new() };
    let workload = match first.workload {
        Workload::Messages => "messages",
        Workload::Bulk => "bulk",
        Workload::Concurrent => "64 in flight",
        Workload::PingPong => "one in flight",
        Workload::BulkUnlimited => "bulk without limits",
        Workload::Fairness => "shares",
    };
    let peers: Vec<&str> = group.iter().map(|task| task.peer.as_str()).collect();
    let peers = if peers.len() > 3 { format!("{} peers", peers.len()) } else { peers.join(", ") };
    format!("round {} {workload} {}: {peers}", first.round, first.path.name)
}

/// A time for people.
pub(super) fn span(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) if minutes < 10 => format!("{minutes} min {seconds} s"),
        (0, minutes, _) => format!("{minutes} min"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::span;

    #[test]
    fn times_are_told_as_people_do() {
        let told = [0.2, 59.6, 61.0, 1799.0, 5400.0].map(span);
        assert_eq!(told, ["0 s", "1 min 0 s", "1 min 1 s", "29 min", "1 h 30 min"]);
    }
}
