//! Looking for work for a while before sleeping, where that pays.

use std::time::{Duration, Instant};

/// A thread to which work comes at such intervals, or shorter ones, may gain by looking for it.
const BUSY: Duration = Duration::from_millis(1);
/// From so many points on, a thread looks on before it sleeps.
const SPINS_FROM: u32 = 4;
const POINTS_MAX: u32 = 12;
/// For work that came while it was looked for, and for work that was looked for in vain: one in four has to come.
const GAIN: u32 = 3;
const COST: u32 = 1;
/// Short waits that a long one outweighs, of a thread that sleeps.
const LONG_COST: u32 = 4;
/// So many short waits, of a thread that sleeps, are worth a trial; after each one that failed twice as many.
const PATIENCE_MIN: u32 = SPINS_FROM;
const PATIENCE_MAX: u32 = 256;
/// A look takes no longer. If one did, another thread had the processor meanwhile.
const LOOK_MAX: Duration = Duration::from_micros(2);

/// Says how long a thread that has nothing to do looks for work before it sleeps.
///
/// To wake a thread takes microseconds of its waker, and 50 to 150 us until it runs if its virtual processor has been halted.
/// Threads that hand work to each other in turns may so spend most of their time in falling asleep and waking up. One that
/// looks on for as long as a wake-up takes wastes no more than it would have lost (Karlin et al., "Competitive Randomized
/// Algorithms for Nonuniform Problems", 1990), and one to which work comes now and then does not look on at all: some short
/// waits in a row begin it, a few in vain end it, as in the guest halt polling of Linux. Waits that are short but longer than
/// a thread looks on, as those for the packets of a link that is full, make it try ever more rarely.
#[derive(Clone, Copy, Debug)]
pub struct AdaptiveSpin {
    longest: Duration,
    points: u32,
    /// Short waits of late while it slept.
    short: u32,
    /// Those that are worth a trial.
    patience: u32,
    idle: Option<Idle>,
}

/// There has been nothing to do.
#[derive(Clone, Copy, Debug)]
struct Idle {
    since: Instant,
    looked_at: Instant,
    /// On looking, without what others had of the processor meanwhile.
    spent: Duration,
    looking: Looking,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Looking {
    Not,
    On,
    InVain,
}

impl AdaptiveSpin {
    /// Spends `longest` on looking for work at most; never looks on, if that is zero.
    pub fn new(longest: Duration) -> Self {
        Self { longest, points: 0, short: 0, patience: PATIENCE_MIN, idle: None }
    }

    /// There was something to do.
    pub fn worked(&mut self) {
        if self.idle.is_some() {
            self.worked_at(Instant::now());
        }
    }

    fn worked_at(&mut self, now: Instant) {
        let Some(idle) = self.idle.take() else { return };
        match idle.looking {
            Looking::On => {
                self.points = (self.points + GAIN).min(POINTS_MAX);
                if self.points == POINTS_MAX {
                    self.patience = PATIENCE_MIN;
                }
            }
            Looking::InVain => {
                self.points = self.points.saturating_sub(COST);
                if self.points < SPINS_FROM {
                    self.patience = (2 * self.patience).min(PATIENCE_MAX);
                }
            }
            Looking::Not if now - idle.since <= BUSY.max(self.longest) => {
                self.short += 1;
                if self.short >= self.patience {
                    self.short = 0;
                    self.points = SPINS_FROM;
                }
            }
            Looking::Not => self.short = self.short.saturating_sub(LONG_COST),
        }
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
        let looking = if self.is_busy() { Looking::On } else { Looking::Not };
        let idle = self.idle.get_or_insert(Idle { since: now, looked_at: now, spent: Duration::ZERO, looking });
        idle.spent += (now - idle.looked_at).min(LOOK_MAX);
        idle.looked_at = now;
        if idle.looking == Looking::On && idle.spent >= self.longest {
            idle.looking = Looking::InVain;
        }
        idle.looking == Looking::On
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
    const LOOK: Duration = Duration::from_micros(1);

    /// A spin and the time.
    struct At(AdaptiveSpin, Instant);

    impl At {
        fn new(longest: Duration) -> Self {
            Self(AdaptiveSpin::new(longest), Instant::now())
        }

        /// Work comes after each of these waits.
        fn after(mut self, waits: &[Duration]) -> Self {
            for wait in waits {
                self.looks(LOOK, *wait);
            }
            self
        }

        /// How long it looks for work that comes after `wait`, if a look takes so long.
        fn looks(&mut self, look: Duration, wait: Duration) -> Duration {
            let began = self.1;
            while self.0.looks_on_at(self.1) && self.1 - began < wait {
                self.1 += look;
            }
            let looked = self.1 - began;
            self.1 = self.1.max(began + wait);
            self.0.worked_at(self.1);
            looked
        }

        /// How long it looks for work that does not come for long.
        fn looks_in_vain(&mut self) -> Duration {
            self.looks(LOOK, LONG)
        }
    }

    #[test]
    fn short_waits_begin_it_and_long_ones_end_it() {
        assert!(At::new(LONGEST).looks_in_vain().is_zero());
        assert!(At::new(LONGEST).after(&[SHORT; 3]).looks_in_vain().is_zero());
        let busy = [SHORT; 20];
        assert_eq!(At::new(LONGEST).after(&busy).looks_in_vain(), LONGEST);
        assert_eq!(At::new(LONGEST).after(&busy).after(&[LONG; 8]).looks_in_vain(), LONGEST, "pauses are forgiven");
        assert!(At::new(LONGEST).after(&busy).after(&[LONG; 9]).looks_in_vain().is_zero());
    }

    #[test]
    fn waits_that_are_longer_than_it_looks_on_make_it_try_rarely() {
        let wait = 3 * LONGEST;
        let mut at = At::new(LONGEST);
        let looked: Duration = (0..10_000).map(|_| at.looks(LOOK, wait)).sum();
        assert!(looked > Duration::ZERO && looked < 10_000 * wait / 500, "{looked:?}");
        let at = at.after(&[SHORT; 300]);
        assert!(at.0.is_busy(), "it finds that waits have become shorter");
        let at = at.after(&[wait; 9]).after(&[SHORT; 8]);
        assert!(at.0.is_busy(), "having met what it looked for, it is as quick to try as at first");
    }

    #[test]
    fn what_others_have_of_the_processor_is_not_counted() {
        let others = Duration::from_micros(300);
        let looked = At::new(LONGEST).after(&[SHORT; 20]).looks(others, 1_000 * others);
        assert!(looked >= 20 * others, "{looked:?}");
    }

    #[test]
    fn who_answers_now_and_then_never_spins() {
        let mut at = At::new(LONGEST);
        for _ in 0..1_000 {
            // What an answer takes is short; then nothing comes for long.
            at = at.after(&[SHORT, SHORT, SHORT]);
            assert!(at.looks_in_vain().is_zero());
        }
    }

    #[test]
    fn who_is_told_to_spin_for_long_does_so_whatever_comes() {
        assert_eq!(At::new(10 * LONG).after(&[LONG; 10]).looks(LOOK, 20 * LONG), 10 * LONG);
        let mut never = At::new(Duration::ZERO).after(&[Duration::ZERO; 10]);
        assert!(never.looks_in_vain().is_zero(), "or not at all");
    }
}
