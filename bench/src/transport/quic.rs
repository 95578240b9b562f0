//! QUIC by quinn, a stream for each message, with the certificate, provider and ciphers of Quantum.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::{Bytes, BytesMut};
use quinn::congestion::{BbrConfig, ControllerFactory, CubicConfig};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, Endpoint, MtuDiscoveryConfig, RecvStream, SendStream, TransportConfig, VarInt};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{Congestion, TransportArgs};
use crate::certs;
use crate::load::{Arrivals, Arrived, Echo, arrivals};

const ECHO: u8 = b'e';
const UPLOAD: u8 = b'u';
const ALPN: &[u8] = b"aetherflow-bench";
/// A name that every certificate of ours has.
const SERVER_NAME: &str = "localhost";
const CONNECT_FOR: Duration = Duration::from_secs(10);
/// No window limits 100 Mbit/s with 200 ms and some rounds of repair (2.5 MB each).
const WINDOW_BYTES: u32 = 64 << 20;
/// Send buffer of a connection: the same, but not so much more that most of a transfer waits in it.
const SEND_WINDOW_BYTES: u64 = 16 << 20;
const STREAMS_MAX: u32 = 100_000;
/// As Quantum asks for.
const SOCKET_BUFFER_BYTES: usize = 8 << 20;
/// UDP payload of a 1500-byte packet over IPv4.
const DATAGRAM_BYTES_MAX: u16 = 1472;

fn transport(congestion: Option<Congestion>) -> Arc<TransportConfig> {
    let factory: Arc<dyn ControllerFactory + Send + Sync> = match congestion {
        Some(Congestion::Bbr) => Arc::new(BbrConfig::default()),
        Some(Congestion::Cubic) | None => Arc::new(CubicConfig::default()),
    };
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(DATAGRAM_BYTES_MAX);
    let mut config = TransportConfig::default();
    config
        .congestion_controller_factory(factory)
        .stream_receive_window(VarInt::from_u32(WINDOW_BYTES))
        .receive_window(VarInt::from_u32(WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .mtu_discovery_config(Some(mtu));
    Arc::new(config)
}

fn socket(address: SocketAddr) -> anyhow::Result<UdpSocket> {
    let socket = UdpSocket::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    // Past the system's limit where this may; else as far as it goes.
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, SOCKET_BUFFER_BYTES).is_err() {
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BUFFER_BYTES)?;
    }
    rustix::net::sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER_BYTES)?;
    Ok(socket)
}

fn endpoint(address: SocketAddr, server: Option<quinn::ServerConfig>) -> anyhow::Result<Endpoint> {
    let runtime = quinn::default_runtime().context("no tokio runtime")?;
    Ok(Endpoint::new(quinn::EndpointConfig::default(), server, socket(address)?, runtime)?)
}

fn server_config(args: &TransportArgs) -> anyhow::Result<quinn::ServerConfig> {
    let certificate = certificate(&args.certs)?;
    let key = args.certs.join("key.pem");
    let key = PrivateKeyDer::from_pem_file(&key).with_context(|| format!("the key in {}", key.display()))?;
    let mut tls = rustls::ServerConfig::builder_with_provider(quantum_grpc::crypto_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(transport(args.congestion));
    Ok(config)
}

fn client_config(args: &TransportArgs) -> anyhow::Result<quinn::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate(&args.certs)?)?;
    let mut tls = rustls::ClientConfig::builder_with_provider(quantum_grpc::crypto_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(transport(args.congestion));
    Ok(config)
}

fn certificate(certs: &Path) -> anyhow::Result<CertificateDer<'static>> {
    let identity = certs::identity(certs)?;
    let certificate = CertificateDer::from_pem_slice(identity.certificate_pem().as_bytes());
    certificate.with_context(|| format!("the certificate in {}", certs.display()))
}

/// Answers messages and takes bulk over QUIC until the process ends.
///
/// # Errors
/// If the certificate folder or the address cannot be used.
pub async fn serve(args: &TransportArgs, listen: SocketAddr, ready: impl FnOnce(SocketAddr)) -> anyhow::Result<()> {
    let endpoint = endpoint(listen, Some(server_config(args)?))?;
    ready(endpoint.local_addr()?);
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            let connection = match incoming.await {
                Ok(connection) => connection,
                Err(error) => return tracing::debug!(%error, "a handshake failed"),
            };
            while let Ok((send, receive)) = connection.accept_bi().await {
                tokio::spawn(async move {
                    if let Err(error) = answer(send, receive).await {
                        tracing::debug!(%error, "a stream failed");
                    }
                });
            }
        });
    }
    Ok(())
}

async fn answer(mut send: SendStream, mut receive: RecvStream) -> anyhow::Result<()> {
    let mut kind = [0];
    receive.read_exact(&mut kind).await?;
    match kind[0] {
        ECHO => {
            while let Some(chunk) = receive.read_chunk(usize::MAX, true).await? {
                send.write_chunk(chunk.bytes).await?;
            }
        }
        UPLOAD => {
            let mut ms = [0; arrivals::REQUEST_BYTES];
            receive.read_exact(&mut ms).await?;
            let mut counted = Arrivals::new(Instant::now(), arrivals::measured(u64::from_be_bytes(ms))?);
            let end = counted.end().into();
            while let Ok(chunk) = tokio::time::timeout_at(end, receive.read_chunk(usize::MAX, true)).await {
                let Some(chunk) = chunk? else { break };
                counted.add(Instant::now(), chunk.bytes.len());
            }
            send.write_all(&counted.arrived().to_bytes()).await?;
            send.finish()?;
            while receive.read_chunk(usize::MAX, false).await?.is_some() {}
            return Ok(());
        }
        other => bail!("a stream starts with byte {other}"),
    }
    send.finish()?;
    Ok(())
}

/// A connection that carries each message on a stream of its own.
#[derive(Debug, Clone)]
pub struct QuicStreams {
    connection: Connection,
    /// Sends and receives for as long as it is there.
    _endpoint: Endpoint,
}

impl QuicStreams {
    /// Connects, trying again for as long as the server may be starting.
    ///
    /// # Errors
    /// If nobody answers within ten seconds.
    pub async fn connect(args: &TransportArgs, remote: SocketAddr) -> anyhow::Result<Self> {
        let any = if remote.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let endpoint = endpoint(any.parse().expect("the address is constant and valid"), None)?;
        let config = client_config(args)?;
        let until = Instant::now() + CONNECT_FOR;
        loop {
            let connecting = endpoint.connect_with(config.clone(), remote, SERVER_NAME)?;
            match tokio::time::timeout_at((until + CONNECT_FOR).into(), connecting).await {
                Ok(Ok(connection)) => return Ok(Self { connection, _endpoint: endpoint }),
                Ok(Err(_)) if Instant::now() < until => tokio::time::sleep(Duration::from_millis(50)).await,
                Ok(Err(error)) => return Err(error).with_context(|| format!("cannot connect to {remote}")),
                Err(_) => bail!("cannot connect to {remote}: nobody answers"),
            }
        }
    }
}

impl Echo for QuicStreams {
    async fn call(&self, payload: Bytes) -> anyhow::Result<()> {
        let sent = payload.len();
        let (mut send, mut receive) = self.connection.open_bi().await?;
        let mut message = BytesMut::with_capacity(1 + sent);
        message.extend_from_slice(&[ECHO]);
        message.extend_from_slice(&payload);
        // Both at once: a message larger than the windows comes back while it is being sent.
        let sending = async {
            send.write_chunk(message.freeze()).await?;
            anyhow::Ok(send.finish()?)
        };
        let receiving = async {
            let mut received = 0;
            while let Some(chunk) = receive.read_chunk(usize::MAX, true).await? {
                received += chunk.bytes.len();
            }
            anyhow::Ok(received)
        };
        let ((), received) = tokio::try_join!(sending, receiving)?;
        ensure!(received == sent, "{received} bytes came back of {sent}");
        Ok(())
    }

    async fn upload(&self, chunk: Bytes, measured: Duration) -> anyhow::Result<Arrived> {
        let (mut send, mut receive) = self.connection.open_bi().await?;
        send.write_all(&[&[UPLOAD][..], &arrivals::request(measured)?].concat()).await?;
        let sending = async {
            loop {
                if let Err(error) = send.write_chunk(chunk.clone()).await {
                    return Err(anyhow::Error::from(error));
                }
            }
        };
        let report = async { Arrived::from_bytes(&receive.read_to_end(arrivals::REPORT_BYTES).await?) };
        tokio::select! {
            report = arrivals::within(measured, report) => report,
            failed = sending => failed,
        }
    }
}
