//! The same service and plain streams over Quantum.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::{Bytes, BytesMut};
use quantum_grpc::{
    Channel, ClientConfig, Connection, Endpoint, EndpointOptions, Identity, Listener, QuantumStream, ServerConfig,
    Verify,
};

use super::TransportArgs;
use super::bench_proto::bench_client::BenchClient;
use super::bench_proto::{Chunk, EchoRequest};
use super::tcp_grpc::{MESSAGE_BYTES_MAX, service};
use crate::load::Echo;

/// A stream starts with one byte that says what it is for.
const ECHO: u8 = b'e';
const UPLOAD: u8 = b'u';
const CONNECT_FOR: Duration = Duration::from_secs(10);

/// The endpoint's settings from the command line.
pub fn options(args: &TransportArgs) -> EndpointOptions {
    EndpointOptions {
        shards: args.shards,
        cores: args.cores.clone(),
        spin: Duration::from_micros(args.spin_us),
        ..EndpointOptions::default()
    }
}

/// Serves the gRPC service, or plain streams, over Quantum until the process ends.
///
/// # Errors
/// If the certificate folder or the address cannot be used.
pub async fn serve(
    args: &TransportArgs,
    listen: SocketAddr,
    grpc: bool,
    ready: impl FnOnce(SocketAddr),
) -> anyhow::Result<()> {
    let identity = Identity::load_or_create(&args.certs, &[])?;
    let mut config = ServerConfig::new(&identity)?;
    config.options = options(args);
    let mut listener = Listener::bind(listen, &config).with_context(|| format!("cannot listen on {listen}"))?;
    ready(listener.local_addr());
    if grpc {
        quantum_grpc::serve(listener, service(), std::future::pending()).await;
        return Ok(());
    }
    while let Some(connection) = listener.accept().await {
        tokio::spawn(async move {
            while let Ok(stream) = connection.accept_stream().await {
                tokio::spawn(async move {
                    if let Err(error) = answer(stream).await {
                        tracing::debug!(%error, "a stream failed");
                    }
                });
            }
        });
    }
    Ok(())
}

async fn answer(mut stream: QuantumStream) -> anyhow::Result<()> {
    let Some(mut first) = stream.chunk().await? else { return Ok(()) };
    ensure!(!first.is_empty(), "a stream starts with an empty chunk");
    match first.split_to(1)[0] {
        ECHO => {
            let mut chunk = Some(first);
            while let Some(bytes) = chunk {
                if !bytes.is_empty() {
                    stream.send_bytes(bytes).await?;
                }
                chunk = stream.chunk().await?;
            }
        }
        UPLOAD => {
            let mut total = first.len() as u64;
            while let Some(bytes) = stream.chunk().await? {
                total += bytes.len() as u64;
            }
            stream.send_bytes(Bytes::copy_from_slice(&total.to_be_bytes())).await?;
        }
        other => anyhow::bail!("a stream starts with byte {other}"),
    }
    stream.finish()?;
    Ok(())
}

fn client_config(certs: &Path) -> anyhow::Result<ClientConfig> {
    let identity = Identity::load_or_create(certs, &[])?;
    Ok(ClientConfig::new(Verify::Pin(identity.fingerprint())))
}

async fn connected<T, E: Into<anyhow::Error>>(
    mut dial: impl AsyncFnMut() -> Result<T, E>,
    remote: SocketAddr,
) -> anyhow::Result<T> {
    let until = Instant::now() + CONNECT_FOR;
    loop {
        match dial().await {
            Ok(made) => return Ok(made),
            Err(_) if Instant::now() < until => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => return Err(error.into().context(format!("cannot connect to {remote}"))),
        }
    }
}

/// A gRPC client over Quantum.
#[derive(Debug, Clone)]
pub struct QuantumGrpcEcho(BenchClient<Channel>);

impl QuantumGrpcEcho {
    /// Connects, trying again for as long as the server may be starting.
    ///
    /// # Errors
    /// If nobody answers within ten seconds.
    pub async fn connect(args: &TransportArgs, remote: SocketAddr) -> anyhow::Result<Self> {
        let endpoint = Endpoint::client(&options(args))?;
        let channel = Channel::connect_lazy(endpoint, &remote.to_string(), client_config(&args.certs)?);
        connected(async || channel.connection().await, remote).await?;
        let client = BenchClient::new(channel);
        let client = client.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Self(client))
    }
}

impl Echo for QuantumGrpcEcho {
    async fn call(&self, payload: Bytes) -> anyhow::Result<()> {
        let sent = payload.len();
        let answer = self.0.clone().echo(EchoRequest { payload }).await?.into_inner();
        ensure!(answer.payload.len() == sent, "{} bytes came back of {sent}", answer.payload.len());
        Ok(())
    }

    async fn upload(&self, chunk: Bytes, until: Instant) -> anyhow::Result<u64> {
        let chunks = std::iter::from_fn(move || (Instant::now() < until).then(|| Chunk { payload: chunk.clone() }));
        Ok(self.0.clone().upload(tokio_stream::iter(chunks)).await?.into_inner().bytes)
    }
}

/// Plain streams over Quantum, one per message.
#[derive(Debug, Clone)]
pub struct QuantumStreams(Connection);

impl QuantumStreams {
    /// Connects, trying again for as long as the server may be starting.
    ///
    /// # Errors
    /// If nobody answers within ten seconds.
    pub async fn connect(args: &TransportArgs, remote: SocketAddr) -> anyhow::Result<Self> {
        let endpoint = Endpoint::client(&options(args))?;
        let config = ClientConfig { alpn: quantum::Alpn::Stream, ..client_config(&args.certs)? };
        Ok(Self(connected(async || endpoint.connect(remote, &config).await, remote).await?))
    }
}

impl Echo for QuantumStreams {
    async fn call(&self, payload: Bytes) -> anyhow::Result<()> {
        let (mut receive, mut send) = self.0.open_stream()?.into_split();
        let sent = payload.len();
        let mut message = BytesMut::with_capacity(1 + sent);
        message.extend_from_slice(&[ECHO]);
        message.extend_from_slice(&payload);
        // Both at once: a message larger than the windows comes back while it is being sent.
        let sending = async {
            send.send_bytes(message.freeze()).await?;
            send.finish()
        };
        let receiving = async {
            let mut received = 0;
            while let Some(chunk) = receive.chunk().await? {
                received += chunk.len();
            }
            Ok(received)
        };
        let ((), received) = tokio::try_join!(sending, receiving)?;
        ensure!(received == sent, "{received} bytes came back of {sent}");
        Ok(())
    }

    async fn upload(&self, chunk: Bytes, until: Instant) -> anyhow::Result<u64> {
        let mut stream = self.0.open_stream()?;
        stream.send_bytes(Bytes::from_static(&[UPLOAD])).await?;
        while Instant::now() < until {
            stream.send_bytes(chunk.clone()).await?;
        }
        stream.finish()?;
        let mut total = BytesMut::new();
        while let Some(bytes) = stream.chunk().await? {
            total.extend_from_slice(&bytes);
            ensure!(total.len() <= 8, "more than a total came back");
        }
        let total: [u8; 8] = total.as_ref().try_into().context("no total came back")?;
        Ok(u64::from_be_bytes(total))
    }
}
