//! How many packets a path loses, and whether in bursts: what the amount and the spacing of repair symbols follow.

use std::time::Duration;

use crate::Time;

/// The estimate is an average over about as many packets: enough to tell 1 % from 5 %, few enough to follow a path that changes
/// within seconds.
const MEMORY_PACKETS: f64 = 256.0;
/// A path is taken for one that loses 5 %, as if seen over as many packets, until it shows otherwise.
const PRIOR_PACKETS: f64 = 20.0;
const PRIOR_LOST: f64 = 1.0;
/// That assumption fades sooner than a loss that was seen.
const PRIOR_MEMORY_PACKETS: f64 = 128.0;
/// Bursts are averaged over about as many losses in a row.
const MEMORY_RUNS: f64 = 32.0;
/// So many losses in a row have to be seen before they show a burst.
const RUNS_MIN: f64 = 4.0;
/// Losses in a row that are so many times as many as independent loss makes them are bursts.
const BURST_FACTOR: f64 = 1.5;

/// Losses in a row, on average.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Burst {
    /// How many packets.
    pub(crate) packets: f64,
    /// How long from the first to the last of them.
    pub(crate) length: Duration,
}

/// Packets lost one after the other.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: Time,
    last: Time,
    packets: f64,
}

/// The losses of a path, from what became of each packet, in the order of their numbers. It does not age with time: what was
/// known before a pause holds after it.
#[derive(Debug)]
pub(crate) struct LossMeter {
    packets: f64,
    lost: f64,
    assumed_lost: f64,
    run: Option<Run>,
    /// Averages over runs: how many, the packets in all of them, and how long they were in all, in seconds.
    runs: f64,
    run_packets: f64,
    run_seconds: f64,
}

impl LossMeter {
    /// A path of which nothing is known.
    pub(crate) fn new() -> Self {
        Self {
            packets: PRIOR_PACKETS,
            lost: 0.0,
            assumed_lost: PRIOR_LOST,
            run: None,
            runs: 0.0,
            run_packets: 0.0,
            run_seconds: 0.0,
        }
    }

    /// A packet that was sent at that time arrived or was lost.
    pub(crate) fn on_outcome(&mut self, sent: Time, lost: bool) {
        let keep = 1.0 - 1.0 / MEMORY_PACKETS;
        self.packets = self.packets * keep + 1.0;
        self.lost = self.lost * keep + f64::from(u8::from(lost));
        self.assumed_lost *= 1.0 - 1.0 / PRIOR_MEMORY_PACKETS;
        if lost {
            let run = self.run.get_or_insert(Run { first: sent, last: sent, packets: 0.0 });
            run.last = sent;
            run.packets += 1.0;
        } else if let Some(run) = self.run.take() {
            let keep = 1.0 - 1.0 / MEMORY_RUNS;
            self.runs = self.runs * keep + 1.0;
            self.run_packets = self.run_packets * keep + run.packets;
            self.run_seconds = self.run_seconds * keep + (run.last - run.first).as_secs_f64();
        }
    }

    /// The share of packets that are lost.
    pub(crate) fn rate(&self) -> f64 {
        (self.lost + self.assumed_lost) / self.packets
    }

    /// How the path loses packets in a row; nothing if losses are independent.
    pub(crate) fn burst(&self) -> Burst {
        let independent = 1.0 / (1.0 - self.rate().min(0.9));
        let packets = self.run_packets / self.runs.max(1.0);
        if self.runs < RUNS_MIN || packets < independent * BURST_FACTOR {
            return Burst::default();
        }
        Burst { packets, length: Duration::from_secs_f64(self.run_seconds / self.runs) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_path_is_bad_until_it_shows_that_it_is_good() {
        let mut meter = LossMeter::new();
        assert!((meter.rate() - 0.05).abs() < 1e-9);
        let rates: Vec<f64> = (0..600)
            .map(|nth| {
                meter.on_outcome(at(nth), false);
                meter.rate()
            })
            .collect();
        assert!(rates.windows(2).all(|pair| pair[1] < pair[0]));
        assert!(rates[100] < 0.01 && rates[599] < 1e-4, "{} {}", rates[100], rates[599]);
    }

    #[test]
    fn the_rate_follows_the_path() {
        let mut meter = LossMeter::new();
        for nth in 0..1_000 {
            meter.on_outcome(at(nth), nth % 10 == 0);
        }
        assert!((0.08..0.12).contains(&meter.rate()), "{}", meter.rate());
        assert_eq!(meter.burst(), Burst::default(), "single losses are no bursts");
    }

    #[test]
    fn losses_in_a_row_are_a_burst_and_have_a_length() {
        let mut meter = LossMeter::new();
        for nth in 0..2_000 {
            // Four of a hundred, in a row, two milliseconds apart.
            meter.on_outcome(at(2 * nth), nth % 100 < 4);
        }
        assert_eq!((meter.burst().length.as_millis(), meter.burst().packets.round()), (6, 4.0));
        assert!((0.02..0.06).contains(&meter.rate()));
    }
}
