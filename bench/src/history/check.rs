//! The rules of a history.

use std::collections::HashMap;

use super::{Entry, Logged};

/// The version of a document to which nobody has done anything.
const FIRST_VERSION: u64 = 1;

/// Something that cannot be, if the server keeps its promises.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The versions of the log are not dense.
    #[error("version {found} is in the log where {due} was due")]
    Gap {
        /// The version that had to be there.
        due: u64,
        /// The one that is.
        found: u64,
    },
    /// An acknowledged operation is not there.
    #[error("operation {id} was acknowledged as version {version} and is not in the log")]
    Lost {
        /// The operation.
        id: String,
        /// As which version.
        version: u64,
    },
    /// An operation was applied twice.
    #[error("operation {id} is in the log twice, as version {first} and as {second}")]
    Doubled {
        /// The operation.
        id: String,
        /// The version that it made first.
        first: u64,
        /// The version that it made again.
        second: u64,
    },
    /// An operation is not the version that somebody was told.
    #[error("operation {id} was given out as version {told} and is version {logged} in the log")]
    Moved {
        /// The operation.
        id: String,
        /// The version that a client was told.
        told: u64,
        /// The version that it has.
        logged: u64,
    },
    /// An operation that nobody sent.
    #[error("version {version} is of operation {id}, which nobody sent")]
    Unsent {
        /// The operation.
        id: String,
        /// Its version.
        version: u64,
    },
    /// An operation was refused and applied all the same.
    #[error("operation {id} was refused and is version {version}")]
    Refused {
        /// The operation.
        id: String,
        /// Its version.
        version: u64,
    },
    /// An operation stands before one that its sender had finished, or had seen, before it was sent.
    #[error("operation {id} is version {version}, and was sent when version {known} was known already")]
    Reordered {
        /// The operation.
        id: String,
        /// Its version.
        version: u64,
        /// A version that was acknowledged or seen before it was sent.
        known: u64,
    },
    /// The operations of one session are not in the order of their numbers.
    #[error("operation {id} has number {sequence} of its session and comes after number {after}")]
    SessionReordered {
        /// The operation.
        id: String,
        /// Its number.
        sequence: u64,
        /// The number before it in the log.
        after: u64,
    },
    /// A subscription left something out, gave something twice, or in another order.
    #[error("client {client} saw version {version} after version {after}")]
    SeenOutOfOrder {
        /// The client.
        client: u16,
        /// The version it saw.
        version: u64,
        /// The one it saw before.
        after: u64,
    },
    /// A subscription gave an operation that is not in the log.
    #[error("client {client} saw operation {id} as version {version}, and it is not in the log")]
    SeenLost {
        /// The client.
        client: u16,
        /// The operation.
        id: String,
        /// The version it was given out with.
        version: u64,
    },
}

/// What is known of an operation before it was sent.
struct Sent<'a> {
    session: &'a str,
    sequence: u64,
    /// The highest version that anybody had been told by then.
    known: u64,
}

/// Holds what clients took down, in its order, against the log, in the order of its versions.
pub fn check(entries: &[Entry], log: &[Logged]) -> Vec<Violation> {
    let mut found = Vec::new();
    let versions = check_versions(log, &mut found);
    let sent = check_told(entries, &versions, &mut found);
    check_senders(log, &sent, &mut found);
    found
}

/// The log alone: dense, each operation once. Gives the version of each operation.
fn check_versions<'a>(log: &'a [Logged], found: &mut Vec<Violation>) -> HashMap<&'a str, u64> {
    let mut versions = HashMap::new();
    let mut due = FIRST_VERSION + 1;
    for Logged { version, id } in log {
        if *version != due {
            found.push(Violation::Gap { due, found: *version });
        }
        due = version + 1;
        if let Some(first) = versions.insert(id.as_str(), *version) {
            found.push(Violation::Doubled { id: id.clone(), first, second: *version });
        }
    }
    versions
}

/// What clients were told against the log. Gives what is known of each operation that was sent.
fn check_told<'a>(
    entries: &'a [Entry],
    versions: &HashMap<&str, u64>,
    found: &mut Vec<Violation>,
) -> HashMap<&'a str, Sent<'a>> {
    let mut sent = HashMap::new();
    let mut known = FIRST_VERSION;
    let mut seen: HashMap<u16, u64> = HashMap::new();
    for entry in entries {
        match entry {
            Entry::Sent { id, session, sequence } => {
                // One that is sent again was on its way since the first time.
                sent.entry(id.as_str()).or_insert(Sent { session, sequence: *sequence, known });
            }
            Entry::Acknowledged { id, version } => {
                match versions.get(id.as_str()) {
                    None => found.push(Violation::Lost { id: id.clone(), version: *version }),
                    Some(logged) => check_place(id, *version, *logged, found),
                }
                known = known.max(*version);
            }
            Entry::Seen { client, id, version } => {
                match versions.get(id.as_str()) {
                    None => found.push(Violation::SeenLost { client: *client, id: id.clone(), version: *version }),
                    Some(logged) => check_place(id, *version, *logged, found),
                }
                let after = seen.insert(*client, *version).unwrap_or(FIRST_VERSION);
                if *version != after + 1 {
                    found.push(Violation::SeenOutOfOrder { client: *client, version: *version, after });
                }
                known = known.max(*version);
            }
            Entry::Refused { id } => {
                if let Some(version) = versions.get(id.as_str()) {
                    found.push(Violation::Refused { id: id.clone(), version: *version });
                }
            }
            // A decision may apply it, or not.
            Entry::Waits { .. } => {}
        }
    }
    sent
}

fn check_place(id: &str, told: u64, logged: u64, found: &mut Vec<Violation>) {
    if told != logged {
        found.push(Violation::Moved { id: id.to_owned(), told, logged });
    }
}

/// The log against who sent what after what.
fn check_senders(log: &[Logged], sent: &HashMap<&str, Sent<'_>>, found: &mut Vec<Violation>) {
    let mut last: HashMap<&str, u64> = HashMap::new();
    for Logged { version, id } in log {
        let Some(sent) = sent.get(id.as_str()) else {
            found.push(Violation::Unsent { id: id.clone(), version: *version });
            continue;
        };
        if *version <= sent.known {
            found.push(Violation::Reordered { id: id.clone(), version: *version, known: sent.known });
        }
        if sent.sequence == 0 {
            continue;
        }
        let after = last.insert(sent.session, sent.sequence).unwrap_or(0);
        if sent.sequence <= after {
            found.push(Violation::SessionReordered { id: id.clone(), sequence: sent.sequence, after });
        }
    }
}
