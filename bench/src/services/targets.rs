//! What was to be reached, and whether it was.
//!
//! The tables of latencies are the seed's (its project summary, sections 3.3 and 3.4), which names store operations; here they are
//! judged by the calls that make them, at 1 and at 10 connections with one call in flight each. Redis: create, get, update, delete, and
//! a user's ten sessions (its sixth, get by connection id, is no call: the benches of the stores have it). PostgreSQL: create, get,
//! update, an operation, a list of fifty, a lock.

use std::fmt;

use serde::Serialize;

use super::report::{Cell, Edit, FanOut};
use super::scenario::Scenario;
use super::store::Store;
use crate::replay::ReplayTransport;

/// The 99th percentile in milliseconds.
const OF_REDIS: [(Scenario, f64); 5] = [
    (Scenario::SessionCreate, 5.0),
    (Scenario::SessionGet, 1.0),
    (Scenario::SessionUpdate, 3.0),
    (Scenario::SessionDelete, 5.0),
    (Scenario::SessionList, 10.0),
];
const OF_POSTGRES: [(Scenario, f64); 6] = [
    (Scenario::DocumentCreate, 10.0),
    (Scenario::DocumentGet, 5.0),
    (Scenario::DocumentUpdate, 8.0),
    (Scenario::ApplySingle, 5.0),
    (Scenario::DocumentList, 50.0),
    (Scenario::DocumentLock, 5.0),
];
/// Where those are judged.
const CONNECTIONS_OF_TABLE: [usize; 2] = [1, 10];
/// "With concurrent writers".
const CONNECTIONS_CONCURRENT_MIN: usize = 10;
/// At half of the operations that a store is to take.
const PACED_P99_US_MAX: f64 = 10_000.0;
/// What the floor takes that ours may take less, over TCP; over Quantum it may not.
const FLOOR_SHARE_TCP_MIN: f64 = 0.85;
const FLOOR_SHARE_QUANTUM_MIN: f64 = 1.0;
/// Calls per second that the floor took on the machine on which the operations were counted that a store is to take.
const FLOOR_PER_S: f64 = 58_000.0;
/// Half of what y-websocket's server takes with 1,000 readers and 20 edits/s.
const FAN_OUT_SUBSCRIBERS: usize = 1000;
const FAN_OUT_RATE: f64 = 20.0;
const FAN_OUT_P50_US_MAX: f64 = 3250.0;
const FAN_OUT_P99_US_MAX: f64 = 6000.0;
/// What streams that are not read may do to the others.
const STALLED_RATIO_MAX: f64 = 1.05;
const EDIT_P99_US_MAX: f64 = 50_000.0;

/// What was to be reached and what was.
#[derive(Debug, Serialize)]
pub(super) struct Target {
    pub(super) what: String,
    pub(super) unit: &'static str,
    pub(super) wanted: f64,
    /// None: every measurement of it failed.
    pub(super) measured: Option<f64>,
    pub(super) met: bool,
}

impl Target {
    fn at_least(what: String, unit: &'static str, wanted: f64, measured: Option<f64>) -> Self {
        Self { what, unit, wanted, measured, met: measured.is_some_and(|measured| measured >= wanted) }
    }

    fn at_most(what: String, unit: &'static str, wanted: f64, measured: Option<f64>) -> Self {
        Self { what, unit, wanted, measured, met: measured.is_some_and(|measured| measured <= wanted) }
    }

    /// What was measured, for people.
    pub(super) fn told(&self) -> String {
        self.measured.map_or_else(|| "not measured".to_owned(), number)
    }

    /// What was wanted, for people.
    pub(super) fn goal(&self) -> String {
        number(self.wanted)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.met { "met" } else { "MISSED" };
        let Self { what, unit, .. } = self;
        write!(formatter, "{verdict:<6} {what}: {} {unit}, target {}", self.told(), self.goal())
    }
}

/// Judges what was measured; what was not measured has no target.
pub(super) fn judge(cells: &[Cell], fan_out: &[FanOut], edits: &[Edit]) -> Vec<Target> {
    let mut targets = Vec::new();
    for transport in [ReplayTransport::QuantumGrpc, ReplayTransport::TcpGrpc] {
        for store in [Store::Sqlite, Store::Postgres] {
            targets.extend(operations(cells, transport, store));
        }
        targets.extend(table(cells, transport, Store::Redis, &OF_REDIS));
        targets.extend(table(cells, transport, Store::Postgres, &OF_POSTGRES));
        targets.extend(floors(cells, transport));
        targets.extend(streams(fan_out, transport));
        targets.extend(edits.iter().filter(|edit| edit.transport == transport.name()).map(over_link));
    }
    targets
}

fn is_of(cell: &Cell, scenario: Scenario, transport: ReplayTransport, store: Store) -> bool {
    cell.scenario == scenario.name() && cell.transport == transport.name() && cell.store == store.name()
}

fn sound_p99_us(cell: &Cell) -> Option<f64> {
    cell.failure.is_none().then_some(cell.latency.p99_us)
}

/// Operations, with as many connections as are best for them, and their latency at half of what is wanted.
fn operations(cells: &[Cell], transport: ReplayTransport, store: Store) -> Vec<Target> {
    let Some(wanted) = store.operations_per_s_min() else { return Vec::new() };
    let name =
        |scenario: Scenario| format!("{} over {}, durable on {}", scenario.name(), transport.name(), store.name());
    let is_concurrent = |cell: &&Cell| store == Store::Sqlite || cell.connections >= CONNECTIONS_CONCURRENT_MIN;
    let mut targets = Vec::new();
    for scenario in [Scenario::ApplyOne, Scenario::ApplyHundred, Scenario::StreamOne, Scenario::StreamHundred] {
        let mut of_scenario =
            cells.iter().filter(|cell| is_of(cell, scenario, transport, store)).filter(is_concurrent).peekable();
        if of_scenario.peek().is_some() {
            let best = of_scenario.filter(|cell| cell.failure.is_none()).map(|cell| cell.per_s).reduce(f64::max);
            targets.push(Target::at_least(name(scenario), "operations/s", wanted, best));
            // The same on a slower machine, or a faster one.
            let share = best_floor(cells).map(|floor| best.map(|best| best / floor));
            let of_floor = |share| {
                let what = format!("{}, beside the best of the floor", name(scenario));
                Target::at_least(what, "times the plain tonic floor's calls/s", wanted / FLOOR_PER_S, share)
            };
            targets.extend(share.map(of_floor));
        }
    }
    for cell in cells.iter().filter(|cell| is_of(cell, Scenario::ApplyPaced, transport, store)).filter(is_concurrent) {
        let what =
            format!("{}, {:.0}/s, connections: {}, p99", name(Scenario::ApplyPaced), wanted / 2.0, cell.connections);
        targets.push(Target::at_most(what, "us", PACED_P99_US_MAX, sound_p99_us(cell)));
    }
    targets
}

/// The most calls per second that the floor took, if it was measured.
fn best_floor(cells: &[Cell]) -> Option<f64> {
    let is_sound = |cell: &&Cell| cell.store == Store::TonicFloor.name() && cell.failure.is_none();
    cells.iter().filter(is_sound).map(|cell| cell.per_s).reduce(f64::max)
}

/// A table of latencies.
fn table(cells: &[Cell], transport: ReplayTransport, store: Store, rows: &[(Scenario, f64)]) -> Vec<Target> {
    let of_row = |(scenario, ms): &(Scenario, f64)| {
        let (scenario, us) = (*scenario, ms * 1e3);
        let cells = cells.iter().filter(move |cell| {
            is_of(cell, scenario, transport, store)
                && CONNECTIONS_OF_TABLE.contains(&cell.connections)
                && cell.in_flight == 1
        });
        cells.map(move |cell| {
            let (transport, store) = (transport.name(), store.name());
            let what =
                format!("{} on {store} over {transport}, connections: {}, p99", scenario.name(), cell.connections);
            Target::at_most(what, "us", us, sound_p99_us(cell))
        })
    };
    rows.iter().flat_map(of_row).collect()
}

/// Calls that memory keeps, beside the floor with as many connections.
fn floors(cells: &[Cell], transport: ReplayTransport) -> Vec<Target> {
    let (wanted, peer) = match transport {
        ReplayTransport::TcpGrpc => (FLOOR_SHARE_TCP_MIN, ReplayTransport::TcpGrpc),
        ReplayTransport::QuantumGrpc => (FLOOR_SHARE_QUANTUM_MIN, ReplayTransport::TcpGrpc),
    };
    let floors = cells.iter().filter(|cell| cell.store == Store::TonicFloor.name() && cell.transport == peer.name());
    let of_floor = |floor: &Cell| {
        let ours = cells.iter().find(|cell| {
            cell.store == Store::Memory.name()
                && cell.transport == transport.name()
                && (cell.scenario, cell.connections, cell.in_flight)
                    == (floor.scenario, floor.connections, floor.in_flight)
        })?;
        let is_sound = ours.failure.is_none() && floor.failure.is_none();
        let share = is_sound.then(|| ours.per_s / floor.per_s);
        let what = format!("{} in memory over {}, connections: {}", ours.scenario, transport.name(), ours.connections);
        Some(Target::at_least(what, "times the plain tonic floor's", wanted, share))
    };
    floors.filter_map(of_floor).collect()
}

fn streams(fan_out: &[FanOut], transport: ReplayTransport) -> Vec<Target> {
    let mut targets = Vec::new();
    let is_ours = |part: &&FanOut| part.transport == transport.name() && part.store != Store::TonicFloor.name();
    let of_transport: Vec<&FanOut> = fan_out.iter().filter(is_ours).collect();
    for without in of_transport.iter().filter(|part| part.stalled == 0) {
        targets.extend(deliveries(without));
        let with = of_transport.iter().filter(|part| part.stalled > 0 && part.store == without.store);
        targets.extend(with.flat_map(|with| beside_stalled(without, with)));
    }
    targets
}

fn deliveries(measured: &FanOut) -> Vec<Target> {
    let is_measured_so =
        measured.subscribers == FAN_OUT_SUBSCRIBERS && (measured.rate - FAN_OUT_RATE).abs() < f64::EPSILON;
    if !is_measured_so {
        return Vec::new();
    }
    let target = |name: &str, wanted, us: f64| {
        let (subscribers, transport, store) = (measured.subscribers, measured.transport, measured.store);
        let what = format!("fan-out to {subscribers} over {transport}, {store}, {name}");
        Target::at_most(what, "us", wanted, measured.round.failure.is_none().then_some(us))
    };
    let latency = &measured.round.latency;
    vec![target("p50", FAN_OUT_P50_US_MAX, latency.p50_us), target("p99", FAN_OUT_P99_US_MAX, latency.p99_us)]
}

fn beside_stalled(without: &FanOut, with: &FanOut) -> [Target; 2] {
    let is_sound = without.round.failure.is_none() && with.round.failure.is_none();
    let (quiet, busy) = (&without.round.latency, &with.round.latency);
    [("p50", busy.p50_us / quiet.p50_us), ("p99", busy.p99_us / quiet.p99_us)].map(|(name, ratio)| {
        let (transport, store, stalled) = (with.transport, with.store, with.stalled);
        let what =
            format!("fan-out {name} over {transport}, {store}, beside {stalled} stalled of {}", with.subscribers);
        Target::at_most(what, "times that without", STALLED_RATIO_MAX, is_sound.then_some(ratio))
    })
}

fn over_link(edit: &Edit) -> Target {
    let (transport, store, rtt_ms, loss) = (edit.transport, edit.store, edit.rtt_ms, edit.loss_percent);
    let what = format!("edit to subscriber over {transport}, {store}, {rtt_ms} ms and {loss} %, p99");
    Target::at_most(what, "us", EDIT_P99_US_MAX, edit.round.failure.is_none().then_some(edit.round.latency.p99_us))
}

/// With as many digits as say something.
fn number(value: f64) -> String {
    if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::judge;
    use crate::services::report::{Cell, Cost, Delivery, Edit, FanOut, Latency};

    fn latency(p99_us: f64) -> Latency {
        Latency { p50_us: p99_us / 2.0, p99_us, p999_us: p99_us, max_us: p99_us }
    }

    fn cell(scenario: &'static str, store: &'static str, per_s: f64) -> Cell {
        Cell {
            scenario,
            store,
            transport: "tcp-grpc",
            connections: 10,
            in_flight: 1,
            rate: None,
            answered: 1,
            errors: 0,
            seconds: 1.0,
            per_s,
            latency: latency(4000.0),
            cost: Cost::default(),
            failure: None,
        }
    }

    fn delivery(p99_us: f64) -> Delivery {
        Delivery { expected: 1, delivered: 1, lagged: 0, errors: 0, latency: latency(p99_us), failure: None }
    }

    fn fan_out(stalled: usize, p99_us: f64) -> FanOut {
        FanOut {
            store: "memory",
            transport: "tcp-grpc",
            subscribers: 1000,
            connections: 10,
            stalled,
            rate: 20.0,
            rounds: 1,
            client_cpu_s: 0.0,
            server_cpu_s: None,
            server_cpu_s_per_million: None,
            store_cpu_s: None,
            round: delivery(p99_us),
        }
    }

    fn judged(cells: &[Cell], fan_out: &[FanOut], edits: &[Edit]) -> Vec<(bool, bool)> {
        judge(cells, fan_out, edits).iter().map(|target| (target.measured.is_some(), target.met)).collect()
    }

    #[test]
    fn the_best_sound_measurement_of_operations_counts_and_only_if_they_are_durable() {
        let failed = Cell { failure: Some("a".to_owned()), ..cell("apply-100", "sqlite", 30_000.0) };
        let cells = [cell("apply-1", "sqlite", 19_000.0), cell("apply-1", "sqlite", 21_000.0), failed];
        assert_eq!(judged(&cells, &[], &[]), [(true, true), (false, false)]);
        assert_eq!(judged(&cells[..1], &[], &[]), [(true, false)]);
        assert!(judged(&[cell("apply-1", "memory", 30_000.0)], &[], &[]).is_empty());
        let postgres = cell("apply-100", "postgres", 11_000.0);
        assert!(
            judged(&[Cell { connections: 1, ..postgres }], &[], &[]).is_empty(),
            "one connection is not concurrent"
        );
        assert_eq!(judged(&[cell("apply-100", "postgres", 11_000.0)], &[], &[]), [(true, true)]);
    }

    #[test]
    fn operations_are_held_against_the_floor_of_the_same_machine_too() {
        // 20,000 of 58,000.
        for (per_s, is_met) in [(7_000.0, true), (6_800.0, false)] {
            let cells = [cell("session-get", "tonic-floor", 20_000.0), cell("apply-1", "sqlite", per_s)];
            assert_eq!(judged(&cells, &[], &[]), [(true, false), (true, is_met)]);
        }
    }

    #[test]
    fn latencies_are_judged_by_the_tables_at_few_connections() {
        let cells = [cell("session-create", "redis", 1.0), cell("session-get", "redis", 1.0)];
        assert_eq!(judged(&cells, &[], &[]), [(true, true), (true, false)], "4 ms of 5, and of 1");
        let crowd = Cell { connections: 200, ..cell("document-get", "postgres", 1.0) };
        assert!(judged(&[crowd], &[], &[]).is_empty());
        assert_eq!(judged(&[cell("document-lock", "postgres", 1.0)], &[], &[]), [(true, true)]);
    }

    #[test]
    fn memory_is_held_against_the_floor_with_as_many_connections() {
        let floor = || cell("session-get", "tonic-floor", 1000.0);
        let quantum = |per_s| Cell { transport: "quantum-grpc", ..cell("session-get", "memory", per_s) };
        let cells = [floor(), cell("session-get", "memory", 860.0), quantum(990.0)];
        assert_eq!(judged(&cells, &[], &[]), [(true, false), (true, true)]);
        let other = Cell { connections: 1, ..cell("session-get", "memory", 860.0) };
        assert!(judged(&[floor(), other], &[], &[]).is_empty());
    }

    #[test]
    fn stalled_streams_may_cost_the_others_a_twentieth_and_edits_may_take_50_ms() {
        let beside = |with: f64| judged(&[], &[fan_out(0, 6000.0), fan_out(10, with)], &[]);
        assert_eq!(beside(6200.0), [(true, true); 4]);
        assert_eq!(beside(6400.0), [(true, true), (true, true), (true, false), (true, false)]);
        let edit = |p99_us| {
            let (rtt_ms, loss_percent, round) = (20.0, 5.0, delivery(p99_us));
            Edit { store: "sqlite", transport: "tcp-grpc", rtt_ms, loss_percent, subscribers: 4, rate: 50.0, round }
        };
        assert_eq!(judged(&[], &[], &[edit(49_000.0), edit(51_000.0)]), [(true, true), (true, false)]);
    }
}
