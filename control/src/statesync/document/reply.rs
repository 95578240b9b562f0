//! The answer to a command, and for whom it is asked.

use tokio::sync::oneshot;
use tonic::Status;

use crate::telemetry::Origin;

/// Takes the answer to a command.
pub(in crate::statesync) struct Reply<T> {
    sender: oneshot::Sender<Result<T, Status>>,
    origin: Option<Origin>,
}

impl<T> Reply<T> {
    /// One for `origin`, and where the answer comes out.
    pub(in crate::statesync) fn channel(origin: Option<Origin>) -> (Self, oneshot::Receiver<Result<T, Status>>) {
        let (sender, answer) = oneshot::channel();
        (Self { sender, origin }, answer)
    }

    /// Who waits for it.
    pub(super) fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }
}

pub(super) fn answer<T>(reply: Reply<T>, result: Result<T, Status>) {
    // Whoever asked may have given up; what was done stays done.
    drop(reply.sender.send(result));
}
