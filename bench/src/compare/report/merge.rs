//! The rounds of one path, workload and peer, put together.

use std::collections::{BTreeMap, BTreeSet};

use hdrhistogram::Histogram;

use super::recoveries::Recoveries;
use super::{figure, histogram, peer};
use crate::compare::model::{Cell, Goodput, Latency, Outcome, Path, Results, Share, Workload};

/// All cells with their rounds put together.
#[derive(Debug)]
pub(super) struct Campaign<'a> {
    pub(super) results: &'a Results,
    pub(super) groups: Vec<Group<'a>>,
    index: BTreeMap<(Workload, &'a str, &'a str), usize>,
}

/// What several rounds measured of one path, workload and peer.
#[derive(Debug)]
pub(super) struct Group<'a> {
    pub(super) workload: Workload,
    pub(super) path: &'a Path,
    pub(super) peer: &'a str,
    /// Of what was measured.
    pub(super) seeds: BTreeSet<u64>,
    /// Rounds with a measurement.
    pub(super) rounds: BTreeSet<u32>,
    /// Measured time of all rounds.
    pub(super) seconds: f64,
    pub(super) measured: Measured,
    /// Rounds that failed, and why.
    pub(super) failures: Vec<(u32, String)>,
}

#[derive(Debug)]
pub(super) enum Measured {
    Nothing,
    Requests(Requests),
    Bulk(Bulk),
    Shares(Shares),
}

#[derive(Debug)]
pub(super) struct Requests {
    /// Nanoseconds, over all rounds.
    pub(super) histogram: Histogram<u64>,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) errors: u64,
    pub(super) per_s: Spread,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    pub(super) cpu_s: f64,
    pub(super) recoveries: Recoveries,
}

#[derive(Debug, Default)]
pub(super) struct Bulk {
    pub(super) mbit_per_s: Spread,
    pub(super) queue_bytes: Spread,
    pub(super) bytes_sent: u64,
    pub(super) cpu_s: Spread,
}

#[derive(Debug, Default)]
pub(super) struct Shares {
    /// What carried each flow, and its Mbit/s.
    pub(super) flows: Vec<(String, Spread)>,
    pub(super) jain: Spread,
    /// The smallest flow's part of the sum, 0 to 1.
    pub(super) least: Spread,
}

/// One figure of several rounds.
#[derive(Debug, Clone, Default)]
pub(super) struct Spread(Vec<f64>);

impl Spread {
    pub(super) fn add(&mut self, value: f64) {
        let at = self.0.partition_point(|before| before.total_cmp(&value).is_lt());
        self.0.insert(at, value);
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Zero without a round: ask [`Spread::count`] before showing it.
    pub(super) fn median(&self) -> f64 {
        let half = self.0.len() / 2;
        match self.0.len() {
            0 => 0.0,
            len if len.is_multiple_of(2) => self.0[half - 1].midpoint(self.0[half]),
            _ => self.0[half],
        }
    }

    pub(super) fn least(&self) -> f64 {
        self.0.first().copied().unwrap_or_default()
    }

    pub(super) fn most(&self) -> f64 {
        self.0.last().copied().unwrap_or_default()
    }
}

impl Requests {
    fn new() -> Self {
        Self {
            histogram: histogram::none(),
            sent: 0,
            received: 0,
            errors: 0,
            per_s: Spread::default(),
            bytes_sent: 0,
            bytes_received: 0,
            cpu_s: 0.0,
            recoveries: Recoveries::default(),
        }
    }

    /// The latency in milliseconds that a share of the requests, 0 to 1, did not exceed.
    pub(super) fn quantile_ms(&self, share: f64) -> f64 {
        self.histogram.value_at_quantile(share) as f64 / 1e6
    }

    pub(super) fn max_ms(&self) -> f64 {
        self.histogram.max() as f64 / 1e6
    }

    /// Bytes that the client sent, and received, for each request.
    pub(super) fn bytes_per_message(&self) -> (f64, f64) {
        let messages = self.sent.max(1) as f64;
        (self.bytes_sent as f64 / messages, self.bytes_received as f64 / messages)
    }

    /// Processor time of both ends for each answered request, in microseconds.
    pub(super) fn cpu_us(&self) -> f64 {
        self.cpu_s * 1e6 / self.received.max(1) as f64
    }

    fn add(&mut self, latency: &Latency) -> Result<(), String> {
        histogram::add(&mut self.histogram, &latency.histogram).map_err(|bad| bad.to_string())?;
        self.sent = self.sent.saturating_add(latency.sent);
        self.received = self.received.saturating_add(latency.received);
        self.errors = self.errors.saturating_add(latency.errors);
        self.per_s.add(latency.per_s);
        self.bytes_sent = self.bytes_sent.saturating_add(latency.wire_bytes_sent);
        self.bytes_received = self.bytes_received.saturating_add(latency.wire_bytes_received);
        self.cpu_s += latency.cpu_s;
        if let Some(recovery) = &latency.recovery {
            self.recoveries.add(recovery);
        }
        Ok(())
    }
}

impl Bulk {
    fn add(&mut self, goodput: &Goodput) {
        self.mbit_per_s.add(goodput.mbit_per_s);
        if let Some(queue_bytes) = goodput.queue_bytes_mean {
            self.queue_bytes.add(queue_bytes);
        }
        self.bytes_sent = self.bytes_sent.saturating_add(goodput.wire_bytes_sent);
        self.cpu_s.add(goodput.cpu_s);
    }
}

impl Shares {
    fn add(&mut self, shares: &[Share]) -> Result<(), String> {
        let sum: f64 = shares.iter().map(|share| share.mbit_per_s).sum();
        let squares: f64 = shares.iter().map(|share| share.mbit_per_s.powi(2)).sum();
        if sum <= 0.0 || !squares.is_finite() || shares.iter().any(|share| share.mbit_per_s < 0.0) {
            return Err("no flow got anything".to_owned());
        }
        if self.flows.is_empty() {
            self.flows = shares.iter().map(|share| (figure::line(&share.peer), Spread::default())).collect();
        }
        if self.flows.len() != shares.len() {
            return Err(format!("{} flows where other rounds had {}", shares.len(), self.flows.len()));
        }
        for ((_, spread), share) in self.flows.iter_mut().zip(shares) {
            spread.add(share.mbit_per_s);
        }
        self.jain.add(sum.powi(2) / (squares * shares.len() as f64));
        self.least.add(shares.iter().map(|share| share.mbit_per_s).fold(f64::INFINITY, f64::min) / sum);
        Ok(())
    }
}

impl Measured {
    fn add(&mut self, cell: &Cell) -> Result<(), String> {
        use Workload::{Bulk as Goods, BulkUnlimited, Concurrent, Fairness, Messages, PingPong};
        let misplaced = || Err("its outcome is not one of this workload".to_owned());
        match (cell.workload, &cell.outcome) {
            (_, Outcome::Failed(reason)) => Err(figure::line(reason)),
            (Messages | Concurrent | PingPong, Outcome::Latency(latency)) => {
                let empty = matches!(self, Self::Nothing);
                let mut requests = match std::mem::replace(self, Self::Nothing) {
                    Self::Requests(requests) => requests,
                    _ => Requests::new(),
                };
                let added = requests.add(latency);
                if added.is_ok() || !empty {
                    *self = Self::Requests(requests);
                }
                added
            }
            (Goods | BulkUnlimited, Outcome::Goodput(goodput)) => {
                if let Self::Bulk(bulk) = self {
                    bulk.add(goodput);
                } else {
                    let mut bulk = Bulk::default();
                    bulk.add(goodput);
                    *self = Self::Bulk(bulk);
                }
                Ok(())
            }
            (Fairness, Outcome::Shares(shares)) => {
                if let Self::Shares(sum) = self {
                    return sum.add(shares);
                }
                let mut sum = Shares::default();
                sum.add(shares)?;
                *self = Self::Shares(sum);
                Ok(())
            }
            _ => misplaced(),
        }
    }
}

impl<'a> Campaign<'a> {
    pub(super) fn new(results: &'a Results) -> Self {
        let mut campaign = Self { results, groups: Vec::new(), index: BTreeMap::new() };
        for cell in &results.cells {
            campaign.add(cell);
        }
        campaign
    }

    fn add(&mut self, cell: &'a Cell) {
        let key = (cell.workload, cell.path.name.as_str(), cell.peer.as_str());
        let at = *self.index.entry(key).or_insert_with(|| {
            self.groups.push(Group {
                workload: cell.workload,
                path: &cell.path,
                peer: &cell.peer,
                seeds: BTreeSet::new(),
                rounds: BTreeSet::new(),
                seconds: 0.0,
                measured: Measured::Nothing,
                failures: Vec::new(),
            });
            self.groups.len() - 1
        });
        let group = &mut self.groups[at];
        match group.measured.add(cell) {
            Ok(()) => {
                group.rounds.insert(cell.round);
                group.seeds.insert(cell.seed);
                group.seconds += cell.seconds.max(0.0);
            }
            Err(reason) => group.failures.push((cell.round, reason)),
        }
    }

    pub(super) fn of(&self, workload: Workload) -> impl Iterator<Item = &Group<'a>> {
        self.groups.iter().filter(move |group| group.workload == workload)
    }

    pub(super) fn get(&self, workload: Workload, path: &str, peer: &str) -> Option<&Group<'a>> {
        self.index.get(&(workload, path, peer)).map(|at| &self.groups[*at])
    }

    /// The peers of a workload in the order of all charts and tables.
    pub(super) fn peers(&self, workload: Workload) -> Vec<&'a str> {
        let mut peers: Vec<&str> = self.of(workload).map(|group| group.peer).collect();
        peers.sort_by(|one, other| peer::rank(one).cmp(&peer::rank(other)));
        peers.dedup();
        peers
    }

    /// The paths of a workload: first those that only differ in round trip and loss, by these; then others as measured.
    pub(super) fn paths(&self, workload: Workload) -> Vec<&'a Path> {
        let mut seen = BTreeSet::new();
        let mut paths: Vec<&Path> = Vec::new();
        for group in self.of(workload) {
            if seen.insert(group.path.name.as_str()) {
                paths.push(group.path);
            }
        }
        paths.sort_by(|one, other| match (plain(one), plain(other)) {
            (true, true) => one.rtt_ms.total_cmp(&other.rtt_ms).then(one.loss_percent.total_cmp(&other.loss_percent)),
            (one, other) => other.cmp(&one),
        });
        paths
    }

    /// The path of the grid with this round trip and loss.
    pub(super) fn plain(&self, workload: Workload, rtt_ms: f64, loss_percent: f64) -> Option<&'a Path> {
        let same = |path: &Path| plain(path) && near(path.rtt_ms, rtt_ms) && near(path.loss_percent, loss_percent);
        self.of(workload).map(|group| group.path).find(|path| same(path))
    }

    /// The round trips, or the losses, of a workload's grid, rising.
    pub(super) fn settings(&self, workload: Workload, of: impl Fn(&Path) -> f64) -> Vec<f64> {
        let mut values: Vec<f64> =
            self.of(workload).filter(|group| plain(group.path)).map(|group| of(group.path)).collect();
        values.sort_by(f64::total_cmp);
        values.dedup_by(|one, other| near(*one, *other));
        values
    }
}

impl Group<'_> {
    pub(super) fn requests(&self) -> Option<&Requests> {
        if let Measured::Requests(requests) = &self.measured { Some(requests) } else { None }
    }

    pub(super) fn bulk(&self) -> Option<&Bulk> {
        if let Measured::Bulk(bulk) = &self.measured { Some(bulk) } else { None }
    }

    pub(super) fn shares(&self) -> Option<&Shares> {
        if let Measured::Shares(shares) = &self.measured { Some(shares) } else { None }
    }

    /// Why rounds are missing, or nothing if none is.
    pub(super) fn trouble(&self, rounds: u32) -> Option<String> {
        let mut reasons: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for (round, reason) in &self.failures {
            reasons.entry(reason).or_default().push(*round);
        }
        let known: BTreeSet<u32> =
            self.failures.iter().map(|(round, _)| *round).chain(self.rounds.iter().copied()).collect();
        let absent = (rounds as usize).saturating_sub(known.len());
        let mut parts: Vec<String> = Vec::new();
        for (reason, rounds) in reasons {
            let rounds: Vec<String> = rounds.iter().map(u32::to_string).collect();
            parts.push(format!("round {} failed: {reason}", rounds.join(", ")));
        }
        if absent > 0 {
            parts.push(format!("{} not measured", figure::counted(absent, "round")));
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

/// Without jitter and bursts, and named after its round trip: a cell of the grid of round trips and losses.
pub(super) fn plain(path: &Path) -> bool {
    path.jitter_ms == 0.0 && path.burst.is_none() && path.name.starts_with("rtt")
}

fn near(one: f64, other: f64) -> bool {
    (one - other).abs() < 1e-6
}
