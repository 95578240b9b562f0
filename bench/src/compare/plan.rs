//! What is measured, in which order.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::args::PlanName;
use super::model::{Path, Workload};
use super::{paths, peer};

/// What starting and ending a measurement takes, in seconds.
const OVERHEAD_S: f64 = 1.2;
/// Bulk measurements at the same time, each on a link of its own.
const BULK_SIDE_BY_SIDE: usize = 2;

/// The time of a whole comparison, and of a quick one.
const FULL_TIME: Duration = Duration::from_mins(119);
const QUICK_TIME: Duration = Duration::from_secs(290);

/// One measurement to be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) workload: Workload,
    pub(super) path: Path,
    pub(super) peer: String,
    pub(super) round: u32,
    /// The same for all peers on a path in a round.
    pub(super) seed: u64,
    pub(super) warmup_s: f64,
    pub(super) seconds: f64,
}

impl Task {
    /// What tells it from all others.
    pub(super) fn key(&self) -> (Workload, String, String, u32) {
        (self.workload, self.path.name.clone(), self.peer.clone(), self.round)
    }

    /// How long it takes, if nothing hangs.
    pub(super) fn estimate_s(&self) -> f64 {
        self.warmup_s + self.seconds + OVERHEAD_S
    }
}

/// Everything that is to be measured.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) name: &'static str,
    pub(super) rounds: u32,
    /// In their order; the tasks of a group at the same time, each on a link of its own.
    pub(super) groups: Vec<Vec<Task>>,
}

/// What a round measures.
struct Round {
    number: u32,
    warmup_s: f64,
    groups: Vec<Vec<Task>>,
}

impl Round {
    fn new(number: u32, warmup_s: f64) -> Self {
        Self { number, warmup_s, groups: Vec::new() }
    }

    /// Each path by all peers, so many of them at the same time.
    fn add(&mut self, workload: Workload, paths: &[Path], peers: &[&str], seconds: f64, side_by_side: usize) {
        for path in paths {
            self.add_path(workload, path, peers, seconds, side_by_side);
        }
    }

    /// The same with one more peer on clean paths of the grid, beside the others.
    fn add_with_cost(&mut self, workload: Workload, paths: &[Path], seconds: f64, side_by_side: usize) {
        let more = [&peer::ALL[..], &[peer::WITHOUT_FEC]].concat();
        for path in paths {
            let is_clean = path.name.starts_with("rtt") && path.loss_percent == 0.0 && path.burst.is_none();
            let peers = if is_clean { &more[..] } else { &peer::ALL };
            self.add_path(workload, path, peers, seconds, side_by_side);
        }
    }

    fn add_path(&mut self, workload: Workload, path: &Path, peers: &[&str], seconds: f64, side_by_side: usize) {
        let seed = seed(self.number, &path.name);
        let tasks = peers.iter().map(|peer| Task {
            workload,
            path: path.clone(),
            peer: (*peer).to_owned(),
            round: self.number,
            seed,
            warmup_s: if is_bulk(workload) { 0.0 } else { self.warmup_s },
            seconds,
        });
        let tasks: Vec<Task> = tasks.collect();
        self.groups.extend(tasks.chunks(side_by_side).map(<[Task]>::to_vec));
    }
}

fn is_bulk(workload: Workload) -> bool {
    matches!(workload, Workload::Bulk | Workload::BulkUnlimited | Workload::Fairness)
}

/// Of a path in a round, whatever else the plan holds (FNV-1a).
fn seed(round: u32, path: &str) -> u64 {
    let bytes = path.bytes().chain(round.to_be_bytes());
    // Half the range: the link adds one for its other direction.
    bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)) >> 1
}

impl Plan {
    /// The plan of that name.
    pub(super) fn new(name: PlanName) -> Self {
        let rounds = match name {
            PlanName::Full => (1..=3).map(full).collect(),
            PlanName::Quick => vec![quick()],
            PlanName::Tiny => (1..=2).map(tiny).collect::<Vec<_>>(),
        };
        let count = rounds.len() as u32;
        Self { name: name.name(), rounds: count, groups: rounds.into_iter().flat_map(|round| round.groups).collect() }
    }

    /// The same, one task at a time.
    pub(super) fn alone(mut self) -> Self {
        self.groups = self.groups.into_iter().flatten().map(|task| vec![task]).collect();
        self
    }

    /// The tasks of which the test is true.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Task) -> bool) {
        for group in &mut self.groups {
            group.retain(&mut keep);
        }
        self.groups.retain(|group| !group.is_empty());
    }

    /// All tasks in their order.
    pub(super) fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.groups.iter().flatten()
    }

    /// What may be measured again has to be done by then; what hangs may take longer.
    pub(super) fn limit(&self) -> Duration {
        if self.name == PlanName::Full.name() { FULL_TIME } else { QUICK_TIME }
    }

    /// How long it takes, if nothing hangs.
    pub(super) fn estimate_s(&self) -> f64 {
        self.groups.iter().map(|group| group_estimate_s(group)).sum()
    }
}

/// As long as its longest task; each link of the group takes a moment to make.
pub(super) fn group_estimate_s(group: &[Task]) -> f64 {
    let longest = group.iter().map(Task::estimate_s).fold(0.0, f64::max);
    longest + 0.25 * group.len().saturating_sub(1) as f64
}

fn full(number: u32) -> Round {
    let mut round = Round::new(number, 2.0);
    let mut paths = paths::grid(&[1, 20, 50, 100, 200], &[0, 1, 5, 10, 20, 30]);
    paths.extend(paths::bursts(&[20, 50, 200]));
    paths.extend(paths::profiles());
    round.add_with_cost(Workload::Messages, &paths, 20.0, usize::MAX);
    let bulk = paths::grid(&[1, 20, 50, 100], &[0, 1, 5, 10]);
    round.add_with_cost(Workload::Bulk, &bulk, 5.0, BULK_SIDE_BY_SIDE);
    // A start takes two seconds here.
    let long = paths::grid(&[200], &[0, 1, 5, 10]);
    round.add_with_cost(Workload::Bulk, &long, 10.0, BULK_SIDE_BY_SIDE);
    let unlimited = [paths::unlimited()];
    let peers = [&peer::UNLIMITED[..], &peer::ONE_WORKER].concat();
    round.add(Workload::Concurrent, &unlimited, &peers, 4.0, 1);
    round.add(Workload::PingPong, &unlimited, &[&peers[..], &[peer::SPINNING]].concat(), 2.0, 1);
    round.add(Workload::BulkUnlimited, &unlimited, &peers, 4.0, 1);
    // Long enough by itself: the second half is what counts.
    if number == 1 {
        let mixes = peer::MIXES.map(|(name, ..)| name);
        round.add(Workload::Fairness, &paths::grid(&[20, 50], &[0]), &mixes, 60.0, BULK_SIDE_BY_SIDE);
    }
    round
}

fn quick() -> Round {
    let mut round = Round::new(1, 2.0);
    let (paths, peers) = (paths::grid(&[1, 50, 200], &[0, 5]), ["quantum-grpc", "tcp-grpc-bbr", "quinn-bbr"]);
    round.add(Workload::Messages, &paths, &peers, 4.0, peers.len());
    round.add(Workload::Bulk, &paths, &peers, 4.0, 1);
    round
}

fn tiny(number: u32) -> Round {
    let mut round = Round::new(number, 0.5);
    let (paths, peers) = (paths::grid(&[20], &[5]), ["quantum-grpc", "tcp-grpc-cubic"]);
    round.add(Workload::Messages, &paths, &peers, 1.0, peers.len());
    round.add(Workload::Bulk, &paths, &peers, 1.0, 1);
    round
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::{Plan, PlanName, Workload, peer};

    #[test]
    fn the_full_plan_fits_its_time_and_measures_every_messages_cell_for_a_minute() {
        let plan = Plan::new(PlanName::Full);
        assert!(plan.estimate_s() < 2.0 * 3600.0, "{} s", plan.estimate_s());
        let first = plan.groups.iter().take_while(|group| group[0].round == 1);
        let first: f64 = first.map(|group| super::group_estimate_s(group)).sum();
        assert!(first < 40.0 * 60.0, "an interrupted run has its first round after {first} s");
        let mut seconds: BTreeMap<(String, String), f64> = BTreeMap::new();
        for task in plan.tasks().filter(|task| task.workload == Workload::Messages) {
            *seconds.entry((task.path.name.clone(), task.peer.clone())).or_default() += task.seconds;
        }
        assert_eq!(seconds.len(), 45 * peer::ALL.len() + 5);
        assert!(seconds.values().all(|seconds| *seconds >= 60.0));
    }

    #[test]
    fn the_quick_plan_takes_less_than_five_minutes() {
        let plan = Plan::new(PlanName::Quick);
        assert!(plan.estimate_s() < 270.0, "{} s", plan.estimate_s());
        assert_eq!((plan.tasks().count(), plan.rounds), (2 * 6 * 3, 1));
    }

    #[test]
    fn tasks_differ_and_the_peers_of_a_path_have_the_seed_of_their_round() {
        for name in [PlanName::Full, PlanName::Quick, PlanName::Tiny] {
            let plan = Plan::new(name);
            let keys: BTreeSet<_> = plan.tasks().map(super::Task::key).collect();
            assert_eq!(keys.len(), plan.tasks().count());
            let mut seeds = BTreeMap::new();
            for task in plan.tasks() {
                let seed = seeds.entry((task.round, task.path.name.clone())).or_insert(task.seed);
                assert_eq!(*seed, task.seed);
                for flow in peer::flows(&task.peer) {
                    assert!(peer::flags(flow).is_ok(), "{flow}");
                }
            }
            assert_eq!(seeds.values().collect::<BTreeSet<_>>().len(), seeds.len(), "every round has its own");
        }
    }
}
