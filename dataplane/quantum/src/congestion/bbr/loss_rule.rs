//! Which losses are congestion. The draft backs off at 2 % of loss, and a path that loses 5 % of all packets whatever one
//! sends would never be filled. Here the losses of a round count only together with evidence of a queue or of a change.
//!
//! Nor is every loss of a probe a reason to end it. The draft's 2 % are one packet of a small flow's flight: ten flows on a
//! path end each other's probes at random. And beside a flow that does not answer to loss, as that of BBR's first version,
//! the queue is always full and each probe would end as it begins, until next to nothing of the path is left. Such a flow
//! shows: losses stand, also in rounds in which one sends no more than the path delivers. Beside a flow that gives way,
//! of ours or CUBIC, they are a tenth of that.

use std::time::Duration;

/// Loss that the draft tolerates in a round (`BBRLossThresh`), and STARTUP here.
pub(super) const LOSS_THRESHOLD: f64 = 0.02;
/// Loss of a probe's flight that is tolerated, and for each part of what is lost as a rule by sending no more than the path
/// delivers so many parts, up to a greatest share.
const PROBE_LOSS: f64 = 0.06;
const STANDING_WEIGHT: f64 = 20.0;
const STANDING_MAX: f64 = 0.2;
/// A queue shows when the least round-trip time of a round exceeds the path's by the greater of these.
const QUEUE_MIN: Duration = Duration::from_millis(1);
const QUEUE_SHARE: u32 = 10;
/// A jump is loss of this many times the path's usual rate.
const JUMP: f64 = 3.0;
/// Before anything is known the usual rate is taken for this, as if seen over as many bytes as `PRIOR_PACKETS` have.
const PRIOR_RATE: f64 = 0.05;
const PRIOR_PACKETS: f64 = 64.0;
/// The usual rate is an average over about as many rounds.
const MEMORY_ROUNDS: f64 = 32.0;
/// A response to congestion makes up for so much loss (`BBRBeta`).
const SLOWER_SHARE: f64 = 0.3;
/// Rounds in a row with more than that, before a queue, that only a slower path has. Others that come to a path make one.
const SLOWER_ROUNDS: u32 = 2;
/// Samples of the round-trip time that are enough to judge a round before it ends.
const SAMPLES_MIN: u32 = 8;

/// Bytes acknowledged and lost.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    acked: f64,
    lost: f64,
}

impl Tally {
    fn decay(&mut self) {
        self.acked *= 1.0 - 1.0 / MEMORY_ROUNDS;
        self.lost *= 1.0 - 1.0 / MEMORY_ROUNDS;
    }

    fn add(&mut self, other: Self) {
        self.acked += other.acked;
        self.lost += other.lost;
    }

    fn rate(&self) -> f64 {
        let total = self.acked + self.lost;
        if total > 0.0 { self.lost / total } else { 0.0 }
    }
}

/// Judges losses, round by round.
#[derive(Debug)]
pub(super) struct LossRule {
    packet: f64,
    round: Tally,
    /// All rounds: what a jump is measured against.
    usual: Tally,
    /// Rounds without a queue: what the path loses by itself.
    quiet: Tally,
    /// Those of them in which no more was sent than the path delivers. A policer's losses do not last there, so they are no
    /// reason to send more.
    steady: Tally,
    /// All rounds in which no more was sent than the path delivers, with a queue or without.
    standing: Tally,
    rtt_min_round: Option<Duration>,
    samples: u32,
    ce: bool,
    /// Whether the losses of the last whole round counted.
    counted: bool,
    /// Whether it showed a queue.
    queue: bool,
    /// Rounds in a row that lost more, before a queue, than a response to congestion makes up for.
    slower_rounds: u32,
}

impl LossRule {
    /// Nothing known of the path. `datagram_size` turns bytes into packets where chance matters.
    pub(super) fn new(datagram_size: u16) -> Self {
        Self {
            packet: f64::from(datagram_size),
            round: Tally::default(),
            usual: Tally::default(),
            quiet: Tally::default(),
            steady: Tally::default(),
            standing: Tally::default(),
            rtt_min_round: None,
            samples: 0,
            ce: false,
            counted: false,
            queue: false,
            slower_rounds: 0,
        }
    }

    /// A full packet has so many bytes from here on.
    pub(super) fn set_datagram_size(&mut self, size: u16) {
        self.packet = f64::from(size);
    }

    /// Bytes were acknowledged and lost, and perhaps the round-trip time sampled and a mark seen.
    pub(super) fn on_ack(&mut self, acked: u64, lost: u64, rtt: Option<Duration>, ce: bool) {
        self.round.add(Tally { acked: acked as f64, lost: lost as f64 });
        self.ce |= ce;
        if let Some(rtt) = rtt {
            self.rtt_min_round = Some(self.rtt_min_round.map_or(rtt, |min| min.min(rtt)));
            self.samples += 1;
        }
    }

    /// A round is over: judges it, and learns from it. `steady`: its packets did not probe for bandwidth.
    pub(super) fn end_round(&mut self, rtt_min: Option<Duration>, steady: bool) {
        let queue = self.has_queue(rtt_min);
        self.counted = self.judge(queue);
        self.queue = queue;
        let too_much = self.counted && queue && self.round.rate() > self.quiet_rate() + SLOWER_SHARE;
        self.slower_rounds = if too_much { self.slower_rounds + 1 } else { 0 };
        self.usual.decay();
        self.usual.add(self.round);
        if steady {
            self.standing.decay();
            self.standing.add(self.round);
        }
        if !queue && !self.ce {
            self.quiet.decay();
            self.quiet.add(self.round);
            if steady {
                self.steady.decay();
                self.steady.add(self.round);
            }
        }
        self.round = Tally::default();
        (self.rtt_min_round, self.samples, self.ce) = (None, 0, false);
    }

    /// Whether losses count as congestion at this time: by the round that runs if it has samples enough, else by the last.
    pub(super) fn counts(&self, rtt_min: Option<Duration>) -> bool {
        if self.samples >= SAMPLES_MIN || self.ce { self.judge(self.has_queue(rtt_min)) } else { self.counted }
    }

    /// Whether the losses of the last whole round counted.
    pub(super) fn last_round_counted(&self) -> bool {
        self.counted
    }

    /// Whether every sample of the last whole round showed a queue.
    pub(super) fn last_round_had_queue(&self) -> bool {
        self.queue
    }

    /// Whether the path must have become slower: what is delivered tells what to send.
    pub(super) fn shows_slower_path(&self) -> bool {
        self.slower_rounds >= SLOWER_ROUNDS
    }

    /// The share of loss above which the flight of a probe was too large, beyond what the path loses by itself.
    pub(super) fn threshold(&self) -> f64 {
        let standing = (self.standing.rate() - self.quiet_rate()).max(0.0);
        self.quiet_rate() + PROBE_LOSS + (STANDING_WEIGHT * standing).min(STANDING_MAX)
    }

    /// The share of loss above which STARTUP's flight was too large: the draft's, beyond what the path loses by itself.
    pub(super) fn startup_threshold(&self) -> f64 {
        self.quiet_rate() + LOSS_THRESHOLD
    }

    /// What the path loses by itself, as a share.
    pub(super) fn quiet_rate(&self) -> f64 {
        self.quiet.rate()
    }

    /// What it loses by itself while no more is sent than it delivers.
    pub(super) fn steady_rate(&self) -> f64 {
        self.steady.rate()
    }

    fn has_queue(&self, rtt_min: Option<Duration>) -> bool {
        let (Some(round), Some(path)) = (self.rtt_min_round, rtt_min) else { return false };
        round > path + (path / QUEUE_SHARE).max(QUEUE_MIN)
    }

    fn judge(&self, queue: bool) -> bool {
        if self.ce {
            return true;
        }
        if self.round.lost <= 0.0 {
            return false;
        }
        let total = self.round.acked + self.round.lost;
        let usual = (self.usual.lost + PRIOR_RATE * PRIOR_PACKETS * self.packet)
            / (self.usual.acked + self.usual.lost + PRIOR_PACKETS * self.packet);
        if self.exceeds(JUMP * usual * total, 3.0) {
            return true;
        }
        queue && self.exceeds(self.quiet_rate() * total, 2.0)
    }

    /// Whether the round lost more than expected, by more than chance (in standard deviations of a count of packets).
    fn exceeds(&self, expected: f64, deviations: f64) -> bool {
        let (lost, expected) = (self.round.lost / self.packet, expected / self.packet);
        lost > expected + deviations * expected.sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: Option<Duration> = Some(Duration::from_millis(50));

    fn round(rule: &mut LossRule, acked: u64, lost: u64, rtt_ms: u64) -> bool {
        for _ in 0..10 {
            rule.on_ack(acked * 125, lost * 125, Some(Duration::from_millis(rtt_ms)), false);
        }
        rule.end_round(PATH, true);
        rule.last_round_counted()
    }

    #[test]
    fn steady_loss_without_a_queue_does_not_count() {
        let mut rule = LossRule::new(1250);
        for lost in [40, 44, 36, 50, 30, 45] {
            assert!(!round(&mut rule, 400, lost, 51), "{lost}");
        }
    }

    #[test]
    fn loss_with_a_queue_counts_as_it_does_in_the_draft_on_a_clean_path() {
        let mut rule = LossRule::new(1250);
        assert!(!round(&mut rule, 400, 0, 50));
        assert!(!round(&mut rule, 400, 0, 70), "a queue without loss");
        assert!(round(&mut rule, 400, 1, 70));
        assert!((rule.startup_threshold() - LOSS_THRESHOLD).abs() < 1e-9);
    }

    #[test]
    fn a_probe_may_lose_more_where_losses_stand_although_no_more_is_sent_than_is_delivered() {
        let mut rule = LossRule::new(1250);
        let threshold_after = |rule: &mut LossRule, lost: u64| {
            (0..100).for_each(|_| _ = round(rule, 1_000 - lost, lost, 70));
            rule.threshold()
        };
        round(&mut rule, 1_000, 0, 50);
        assert!((threshold_after(&mut rule, 0) - PROBE_LOSS).abs() < 1e-9, "flows that give way lose nothing then");
        assert!((threshold_after(&mut rule, 5) - PROBE_LOSS - 0.1).abs() < 0.01);
        assert!((threshold_after(&mut rule, 50) - PROBE_LOSS - STANDING_MAX).abs() < 1e-9);
        assert!(threshold_after(&mut rule, 0) < PROBE_LOSS + 0.05, "the neighbour is gone");
        assert!((rule.startup_threshold() - LOSS_THRESHOLD).abs() < 1e-9);
    }

    #[test]
    fn what_a_path_loses_by_itself_does_not_stand() {
        let mut rule = LossRule::new(1250);
        (0..100).for_each(|_| _ = round(&mut rule, 950, 50, 51));
        assert!((rule.threshold() - 0.05 - PROBE_LOSS).abs() < 1e-9);
    }

    #[test]
    fn with_a_queue_only_loss_beyond_the_paths_own_counts() {
        let mut rule = LossRule::new(1250);
        for _ in 0..5 {
            round(&mut rule, 360, 40, 50);
        }
        assert!((rule.quiet_rate() - 0.1).abs() < 1e-9);
        assert!(!round(&mut rule, 360, 42, 70));
        assert!(round(&mut rule, 320, 80, 70));
        assert!((rule.quiet_rate() - 0.1).abs() < 1e-9, "what a queue drops is not the path's own loss");
    }

    #[test]
    fn a_jump_counts_without_a_queue_until_it_is_usual() {
        let mut rule = LossRule::new(1250);
        for _ in 0..40 {
            assert!(!round(&mut rule, 400, 4, 50));
        }
        assert!(round(&mut rule, 360, 40, 50));
        let rounds = (0..100).take_while(|_| round(&mut rule, 360, 40, 50)).count();
        assert!((1..40).contains(&rounds), "{rounds}");
    }

    #[test]
    fn a_mark_counts() {
        let mut rule = LossRule::new(1250);
        rule.on_ack(1000, 0, None, true);
        assert!(rule.counts(PATH));
        rule.end_round(PATH, true);
        assert!(rule.last_round_counted());
        rule.end_round(PATH, true);
        assert!(!rule.last_round_counted());
    }
}
