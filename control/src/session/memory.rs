//! Sessions in memory.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use proto::session::SessionState;
use uuid::Uuid;

use super::model::{Session, SessionChange};
use super::store::{Changed, SessionCounts, SessionFilter, SessionStore};
use crate::clock::UnixMicros;
use crate::store::StoreError;

#[derive(Default)]
struct Tables {
    sessions: HashMap<Uuid, Session>,
    connections: HashMap<Uuid, Uuid>,
    of_users: HashMap<String, BTreeSet<(UnixMicros, Uuid)>>,
    creation: BTreeSet<(UnixMicros, Uuid)>,
}

impl Tables {
    fn live(&mut self, id: Uuid, now: UnixMicros) -> Option<&mut Session> {
        self.sessions.get_mut(&id).filter(|session| session.expires_at > now)
    }

    fn insert(&mut self, session: Session) {
        let key = (session.created_at, session.id);
        self.connections.insert(session.connection_id, session.id);
        self.of_users.entry(session.user_id.clone()).or_default().insert(key);
        self.creation.insert(key);
        self.sessions.insert(session.id, session);
    }

    fn remove(&mut self, id: Uuid) {
        let Some(session) = self.sessions.remove(&id) else { return };
        let key = (session.created_at, id);
        self.creation.remove(&key);
        // A later session over the same connection keeps its entry.
        if self.connections.get(&session.connection_id) == Some(&id) {
            self.connections.remove(&session.connection_id);
        }
        if let Some(of_user) = self.of_users.get_mut(&session.user_id) {
            of_user.remove(&key);
            if of_user.is_empty() {
                self.of_users.remove(&session.user_id);
            }
        }
    }
}

/// Sessions that are gone when the process ends.
#[derive(Default)]
pub struct MemorySessions {
    tables: Mutex<Tables>,
}

impl MemorySessions {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl SessionStore for MemorySessions {
    async fn insert(&self, session: Session) -> Result<(), StoreError> {
        let mut tables = self.tables();
        if tables.sessions.contains_key(&session.id) {
            return Err(StoreError::Failed("a session with this id exists".into()));
        }
        tables.insert(session);
        Ok(())
    }

    async fn get(&self, id: Uuid, now: UnixMicros) -> Result<Option<Session>, StoreError> {
        Ok(self.tables().live(id, now).cloned())
    }

    async fn get_by_connection(&self, connection_id: Uuid, now: UnixMicros) -> Result<Option<Session>, StoreError> {
        let mut tables = self.tables();
        let id = tables.connections.get(&connection_id).copied();
        Ok(id.and_then(|id| tables.live(id, now).cloned()))
    }

    async fn change(&self, id: Uuid, change: SessionChange, now: UnixMicros) -> Result<Changed, StoreError> {
        let mut tables = self.tables();
        let Some(session) = tables.live(id, now) else { return Ok(Changed::Missing) };
        match change.apply(session, now) {
            Ok(changed) => {
                session.clone_from(&changed);
                Ok(Changed::Session(Box::new(changed)))
            }
            Err(refused) => Ok(Changed::Refused(refused)),
        }
    }

    async fn delete(&self, id: Uuid, now: UnixMicros) -> Result<bool, StoreError> {
        let mut tables = self.tables();
        let was_live = tables.live(id, now).is_some();
        tables.remove(id);
        Ok(was_live)
    }

    async fn list(&self, filter: &SessionFilter, now: UnixMicros) -> Result<(Vec<Session>, u64), StoreError> {
        let tables = self.tables();
        let keys: Box<dyn Iterator<Item = &(UnixMicros, Uuid)> + Send> = if filter.user_id.is_empty() {
            Box::new(tables.creation.iter())
        } else {
            Box::new(tables.of_users.get(&filter.user_id).into_iter().flatten())
        };
        let matching = keys
            .filter_map(|(_, id)| tables.sessions.get(id))
            .filter(|session| session.expires_at > now && filter.state.is_none_or(|state| state == session.state));
        let (mut page, mut total) = (Vec::new(), 0);
        for session in matching {
            if total >= filter.offset && page.len() < filter.limit as usize {
                page.push(session.clone());
            }
            total += 1;
        }
        Ok((page, total))
    }

    async fn counts(&self, now: UnixMicros) -> Result<SessionCounts, StoreError> {
        let mut counts = SessionCounts::default();
        for session in self.tables().sessions.values().filter(|session| session.expires_at > now) {
            counts.total += 1;
            counts.active += u64::from(session.state == SessionState::Active);
            counts.idle += u64::from(session.state == SessionState::Idle);
        }
        Ok(counts)
    }

    async fn delete_expired(&self, now: UnixMicros) -> Result<(), StoreError> {
        let mut tables = self.tables();
        let expired: HashSet<Uuid> =
            tables.sessions.values().filter(|session| session.expires_at <= now).map(|session| session.id).collect();
        for id in expired {
            tables.remove(id);
        }
        Ok(())
    }

    async fn check(&self) -> Result<Option<String>, StoreError> {
        Ok(None)
    }
}
