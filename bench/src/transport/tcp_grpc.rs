//! The echo and bulk service, and its use over tonic's own TCP transport.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use tokio_stream::StreamExt;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use super::bench_proto::bench_client::BenchClient;
use super::bench_proto::bench_server::{Bench, BenchServer};
use super::bench_proto::{Chunk, EchoReply, EchoRequest, Total};
use crate::load::Echo;

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

    async fn upload(&self, request: Request<Streaming<Chunk>>) -> Result<Response<Total>, Status> {
        let mut chunks = request.into_inner();
        let mut bytes = 0;
        while let Some(chunk) = chunks.next().await {
            bytes += chunk?.payload.len() as u64;
        }
        Ok(Response::new(Total { bytes }))
    }
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
/// If the address cannot be bound.
pub fn bind(listen: SocketAddr) -> anyhow::Result<(SocketAddr, impl Future<Output = anyhow::Result<()>> + Send)> {
    let incoming =
        TcpIncoming::bind(listen).with_context(|| format!("cannot listen on {listen}"))?.with_nodelay(Some(true));
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
/// If nobody answers within ten seconds.
pub async fn connect(remote: SocketAddr) -> anyhow::Result<GrpcEcho<Channel>> {
    let endpoint = Endpoint::from_shared(format!("http://{remote}"))?
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .connect_timeout(CONNECT_TIMEOUT);
    let until = Instant::now() + CONNECT_TIMEOUT;
    let channel = loop {
        match endpoint.connect().await {
            Ok(channel) => break channel,
            Err(_) if Instant::now() < until => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => return Err(error).with_context(|| format!("cannot connect to {remote}")),
        }
    };
    let client = BenchClient::new(channel);
    Ok(GrpcEcho(client.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX)))
}

impl Echo for GrpcEcho<Channel> {
    async fn call(&self, payload: Bytes) -> anyhow::Result<()> {
        let sent = payload.len();
        let answer = self.0.clone().echo(EchoRequest { payload }).await?.into_inner();
        anyhow::ensure!(answer.payload.len() == sent, "{} bytes came back of {sent}", answer.payload.len());
        Ok(())
    }

    async fn upload(&self, chunk: Bytes, until: Instant) -> anyhow::Result<u64> {
        let chunks = std::iter::from_fn(move || (Instant::now() < until).then(|| Chunk { payload: chunk.clone() }));
        Ok(self.0.clone().upload(tokio_stream::iter(chunks)).await?.into_inner().bytes)
    }
}
