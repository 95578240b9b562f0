//! Watches a connection without keeping it.

use std::fmt;
use std::sync::Arc;

use quantum::{CloseReason, ConnectionStats, Guuid};

use crate::connection::{Connection, ConnectionShared};
use crate::pump::WeakPumpSender;

/// Looks at a connection, also after its end, without being one of its handles: it closes whether or not somebody watches. Clones
/// watch the same connection.
#[derive(Clone)]
pub struct ConnectionMonitor {
    watched: Arc<Watched>,
}

struct Watched {
    guuid: Guuid,
    connection: Arc<ConnectionShared>,
    pump: WeakPumpSender,
}

impl ConnectionMonitor {
    pub(crate) fn new(guuid: Guuid, connection: Arc<ConnectionShared>, pump: WeakPumpSender) -> Self {
        Self { watched: Arc::new(Watched { guuid, connection, pump }) }
    }

    /// The connection's id, the same at both ends.
    pub fn guuid(&self) -> Guuid {
        self.watched.guuid
    }

    /// What the connection has done: asked of its shard while it lives, afterwards what it had done by its end. None if its shard
    /// ended without a word of it.
    pub async fn statistics(&self) -> Option<ConnectionStats> {
        let Watched { connection, pump, .. } = &*self.watched;
        let asked = connection.statistics(|message| pump.tell(message)).await;
        asked.ok().or_else(|| connection.last_statistics())
    }

    /// Waits until the connection is over.
    pub async fn closed(&self) -> CloseReason {
        self.watched.connection.closed().await
    }
}

impl fmt::Debug for ConnectionMonitor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("ConnectionMonitor").field(&self.watched.guuid).finish()
    }
}

impl Connection {
    /// What looks at the connection without keeping it.
    pub fn monitor(&self) -> ConnectionMonitor {
        let (connection, pump) = self.watched();
        ConnectionMonitor::new(self.guuid(), connection, pump)
    }
}
