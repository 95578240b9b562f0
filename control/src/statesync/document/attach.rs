//! Who listens to a document, and from where.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tonic::{Code, Status};
use uuid::Uuid;

use super::{DocumentActor, Place, Reply, Waiting, answer};
use crate::auth::Asker;
use crate::statesync::permission::{self, Right};
use crate::statesync::subscription::{Attached, EventSender, Published, Subscribers};
use crate::status::{not_found, with_info};

/// A subscriber that missed more operations than this gets the state instead.
const REPLAY_MAX: u64 = 10_000;

/// A wish to receive events.
#[derive(Debug, Clone)]
pub(in crate::statesync) struct Attach {
    /// The subscriber.
    pub subscriber: Uuid,
    /// Whose it is.
    pub user_id: String,
    /// Who asked for it.
    pub asker: Asker,
    /// For which session; may be empty.
    pub session_id: String,
    /// Whether it wants Yjs updates and states.
    pub want_updates: bool,
    /// The epoch and version it has.
    pub resume: Option<(String, u64)>,
    /// Whether it was subscribed before and fell behind.
    pub again: bool,
    /// Set when the stream is to end.
    pub ended: Arc<AtomicBool>,
}

impl DocumentActor {
    pub(super) fn attach(&mut self, attach: Attach, reply: Reply<Attached>) {
        let version = self.record.version;
        let can_replay = attach.resume.as_ref().is_some_and(|(epoch, have)| {
            // Operations alone do not lead past a change of name, state or metadata.
            *epoch == self.record.epoch
                && (self.record.described_version..=version).contains(have)
                && version - have <= REPLAY_MAX
        });
        let (mut document, mut snapshot) = (None, Bytes::new());
        if !can_replay {
            let typed = attach.want_updates && self.content.is_typed();
            if typed {
                snapshot = self.content.snapshot();
            }
            document = Some(self.document(if typed { Bytes::new() } else { self.content.bytes() }));
        }
        let (sender, events) = Subscribers::queue();
        let epoch = self.record.epoch.clone();
        let attached = Attached { epoch, version, sequence: self.sequence, document, snapshot, events };
        self.sequence += 1;
        self.wait(Waiting::Attach(Box::new((attach, attached)), sender, reply));
    }

    pub(super) fn settle_attach(&mut self, attached: (Attach, Attached), events: EventSender, reply: Reply<Attached>) {
        let (attach, attached) = attached;
        // Permissions may have changed while it stood in the line.
        if let Err(status) = permission::permits(&self.record, &attach.asker, Right::Read) {
            return answer(reply, Err(status));
        }
        let place = Place { version: attached.version, sequence: attached.sequence + 1 };
        let joins = !attach.again && !self.subscribers.has_user(&attach.user_id);
        let event = Published::presence("user_joined", &attach, (&self.record, place));
        self.subscribers.insert(attach, events);
        answer(reply, Ok(attached));
        if joins {
            self.subscribers.publish(&Arc::new(event));
        }
    }

    pub(super) fn leave(&mut self, subscriber: Uuid) {
        let place = self.next_place();
        self.wait(Waiting::Leave(subscriber, place));
    }

    pub(super) fn settle_leave(&mut self, subscriber: Uuid, place: Place) {
        let Some(attach) = self.subscribers.remove(subscriber) else { return };
        if !self.subscribers.has_user(&attach.user_id) {
            let event = Published::presence("user_left", &attach, (&self.record, place));
            self.subscribers.publish(&Arc::new(event));
        }
    }

    pub(super) fn unsubscribe(&mut self, subscriber: Uuid, user_id: &str, reply: Reply<()>) {
        match self.subscribers.get(subscriber) {
            None => answer(reply, Err(not_found("subscriber", &subscriber.to_string()))),
            Some(attach) if attach.user_id != user_id => answer(reply, Err(another_users())),
            Some(attach) => {
                attach.ended.store(true, Ordering::Relaxed);
                self.leave(subscriber);
                self.answer_later(reply, ());
            }
        }
    }
}

fn another_users() -> Status {
    let message = "the subscription is another user's; only its own user can end it";
    with_info(Code::PermissionDenied, message, "ANOTHER_USERS_SUBSCRIPTION", &[])
}
