//! The echo and bulk service, and its use over tonic's own TCP transport.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};
use tower::service_fn;

use super::bench_proto::bench_client::BenchClient;
use super::bench_proto::bench_server::{Bench, BenchServer};
use super::bench_proto::{self, Chunk, EchoReply, EchoRequest};
use super::{Congestion, tcp};
use crate::load::{Arrivals, Arrived, Echo, arrivals};

/// The largest payload of one message.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Flow control windows: over 4 times the bandwidth-delay product of 1 Gbit/s and 20 ms, so that HTTP/2 never limits.
const WINDOW_BYTES: u32 = 16 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers echo and bulk calls.
#[derive(Debug, Default, Clone, Copy)]
pub struct EchoService;

#[tonic::async_trait]
impl Bench for EchoService {
    async fn echo(&self, request: Request<EchoRequest>) -> Result<Response<EchoReply>, Status> {
        Ok(Response::new(EchoReply { payload: request.into_inner().payload }))
    }

    type UploadStream = ReceiverStream<Result<bench_proto::Arrived, Status>>;

    async fn upload(&self, request: Request<Streaming<Chunk>>) -> Result<Response<Self::UploadStream>, Status> {
        // One report, which never waits.
        let (sender, receiver) = mpsc::channel(1);
        let mut chunks = request.into_inner();
        tokio::spawn(async move {
            let counted = count(&mut chunks).await;
            let _ = sender.send(counted).await;
            while let Some(Ok(_)) = chunks.next().await {}
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

async fn count(chunks: &mut Streaming<Chunk>) -> Result<bench_proto::Arrived, Status> {
    let first = chunks.message().await?.ok_or_else(|| Status::invalid_argument("no chunk came"))?;
    let measured = arrivals::measured(first.measured_ms);
    let measured = measured.map_err(|error| Status::invalid_argument(error.to_string()))?;
    let mut counted = Arrivals::new(Instant::now(), measured);
    counted.add(Instant::now(), first.payload.len());
    while let Ok(chunk) = tokio::time::timeout_at(counted.end().into(), chunks.message()).await {
        let Some(chunk) = chunk? else { break };
        counted.add(Instant::now(), chunk.payload.len());
    }
    let Arrived { bytes, bytes_second_half, measured } = counted.arrived();
    Ok(bench_proto::Arrived { bytes, bytes_second_half, measured_ms: measured.as_millis() as u64 })
}

/// The service with its message limits.
pub fn service() -> BenchServer<EchoService> {
    BenchServer::new(EchoService)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// Binds; gives the address and the server to run.
///
/// # Errors
/// If the address cannot be bound, or the kernel has no such congestion control.
pub fn bind(
    listen: SocketAddr,
    congestion: Option<Congestion>,
) -> anyhow::Result<(SocketAddr, impl Future<Output = anyhow::Result<()>> + Send)> {
    let listener = tcp::bind(listen, congestion)?;
    listener.set_nonblocking(true)?;
    let incoming = TcpIncoming::from(TcpListener::from_std(listener)?).with_nodelay(Some(true));
    let address = incoming.local_addr()?;
    let mut server =
        Server::builder().initial_stream_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
    let running = server.add_service(service()).serve_with_incoming(incoming);
    Ok((address, async move { Ok(running.await?) }))
}

/// A client of the service.
#[derive(Debug, Clone)]
pub struct GrpcEcho<C>(pub BenchClient<C>);

/// Connects over TCP, trying again for as long as the server may be starting.
///
/// # Errors
/// If nobody answers within ten seconds, or the kernel has no such congestion control.
pub async fn connect(remote: SocketAddr, congestion: Option<Congestion>) -> anyhow::Result<GrpcEcho<Channel>> {
    // Said at once: trying again does not help.
    tcp::socket(remote, congestion)?;
    let endpoint = Endpoint::from_shared(format!("http://{remote}"))?
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .connect_timeout(CONNECT_TIMEOUT);
    let until = Instant::now() + CONNECT_TIMEOUT;
    let channel = loop {
        let connector = service_fn(move |_| async move { open(remote, congestion).await.map(TokioIo::new) });
        match endpoint.connect_with_connector(connector).await {
            Ok(channel) => break channel,
            Err(_) if Instant::now() < until => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => return Err(error).with_context(|| format!("cannot connect to {remote}")),
        }
    };
    let client = BenchClient::new(channel);
    Ok(GrpcEcho(client.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX)))
}

async fn open(remote: SocketAddr, congestion: Option<Congestion>) -> anyhow::Result<TcpStream> {
    let socket = tcp::socket(remote, congestion)?;
    socket.set_nonblocking(true)?;
    let stream = TcpSocket::from_std_stream(socket.into()).connect(remote).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends chunks for as long as the receiver counts; gives its report.
///
/// # Errors
/// If the call fails, or there is no report in time.
pub(super) async fn upload<C>(mut client: BenchClient<C>, payload: Bytes, measured: Duration) -> anyhow::Result<Arrived>
where
    C: tonic::client::GrpcService<Body, Error: Into<tonic::codegen::StdError>, ResponseBody: Send> + Send,
    <C::ResponseBody as http_body::Body>::Error: Into<tonic::codegen::StdError> + Send,
    C::ResponseBody: http_body::Body<Data = Bytes> + 'static,
{
    let measured_ms = u64::from_be_bytes(arrivals::request(measured)?);
    let first = Chunk { payload: payload.clone(), measured_ms };
    let rest = std::iter::repeat_with(move || Chunk { payload: payload.clone(), measured_ms: 0 });
    let chunks = tokio_stream::iter(std::iter::once(first).chain(rest));
    let report = async {
        let reported = client.upload(chunks).await?.into_inner().message().await?;
        let bench_proto::Arrived { bytes, bytes_second_half, measured_ms } = reported.context("no report came back")?;
        Ok(Arrived { bytes, bytes_second_half, measured: arrivals::measured(measured_ms)? })
    };
    arrivals::within(measured, report).await
}

impl Echo for GrpcEcho<Channel> {
    async fn call(&self, payload: Bytes) -> anyhow::Result<()> {
        let sent = payload.len();
        let answer = self.0.clone().echo(EchoRequest { payload }).await?.into_inner();
        anyhow::ensure!(answer.payload.len() == sent, "{} bytes came back of {sent}", answer.payload.len());
        Ok(())
    }

    async fn upload(&self, chunk: Bytes, measured: Duration) -> anyhow::Result<Arrived> {
        upload(self.0.clone(), chunk, measured).await
    }
}
