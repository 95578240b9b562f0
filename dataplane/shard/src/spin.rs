//! Looking for work for a while before sleeping, where that pays.

use std::time::{Duration, Instant};

/// A thread to which work comes at such intervals, or shorter ones, is busy.
const BUSY: Duration = Duration::from_millis(1);
/// From so many points on, a thread looks on before it sleeps.
const SPINS_FROM: u32 = 4;
const POINTS_MAX: u32 = 8;
/// For work that came as it comes to the busy.
const GAIN: u32 = 1;
/// For work that came later.
const COST: u32 = 4;
/// A look takes no longer. If one did, another thread had the processor meanwhile.
const LOOK_MAX: Duration = Duration::from_micros(2);

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
    idle: Option<Idle>,
}

/// There has been nothing to do.
#[derive(Clone, Copy, Debug)]
struct Idle {
    since: Instant,
    looked_at: Instant,
    /// On looking, without what others had of the processor meanwhile.
    spent: Duration,
}

impl AdaptiveSpin {
    /// Spends `longest` on looking for work at most; never looks on, if that is zero.
    pub fn new(longest: Duration) -> Self {
        Self { longest, points: 0, idle: None }
    }

    /// There was something to do.
    pub fn worked(&mut self) {
        if self.idle.is_some() {
            self.worked_at(Instant::now());
        }
    }

    fn worked_at(&mut self, now: Instant) {
        let Some(idle) = self.idle.take() else { return };
        let is_busy = now - idle.since <= BUSY.max(self.longest);
        self.points = if is_busy { (self.points + GAIN).min(POINTS_MAX) } else { self.points.saturating_sub(COST) };
    }

    /// Whether work comes all the time, and looking for it is not ruled out.
    pub fn is_busy(&self) -> bool {
        self.points >= SPINS_FROM && !self.longest.is_zero()
    }

    /// There was nothing to do; whether to look once more rather than to sleep.
    pub fn looks_on(&mut self) -> bool {
        self.looks_on_at(Instant::now())
    }

    fn looks_on_at(&mut self, now: Instant) -> bool {
        let idle = self.idle.get_or_insert(Idle { since: now, looked_at: now, spent: Duration::ZERO });
        idle.spent += (now - idle.looked_at).min(LOOK_MAX);
        idle.looked_at = now;
        idle.spent < self.longest && self.is_busy()
    }

    /// Lets the processor's other threads run, those that the work comes from among them.
    pub fn pause() {
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::AdaptiveSpin;
    use std::time::{Duration, Instant};

    const LONGEST: Duration = Duration::from_micros(50);
    const SHORT: Duration = Duration::from_micros(20);
    const LONG: Duration = Duration::from_millis(5);

    /// A spin and the time.
    struct At(AdaptiveSpin, Instant);

    impl At {
        fn new(longest: Duration) -> Self {
            Self(AdaptiveSpin::new(longest), Instant::now())
        }

        /// Work comes after each of these waits.
        fn after(mut self, waits: &[Duration]) -> Self {
            for wait in waits {
                self.0.looks_on_at(self.1);
                self.1 += *wait;
                self.0.worked_at(self.1);
            }
            self
        }

        /// How long it looks for work that does not come, if a look takes so long.
        fn looks(&mut self, look: Duration) -> Duration {
            let began = self.1;
            while self.0.looks_on_at(self.1) {
                self.1 += look;
            }
            let looked = self.1 - began;
            self.0.worked_at(self.1);
            looked
        }
    }

    const LOOK: Duration = Duration::from_micros(1);

    #[test]
    fn short_waits_begin_it_and_long_ones_end_it() {
        assert!(At::new(LONGEST).looks(LOOK).is_zero());
        assert!(At::new(LONGEST).after(&[SHORT; 3]).looks(LOOK).is_zero());
        let busy = [SHORT; 20];
        assert_eq!(At::new(LONGEST).after(&busy).looks(LOOK), LONGEST);
        assert_eq!(At::new(LONGEST).after(&busy).after(&[LONG]).looks(LOOK), LONGEST, "one pause is forgiven");
        assert!(At::new(LONGEST).after(&busy).after(&[LONG; 2]).looks(LOOK).is_zero());
    }

    #[test]
    fn what_others_have_of_the_processor_is_not_counted() {
        let others = Duration::from_micros(300);
        let looked = At::new(LONGEST).after(&[SHORT; 20]).looks(others);
        assert!(looked >= 20 * others, "{looked:?}");
    }

    #[test]
    fn who_answers_now_and_then_never_spins() {
        let mut at = At::new(LONGEST);
        for _ in 0..1_000 {
            // What an answer takes is short; then nothing comes for long.
            at = at.after(&[SHORT, SHORT, SHORT, LONG]);
            assert!(at.looks(LOOK).is_zero());
        }
    }

    #[test]
    fn who_is_told_to_spin_for_long_does_so_whatever_comes() {
        assert_eq!(At::new(10 * LONG).after(&[LONG; 10]).looks(LOOK), 10 * LONG);
        assert!(At::new(Duration::ZERO).after(&[Duration::ZERO; 10]).looks(LOOK).is_zero(), "or not at all");
    }
}
