//! The same service and plain streams over Quantum.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::{Bytes, BytesMut};
use control::config;
use control::launch::endpoint_options;
use quantum::{CongestionControl, FecMode};
use quantum_grpc::{
    Channel, ClientConfig, Connection, EchoServer, Endpoint, EndpointOptions, Listener, QuantumStream, ReceiveHalf,
    ServerConfig, Verify,
};

use super::bench_proto::EchoRequest;
use super::bench_proto::bench_client::BenchClient;
use super::tcp_grpc::{self, MESSAGE_BYTES_MAX, service};
use super::{Congestion, Transport, TransportArgs};
use crate::certs;
use crate::load::{Arrivals, Arrived, Echo, Wire, arrivals};

/// A stream starts with one byte that says what it is for.
const ECHO: u8 = b'e';
const UPLOAD: u8 = b'u';
const CONNECT_FOR: Duration = Duration::from_secs(10);

/// The endpoint's settings from the command line.
///
/// # Errors
/// If they ask for what does not exist.
pub fn options(args: &TransportArgs) -> anyhow::Result<EndpointOptions> {
    let section = config::Quantum {
        enable: true,
        shards: args.shards,
        cores: args.cores.clone(),
        spin_us: args.spin_us,
        host: args.host,
        io: args.io,
        qlog: args.qlog.clone().unwrap_or_default(),
        ..config::Quantum::default()
    };
    let mut options = endpoint_options(&section);
    if let Some(congestion) = args.congestion {
        options.protocol.congestion = match congestion {
            Congestion::Bbr => CongestionControl::Bbr,
            Congestion::Cubic => CongestionControl::Cubic,
        };
    }
    if args.no_fec {
        options.protocol.fec.mode = FecMode::Off;
    }
    Ok(options)
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
                if stream.is_finished() {
                    stream.send_last(bytes).await?;
                    return Ok(());
                }
                stream.send_bytes(bytes).await?;
                chunk = stream.chunk().await?;
            }
        }
        UPLOAD => return count(stream, first).await,
        other => anyhow::bail!("a stream starts with byte {other}"),
    }
    stream.finish()?;
    Ok(())
}

/// Counts what arrives, reports it, and drops the rest.
async fn count(mut stream: QuantumStream, first: Bytes) -> anyhow::Result<()> {
    let mut head = BytesMut::from(first);
    while head.len() < arrivals::REQUEST_BYTES {
        head.extend_from_slice(&stream.chunk().await?.context("the stream ended before it said how long to count")?);
    }
    let ms = *head.first_chunk().expect("as many bytes are there");
    let mut counted = Arrivals::new(Instant::now(), arrivals::measured(u64::from_be_bytes(ms))?);
    counted.add(Instant::now(), head.len() - arrivals::REQUEST_BYTES);
    while let Ok(chunk) = tokio::time::timeout_at(counted.end().into(), stream.chunk()).await {
        let Some(chunk) = chunk? else { break };
        counted.add(Instant::now(), chunk.len());
    }
    stream.send_last(counted.arrived().to_bytes()).await?;
    while stream.chunk().await?.is_some() {}
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

    async fn upload(&self, chunk: Bytes, measured: Duration) -> anyhow::Result<Arrived> {
        tcp_grpc::upload(self.client.clone(), chunk, measured).await
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

    /// Sends a message on a stream of its own and meanwhile counts what comes back on it.
    async fn echoed(&self, message: Bytes) -> anyhow::Result<u64> {
        let (mut receive, mut send) = self.connection.open_stream()?.into_split();
        // Both at once: a message larger than the windows comes back while it is being sent.
        let sending = send.send_last(message);
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
        let received = self.echoed(message).await?;
        ensure!(received == sent, "{received} bytes came back of {sent}");
        Ok(())
    }

    async fn upload(&self, chunk: Bytes, measured: Duration) -> anyhow::Result<Arrived> {
        let (mut receive, mut send) = self.connection.open_stream()?.into_split();
        let is_echo = self.on_shard;
        let sending = async {
            if !is_echo {
                let head = [&[UPLOAD][..], &arrivals::request(measured)?].concat();
                send.send_bytes(head.into()).await?;
            }
            loop {
                if let Err(error) = send.send_bytes(chunk.clone()).await {
                    return Err(anyhow::Error::from(error));
                }
            }
        };
        let report = async {
            if is_echo {
                return counted(&mut receive, measured).await;
            }
            let mut report = BytesMut::new();
            while let Some(bytes) = receive.chunk().await? {
                report.extend_from_slice(&bytes);
                ensure!(report.len() <= arrivals::REPORT_BYTES, "more than a report came back");
            }
            Arrived::from_bytes(&report)
        };
        tokio::select! {
            report = arrivals::within(measured, report) => report,
            failed = sending => failed,
        }
    }

    fn wire(&self, peer: IpAddr) -> Wire {
        Wire::of_shards(&self.endpoint, peer)
    }
}

/// What comes back of what is sent, by this side's clock.
async fn counted(receive: &mut ReceiveHalf, measured: Duration) -> anyhow::Result<Arrived> {
    let mut counted = Arrivals::new(Instant::now(), measured);
    while let Ok(chunk) = tokio::time::timeout_at(counted.end().into(), receive.chunk()).await {
        let chunk = chunk?.context("the stream ended early")?;
        counted.add(Instant::now(), chunk.len());
    }
    Ok(counted.arrived())
}
