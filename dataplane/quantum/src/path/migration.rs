//! A peer whose packets begin to come from another address (RFC 9000 section 9): a mapping that an address translator has
//! changed, or a client in another network.
//!
//! Here the way back is proved before anything but the question goes there: until the answer comes, packets go to the address that
//! is known to be the peer's, which is asked as well. Whoever copies packets and sends them from elsewhere gets a question that
//! only the peer answers, and diverts nothing (RFC 9000 sections 9.3.2 and 9.3.3).

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::MigrationStats;
use crate::Time;

/// Bytes of a challenge.
pub(crate) const CHALLENGE_LEN: usize = 8;
/// Challenges to one address, each after twice the time of the one before. More follow when packets come from there again.
const CHALLENGES_MAX: usize = 6;
/// Answers that wait to be sent: who asks more has the older questions forgotten.
const ANSWERS_MAX: usize = 4;

/// A challenge's content.
pub(crate) type Challenge = [u8; CHALLENGE_LEN];
/// The peer's address, and the one of this host that it sends to.
pub(crate) type Addresses = (SocketAddr, Option<IpAddr>);

/// An address that the peer's packets come from, and that is yet to be proved.
#[derive(Debug)]
struct Candidate {
    addresses: Addresses,
    /// The largest number that came from there.
    number: u64,
    received_bytes: u64,
    sent_bytes: u64,
    challenges: Vec<Challenge>,
    /// When to ask next.
    due: Time,
    /// Nothing may go there before more comes from there.
    is_limited: bool,
}

impl Candidate {
    fn new(now: Time, packet: &Footprint) -> Self {
        Self {
            addresses: packet.addresses,
            number: packet.number,
            received_bytes: packet.bytes,
            sent_bytes: 0,
            challenges: Vec::new(),
            due: now,
            is_limited: false,
        }
    }

    /// Bytes that may go there: three for each received (RFC 9000 section 8).
    fn allowance(&self) -> u64 {
        (self.received_bytes * 3).saturating_sub(self.sent_bytes)
    }
}

/// A packet of the peer, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Footprint {
    pub(crate) addresses: Addresses,
    pub(crate) number: u64,
    pub(crate) bytes: u64,
    /// No packet with a larger number came before.
    pub(crate) is_newest: bool,
    /// It carries nothing but questions (RFC 9000 section 9.1).
    pub(crate) explores: bool,
}

/// A question that is due.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) challenge: Challenge,
    /// Where it goes; none: to where packets go anyway.
    pub(crate) to: Option<Addresses>,
    /// Bytes that its packet may have.
    pub(crate) bytes_max: u64,
}

/// Where the peer may have gone, and what it asked.
#[derive(Debug)]
pub(crate) struct Migration {
    is_followed: bool,
    candidate: Option<Box<Candidate>>,
    /// The current address is asked too.
    asks_current: bool,
    answers: VecDeque<(Addresses, Challenge)>,
    /// Challenges are drawn from it, each by its number.
    seed: u64,
    drawn: u64,
    stats: MigrationStats,
}

impl Migration {
    /// A peer that is not followed yet.
    pub(crate) fn new(seed: u64) -> Self {
        // The seed feeds other choices as well: other numbers are drawn from it here.
        let seed = seed ^ 0x7061_7468;
        let (answers, stats) = (VecDeque::new(), MigrationStats::default());
        Self { is_followed: false, candidate: None, asks_current: false, answers, seed, drawn: 0, stats }
    }

    /// The peer is followed from here on.
    pub(crate) fn follow(&mut self) {
        self.is_followed = true;
    }

    /// Counters.
    pub(crate) fn stats(&self) -> MigrationStats {
        self.stats
    }

    /// An authentic packet came, `current` being where packets go.
    pub(crate) fn on_packet(&mut self, now: Time, current: SocketAddr, packet: &Footprint) {
        if packet.addresses.0 == current {
            // Later than everything from the other address: the peer has not left.
            if self.candidate.as_ref().is_some_and(|candidate| packet.number > candidate.number) {
                self.give_up();
            }
            return;
        }
        match &mut self.candidate {
            Some(candidate) if candidate.addresses.0 == packet.addresses.0 => {
                candidate.number = candidate.number.max(packet.number);
                candidate.received_bytes += packet.bytes;
                candidate.is_limited = false;
            }
            _ if self.is_followed && packet.is_newest && !packet.explores => {
                if self.candidate.is_some() {
                    self.give_up();
                }
                self.candidate = Some(Box::new(Candidate::new(now, packet)));
            }
            _ => {}
        }
    }

    fn draw(&mut self) -> Challenge {
        self.drawn += 1;
        SmallRng::seed_from_u64(self.seed.wrapping_add(self.drawn)).random()
    }

    fn give_up(&mut self) {
        self.candidate = None;
        self.stats.given_up += 1;
    }

    /// When a question is due.
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        self.candidate.as_ref().filter(|candidate| !candidate.is_limited).map(|candidate| candidate.due)
    }

    /// A question that is due, whose packet has at least `bytes_min`. `interval` is the time from the first to the second one.
    pub(crate) fn take_question(&mut self, now: Time, bytes_min: u64, interval: Duration) -> Option<Question> {
        if std::mem::take(&mut self.asks_current) {
            return Some(Question { challenge: self.draw(), to: None, bytes_max: bytes_min });
        }
        let candidate =
            self.candidate.as_deref_mut().filter(|candidate| !candidate.is_limited && candidate.due <= now)?;
        if candidate.challenges.len() >= CHALLENGES_MAX {
            self.give_up();
            return None;
        }
        let bytes_max = candidate.allowance();
        if bytes_max < bytes_min {
            candidate.is_limited = true;
            return None;
        }
        let challenge = self.draw();
        let candidate = self.candidate.as_deref_mut()?;
        candidate.due = now + interval * (1 << candidate.challenges.len());
        candidate.challenges.push(challenge);
        self.asks_current = true;
        self.stats.challenges += 1;
        Some(Question { challenge, to: Some(candidate.addresses), bytes_max })
    }

    /// So many bytes have gone to the address that is yet to be proved.
    pub(crate) fn on_question_sent(&mut self, bytes: u64) {
        if let Some(candidate) = &mut self.candidate {
            candidate.sent_bytes += bytes;
        }
    }

    /// The peer asks whether this end receives what it sends here.
    pub(crate) fn on_challenge(&mut self, addresses: Addresses, challenge: Challenge) {
        if self.answers.len() == ANSWERS_MAX {
            self.answers.pop_front();
        }
        self.answers.push_back((addresses, challenge));
    }

    /// The next answer to send.
    pub(crate) fn take_answer(&mut self) -> Option<(Addresses, Challenge)> {
        self.answers.pop_front()
    }

    /// An answer came from an address. If it proves that one, that is where the peer is from here on.
    pub(crate) fn on_response(&mut self, remote: SocketAddr, challenge: Challenge) -> Option<Addresses> {
        let candidate = self.candidate.as_ref()?;
        if candidate.addresses.0 != remote || !candidate.challenges.contains(&challenge) {
            return None;
        }
        self.stats.migrations += 1;
        self.candidate.take().map(|candidate| candidate.addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(50);
    const LEAST: u64 = 57;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 2], port))
    }

    fn packet(port: u16, number: u64, bytes: u64) -> Footprint {
        Footprint { addresses: (address(port), None), number, bytes, is_newest: true, explores: false }
    }

    fn followed() -> Migration {
        let mut migration = Migration::new(1);
        migration.follow();
        migration
    }

    /// The next question for the other address, the one for the current address being passed over.
    fn ask(migration: &mut Migration, now: Time) -> Option<Question> {
        let question = migration.take_question(now, LEAST, INTERVAL);
        if question.as_ref().is_some_and(|question| question.to.is_none()) {
            return migration.take_question(now, LEAST, INTERVAL);
        }
        question
    }

    #[test]
    fn an_address_is_asked_six_times_and_ever_more_rarely() {
        let mut migration = followed();
        migration.on_packet(Time::ZERO, address(1), &packet(2, 10, 9_000));
        let mut asked = Vec::new();
        while let Some(due) = migration.next_timeout() {
            if let Some(question) = ask(&mut migration, due) {
                assert_eq!(question.to, Some((address(2), None)));
                asked.push((due - Time::ZERO).as_millis());
            }
        }
        assert_eq!(asked, [0, 50, 150, 350, 750, 1_550]);
        let expected = MigrationStats { migrations: 0, challenges: 6, given_up: 1 };
        assert_eq!((migration.stats(), ask(&mut migration, Time::ZERO + INTERVAL * 1_000)), (expected, None));
    }

    #[test]
    fn any_challenge_to_an_address_proves_it_if_the_answer_comes_from_there() {
        let mut migration = followed();
        migration.on_packet(Time::ZERO, address(1), &packet(2, 10, 9_000));
        let first = ask(&mut migration, Time::ZERO).unwrap().challenge;
        let second = ask(&mut migration, Time::ZERO + INTERVAL).unwrap().challenge;
        assert_ne!(first, second);
        assert_eq!(migration.on_response(address(1), first), None, "it came from elsewhere");
        assert_eq!(migration.on_response(address(2), [0; 8]), None, "nobody asked that");
        assert_eq!(migration.on_response(address(2), first), Some((address(2), None)));
        assert_eq!(migration.on_response(address(2), first), None, "it is known by now");
        assert_eq!(migration.stats().migrations, 1);
    }

    #[test]
    fn short_packets_allow_short_questions_until_more_comes() {
        let mut migration = followed();
        migration.on_packet(Time::ZERO, address(1), &packet(2, 10, 50));
        let mut now = Time::ZERO;
        for allowed in [150, 93] {
            assert_eq!(ask(&mut migration, now).unwrap().bytes_max, allowed);
            migration.on_question_sent(LEAST);
            now = migration.next_timeout().unwrap();
        }
        assert_eq!((ask(&mut migration, now), migration.next_timeout()), (None, None), "36 bytes are too few");
        migration.on_packet(now, address(1), &packet(2, 11, 50));
        assert_eq!(ask(&mut migration, now).unwrap().bytes_max, 186);
    }

    #[test]
    fn who_is_heard_at_the_known_address_again_has_not_left() {
        let mut migration = followed();
        migration.on_packet(Time::ZERO, address(1), &packet(2, 10, 1_000));
        migration.on_packet(Time::ZERO, address(1), &packet(1, 9, 1_000));
        assert!(migration.next_timeout().is_some(), "it was only late");
        migration.on_packet(Time::ZERO, address(1), &packet(1, 11, 1_000));
        assert_eq!(migration.next_timeout(), None);
    }

    #[test]
    fn neither_old_packets_nor_questions_nor_those_of_a_server_begin_anything() {
        let mut migration = followed();
        migration.on_packet(Time::ZERO, address(1), &Footprint { is_newest: false, ..packet(2, 10, 1_000) });
        migration.on_packet(Time::ZERO, address(1), &Footprint { explores: true, ..packet(2, 10, 1_000) });
        assert_eq!(migration.next_timeout(), None);
        let mut client = Migration::new(1);
        client.on_packet(Time::ZERO, address(1), &packet(2, 10, 1_000));
        assert_eq!(client.next_timeout(), None);
    }

    #[test]
    fn of_many_questions_the_latest_four_are_answered() {
        let mut migration = Migration::new(1);
        (0..100).for_each(|nth| migration.on_challenge((address(1), None), [nth; 8]));
        let answers: Vec<u8> = std::iter::from_fn(|| migration.take_answer()).map(|answer| answer.1[0]).collect();
        assert_eq!(answers, [96, 97, 98, 99]);
    }
}
