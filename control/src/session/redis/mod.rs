//! Sessions in Redis.
//!
//! A change reads a session, makes the new one here and puts it in place of the old one if that is still there, by one script
//! together with all indexes: nothing is lost to a change at the same time, and no index can drift. Redis has to be 6.2 or
//! later (`PXAT` of SET, `ZINTER`); clients of a cluster's other nodes are not redirected.

mod connections;
mod record;
mod scripts;

use std::fmt;
use std::time::Duration;

use proto::session as pb;
use redis::{AsyncCommands, Script, ScriptInvocation};
use uuid::Uuid;

use connections::Connections;

use super::model::{Session, SessionChange};
use super::store::{Changed, SessionCounts, SessionFilter, SessionStore};
use crate::clock::UnixMicros;
use crate::store::StoreError;

/// Times that a change is tried because somebody else changed the session in between. Whenever one fails another one
/// has succeeded, so this is more than the changes of one session that are ever under way at once.
const TRIES: usize = 256;
/// Expired sessions that are taken out of the indexes at once.
const PRUNED_TOGETHER: isize = 256;
/// How long the probe of readiness stays, in milliseconds.
const PROBE_MS: u64 = 60_000;
/// Sessions that are read at once.
const READ_TOGETHER: usize = 1000;

/// Where Redis is, and how long to wait for it.
#[derive(Clone)]
pub struct RedisOptions {
    /// `host:port`.
    pub address: String,
    /// Empty: none.
    pub password: String,
    /// The number of the database.
    pub database: i64,
    /// What all keys begin with. In a cluster it holds a hash tag, such as `{aetherflow}:`.
    pub key_prefix: String,
    /// Connections, which calls take in turn; each carries any number of calls at once.
    pub connections: usize,
    /// Times that a connection is tried again.
    pub retries: usize,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long a call may take, with connecting again if it comes to that.
    pub response_timeout: Duration,
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the password.
        let mut options = formatter.debug_struct("RedisOptions");
        options.field("address", &self.address).field("database", &self.database).finish_non_exhaustive()
    }
}

/// Sessions in a Redis server.
pub struct RedisSessions {
    connections: Connections,
    keys: Keys,
    insert: Script,
    replace: Script,
    delete: Script,
    prune: Script,
}

/// The names of keys.
struct Keys {
    prefix: String,
}

impl Keys {
    fn session(&self, id: Uuid) -> String {
        format!("{}session:{id}", self.prefix)
    }

    fn connection(&self, connection_id: Uuid) -> String {
        format!("{}conn_idx:{connection_id}", self.prefix)
    }

    fn user(&self, user_id: &str) -> String {
        format!("{}user_idx:{user_id}", self.prefix)
    }

    fn state(&self, state: i32) -> String {
        format!("{}sessions:state:{state}", self.prefix)
    }

    fn all(&self) -> String {
        format!("{}sessions:all", self.prefix)
    }

    /// What is written to see whether Redis takes writes.
    fn probe(&self) -> String {
        format!("{}sessions:probe", self.prefix)
    }

    fn expiry(&self) -> String {
        format!("{}sessions:expiry", self.prefix)
    }
}

/// What the set by expiry has of a session: enough to find it in the others.
fn member(session: &Session) -> String {
    format!("{} {} {}", session.id, i32::from(session.state), session.user_id)
}

/// Id, state and user of a member.
fn parts(member: &str) -> Option<(Uuid, i32, &str)> {
    let (id, rest) = member.split_once(' ')?;
    let (state, user_id) = rest.split_once(' ')?;
    Some((Uuid::try_parse(id).ok()?, state.parse().ok()?, user_id))
}

impl RedisSessions {
    /// Connects, and keeps connecting whenever the connection is lost.
    ///
    /// # Errors
    /// [`StoreError::Failed`] if Redis does not answer, holds other things under these names, or is a cluster for which the
    /// keys' prefix is not made.
    pub async fn connect(options: &RedisOptions) -> Result<Self, StoreError> {
        let sessions = Self {
            connections: Connections::open(options).await?,
            keys: Keys { prefix: options.key_prefix.clone() },
            insert: Script::new(scripts::INSERT),
            replace: Script::new(scripts::REPLACE),
            delete: Script::new(scripts::DELETE),
            prune: Script::new(scripts::PRUNE),
        };
        sessions.check_cluster().await?;
        sessions.check_kind().await?;
        if let Some(warning) = durability_warning(&sessions.info("persistence").await?) {
            tracing::warn!("{warning}");
        }
        Ok(sessions)
    }

    /// What a script gives.
    async fn script<T: redis::FromRedisValue + Send>(&self, script: &ScriptInvocation<'_>) -> Result<T, StoreError> {
        self.connections.run(|mut connection| async move { script.invoke_async(&mut connection).await }).await
    }

    async fn info(&self, section: &str) -> Result<String, StoreError> {
        let info = |mut connection| async move { redis::cmd("INFO").arg(section).query_async(&mut connection).await };
        self.connections.run(info).await
    }

    /// In a cluster all keys have to be in one slot.
    async fn check_cluster(&self) -> Result<(), StoreError> {
        let has_tag = self.keys.prefix.find('{').is_some_and(|start| {
            let rest = &self.keys.prefix[start + 1..];
            rest.find('}').is_some_and(|end| end > 0)
        });
        if has_tag || !self.info("cluster").await?.contains("cluster_enabled:1") {
            return Ok(());
        }
        let remedy = "set Store.Redis.KeyPrefix to something with a hash tag, such as {aetherflow}:, so that all keys \
                      are in one slot, and Store.Redis.Addr to the node that has it";
        Err(StoreError::Failed(format!("Redis is a cluster: {remedy}")))
    }

    /// What is there already has to be of this program. A node of a cluster that does not have the slot says so here.
    async fn check_kind(&self) -> Result<(), StoreError> {
        for key in [self.keys.all(), self.keys.expiry()] {
            let named = &key;
            let kind = |mut connection| async move { redis::cmd("TYPE").arg(named).query_async(&mut connection).await };
            let kind: String = self.connections.run(kind).await?;
            if kind != "none" && kind != "zset" {
                let remedy = "set Store.Redis.DB or Store.Redis.KeyPrefix to something else";
                return Err(StoreError::Failed(format!("Redis has a {kind} of another program at {key}: {remedy}")));
            }
        }
        Ok(())
    }

    /// The session with its stored form, if it lives.
    async fn read(&self, id: Uuid, now: UnixMicros) -> Result<Option<(String, Session)>, StoreError> {
        let key = self.keys.session(id);
        let stored: Option<String> =
            self.connections.run(|mut connection| async move { connection.get(key).await }).await?;
        let Some(stored) = stored else { return Ok(None) };
        let session = record::decode(&stored)?;
        Ok((session.expires_at > now).then_some((stored, session)))
    }

    async fn put(&self, stored: &str, before: &Session, after: &Session) -> Result<bool, StoreError> {
        let mut script = self.replace.prepare_invoke();
        script
            .key(self.keys.session(after.id))
            .key(self.keys.connection(after.connection_id))
            .key(self.keys.state(before.state.into()))
            .key(self.keys.state(after.state.into()))
            .key(self.keys.expiry())
            .arg(stored)
            .arg(record::encode(after))
            .arg(after.id.to_string())
            .arg(after.created_at.0)
            .arg(after.expires_at.0)
            .arg(millis(after.expires_at))
            .arg(member(before))
            .arg(member(after));
        let replaced: i32 = self.script(&script).await?;
        Ok(replaced == 1)
    }

    /// Takes what has expired out of the indexes.
    async fn prune(&self, now: UnixMicros) -> Result<(), StoreError> {
        loop {
            let key = self.keys.expiry();
            let expired = |mut connection: redis::aio::ConnectionManager| async move {
                connection.zrangebyscore_limit(key, "-inf", now.0, 0, PRUNED_TOGETHER).await
            };
            let expired: Vec<String> = self.connections.run(expired).await?;
            if expired.is_empty() {
                return Ok(());
            }
            let mut script = self.prune.prepare_invoke();
            script.key(self.keys.all()).key(self.keys.expiry()).arg(now.0);
            for member in &expired {
                // What is not a member is none of a session; it goes.
                let (id, state, user_id) = parts(member).unwrap_or_default();
                script.key(self.keys.session(id)).key(self.keys.user(user_id)).key(self.keys.state(state));
                script.arg(id.to_string()).arg(member);
            }
            let _: i32 = self.script(&script).await?;
            if expired.len() < PRUNED_TOGETHER as usize {
                return Ok(());
            }
        }
    }

    /// The ids that match, by creation, and how many there are: those of one page, and of a user all.
    async fn matching(&self, filter: &SessionFilter) -> Result<(Vec<String>, u64), StoreError> {
        let (first, last) = (filter.offset as isize, (filter.offset + u64::from(filter.limit)) as isize - 1);
        let state = filter.state.map(|state| self.keys.state(state.into()));
        let set = match (filter.user_id.is_empty(), state) {
            (true, None) => self.keys.all(),
            (true, Some(state)) => state,
            (false, None) => self.keys.user(&filter.user_id),
            (false, Some(state)) => {
                // Scores are times of creation in both sets: the greater one of equals is the same.
                let user = self.keys.user(&filter.user_id);
                let mut both = redis::cmd("ZINTER");
                both.arg(2).arg(user).arg(state).arg("AGGREGATE").arg("MAX");
                let both = |mut connection| async move { both.query_async(&mut connection).await };
                let ids: Vec<String> = self.connections.run(both).await?;
                let total = ids.len() as u64;
                let page = ids.into_iter().skip(filter.offset as usize).take(filter.limit as usize);
                return Ok((page.collect(), total));
            }
        };
        let mut page = redis::pipe();
        page.atomic().zcard(&set);
        if filter.limit == 0 {
            let total = |mut connection| async move { page.query_async(&mut connection).await };
            let (total,): (u64,) = self.connections.run(total).await?;
            return Ok((Vec::new(), total));
        }
        page.zrange(&set, first, last);
        let page = |mut connection| async move { page.query_async(&mut connection).await };
        let (total, ids): (u64, Vec<String>) = self.connections.run(page).await?;
        Ok((ids, total))
    }
}

/// Milliseconds, rounded up: Redis must not drop a session that lives.
fn millis(time: UnixMicros) -> i64 {
    time.0.div_euclid(1000) + 1
}

/// What an operator should know of how durable the sessions are, by what Redis says of its persistence.
fn durability_warning(persistence: &str) -> Option<String> {
    let warning = "Redis keeps no append-only file: sessions that were acknowledged are lost if it crashes. \
                   Set appendonly yes there";
    (!persistence.contains("aof_enabled:1")).then(|| warning.to_owned())
}

#[tonic::async_trait]
impl SessionStore for RedisSessions {
    async fn insert(&self, session: Session) -> Result<(), StoreError> {
        let mut script = self.insert.prepare_invoke();
        script
            .key(self.keys.session(session.id))
            .key(self.keys.connection(session.connection_id))
            .key(self.keys.user(&session.user_id))
            .key(self.keys.state(session.state.into()))
            .key(self.keys.all())
            .key(self.keys.expiry())
            .arg(record::encode(&session))
            .arg(session.id.to_string())
            .arg(session.created_at.0)
            .arg(session.expires_at.0)
            .arg(millis(session.expires_at))
            .arg(member(&session));
        let inserted: i32 = self.script(&script).await?;
        if inserted == 1 { Ok(()) } else { Err(StoreError::Failed("a session with this id exists".to_owned())) }
    }

    async fn get(&self, id: Uuid, now: UnixMicros) -> Result<Option<Session>, StoreError> {
        Ok(self.read(id, now).await?.map(|(_, session)| session))
    }

    async fn get_by_connection(&self, connection_id: Uuid, now: UnixMicros) -> Result<Option<Session>, StoreError> {
        let key = self.keys.connection(connection_id);
        let id: Option<String> =
            self.connections.run(|mut connection| async move { connection.get(key).await }).await?;
        match id.and_then(|id| Uuid::try_parse(&id).ok()) {
            Some(id) => self.get(id, now).await,
            None => Ok(None),
        }
    }

    async fn change(&self, id: Uuid, change: SessionChange, now: UnixMicros) -> Result<Changed, StoreError> {
        for _ in 0..TRIES {
            let Some((stored, session)) = self.read(id, now).await? else { return Ok(Changed::Missing) };
            let changed = match change.apply(&session, now) {
                Ok(changed) => changed,
                Err(refused) => return Ok(Changed::Refused(refused)),
            };
            if self.put(&stored, &session, &changed).await? {
                return Ok(Changed::Session(Box::new(changed)));
            }
        }
        Err(StoreError::Failed("Redis: a session changed too often at once".to_owned()))
    }

    async fn delete(&self, id: Uuid, now: UnixMicros) -> Result<bool, StoreError> {
        for _ in 0..TRIES {
            let Some((stored, session)) = self.read(id, now).await? else { return Ok(false) };
            let mut script = self.delete.prepare_invoke();
            script
                .key(self.keys.session(id))
                .key(self.keys.connection(session.connection_id))
                .key(self.keys.user(&session.user_id))
                .key(self.keys.state(session.state.into()))
                .key(self.keys.all())
                .key(self.keys.expiry())
                .arg(&stored)
                .arg(id.to_string())
                .arg(member(&session));
            let deleted: i32 = self.script(&script).await?;
            if deleted == 1 {
                return Ok(true);
            }
        }
        Err(StoreError::Failed("Redis: a session changed too often at once".to_owned()))
    }

    async fn list(&self, filter: &SessionFilter, now: UnixMicros) -> Result<(Vec<Session>, u64), StoreError> {
        self.prune(now).await?;
        let (ids, total) = self.matching(filter).await?;
        let mut sessions = Vec::with_capacity(ids.len());
        for ids in ids.chunks(READ_TOGETHER) {
            let keys: Vec<String> = ids.iter().map(|id| format!("{}session:{id}", self.keys.prefix)).collect();
            let stored = |mut connection: redis::aio::ConnectionManager| async move { connection.mget(&keys).await };
            let stored: Vec<Option<String>> = self.connections.run(stored).await?;
            for stored in stored.into_iter().flatten() {
                sessions.push(record::decode(&stored)?);
            }
        }
        Ok((sessions, total))
    }

    async fn counts(&self, now: UnixMicros) -> Result<SessionCounts, StoreError> {
        self.prune(now).await?;
        let mut pipe = redis::pipe();
        pipe.atomic().zcard(self.keys.all());
        for state in [pb::SessionState::Active, pb::SessionState::Idle] {
            pipe.zcard(self.keys.state(state.into()));
        }
        let counts = |mut connection| async move { pipe.query_async(&mut connection).await };
        let (total, active, idle): (u64, u64, u64) = self.connections.run(counts).await?;
        Ok(SessionCounts { total, active, idle })
    }

    async fn delete_expired(&self, now: UnixMicros) -> Result<(), StoreError> {
        self.prune(now).await
    }

    async fn check(&self) -> Result<Option<String>, StoreError> {
        let mut pipe = redis::pipe();
        pipe.cmd("SET").arg(self.keys.probe()).arg(1).arg("PX").arg(PROBE_MS).ignore().cmd("INFO").arg("persistence");
        let answer = |mut connection| async move { pipe.query_async(&mut connection).await };
        let (persistence,): (String,) = self.connections.run(answer).await?;
        Ok(durability_warning(&persistence))
    }
}
