//! What one writer holds of one document: a state that it has read, behind the others', and what it has made of it.

use std::collections::VecDeque;

use anyhow::{Context, ensure};
use proto::statesync::OperationEvent;
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::Value;

use super::Target;
use super::items::{self, Items};
use super::text;

/// How often a writer stays with the state that it has, although it could read a later one.
const STAY_PERCENT: u32 = 40;

/// A document's content.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Content {
    Text(Vec<char>),
    Items(Items),
}

impl Content {
    /// What a document of this type starts with.
    pub(super) fn initial(kind: &str) -> Self {
        if kind == "text" { Self::Text(Vec::new()) } else { Self::Items(Items::initial(kind)) }
    }

    /// Makes a logged operation, whose positions refer to the state before it.
    pub(super) fn apply(&mut self, kind: &str, data: &[u8]) -> anyhow::Result<()> {
        let data: Value = serde_json::from_slice(data).context("an operation's data is not JSON")?;
        match self {
            // A mark changes no letter.
            Self::Text(_) if kind == "style" => Ok(()),
            Self::Text(text) => text::edits(&data)?.iter().try_for_each(|edit| text::apply(text, edit)),
            Self::Items(items) => items.apply(kind, &items::changes(&data)?),
        }
    }

    /// Makes a random operation: its type and data.
    fn operation(
        &mut self,
        target: &Target,
        number: u32,
        random: &mut StdRng,
    ) -> anyhow::Result<(&'static str, Value)> {
        match self {
            // Where overlaps are judged, an operation has one edit.
            Self::Text(text) => Ok(text::operation(text, if target.rule == "merge" { 2 } else { 1 }, random)),
            Self::Items(items) => {
                let (kind, data) = items.operation(number, random);
                items.apply(kind, &items::changes(&data)?)?;
                Ok((kind, data))
            }
        }
    }

    /// Whether it is the content that the server gives.
    pub(super) fn is(&self, content: &[u8]) -> bool {
        match self {
            Self::Text(text) => text.iter().collect::<String>().as_bytes() == content,
            Self::Items(items) => serde_json::from_slice::<Value>(content).is_ok_and(|value| value == items.content()),
        }
    }
}

/// The state that a writer has read, and what it has made of it since.
#[derive(Debug)]
pub(super) struct Held {
    base: u64,
    at_base: Content,
    /// The state at the base, plus the writer's own operations since: what positions refer to.
    view: Content,
    /// The view before the operation that was made last.
    before: Content,
    /// The operations after the base that have arrived.
    unread: VecDeque<OperationEvent>,
    /// The last version that the writer itself made.
    own: u64,
}

impl Held {
    /// A document that was just made.
    pub(super) fn new(kind: &str) -> Self {
        let content = Content::initial(kind);
        let (at_base, view) = (content.clone(), content.clone());
        Self { base: 1, at_base, view, before: content, unread: VecDeque::new(), own: 1 }
    }

    /// Keeps an operation of anybody, in the order of the versions.
    pub(super) fn receive(&mut self, event: OperationEvent) {
        self.unread.push_back(event);
    }

    /// Takes in what has arrived up to `version`.
    fn read(&mut self, version: u64) -> anyhow::Result<()> {
        while let Some(event) = self.unread.pop_front_if(|event| event.version <= version) {
            let operation = event.operation.context("an event without its operation")?;
            let applied = self.at_base.apply(&operation.r#type, &operation.data);
            applied.with_context(|| format!("version {}", event.version))?;
            self.base = event.version;
        }
        self.view = self.at_base.clone();
        Ok(())
    }

    /// Makes a random operation on the state that was read last, or on a later one; gives its base, type and data.
    pub(super) fn operation(
        &mut self,
        target: &Target,
        number: u32,
        random: &mut StdRng,
    ) -> anyhow::Result<(u64, &'static str, Value)> {
        let newest = self.unread.back().map_or(self.base, |event| event.version);
        // Before its own last operation has come back it cannot tell where that stands between those of others.
        let oldest = self.own.max(self.base);
        if newest >= oldest && random.random_range(0..100) >= STAY_PERCENT {
            self.read(random.random_range(oldest..=newest))?;
        }
        self.before.clone_from(&self.view);
        let (kind, data) = self.view.operation(target, number, random)?;
        Ok((self.base, kind, data))
    }

    /// The operation that was made last is this version.
    pub(super) fn made(&mut self, version: u64) {
        self.own = self.own.max(version);
    }

    /// The operation that was made last was not taken: the writer sees what it saw before.
    pub(super) fn undo(&mut self) {
        self.view.clone_from(&self.before);
    }

    /// Takes in everything that has arrived, and gives it.
    pub(super) fn finish(mut self, version: u64) -> anyhow::Result<Content> {
        self.read(version)?;
        ensure!(self.base == version && self.unread.is_empty(), "it stands at version {}, not {version}", self.base);
        Ok(self.at_base)
    }
}
