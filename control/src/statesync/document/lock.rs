//! The lock of a document: one holder, a time after which it frees itself, and a number that only grows.

use tonic::{Code, Status};
use uuid::Uuid;

use super::{DocumentActor, LockRecord, Reply, answer, pb};
use crate::clock::{self, UnixMicros, timestamp};
use crate::statesync::subscription::Published;
use crate::status::{not_found, with_info};

/// A wish to hold the lock.
#[derive(Debug, Clone)]
pub(in crate::statesync) struct LockRequest {
    /// Who wants it.
    pub user_id: String,
    /// For which session; may be empty.
    pub session_id: String,
}

impl DocumentActor {
    /// The lock, if it holds.
    pub(super) fn lock_held(&self) -> Option<&LockRecord> {
        self.record.lock.as_ref().filter(|lock| lock.holds(clock::now()))
    }

    /// Writes by others than the holder are refused.
    pub(super) fn check_lock(&self, user_id: &str) -> Result<(), Status> {
        match self.lock_held() {
            Some(lock) if lock.user_id != user_id => {
                let metadata = [
                    ("holder", lock.user_id.clone()),
                    ("expires_at_unix_ms", (lock.expires_at.0 / 1000).to_string()),
                    ("fencing", lock.fencing.to_string()),
                ];
                let message = format!("{}; try again when it is free", held_by(lock));
                Err(with_info(Code::Aborted, message, "DOCUMENT_LOCKED", &metadata))
            }
            _ => Ok(()),
        }
    }

    /// Takes the lock, or renews the caller's own. Who is refused is told who holds it.
    pub(super) fn lock(&mut self, request: LockRequest, reply: Reply<Result<pb::Lock, String>>) {
        let now = clock::now();
        if self.record.state == "deleted" {
            return answer(reply, Err(not_found("document", &self.record.id.to_string())));
        }
        self.expire_lock();
        let held = self.lock_held().cloned();
        if let Some(lock) = held.as_ref().filter(|lock| lock.user_id != request.user_id) {
            let refusal = held_by(lock);
            return self.answer_later(reply, Err(refusal));
        }
        let renewed = held.is_some();
        let (id, fencing) = match held {
            Some(lock) => (lock.id, lock.fencing),
            None => (Uuid::now_v7(), self.record.lock.as_ref().map_or(0, |lock| lock.fencing) + 1),
        };
        let lock = LockRecord {
            id,
            user_id: request.user_id,
            session_id: request.session_id,
            acquired_at: now,
            expires_at: UnixMicros(now.0 + self.shared.options.lock_timeout.as_micros() as i64),
            fencing,
        };
        let answer = lock.to_proto(self.record.id, now);
        self.record.lock = Some(lock.clone());
        self.lock_announced = true;
        self.unwritten.lock = true;
        if !renewed {
            self.publish_later(|record, place| Published::lock("lock_acquired", &lock, (record, place)));
        }
        self.answer_later(reply, Ok(answer));
    }

    /// Releases the lock of its holder.
    pub(super) fn unlock(&mut self, user_id: &str, reply: Reply<()>) {
        let Some(lock) = self.lock_held() else {
            return answer(reply, Err(not_found("lock", &format!("of document {}", self.record.id))));
        };
        if lock.user_id != user_id {
            let message = format!("{}; only its holder can release it", held_by(lock));
            return answer(reply, Err(with_info(Code::PermissionDenied, message, "ANOTHER_USERS_LOCK", &[])));
        }
        self.free_lock();
        self.answer_later(reply, ());
    }

    /// Tells everybody that the lock has freed itself, which it did when its time came.
    pub(super) fn expire_lock(&mut self) {
        if self.lock_announced && self.lock_held().is_none() {
            self.free_lock();
        }
    }

    fn free_lock(&mut self) {
        let Some(lock) = &mut self.record.lock else { return };
        lock.expires_at = UnixMicros(0);
        let lock = lock.clone();
        self.lock_announced = false;
        self.unwritten.lock = true;
        self.publish_later(|record, place| Published::lock("lock_released", &lock, (record, place)));
    }
}

fn held_by(lock: &LockRecord) -> String {
    let until = timestamp(lock.expires_at);
    format!("the document is locked by {} until {} (seconds since 1970)", lock.user_id, until.seconds)
}
