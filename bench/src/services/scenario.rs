//! What can be measured.

use clap::ValueEnum;
use control::launch::Service;

use super::store::Store;
use crate::replay::ReplayTransport;

/// Operations in flight on each connection, enough for commits that are shared.
const IN_FLIGHT_OPERATIONS: usize = 16;
/// In the one stream that each connection has then.
const IN_FLIGHT_IN_STREAM: usize = 64;
/// Of every other call: one, as calls of other services were measured.
const IN_FLIGHT_CALLS: usize = 1;
/// Calls whose target is what one of them takes; with more connections they wait for the processors.
const CONNECTIONS_MAX_OF_TABLE: usize = 10;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Scenario {
    /// Opening sessions
    SessionCreate,
    /// Reading sessions
    SessionGet,
    /// Keeping sessions alive
    SessionHeartbeat,
    /// Changing what is attached to sessions
    SessionUpdate,
    /// Closing sessions; opening them is not counted
    SessionDelete,
    /// Listing a user's ten sessions
    SessionList,
    /// Creating documents
    DocumentCreate,
    /// Reading documents
    DocumentGet,
    /// Listing fifty of a thousand documents
    DocumentList,
    /// Renaming documents
    DocumentUpdate,
    /// Taking and renewing locks on documents
    DocumentLock,
    /// Operations on a hundred documents, one in flight on each connection
    #[value(name = "apply-single")]
    ApplySingle,
    /// Operations on one document
    #[value(name = "apply-1")]
    ApplyOne,
    /// Operations on a hundred documents
    #[value(name = "apply-100")]
    ApplyHundred,
    /// Operations on one document, sent in streams
    #[value(name = "stream-1")]
    StreamOne,
    /// Operations on a hundred documents, sent in streams
    #[value(name = "stream-100")]
    StreamHundred,
    /// Operations on a hundred documents at half of the rate that a durable store is to take
    #[value(name = "apply-paced")]
    ApplyPaced,
    /// One writer, many subscribers
    FanOut,
    /// One writer, four subscribers, over a round trip of 20 ms that loses 5 % (root)
    EditToSubscriber,
}

impl Scenario {
    /// Its name on the command line and in the JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::SessionCreate => "session-create",
            Self::SessionGet => "session-get",
            Self::SessionHeartbeat => "session-heartbeat",
            Self::SessionUpdate => "session-update",
            Self::SessionDelete => "session-delete",
            Self::SessionList => "session-list",
            Self::DocumentCreate => "document-create",
            Self::DocumentGet => "document-get",
            Self::DocumentList => "document-list",
            Self::DocumentUpdate => "document-update",
            Self::DocumentLock => "document-lock",
            Self::ApplySingle => "apply-single",
            Self::ApplyOne => "apply-1",
            Self::ApplyHundred => "apply-100",
            Self::StreamOne => "stream-1",
            Self::StreamHundred => "stream-100",
            Self::ApplyPaced => "apply-paced",
            Self::FanOut => "fan-out",
            Self::EditToSubscriber => "edit-to-subscriber",
        }
    }

    /// Who answers.
    pub(super) fn service(self) -> Service {
        match self {
            Self::SessionCreate
            | Self::SessionGet
            | Self::SessionHeartbeat
            | Self::SessionUpdate
            | Self::SessionDelete
            | Self::SessionList => Service::Session,
            _ => Service::Statesync,
        }
    }

    /// Whether it is streams of events, which no caller asks for one by one.
    pub(super) fn is_stream(self) -> bool {
        matches!(self, Self::FanOut | Self::EditToSubscriber)
    }

    /// Callers on each connection unless the command line says otherwise.
    pub(super) fn in_flight(self) -> usize {
        match self {
            Self::ApplyOne | Self::ApplyHundred | Self::ApplyPaced => IN_FLIGHT_OPERATIONS,
            Self::StreamOne | Self::StreamHundred => IN_FLIGHT_IN_STREAM,
            _ => IN_FLIGHT_CALLS,
        }
    }

    /// Calls that are sent in a second, if it is no closed loop.
    pub(super) fn rate(self, store: Store) -> Option<f64> {
        (self == Self::ApplyPaced).then(|| store.operations_per_s_min().map(|rate| rate / 2.0)).flatten()
    }

    /// Whether it is measured of this store over this transport with so many connections.
    pub(super) fn is_of(self, store: Store, transport: ReplayTransport, connections: usize) -> bool {
        let is_compared =
            matches!(self, Self::SessionCreate | Self::SessionGet | Self::SessionHeartbeat | Self::FanOut);
        let is_of_floor = is_compared && transport == ReplayTransport::TcpGrpc;
        match self {
            _ if store == Store::TonicFloor => is_of_floor,
            Self::ApplyPaced => store.operations_per_s_min().is_some(),
            Self::SessionUpdate
            | Self::SessionDelete
            | Self::SessionList
            | Self::DocumentUpdate
            | Self::DocumentLock
            | Self::ApplySingle => connections <= CONNECTIONS_MAX_OF_TABLE,
            _ => true,
        }
    }
}
