//! Reading traces. A trace is input from outside: sizes, indices and times are checked, and every error says what is wrong.

use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use serde::{Deserialize, Serialize};

use super::{Patch, Trace, Transaction, generate};

/// Bytes of a trace, unpacked; the largest public one has under 50 MB.
const TRACE_BYTES_MAX: u64 = 256 << 20;
/// Transactions of a trace.
const TRANSACTIONS_MAX: usize = 4_000_000;
/// Writers of a trace: each becomes a client with its own connection.
const AGENTS_MAX: usize = 256;
/// Patches of one transaction.
const PATCHES_MAX: usize = 1 << 20;

/// Why a trace cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be read or unpacked.
    #[error("cannot read the trace: {0}")]
    Read(#[from] std::io::Error),
    /// The file is larger than [`TRACE_BYTES_MAX`].
    #[error("the trace is larger than {TRACE_BYTES_MAX} bytes")]
    TooLarge,
    /// It is not JSON of the trace format.
    #[error("not a trace: {0}")]
    Json(#[from] serde_json::Error),
    /// A count is outside its bounds.
    #[error("the trace has {count} {what}; at least {min} and at most {max} are possible")]
    Count {
        /// Of what.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// The fewest.
        min: usize,
        /// The most.
        max: usize,
    },
    /// A transaction contradicts the format.
    #[error("transaction {index}: {fault}")]
    Transaction {
        /// Which one.
        index: usize,
        /// What is wrong.
        fault: String,
    },
    /// `generate:` was not followed by three numbers in their bounds.
    #[error(
        "generate:WRITERS,OPERATIONS,SEED needs three numbers, WRITERS 1 to 64 and OPERATIONS 1 to 1000000; not {0:?}"
    )]
    Generate(String),
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct RawTrace {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start_content: Option<String>,
    end_content: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    num_agents: Option<usize>,
    txns: Vec<RawTransaction>,
}

#[derive(Deserialize, Serialize)]
struct RawTransaction {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parents: Option<Vec<u32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    agent: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    patches: Vec<(u32, u32, String)>,
}

/// Loads what `--trace` names: a file, gzip or not, or `generate:WRITERS,OPERATIONS,SEED`.
///
/// # Errors
/// [`TraceError`].
pub fn load(source: &str) -> Result<Trace, TraceError> {
    if let Some(parameters) = source.strip_prefix("generate:") {
        return generated(parameters).ok_or_else(|| TraceError::Generate(parameters.to_owned()));
    }
    let packed = bounded(std::fs::File::open(Path::new(source))?)?;
    parse(&packed)
}

/// Reads a trace from the bytes of its file, gzip or not.
///
/// # Errors
/// [`TraceError`].
pub fn parse(bytes: &[u8]) -> Result<Trace, TraceError> {
    let raw: RawTrace = if bytes.starts_with(&[0x1f, 0x8b]) {
        serde_json::from_slice(&bounded(GzDecoder::new(bytes))?)?
    } else {
        serde_json::from_slice(bytes)?
    };
    checked(raw)
}

/// Writes a trace in the public format.
///
/// # Errors
/// Never in practice: the format has nothing that JSON cannot hold.
pub fn to_json(trace: &Trace) -> Result<Vec<u8>, TraceError> {
    let txns = trace.transactions.iter().map(|transaction| RawTransaction {
        parents: trace.concurrent.then(|| transaction.parents.clone()),
        agent: trace.concurrent.then_some(usize::from(transaction.agent)),
        time: None,
        patches: transaction
            .patches
            .iter()
            .map(|patch| (patch.position, patch.deleted, patch.inserted.clone()))
            .collect(),
    });
    let raw = RawTrace {
        kind: trace.concurrent.then(|| "concurrent".to_owned()),
        start_content: (!trace.concurrent).then(String::new),
        end_content: trace.end_content.clone(),
        num_agents: trace.concurrent.then_some(usize::from(trace.agents)),
        txns: txns.collect(),
    };
    Ok(serde_json::to_vec(&raw)?)
}

fn generated(parameters: &str) -> Option<Trace> {
    let mut numbers = parameters.split(',').map(|number| number.trim().parse::<u64>().ok());
    let (writers, operations, seed) = (numbers.next()??, numbers.next()??, numbers.next()??);
    let in_bounds = (1..=64).contains(&writers) && (1..=1_000_000).contains(&operations) && numbers.next().is_none();
    in_bounds.then(|| generate(writers as u16, operations as usize, seed))
}

fn bounded(source: impl Read) -> Result<Vec<u8>, TraceError> {
    let mut bytes = Vec::new();
    source.take(TRACE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > TRACE_BYTES_MAX {
        return Err(TraceError::TooLarge);
    }
    Ok(bytes)
}

fn within(what: &'static str, count: usize, min: usize, max: usize) -> Result<(), TraceError> {
    if (min..=max).contains(&count) { Ok(()) } else { Err(TraceError::Count { what, count, min, max }) }
}

fn checked(raw: RawTrace) -> Result<Trace, TraceError> {
    let concurrent = raw.kind.as_deref() == Some("concurrent") || raw.num_agents.is_some();
    let agents = if concurrent { raw.num_agents.unwrap_or(0) } else { 1 };
    within("transactions", raw.txns.len(), 1, TRANSACTIONS_MAX)?;
    within("writers", agents, 1, AGENTS_MAX)?;
    let start = raw.start_content.unwrap_or_default();
    if concurrent && !start.is_empty() {
        return Err(TraceError::Transaction {
            index: 0,
            fault: "a concurrent trace starts from the empty document".to_owned(),
        });
    }
    let mut transactions = Vec::with_capacity(raw.txns.len() + 1);
    // The start of a sequential trace is what its writer inserts first: so it, too, travels through the system.
    if !start.is_empty() {
        let patches = vec![Patch { position: 0, deleted: 0, inserted: start }];
        transactions.push(Transaction { parents: Vec::new(), agent: 0, time_ms: 0, patches });
    }
    for (index, raw) in raw.txns.into_iter().enumerate() {
        let place = transactions.len();
        let transaction = one(raw, place, concurrent, agents);
        transactions.push(transaction.map_err(|fault| TraceError::Transaction { index, fault })?);
    }
    Ok(Trace { concurrent, agents: agents as u16, transactions, end_content: raw.end_content })
}

fn one(raw: RawTransaction, place: usize, concurrent: bool, agents: usize) -> Result<Transaction, String> {
    let (parents, agent) = if concurrent {
        (raw.parents.ok_or("it has no parents")?, raw.agent.ok_or("it has no agent")?)
    } else {
        ((place > 0).then(|| place as u32 - 1).into_iter().collect(), 0)
    };
    if agent >= agents {
        return Err(format!("its agent is {agent}, and there are {agents}"));
    }
    if let Some(parent) = parents.iter().find(|parent| **parent as usize >= place) {
        return Err(format!("its parent {parent} does not come before it"));
    }
    if raw.patches.len() > PATCHES_MAX {
        return Err(format!("it has more than {PATCHES_MAX} patches"));
    }
    let time_ms = raw.time.as_deref().map_or(Some(0), timestamp_ms).ok_or("its time is not RFC 3339")?;
    let patches = raw.patches.into_iter().map(|(position, deleted, inserted)| Patch { position, deleted, inserted });
    Ok(Transaction { parents, agent: agent as u16, time_ms, patches: patches.collect() })
}

/// Milliseconds since 1970 of an RFC 3339 time.
pub(super) fn timestamp_ms(text: &str) -> Option<i64> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let mut date = date.split('-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = rest.split_at(zone_at);
    let mut clock = clock.split(':');
    let (hour, minute) = (clock.next()?.parse::<i64>().ok()?, clock.next()?.parse::<i64>().ok()?);
    let second: f64 = clock.next()?.parse().ok()?;
    let ok = (1..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !ok || !(0..24).contains(&hour) || !(0..60).contains(&minute) || !(0.0..61.0).contains(&second) {
        return None;
    }
    let offset_minutes = match zone.split_at(1) {
        ("Z" | "z", "") => 0,
        (sign, offset) => {
            let (hours, minutes) = offset.split_once(':')?;
            let minutes = hours.parse::<i64>().ok()?.checked_mul(60)?.checked_add(minutes.parse().ok()?)?;
            if minutes.abs() > 24 * 60 {
                return None;
            }
            if sign == "-" { -minutes } else { minutes }
        }
    };
    // Days from the civil calendar, counted in years that start in March (so a leap day ends its year).
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some(((days * 24 + hour) * 60 + minute - offset_minutes) * 60_000 + (second * 1000.0) as i64)
}
