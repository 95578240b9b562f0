//! Which sessions live with which connection: the one that each came in by, until it is heard of by another.
//!
//! The statistics of a session over Quantum are its connection's, read when the session is and 100 ms old at most. When a
//! connection ends, what it had done is kept with its sessions, and those that lived with it idle or end ([`OnDisconnect`]). A
//! service that stops leaves its sessions as they are: their clients are about to come back.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use metrics::gauge;
use proto::session as pb;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::model::{Session, SessionChange};
use super::store::SessionStore;
use crate::clock::{self, UnixMicros};
use crate::store::StoreError;
use crate::up::Caller;

/// Sessions of one connection that are known to be its own; of more, the oldest live by their heartbeats alone.
const SESSIONS_MAX: usize = 1024;
/// Writes at once after the ends of connections, however many of them end.
const WRITES_MAX: usize = 64;
/// A shard that is busy for longer holds up nobody who reads a session: its statistics are then those that are kept.
const STATISTICS_TIME: Duration = Duration::from_millis(250);
/// How old statistics may be: whoever reads sessions often does not ask a shard each time.
const STATISTICS_AGE: Duration = Duration::from_millis(100);
/// The least and the greatest time between attempts to write while the store is down.
const RETRY_INTERVALS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// What could not be written for so long is left to the session's own end.
const RETRY_TIME: Duration = Duration::from_mins(10);

/// What becomes of the sessions of a connection that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDisconnect {
    /// They idle until they are heard of again or expire.
    #[default]
    Idle,
    /// They end.
    End,
    /// They stay as they are.
    Keep,
}

/// The open connections and their sessions.
pub struct Connections {
    tables: Mutex<Tables>,
    opened: mpsc::UnboundedSender<Caller>,
}

/// Connections whose ends are to be watched for.
pub struct Opened(mpsc::UnboundedReceiver<Caller>);

#[derive(Default)]
struct Tables {
    open: HashMap<Uuid, Open>,
    /// The connections of sessions.
    of_sessions: HashMap<Uuid, Uuid>,
}

struct Open {
    caller: Caller,
    /// What it had done, and when that was read.
    stats: Option<(Instant, pb::SessionStats)>,
    /// By age, as their ids are. True: it lives with the connection. False: it was heard of by another one.
    sessions: BTreeMap<Uuid, bool>,
}

impl Connections {
    /// None yet. They are watched by [`watch`].
    pub fn new() -> (Arc<Self>, Opened) {
        let (opened, to_watch) = mpsc::unbounded_channel();
        (Arc::new(Self { tables: Mutex::default(), opened }), Opened(to_watch))
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session came in by this connection.
    pub(super) fn attach(&self, session_id: Uuid, caller: &Caller) {
        let id = caller.id();
        let mut tables = self.tables();
        let Tables { open, of_sessions } = &mut *tables;
        let connection = open.entry(id).or_insert_with(|| {
            // Nobody watches any more once the service stops.
            let _ = self.opened.send(caller.clone());
            Open { caller: caller.clone(), stats: None, sessions: BTreeMap::new() }
        });
        connection.sessions.insert(session_id, true);
        of_sessions.insert(session_id, id);
        if connection.sessions.len() > SESSIONS_MAX
            && let Some((oldest, _)) = connection.sessions.pop_first()
        {
            of_sessions.remove(&oldest);
        }
    }

    /// A session was heard of by this connection.
    pub(super) fn hear(&self, session_id: Uuid, caller: Option<&Caller>) {
        let mut tables = self.tables();
        let Some(id) = tables.of_sessions.get(&session_id).copied() else { return };
        let lives_with = tables.open.get_mut(&id).and_then(|open| open.sessions.get_mut(&session_id));
        if let Some(lives_with) = lives_with {
            *lives_with = caller.is_some_and(|caller| caller.id() == id);
        }
    }

    /// A session is gone.
    pub(super) fn forget(&self, session_id: Uuid) {
        let mut tables = self.tables();
        let Some(id) = tables.of_sessions.remove(&session_id) else { return };
        if let Some(open) = tables.open.get_mut(&id) {
            open.sessions.remove(&session_id);
        }
    }

    /// Gives sessions the statistics that their connections have at the moment, or had a moment ago.
    pub(super) async fn refresh(&self, sessions: &mut [Session]) {
        let mut read = HashMap::new();
        let mut to_ask = Vec::new();
        {
            let tables = self.tables();
            let ids: HashSet<Uuid> = sessions.iter().map(|session| session.connection_id).collect();
            for id in ids {
                let Some(open) = tables.open.get(&id) else { continue };
                if let Some((at, stats)) = open.stats
                    && at.elapsed() < STATISTICS_AGE
                {
                    read.insert(id, stats);
                } else {
                    to_ask.push(open.caller.clone());
                }
            }
        }
        if !to_ask.is_empty() {
            read.extend(self.ask(&to_ask).await);
        }
        for session in sessions {
            if let Some(stats) = read.get(&session.connection_id) {
                session.stats = *stats;
            }
        }
    }

    /// The statistics of those connections that have any and say so in time.
    async fn ask(&self, callers: &[Caller]) -> HashMap<Uuid, pb::SessionStats> {
        let asked = callers.iter().map(|caller| async move {
            let stats = tokio::time::timeout(STATISTICS_TIME, caller.statistics()).await.ok().flatten()?;
            Some((caller.id(), stats))
        });
        let read: HashMap<Uuid, pb::SessionStats> = join_all(asked).await.into_iter().flatten().collect();
        let now = Instant::now();
        let mut tables = self.tables();
        for (id, stats) in &read {
            if let Some(open) = tables.open.get_mut(id) {
                open.stats = Some((now, *stats));
            }
        }
        read
    }

    /// The sessions of a connection that has ended, each time those that have come since. Once there are none it is forgotten:
    /// until then its statistics are its last ones.
    fn take(&self, id: Uuid) -> Option<BTreeMap<Uuid, bool>> {
        let mut tables = self.tables();
        let Tables { open, of_sessions } = &mut *tables;
        let sessions = std::mem::take(&mut open.get_mut(&id)?.sessions);
        if sessions.is_empty() {
            open.remove(&id);
            return None;
        }
        for session_id in sessions.keys() {
            of_sessions.remove(session_id);
        }
        Some(sessions)
    }
}

/// What the ends of connections need.
struct Ends {
    connections: Arc<Connections>,
    store: Arc<dyn SessionStore>,
    then: OnDisconnect,
    writes: Semaphore,
}

/// Does to sessions what the ends of their connections mean, until `stop`.
pub async fn watch(
    connections: Arc<Connections>,
    mut opened: Opened,
    store: Arc<dyn SessionStore>,
    then: OnDisconnect,
    stop: CancellationToken,
) {
    let ends = Arc::new(Ends { connections, store, then, writes: Semaphore::new(WRITES_MAX) });
    let mut watched = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(caller) = opened.0.recv() => {
                let (ends, stop) = (Arc::clone(&ends), stop.clone());
                watched.spawn(async move {
                    caller.closed().await;
                    // The service closes its connections when it stops.
                    if !stop.is_cancelled() {
                        ends.end(&caller).await;
                    }
                });
            }
            Some(_) = watched.join_next(), if !watched.is_empty() => {}
        }
    }
}

/// How a connection ended.
#[derive(Clone, Copy)]
struct End {
    at: UnixMicros,
    stats: Option<pb::SessionStats>,
}

impl Ends {
    async fn end(&self, caller: &Caller) {
        let end = End { at: clock::now(), stats: caller.statistics().await };
        while let Some(sessions) = self.connections.take(caller.id()) {
            tracing::debug!(connection = %caller.id(), sessions = sessions.len(), "a connection with sessions has ended");
            let each = futures_util::stream::iter(sessions);
            each.for_each_concurrent(WRITES_MAX, |(id, lives_with)| self.disconnect(id, end, lives_with)).await;
        }
    }

    /// Tries until the store answers.
    async fn disconnect(&self, id: Uuid, end: End, lives_with: bool) {
        let (mut wait, longest) = RETRY_INTERVALS;
        let deadline = tokio::time::Instant::now() + RETRY_TIME;
        while let Err(error) = self.write(id, end, lives_with).await {
            if tokio::time::Instant::now() > deadline || !matches!(error, StoreError::Failed(_)) {
                tracing::warn!(%error, session = %id, "the end of a session's connection was not written");
                return;
            }
            tokio::time::sleep(wait).await;
            wait = (2 * wait).min(longest);
        }
    }

    async fn write(&self, id: Uuid, end: End, lives_with: bool) -> Result<(), StoreError> {
        let _permit = self.writes.acquire().await;
        let now = clock::now();
        if lives_with && self.then == OnDisconnect::End {
            let was_heard_of = |session: Session| session.last_active_at > end.at;
            let stays = self.store.get(id, now).await?.is_none_or(was_heard_of);
            if !stays && self.store.delete(id, now).await? {
                gauge!("session_active").decrement(1);
            }
            return Ok(());
        }
        let idles_at = (lives_with && self.then == OnDisconnect::Idle).then_some(end.at);
        if idles_at.is_some() || end.stats.is_some() {
            let change = SessionChange::Disconnect { stats: end.stats, idles_at };
            self.store.change(id, change, now).await?;
        }
        Ok(())
    }
}
