//! Bulk transfers over one path that flows share, and what became of each, tenth of a second by tenth.

use std::time::Duration;

use bytes::Bytes;
use quantum::{ConnectionStats, EndpointConfig, Event, Read, StreamId, Time};
use quantum_sim::{Cipher, LinkConfig, Pair};

/// The figures' resolution.
const SLOT: Duration = Duration::from_millis(100);

/// What changes in the middle.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    /// Bits per second.
    Rate(u64),
    /// One way.
    Delay(Duration),
}

/// Flows that each send as much as they can.
pub(super) struct Transfer {
    pub(super) link: LinkConfig,
    /// The settings of each, and when it starts to connect.
    pub(super) flows: Vec<(EndpointConfig, Duration)>,
    pub(super) changes: Vec<(Duration, Change)>,
    pub(super) lasts: Duration,
    pub(super) seed: u64,
}

/// What came of it.
pub(super) struct Timeline {
    /// Bytes read in each slot, by flow.
    bytes: Vec<Vec<u64>>,
    /// Bytes in the queue, on average over each slot.
    queue: Vec<f64>,
    pub(super) stats: Vec<ConnectionStats>,
}

impl Timeline {
    /// Megabits per second of a flow between two times.
    pub(super) fn mbit(&self, flow: usize, from_s: f64, until_s: f64) -> f64 {
        let [from, until] = [from_s, until_s].map(slot_at);
        self.bytes[flow][from..until].iter().sum::<u64>() as f64 * 8.0 / (until_s - from_s) / 1e6
    }

    /// The same of all flows.
    pub(super) fn all_mbit(&self, from_s: f64, until_s: f64) -> Vec<f64> {
        (0..self.bytes.len()).map(|flow| self.mbit(flow, from_s, until_s)).collect()
    }

    /// Bytes in the queue on average between two times.
    pub(super) fn queue(&self, from_s: f64, until_s: f64) -> f64 {
        let slots = &self.queue[slot_at(from_s)..slot_at(until_s)];
        slots.iter().sum::<f64>() / slots.len() as f64
    }
}

fn slot_at(seconds: f64) -> usize {
    (seconds / SLOT.as_secs_f64()).round() as usize
}

impl Transfer {
    /// Flows that start at once and last for so long.
    pub(super) fn new(link: LinkConfig, flows: &[EndpointConfig], seconds: u64) -> Self {
        let flows = flows.iter().map(|config| (config.clone(), Duration::ZERO)).collect();
        Self { link, flows, changes: Vec::new(), lasts: Duration::from_secs(seconds), seed: 1 }
    }

    pub(super) fn run(&self) -> Timeline {
        let configs: Vec<EndpointConfig> = self.flows.iter().map(|(config, _)| config.clone()).collect();
        let mut pair = Pair::sharing(&self.link, &configs, self.seed, Cipher::Null).expect("the link makes sense");
        let (begin, chunk) = (pair.now(), Bytes::from(vec![7; 64 << 10]));
        let slots = slot_at(self.lasts.as_secs_f64());
        let mut timeline = Timeline {
            bytes: vec![vec![0; slots]; configs.len()],
            queue: vec![0.0; slots],
            stats: vec![ConnectionStats::default(); configs.len()],
        };
        let mut due = self.due(begin);
        let end = begin + self.lasts;
        while pair.now() < end {
            while due.first().is_some_and(|due| due.0 <= pair.now()) {
                match due.remove(0).1 {
                    Due::Start(flow) => pair.connect(flow),
                    Due::Change(Change::Rate(rate)) => pair.set_rate(rate),
                    Due::Change(Change::Delay(delay)) => pair.set_delay(delay),
                }
            }
            let (before, queued) = (pair.now(), pair.queued_bytes());
            let slot = |at: Time| ((at - begin).as_nanos() / SLOT.as_nanos()) as usize;
            let until = due.first().map_or(end, |due| due.0.min(end)).min(begin + SLOT * (slot(before) as u32 + 1));
            pair.step_all(until, |pair, who, event| {
                let read = react(pair, who, event, &chunk);
                if let Some(bytes) = timeline.bytes[who.0].get_mut(slot(pair.now())) {
                    *bytes += read;
                }
            });
            timeline.queue[slot(before)] += queued as f64 * (pair.now() - before).as_secs_f64() / SLOT.as_secs_f64();
        }
        for (flow, stats) in timeline.stats.iter_mut().enumerate() {
            *stats = pair.client_of(flow).stats();
        }
        timeline
    }

    fn due(&self, begin: Time) -> Vec<(Time, Due)> {
        let starts = self.flows.iter().enumerate().map(|(flow, (_, after))| (begin + *after, Due::Start(flow)));
        let changes = self.changes.iter().map(|&(after, change)| (begin + after, Due::Change(change)));
        let mut due: Vec<(Time, Due)> = starts.chain(changes).collect();
        due.sort_by_key(|due| due.0);
        due
    }
}

enum Due {
    Start(usize),
    Change(Change),
}

/// Plays both applications; gives the bytes that were read.
fn react(pair: &mut Pair, (flow, is_server): (usize, bool), event: Event, chunk: &Bytes) -> u64 {
    match (is_server, event) {
        (false, Event::Connected { .. }) => {
            let id = pair.client_of(flow).open().expect("a stream is allowed");
            fill(pair, flow, id, chunk);
        }
        (false, Event::StreamWritable(id)) => fill(pair, flow, id, chunk),
        (true, Event::StreamOpened(id) | Event::StreamReadable(id)) => {
            let mut server = pair.server_of(flow).expect("it has a stream");
            let mut bytes = 0;
            while let Read::Data(data) = server.read(id, usize::MAX) {
                bytes += data.len() as u64;
            }
            return bytes;
        }
        (_, Event::Closed(reason)) => panic!("flow {flow}: {reason}"),
        _ => {}
    }
    0
}

/// Writes as much as is taken.
fn fill(pair: &mut Pair, flow: usize, id: StreamId, chunk: &Bytes) {
    while pair.client_of(flow).write(id, &mut chunk.clone()).expect("the stream is open") > 0 {}
}
