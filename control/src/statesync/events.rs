//! The stream of events on its way out: what many subscribers read is encoded once.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BufMut;
use futures_util::Stream;
use prost::Message;
use proto::statesync as pb;
use proto::statesync::state_sync_service_server::StateSyncServiceServer;
use tonic::body::Body;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, Service};
use tonic::server::{Grpc, NamedService, ServerStreamingService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstDecoder;

use super::service::StateSyncServer;
use super::subscription::Published;

const SUBSCRIBE: &str = "/aetherflow.statesync.StateSyncService/SubscribeDocument";
/// A stream keeps a buffer as long as it lives, and most events are short: it grows for others.
const BUFFER_BYTES: usize = 512;
/// Bytes that are gathered before they are sent.
const SENT_BYTES: usize = 32 << 10;

/// What a subscriber gets.
pub(super) enum Event {
    /// An event of its own.
    Own(Box<pb::OperationEvent>),
    /// What others get as well, with its Yjs update or without.
    Shared(Arc<Published>, bool),
}

/// What a subscriber reads.
pub(super) type EventStream = Pin<Box<dyn Stream<Item = Result<Event, Status>> + Send>>;

/// Writes events as the generated code would.
#[derive(Default)]
struct EventCodec;

impl Codec for EventCodec {
    type Encode = Event;
    type Decode = pb::SubscribeDocumentRequest;
    type Encoder = EventEncoder;
    type Decoder = ProstDecoder<pb::SubscribeDocumentRequest>;

    fn encoder(&mut self) -> Self::Encoder {
        EventEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::default()
    }
}

struct EventEncoder;

impl Encoder for EventEncoder {
    type Item = Event;
    type Error = Status;

    fn encode(&mut self, event: Event, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        match event {
            Event::Own(event) => event.encode(buffer).map_err(|error| Status::internal(error.to_string())),
            Event::Shared(published, want_updates) => {
                buffer.put_slice(published.encoded(want_updates));
                Ok(())
            }
        }
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, SENT_BYTES)
    }
}

/// The document service: the generated server, but for the stream of events, which that would encode anew for each subscriber.
#[derive(Clone)]
pub struct StateSyncRoutes {
    server: StateSyncServer,
    generated: StateSyncServiceServer<StateSyncServer>,
}

impl StateSyncRoutes {
    /// What `server` answers.
    pub fn new(server: StateSyncServer) -> Self {
        Self { generated: StateSyncServiceServer::new(server.clone()), server }
    }
}

impl NamedService for StateSyncRoutes {
    const NAME: &'static str = <StateSyncServiceServer<StateSyncServer> as NamedService>::NAME;
}

impl Service<http::Request<Body>> for StateSyncRoutes {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != SUBSCRIBE {
            return self.generated.call(request);
        }
        let subscribe = Subscribe(self.server.clone());
        Box::pin(async move { Ok(Grpc::new(EventCodec).server_streaming(subscribe, request).await) })
    }
}

struct Subscribe(StateSyncServer);

impl ServerStreamingService<pb::SubscribeDocumentRequest> for Subscribe {
    type Response = Event;
    type ResponseStream = EventStream;
    type Future = BoxFuture<Response<EventStream>, Status>;

    fn call(&mut self, request: Request<pb::SubscribeDocumentRequest>) -> Self::Future {
        let server = self.0.clone();
        Box::pin(async move { server.subscribe(request).await })
    }
}
