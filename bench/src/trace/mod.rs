//! Recorded editing sessions in the public editing-traces format.

mod causality;
#[cfg(test)]
mod fuzz_tests;
mod generate;
mod parse;
#[cfg(test)]
mod tests;

pub use causality::Causality;
pub use generate::generate;
pub use parse::{TraceError, load, parse, to_json};

/// One change of one transaction: at `position`, `deleted` characters go and `inserted` comes. Unicode code points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// Where, in code points.
    pub position: u32,
    /// How many code points go.
    pub deleted: u32,
    /// What comes.
    pub inserted: String,
}

/// What one writer did in one go. Its positions refer to the merge of its parents' states and nothing else; each patch to
/// the result of those before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// The transactions that it was made on top of, as indices; all smaller than its own.
    pub parents: Vec<u32>,
    /// Who made it.
    pub agent: u16,
    /// When, in milliseconds since 1970; 0 if the trace does not say.
    pub time_ms: i64,
    /// What it changes, in order.
    pub patches: Vec<Patch>,
}

/// An editing session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Several writers, whose transactions name their parents; else one writer, in order.
    pub concurrent: bool,
    /// How many writers there are.
    pub agents: u16,
    /// What they did, parents first.
    pub transactions: Vec<Transaction>,
    /// What everybody must hold in the end.
    pub end_content: String,
}

impl Trace {
    /// Whether every character is one UTF-16 unit, so that code points and UTF-16 units count the same.
    pub fn is_basic_plane(&self) -> bool {
        let patches = self.transactions.iter().flat_map(|transaction| &transaction.patches);
        patches.flat_map(|patch| patch.inserted.chars()).all(|character| character.len_utf16() == 1)
    }
}
