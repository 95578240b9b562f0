//! Who had seen what: the ancestors of every transaction.

use super::{Trace, TraceError};

/// Entries of the table of ancestors (transactions x writers), 4 bytes each.
const ENTRIES_MAX: usize = 64 << 20;

/// The ancestors of every transaction, as one number per writer.
///
/// A writer's transactions are in order (each is an ancestor of its next), so the ancestors of a transaction are the first
/// so many of each writer's: its frontier.
#[derive(Debug)]
pub struct Causality {
    agents: usize,
    frontiers: Vec<u32>,
    own: Vec<Vec<u32>>,
    crosses: Vec<bool>,
}

impl Causality {
    /// Works out the ancestors.
    ///
    /// # Errors
    /// If a writer's transactions are not in order, or the table would be too large.
    pub fn new(trace: &Trace) -> Result<Self, TraceError> {
        let (agents, count) = (usize::from(trace.agents), trace.transactions.len());
        if agents * count > ENTRIES_MAX {
            let what = "pairs of transaction and writer";
            return Err(TraceError::Count { what, count: agents * count, min: 1, max: ENTRIES_MAX });
        }
        let mut frontiers = vec![0u32; agents * count];
        let mut own: Vec<Vec<u32>> = vec![Vec::new(); agents];
        let mut crosses = vec![false; count];
        let mut sequences = Vec::with_capacity(count);
        for (index, transaction) in trace.transactions.iter().enumerate() {
            let agent = usize::from(transaction.agent);
            let (before, rest) = frontiers.split_at_mut(index * agents);
            let frontier = &mut rest[..agents];
            for parent in transaction.parents.iter().map(|parent| *parent as usize) {
                let parent_agent = usize::from(trace.transactions[parent].agent);
                for (mine, theirs) in frontier.iter_mut().zip(&before[parent * agents..]) {
                    *mine = (*mine).max(*theirs);
                }
                frontier[parent_agent] = frontier[parent_agent].max(sequences[parent] + 1);
                crosses[parent] |= parent_agent != agent;
            }
            if frontier[agent] as usize != own[agent].len() {
                let fault = format!("writer {agent} had not seen its own transaction before it");
                return Err(TraceError::Transaction { index, fault });
            }
            sequences.push(own[agent].len() as u32);
            own[agent].push(index as u32);
        }
        Ok(Self { agents, frontiers, own, crosses })
    }

    /// How many of each writer's transactions are ancestors of a transaction.
    pub fn frontier(&self, transaction: u32) -> &[u32] {
        &self.frontiers[transaction as usize * self.agents..][..self.agents]
    }

    /// A writer's transactions, in order.
    pub fn own(&self, agent: u16) -> &[u32] {
        &self.own[usize::from(agent)]
    }

    /// Whether another writer built directly on the transaction: whoever receives it must be able to stop right after it.
    /// (The last of a writer's transactions that another's transaction has seen is always a direct parent of some
    /// transaction of another writer; so no transaction without this mark is ever the last one seen.)
    pub fn crosses(&self, transaction: u32) -> bool {
        self.crosses[transaction as usize]
    }

    /// How many transactions every writer made.
    pub fn totals(&self) -> Vec<u32> {
        self.own.iter().map(|own| own.len() as u32).collect()
    }
}
