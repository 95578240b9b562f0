//! What is measured in which order: what is compared, one after the other.

use super::args::ServicesArgs;
use super::scenario::Scenario;
use super::store::Store;
use crate::replay::ReplayTransport;

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) scenario: Scenario,
    pub(super) transport: ReplayTransport,
    /// What keeps the data.
    pub(super) store: Store,
    /// None: streams, which have their own number.
    pub(super) connections: Option<usize>,
}

/// Measurements in their order, and what there is to say of those that are none.
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    pub(super) notes: Vec<String>,
}

impl Plan {
    /// Of everything that is asked for of stores that are there.
    pub(super) fn new(args: &ServicesArgs, stores: &[Store], is_root: bool) -> Self {
        let mut plan = Self { steps: Vec::new(), notes: Vec::new() };
        for transport in args.transport.iter().copied() {
            for scenario in args.scenarios() {
                if scenario == Scenario::EditToSubscriber && !is_root {
                    plan.note("SKIPPED: edit-to-subscriber makes network namespaces and needs root".to_owned());
                    continue;
                }
                if scenario.is_stream() {
                    plan.add(stores, Step { scenario, transport, store: Store::Memory, connections: None });
                    continue;
                }
                for connections in args.connections.iter().copied().map(Some) {
                    plan.add(stores, Step { scenario, transport, store: Store::Memory, connections });
                }
            }
        }
        plan
    }

    /// The measurement on each store.
    fn add(&mut self, stores: &[Store], step: Step) {
        for asked in stores.iter().copied() {
            let mut store = asked.of(step.scenario.service());
            // The link's namespaces have no way to the servers of stores.
            if step.scenario == Scenario::EditToSubscriber && store == Store::Postgres {
                store = Store::Sqlite;
            }
            if !step.scenario.is_of(store, step.transport, step.connections.unwrap_or(1)) {
                continue;
            }
            if store != asked && stores.contains(&store) {
                continue;
            }
            if store != asked {
                let (scenario, asked, store) = (step.scenario.name(), asked.name(), store.name());
                self.note(format!("{scenario}: {asked} does not keep its data, {store} does"));
            }
            let step = Step { store, ..step };
            if !self.steps.contains(&step) {
                self.steps.push(step);
            }
        }
    }

    fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// How many lines of progress there are.
    pub(super) fn parts(&self, args: &ServicesArgs) -> usize {
        let fan_out = args.fan_out.rounds * (1 + usize::from(args.fan_out.stalled_streams() > 0));
        self.steps.iter().map(|step| if step.scenario == Scenario::FanOut { fan_out } else { 1 }).sum()
    }
}

impl Step {
    /// For people.
    pub(super) fn name(&self) -> String {
        let (scenario, transport, store) = (self.scenario.name(), self.transport.name(), self.store.name());
        let connections = self.connections.map(|count| format!(", connections: {count}")).unwrap_or_default();
        format!("{scenario} over {transport}, {store}{connections}")
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{Plan, Store};
    use crate::services::args::ServicesArgs;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: ServicesArgs,
    }

    fn plan(line: &str, is_root: bool) -> (Vec<String>, Vec<String>) {
        let args = Cli::try_parse_from(line.split_whitespace()).unwrap().args;
        let plan = Plan::new(&args, &args.stores(), is_root);
        (plan.steps.iter().map(|step| format!("{} {}", step.store.name(), step.scenario.name())).collect(), plan.notes)
    }

    #[test]
    fn what_a_store_does_not_keep_sqlite_keeps_once_and_it_is_said() {
        let line = "a --transport tcp --connections 1 --only session-get,document-get --store";
        let (steps, notes) = plan(&format!("{line} redis"), true);
        assert_eq!(steps, ["redis session-get", "sqlite document-get"]);
        assert_eq!(notes, ["document-get: redis does not keep its data, sqlite does"]);
        let (steps, notes) = plan(&format!("{line} sqlite,redis,postgres"), true);
        let expected = ["sqlite session-get", "redis session-get", "sqlite document-get", "postgres document-get"];
        assert_eq!((steps, notes.len()), (expected.map(str::to_owned).into(), 0));
    }

    #[test]
    fn the_floor_stands_beside_memory_over_tcp_and_without_root_there_is_no_link() {
        let line = "a --matrix --connections 50 --only session-get,session-list,apply-paced,edit-to-subscriber";
        let (steps, notes) = plan(line, false);
        let quantum = ["memory session-get", "sqlite session-get", "redis session-get"];
        let paced = ["sqlite apply-paced", "postgres apply-paced"];
        let expected = [&quantum[..], &paced, &["tonic-floor session-get"], &quantum, &paced].concat();
        assert_eq!(steps, expected);
        assert!(notes.len() == 1 && notes[0].starts_with("SKIPPED: edit-to-subscriber"), "{notes:?}");
        assert!(!Store::TonicFloor.is_durable());
    }
}
