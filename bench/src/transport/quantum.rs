//! The same service and plain streams over Quantum.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::{Bytes, BytesMut};
use quantum_grpc::{
    Channel, ClientConfig, Connection, EchoServer, Endpoint, EndpointOptions, Listener, QuantumStream, ServerConfig,
    Verify,
};
use quantum_shard::{HostKind, IoKind};

use super::bench_proto::bench_client::BenchClient;
use super::bench_proto::{Chunk, EchoRequest};
use super::tcp_grpc::{MESSAGE_BYTES_MAX, service};
use super::{Host, Io, Transport, TransportArgs};
use crate::certs;
use crate::load::{Echo, Wire};

/// A stream starts with one byte that says what it is for.
const ECHO: u8 = b'e';
const UPLOAD: u8 = b'u';
const CONNECT_FOR: Duration = Duration::from_secs(10);

/// The endpoint's settings from the command line.
///
/// # Errors
/// If they ask for what does not exist.
pub fn options(args: &TransportArgs) -> anyhow::Result<EndpointOptions> {
    let host = match args.host {
        Host::Glommio => HostKind::Glommio,
        Host::Bare => HostKind::Bare,
    };
    let io = match args.io {
        Io::Uring => IoKind::Uring,
        Io::Mmsg => bail!("--io mmsg is not available; use --io uring"),
    };
    let (cores, spin) = (args.cores.clone(), Duration::from_micros(args.spin_us));
    Ok(EndpointOptions { shards: args.shards, cores, spin, host, io, ..EndpointOptions::default() })
}

/// Serves the gRPC service, or plain streams, over Quantum until the process ends.
///
/// # Errors
/// If the certificate folder or the address cannot be used.
pub async fn serve(args: &TransportArgs, listen: SocketAddr, ready: impl FnOnce(SocketAddr)) -> anyhow::Result<()> {
    let options = options(args)?;
    let identity = certs::identity(&args.certs)?;
    let mut config = ServerConfig::new(&identity)?;
    config.options = options;
    if args.transport == Transport::QuantumEcho {
        let server = EchoServer::bind(listen, &config).with_context(|| format!("cannot listen on {listen}"))?;
        ready(server.local_addr());
        return std::future::pending().await;
    }
    let mut listener = Listener::bind(listen, &config).with_context(|| format!("cannot listen on {listen}"))?;
    ready(listener.local_addr());
    if args.transport == Transport::QuantumGrpc {
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
    Ok(ClientConfig::new(Verify::Pin(certs::identity(certs)?.fingerprint())))
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
pub struct QuantumGrpcEcho {
    client: BenchClient<Channel>,
    endpoint: Endpoint,
}

impl QuantumGrpcEcho {
    /// Connects, trying again for as long as the server may be starting.
    ///
    /// # Errors
    /// If nobody answers within ten seconds.
    pub async fn connect(args: &TransportArgs, remote: SocketAddr) -> anyhow::Result<Self> {
        let endpoint = Endpoint::client(&options(args)?)?;
        let channel = Channel::connect_lazy(endpoint.clone(), &remote.to_string(), client_config(&args.certs)?);
        connected(async || channel.connection().await, remote).await?;
        let client = BenchClient::new(channel);
        let client = client.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Self { client, endpoint })
    }
}

impl Echo for QuantumGrpcEcho {
    async fn call(&self, payload: Bytes) -> anyhow::Result<()> {
        let sent = payload.len();
        let answer = self.client.clone().echo(EchoRequest { payload }).await?.into_inner();
        ensure!(answer.payload.len() == sent, "{} bytes came back of {sent}", answer.payload.len());
        Ok(())
    }

    async fn upload(&self, chunk: Bytes, until: Instant) -> anyhow::Result<u64> {
        let chunks = std::iter::from_fn(move || (Instant::now() < until).then(|| Chunk { payload: chunk.clone() }));
        Ok(self.client.clone().upload(tokio_stream::iter(chunks)).await?.into_inner().bytes)
    }

    fn wire(&self, peer: IpAddr) -> Wire {
        Wire::of_shards(&self.endpoint, peer)
    }
}

/// Plain streams over Quantum, one per message.
#[derive(Debug, Clone)]
pub struct QuantumStreams {
    connection: Connection,
    endpoint: Endpoint,
    /// Whatever is sent comes back: no byte says what the stream is for.
    on_shard: bool,
}

impl QuantumStreams {
    /// Connects, trying again for as long as the server may be starting.
    ///
    /// # Errors
    /// If nobody answers within ten seconds.
    pub async fn connect(args: &TransportArgs, remote: SocketAddr) -> anyhow::Result<Self> {
        let endpoint = Endpoint::client(&options(args)?)?;
        let config = ClientConfig { alpn: quantum::Alpn::Stream, ..client_config(&args.certs)? };
        let connection = connected(async || endpoint.connect(remote, &config).await, remote).await?;
        Ok(Self { connection, endpoint, on_shard: args.transport == Transport::QuantumEcho })
    }

    /// Sends what `chunks` gives on a stream of its own and meanwhile counts what comes back on it.
    async fn echoed(&self, chunks: impl Iterator<Item = Bytes>) -> anyhow::Result<u64> {
        let (mut receive, mut send) = self.connection.open_stream()?.into_split();
        // Both at once: a message larger than the windows comes back while it is being sent.
        let sending = async {
            for chunk in chunks {
                send.send_bytes(chunk).await?;
            }
            send.finish()
        };
        let receiving = async {
            let mut received = 0;
            while let Some(chunk) = receive.chunk().await? {
                received += chunk.len() as u64;
            }
            Ok(received)
        };
        let ((), received) = tokio::try_join!(sending, receiving)?;
        Ok(received)
    }
}

impl Echo for QuantumStreams {
    async fn call(&self, payload: Bytes) -> anyhow::Result<()> {
        let sent = payload.len() as u64;
        let message = if self.on_shard {
            payload
        } else {
            let mut message = BytesMut::with_capacity(1 + payload.len());
            message.extend_from_slice(&[ECHO]);
            message.extend_from_slice(&payload);
            message.freeze()
        };
        let received = self.echoed(std::iter::once(message)).await?;
        ensure!(received == sent, "{received} bytes came back of {sent}");
        Ok(())
    }

    async fn upload(&self, chunk: Bytes, until: Instant) -> anyhow::Result<u64> {
        if self.on_shard {
            return self.echoed(std::iter::from_fn(|| (Instant::now() < until).then(|| chunk.clone()))).await;
        }
        let mut stream = self.connection.open_stream()?;
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

    fn wire(&self, peer: IpAddr) -> Wire {
        Wire::of_shards(&self.endpoint, peer)
    }
}
