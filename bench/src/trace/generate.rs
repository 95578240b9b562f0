//! Made-up concurrent traces whose merge nobody can dispute.
//!
//! Every writer types in a paragraph of its own, which starts with a heading that is never deleted, and now and then
//! deletes characters anywhere: so no two writers ever insert at the same place, and every correct merge ends equal.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Patch, Trace, Transaction};

const LETTERS: &[char] =
    &['a', 'b', 'e', 'i', 'n', 'o', 'r', 's', 't', ' ', ' ', ',', '\n', 'ä', 'é', 'ß', '中', '🦀', '𝄞'];
/// How often a writer takes in what another has done before it goes on.
const MERGE_PERCENT: u32 = 12;

struct Character {
    letter: char,
    agent: u16,
    sequence: u32,
    deleters: Vec<(u16, u32)>,
    region: u16,
    heading: bool,
}

struct Writer {
    frontier: Vec<u32>,
    last: u32,
}

/// Makes a trace of `writers` (1 to 64) with `operations` transactions in all, the same for the same seed.
pub fn generate(writers: u16, operations: usize, seed: u64) -> Trace {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut text, headings) = headings(writers);
    let first = Patch { position: 0, deleted: 0, inserted: headings };
    let mut transactions = vec![Transaction { parents: Vec::new(), agent: 0, time_ms: 0, patches: vec![first] }];
    let mut counts = vec![0u32; usize::from(writers)];
    counts[0] = 1;
    let mut states: Vec<Writer> = (0..writers).map(|_| Writer { frontier: counts.clone(), last: 0 }).collect();
    while transactions.len() < operations {
        let agent = random.random_range(0..writers);
        let mut parents = vec![states[usize::from(agent)].last];
        if writers > 1 && random.random_range(0..100) < MERGE_PERCENT {
            let other = (agent + random.random_range(1..writers)) % writers;
            parents = merge(&mut states, &transactions, agent, other);
        }
        let sequence = counts[usize::from(agent)];
        let patches = (0..random.random_range(1..=2u32)).map(|_| {
            let patch = edit(&mut text, &states[usize::from(agent)].frontier, (agent, sequence), &mut random);
            // A transaction's later patches see its earlier ones.
            states[usize::from(agent)].frontier[usize::from(agent)] = sequence + 1;
            patch
        });
        let patches = patches.collect();
        counts[usize::from(agent)] += 1;
        states[usize::from(agent)].last = transactions.len() as u32;
        transactions.push(Transaction { parents, agent, time_ms: 20 * transactions.len() as i64, patches });
    }
    let end_content = text.iter().filter(|entry| visible(entry, &counts)).map(|entry| entry.letter).collect();
    Trace { concurrent: true, agents: writers, transactions, end_content }
}

fn headings(writers: u16) -> (Vec<Character>, String) {
    let mut text = Vec::new();
    for region in 0..writers {
        for letter in format!("\n# Writer {region}\n").chars() {
            text.push(Character { letter, agent: 0, sequence: 0, deleters: Vec::new(), region, heading: true });
        }
    }
    let all = text.iter().map(|entry| entry.letter).collect();
    (text, all)
}

/// The writer takes in all that `other` has; gives the parents of its next transaction.
fn merge(states: &mut [Writer], transactions: &[Transaction], agent: u16, other: u16) -> Vec<u32> {
    let theirs = (states[usize::from(other)].frontier.clone(), states[usize::from(other)].last);
    let mine = &mut states[usize::from(agent)];
    let last_agent = usize::from(transactions[theirs.1 as usize].agent);
    let known = mine.frontier[last_agent] >= theirs.0[last_agent];
    let contained = theirs.0[usize::from(agent)] >= mine.frontier[usize::from(agent)];
    for (have, new) in mine.frontier.iter_mut().zip(&theirs.0) {
        *have = (*have).max(*new);
    }
    match (known, contained) {
        (true, _) => vec![mine.last],
        (false, true) => vec![theirs.1],
        (false, false) => vec![mine.last, theirs.1],
    }
}

fn visible(entry: &Character, frontier: &[u32]) -> bool {
    let seen = |(agent, sequence): (u16, u32)| sequence < frontier[usize::from(agent)];
    seen((entry.agent, entry.sequence)) && !entry.deleters.iter().any(|deleter| seen(*deleter))
}

/// One edit of a writer in the state that it has seen: typing in its own paragraph, or deleting anywhere.
fn edit(text: &mut Vec<Character>, frontier: &[u32], (agent, sequence): (u16, u32), random: &mut StdRng) -> Patch {
    let shown: Vec<usize> = (0..text.len()).filter(|index| visible(&text[*index], frontier)).collect();
    if random.random_range(0..100) < 22 {
        let body = |at: &usize| !text[shown[*at]].heading;
        let places: Vec<usize> = (0..shown.len()).filter(body).collect();
        if !places.is_empty() {
            let position = places[random.random_range(0..places.len())];
            let length = random.random_range(1..=4usize);
            let run = shown[position..].iter().take(length).take_while(|index| !text[**index].heading).count();
            for index in &shown[position..position + run] {
                text[*index].deleters.push((agent, sequence));
            }
            return Patch { position: position as u32, deleted: run as u32, inserted: String::new() };
        }
    }
    // After any character of the own paragraph but within the heading: its last character stands at the end of the heading.
    let mut places: Vec<usize> = (0..shown.len()).filter(|at| text[shown[*at]].region == agent).collect();
    let headings = places.iter().filter(|at| text[shown[**at]].heading).count();
    places.drain(..headings.saturating_sub(1));
    let left = places[random.random_range(0..places.len())];
    let inserted: String =
        (0..random.random_range(1..=3usize)).map(|_| LETTERS[random.random_range(0..LETTERS.len())]).collect();
    let entry = |letter| Character { letter, agent, sequence, deleters: Vec::new(), region: agent, heading: false };
    let at = shown[left] + 1;
    text.splice(at..at, inserted.chars().map(entry));
    Patch { position: left as u32 + 1, deleted: 0, inserted }
}
