//! Looking for work for a while before sleeping, where that pays.

use std::time::Duration;

/// A thread to which work comes at such intervals, or shorter ones, is busy.
const BUSY: Duration = Duration::from_millis(1);
/// From so many points on, a thread looks on before it sleeps.
const SPINS_FROM: u32 = 4;
const POINTS_MAX: u32 = 8;
/// For work that came as it comes to the busy.
const GAIN: u32 = 1;
/// For work that came later.
const COST: u32 = 4;

/// Says how long a thread that has nothing to do looks for work before it sleeps.
///
/// To wake a thread takes microseconds of its waker, and 50 to 150 us until it runs if its virtual processor has been halted.
/// Threads that hand work to each other in turns may so spend most of their time in falling asleep and waking up. One that
/// looks on for as long as a wake-up takes wastes no more than it would have lost (Karlin et al., "Competitive Randomized
/// Algorithms for Nonuniform Problems", 1990), and one to which work comes now and then does not look on at all: some short
/// waits in a row begin it, a few long ones end it, as in the guest halt polling of Linux.
#[derive(Clone, Copy, Debug)]
pub struct AdaptiveSpin {
    longest: Duration,
    points: u32,
}

impl AdaptiveSpin {
    /// Looks for work for `longest` at most; never, if that is zero.
    pub fn new(longest: Duration) -> Self {
        Self { longest, points: 0 }
    }

    /// Whether to look on, after `idle` without work.
    pub fn goes_on(&self, idle: Duration) -> bool {
        self.points >= SPINS_FROM && idle < self.longest
    }

    /// Work came after `idle` without any, whether that was slept through or not.
    pub fn found(&mut self, idle: Duration) {
        let is_busy = idle <= BUSY.max(self.longest);
        self.points = if is_busy { (self.points + GAIN).min(POINTS_MAX) } else { self.points.saturating_sub(COST) };
    }

    /// Lets the processor's other threads run, those that the work comes from among them.
    pub fn pause() {
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::AdaptiveSpin;
    use std::time::Duration;

    const LONGEST: Duration = Duration::from_micros(50);
    const SHORT: Duration = Duration::from_micros(20);
    const LONG: Duration = Duration::from_millis(5);

    fn after(longest: Duration, waits: &[Duration]) -> AdaptiveSpin {
        let mut spin = AdaptiveSpin::new(longest);
        waits.iter().for_each(|wait| spin.found(*wait));
        spin
    }

    #[test]
    fn short_waits_begin_it_and_long_ones_end_it() {
        assert!(!after(LONGEST, &[]).goes_on(Duration::ZERO));
        assert!(!after(LONGEST, &[SHORT; 3]).goes_on(Duration::ZERO));
        let busy = [SHORT; 20];
        assert!(after(LONGEST, &busy).goes_on(SHORT));
        assert!(!after(LONGEST, &busy).goes_on(LONGEST), "for so long and no longer");
        assert!(after(LONGEST, &[&busy[..], &[LONG]].concat()).goes_on(SHORT), "one pause is forgiven");
        assert!(!after(LONGEST, &[&busy[..], &[LONG; 2]].concat()).goes_on(SHORT));
    }

    #[test]
    fn who_answers_now_and_then_never_spins() {
        let mut spin = AdaptiveSpin::new(LONGEST);
        for _ in 0..1_000 {
            // What an answer takes is short; then nothing comes for long.
            for wait in [SHORT, SHORT, SHORT, LONG] {
                assert!(!spin.goes_on(Duration::ZERO));
                spin.found(wait);
            }
        }
    }

    #[test]
    fn who_is_told_to_spin_for_long_does_so_whatever_comes() {
        assert!(after(10 * LONG, &[LONG; 10]).goes_on(LONG));
        assert!(!after(Duration::ZERO, &[Duration::ZERO; 10]).goes_on(Duration::ZERO), "or not at all");
    }
}
