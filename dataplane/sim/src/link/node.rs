//! The closed set of effects.

use quantum::Time;

use super::{Blackout, Datagram, LinkStats, Meta, delay, loss, mangle, queue, reorder};

/// A datagram on its way, and when it is where it is.
#[derive(Debug)]
pub(super) struct Flow<M> {
    pub(super) at: Time,
    /// In the order of entry; a duplicate has the number of its original.
    pub(super) sequence: u64,
    pub(super) datagram: Datagram<M>,
}

/// An effect on what passes.
#[derive(Debug)]
pub(super) enum Node<M> {
    Mtu(usize),
    /// Clears ECN bits.
    Bleach,
    /// Drops what has any.
    DropMarked,
    Queue(queue::Queue<M>),
    Blackout(Vec<Blackout>),
    Outage(loss::Outage),
    Burst(loss::Chain),
    Loss(loss::Loss),
    Corrupt(mangle::Corrupt),
    Duplicate(mangle::Duplicate),
    Reorder(reorder::Reorder<M>),
    Delay(delay::Delay<M>),
}

impl<M: Meta> Node<M> {
    /// Takes what comes at `flow.at`; what leaves at once goes to `out`.
    pub(super) fn push(&mut self, mut flow: Flow<M>, stats: &mut LinkStats, out: &mut Vec<Flow<M>>) {
        let dropped = match self {
            Self::Mtu(mtu) => (flow.datagram.payload.len() > *mtu).then_some(&mut stats.dropped_mtu),
            Self::Bleach => {
                flow.datagram.meta.set_ecn(0);
                None
            }
            Self::DropMarked => (flow.datagram.meta.ecn() != 0).then_some(&mut stats.dropped_ecn),
            Self::Blackout(windows) => {
                windows.iter().any(|window| window.covers(flow.at)).then_some(&mut stats.dropped_blackout)
            }
            Self::Outage(outage) => outage.drops(flow.at).then_some(&mut stats.dropped_burst),
            Self::Burst(chain) => chain.drops().then_some(&mut stats.dropped_burst),
            Self::Loss(loss) => loss.drops().then_some(&mut stats.dropped_loss),
            Self::Queue(queue) => return queue.push(flow, stats),
            Self::Corrupt(corrupt) => return corrupt.push(flow, stats, out),
            Self::Duplicate(duplicate) => return duplicate.push(flow, stats, out),
            Self::Reorder(reorder) => return reorder.push(flow, out),
            Self::Delay(delay) => return delay.push(flow),
        };
        match dropped {
            Some(counter) => *counter += 1,
            None => out.push(flow),
        }
    }

    /// Lets go what is due by `now`, each at its own time.
    pub(super) fn advance(&mut self, now: Time, out: &mut Vec<Flow<M>>) {
        match self {
            Self::Queue(queue) => queue.advance(now, out),
            Self::Reorder(reorder) => reorder.advance(now, out),
            Self::Delay(delay) => delay.advance(now, out),
            _ => {}
        }
    }

    /// When something is due.
    pub(super) fn next_time(&self) -> Option<Time> {
        match self {
            Self::Queue(queue) => queue.next_time(),
            Self::Reorder(reorder) => reorder.next_time(),
            Self::Delay(delay) => delay.next_time(),
            _ => None,
        }
    }
}
