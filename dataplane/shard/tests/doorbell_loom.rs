//! The doorbell's flag under every interleaving that memory ordering allows (loom).
#![expect(clippy::unwrap_used, reason = "a poisoned lock fails the test")]

mod sync {
    pub(super) use loom::sync::atomic::{AtomicBool, Ordering, fence};
}

#[path = "../src/handoff/sleep_flag.rs"]
mod sleep_flag;

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use sleep_flag::SleepFlag;

/// A ring of messages, as far as the flag is concerned, and an eventfd.
struct Shared {
    messages: AtomicUsize,
    flag: SleepFlag,
    event: Event,
}

/// An eventfd: rung or not, and whoever waits.
struct Event {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Event {
    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.changed.notify_one();
    }

    fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.changed.wait(rung).unwrap();
        }
        *rung = false;
    }
}

impl Shared {
    fn new() -> Arc<Self> {
        let event = Event { rung: Mutex::new(false), changed: Condvar::new() };
        Arc::new(Self { messages: AtomicUsize::new(0), flag: SleepFlag::new(), event })
    }
}

/// Takes `expected` messages, sleeping in between. A lost wake-up sleeps for ever, which loom reports as a deadlock.
fn take(shared: &Shared, expected: usize) {
    let mut taken = 0;
    while taken < expected {
        let found = shared.messages.swap(0, Ordering::AcqRel);
        taken += found;
        if found > 0 {
            continue;
        }
        shared.flag.prepare();
        if shared.messages.load(Ordering::Acquire) == 0 {
            shared.event.wait();
        }
        shared.flag.clear();
    }
}

fn send(shared: &Shared) {
    shared.messages.fetch_add(1, Ordering::Release);
    if shared.flag.take() {
        shared.event.ring();
    }
}

#[test]
fn no_wake_up_is_lost() {
    loom::model(|| {
        let shared = Shared::new();
        let sender = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            send(&sender);
            send(&sender);
        });
        take(&shared, 2);
        thread.join().unwrap();
    });
}

/// Whether one message, sent while its receiver goes to sleep, is either found or rung for. `looks_again`: the receiver looks
/// for messages after it has set its flag.
fn is_noticed(looks_again: bool) {
    let shared = Shared::new();
    let sender = Arc::clone(&shared);
    let thread = thread::spawn(move || {
        sender.messages.fetch_add(1, Ordering::Release);
        sender.flag.take()
    });
    let mut found = shared.messages.load(Ordering::Acquire) > 0;
    shared.flag.prepare();
    if looks_again {
        found |= shared.messages.load(Ordering::Acquire) > 0;
    }
    let rung = thread.join().unwrap();
    assert!(found || rung, "nobody noticed");
}

#[test]
fn a_message_is_found_or_rung_for() {
    loom::model(|| is_noticed(true));
}

/// The model finds what it is for.
#[test]
#[should_panic(expected = "nobody noticed")]
fn sleeping_without_a_second_look_is_found_out() {
    loom::model(|| is_noticed(false));
}
