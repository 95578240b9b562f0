//! A channel over Quantum, over TCP, or over whichever of them gets through.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::transport;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::Channel;
use super::silence::Listening;
use super::tls::TlsConnector;
use crate::connection::{Connection, ConnectionError};
use crate::deadline::{Deadline, DeadlineLayer, deadline_exceeded, grpc_timeout};
use crate::endpoint::{ClientConfig, Endpoint, resolve};

/// How long Quantum may try alone before TCP tries as well (compare the connection attempt delay of RFC 8305 section 5).
const HEAD_START: Duration = Duration::from_millis(250);
/// The first pause before Quantum is tried again while TCP is in use; each is twice as long as the one before.
const PROBE_PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest such pause.
const PROBE_PAUSE_MAX: Duration = Duration::from_mins(1);
/// An attempt over TCP takes no longer.
const TCP_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause before TCP is tried again beside a connection over Quantum from which nothing comes.
const TCP_PAUSE: Duration = Duration::from_secs(1);
/// A connection over Quantum that stays silent for so long beside TCP that gets through is given up. Its probes double their
/// distance, so after the two seconds that it was silent before, one at least is sent and could be answered meanwhile.
const SILENT_BESIDE_TCP: Duration = Duration::from_secs(3);

/// What carries a channel's calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Quantum.
    #[default]
    Quantum,
    /// HTTP/2 over TCP.
    Tcp,
    /// Quantum where UDP gets through, TCP elsewhere.
    Auto,
}

/// Settings of an [`AnyChannel`].
#[derive(Clone, Debug)]
pub struct AnyConfig {
    /// What carries the calls.
    pub transport: Transport,
    /// Whom Quantum and TLS connect to, and how the server is verified.
    pub client: ClientConfig,
    /// TCP carries TLS; otherwise it is in plain text.
    pub tls: bool,
    /// TCP in plain text may leave this host: without it [`Transport::Auto`] stays with Quantum there, so that
    /// nobody on the way can turn encryption off by dropping UDP.
    pub allows_plain_text: bool,
}

/// A gRPC channel to one server whose calls go over the transport that was chosen. With [`Transport::Auto`] both are tried,
/// Quantum 250 ms ahead, and the first that connects is used. While that is TCP, Quantum is tried again from time to time,
/// and later calls use it as soon as it connects; when a connection over Quantum is lost, both are tried anew. When nothing comes
/// over Quantum for two seconds (or ten round trips) though an answer is due, later calls take TCP if that connects, until
/// something comes; after three seconds more the connection is given up, and its calls end with UNAVAILABLE.
#[derive(Clone, Debug)]
pub struct AnyChannel {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    transport: Transport,
    tcp: Arc<TcpTarget>,
    /// None where TCP is all that was asked for.
    quantum: Option<Channel>,
    state: Mutex<State>,
}

/// Where TCP goes, and how.
#[derive(Debug)]
struct TcpTarget {
    address: String,
    /// Plain text may leave this host.
    allows_plain_text: bool,
    /// How it is encrypted; none: it is in plain text.
    tls: Option<ClientConfig>,
}

#[derive(Debug)]
enum State {
    Undecided,
    Quantum {
        channel: Channel,
        /// Turns to TCP when the connection falls silent; ends when it is over. None where Quantum is all that was asked for.
        watch: Option<AbortOnDropHandle<()>>,
    },
    Tcp {
        channel: transport::Channel,
        /// Ends when Quantum has connected. None where TCP is all that was asked for.
        probe: Option<AbortOnDropHandle<()>>,
    },
}

#[derive(Debug)]
enum Route {
    Quantum(Channel),
    Tcp(transport::Channel),
}

impl AnyChannel {
    /// A channel over TCP in plain text to `address` (`host:port`) that connects with its first call.
    pub fn tcp(address: &str) -> Self {
        Self::new(Transport::Tcp, address, true, None, None)
    }

    /// A channel over TLS over TCP to `address` (`host:port`) that connects with its first call.
    pub fn tls(address: &str, client: ClientConfig) -> Self {
        Self::new(Transport::Tcp, address, false, Some(client), None)
    }

    /// A channel to `address` (`host:port`) that connects with its first call.
    pub fn connect_lazy(endpoint: Endpoint, address: &str, config: AnyConfig) -> Self {
        let tls = config.tls.then(|| config.client.clone());
        let quantum = Channel::connect_lazy(endpoint, address, config.client);
        let quantum = Some(quantum).filter(|_| config.transport != Transport::Tcp);
        Self::new(config.transport, address, config.allows_plain_text, tls, quantum)
    }

    fn new(
        transport: Transport,
        address: &str,
        allows_plain_text: bool,
        tls: Option<ClientConfig>,
        quantum: Option<Channel>,
    ) -> Self {
        // Who asked for TCP has asked for plain text if it is not encrypted.
        let allows_plain_text = allows_plain_text || transport == Transport::Tcp;
        let tcp = Arc::new(TcpTarget { address: address.to_owned(), allows_plain_text, tls });
        let state = Mutex::new(State::Undecided);
        Self { shared: Arc::new(Shared { transport, tcp, quantum, state }) }
    }

    /// Connects if there is no connection, and says what the next call would use: Quantum or TCP.
    ///
    /// # Errors
    /// UNAVAILABLE, with what each transport says.
    pub async fn transport(&self) -> Result<Transport, Status> {
        Ok(match self.shared.route().await? {
            Route::Quantum(_) => Transport::Quantum,
            Route::Tcp(_) => Transport::Tcp,
        })
    }
}

impl Shared {
    async fn route(self: &Arc<Self>) -> Result<Route, Status> {
        let mut state = self.state.lock().await;
        match &*state {
            State::Quantum { channel, watch } if goes_on(watch.as_ref()) && channel.is_connected().await => {
                return Ok(Route::Quantum(channel.clone()));
            }
            State::Tcp { channel, probe } if goes_on(probe.as_ref()) => return Ok(Route::Tcp(channel.clone())),
            _ => {}
        }
        // After a probe that found Quantum to connect this goes on with the connection that it made.
        *state = State::Undecided;
        let (chosen, route) = match (&self.quantum, self.transport) {
            (Some(quantum), Transport::Auto) => self.race(quantum).await?,
            (Some(quantum), _) => {
                quantum.usable().await.map_err(|error| Status::unavailable(error.to_string()))?;
                (State::Quantum { channel: quantum.clone(), watch: None }, Route::Quantum(quantum.clone()))
            }
            (None, _) => {
                let channel = self.tcp.connect().await.map_err(Status::unavailable)?;
                (State::Tcp { channel: channel.clone(), probe: None }, Route::Tcp(channel))
            }
        };
        *state = chosen;
        Ok(route)
    }

    /// Tries both.
    async fn race(self: &Arc<Self>, quantum: &Channel) -> Result<(State, Route), Status> {
        let channel = quantum.clone();
        let mut attempt = tokio::spawn(async move { channel.connection().await });
        let mut refusal = None;
        match tokio::time::timeout(HEAD_START, &mut attempt).await {
            Ok(outcome) => match settled(outcome) {
                Ok(connection) => return Ok(self.over_quantum(quantum, connection)),
                Err(error) => refusal = Some(error),
            },
            Err(_elapsed) => {}
        }
        let mut tcp = std::pin::pin!(self.tcp.connect());
        if refusal.is_none() {
            tokio::select! {
                outcome = &mut attempt => match settled(outcome) {
                    Ok(connection) => return Ok(self.over_quantum(quantum, connection)),
                    Err(error) => refusal = Some(error),
                },
                connected = &mut tcp => return match connected {
                    Ok(channel) => Ok(probed(quantum, channel, Some(attempt))),
                    Err(failure) => match settled(attempt.await) {
                        Ok(connection) => Ok(self.over_quantum(quantum, connection)),
                        Err(error) => Err(both_failed(&error, &failure)),
                    },
                },
            }
        }
        match (tcp.await, refusal) {
            (Ok(channel), _) => Ok(probed(quantum, channel, None)),
            (Err(failure), Some(error)) => Err(both_failed(&error, &failure)),
            (Err(failure), None) => Err(Status::unavailable(failure)),
        }
    }

    /// Quantum is in use, and listened to.
    fn over_quantum(self: &Arc<Self>, channel: &Channel, connection: Connection) -> (State, Route) {
        // Weak, since the channel holds the task.
        let (shared, tcp, quantum) = (Arc::downgrade(self), self.tcp.clone(), channel.clone());
        let watch = tokio::spawn(async move {
            let Some((listening, tcp)) = until_silenced(connection, &tcp).await else { return };
            let Some(shared) = shared.upgrade() else { return };
            // With the state this task goes.
            *shared.state.lock().await = beside_silence(quantum, listening, tcp);
        });
        let watch = Some(AbortOnDropHandle::new(watch));
        (State::Quantum { channel: channel.clone(), watch }, Route::Quantum(channel.clone()))
    }

    async fn call(self: &Arc<Self>, request: Request<Body>) -> Result<Response<Body>, Status> {
        let timeout = grpc_timeout(request.headers());
        let mut deadline = Deadline::at(timeout.map(|timeout| Instant::now() + timeout));
        let route = tokio::select! {
            biased;
            route = self.route() => route?,
            () = deadline.passed() => return Err(deadline_exceeded()),
        };
        match route {
            Route::Quantum(mut channel) => Ok(channel.call(request).await?.map(Body::new)),
            Route::Tcp(channel) => {
                let mut channel = DeadlineLayer.layer(channel);
                std::future::poll_fn(|cx| channel.poll_ready(cx)).await.map_err(tcp_status)?;
                channel.call(request).await.map_err(tcp_status)
            }
        }
    }
}

impl TcpTarget {
    /// Connects over TCP, or says why that fails.
    async fn connect(&self) -> Result<transport::Channel, String> {
        let remote = resolve(&self.address).await.map_err(|error| error.to_string())?;
        if self.tls.is_none() && !self.allows_plain_text && !is_this_host(remote) {
            return Err(format!("TCP to {remote} would be in plain text, which was not allowed"));
        }
        let no_address =
            |error: &dyn std::fmt::Display| format!("{:?} is no address of a server: {error}", self.address);
        let endpoint = transport::Endpoint::from_shared(format!("http://{}", self.address));
        let endpoint = endpoint.map_err(|error| no_address(&error))?;
        let endpoint = endpoint.tcp_nodelay(true).connect_timeout(TCP_TIMEOUT);
        let connected = match &self.tls {
            None => endpoint.connect().await,
            Some(client) => {
                let connector =
                    TlsConnector::new(client.named(&self.address), remote).map_err(|error| error.to_string())?;
                endpoint.connect_with_connector(connector).await
            }
        };
        connected.map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            format!("TCP to {remote}: {}", cause.unwrap_or_else(|| error.to_string()))
        })
    }
}

fn goes_on(task: Option<&AbortOnDropHandle<()>>) -> bool {
    task.is_none_or(|task| !task.is_finished())
}

/// Waits until nothing comes over a connection that calls wait for though TCP connects; `None` once the connection is over.
async fn until_silenced(connection: Connection, tcp: &TcpTarget) -> Option<(Listening, transport::Channel)> {
    let mut listening = Listening::to(connection);
    loop {
        listening.until_silent().await?;
        tracing::debug!("nothing comes over Quantum: TCP is tried");
        let connected = tokio::select! {
            biased;
            heard = listening.until_heard() => {
                heard?;
                continue;
            }
            connected = tcp.connect() => connected,
        };
        match connected {
            Ok(tcp) => return Some((listening, tcp)),
            Err(error) => tracing::debug!(%error, "neither transport gets through"),
        }
        tokio::time::sleep(TCP_PAUSE).await;
    }
}

/// TCP is in use; the connection over Quantum may be heard again.
fn beside_silence(quantum: Channel, mut listening: Listening, tcp: transport::Channel) -> State {
    tracing::info!("nothing comes over Quantum: TCP is used meanwhile");
    let probe = tokio::spawn(async move {
        let heard = tokio::time::timeout(SILENT_BESIDE_TCP, listening.until_heard()).await;
        if !matches!(heard, Ok(Some(()))) {
            tracing::info!("the connection over Quantum is given up, and Quantum is tried again from time to time");
            listening.give_up();
            until_connected(&quantum, None).await;
        }
        tracing::info!("Quantum gets through: it is used from the next call on");
    });
    State::Tcp { channel: tcp, probe: Some(AbortOnDropHandle::new(probe)) }
}

/// TCP is in use; Quantum goes on trying.
fn probed(quantum: &Channel, channel: transport::Channel, attempt: Option<Attempt>) -> (State, Route) {
    tracing::info!("Quantum does not connect: TCP is used, and Quantum is tried again from time to time");
    let quantum = quantum.clone();
    let probe = tokio::spawn(async move {
        until_connected(&quantum, attempt).await;
        tracing::info!("Quantum has connected: it is used from the next call on");
    });
    let probe = Some(AbortOnDropHandle::new(probe));
    (State::Tcp { channel: channel.clone(), probe }, Route::Tcp(channel))
}

async fn until_connected(quantum: &Channel, attempt: Option<Attempt>) {
    if let Some(attempt) = attempt
        && settled(attempt.await).is_ok()
    {
        return;
    }
    let mut pause = PROBE_PAUSE_MIN;
    loop {
        tokio::time::sleep(pause).await;
        if quantum.connection().await.is_ok() {
            return;
        }
        pause = (pause * 2).min(PROBE_PAUSE_MAX);
    }
}

type Attempt = JoinHandle<Result<Connection, ConnectionError>>;

fn settled(
    outcome: Result<Result<Connection, ConnectionError>, tokio::task::JoinError>,
) -> Result<Connection, ConnectionError> {
    outcome.unwrap_or(Err(ConnectionError::EndpointGone))
}

fn is_this_host(remote: SocketAddr) -> bool {
    remote.ip().to_canonical().is_loopback()
}

fn both_failed(quantum: &ConnectionError, tcp: &str) -> Status {
    Status::unavailable(format!("neither transport connects: Quantum: {quantum}; {tcp}"))
}

/// The status in an error of tonic, or UNAVAILABLE with its innermost cause: the connection is no good. What the connection's end
/// cancelled nobody asked to be cancelled.
fn tcp_status(error: transport::Error) -> Status {
    let error: Box<dyn std::error::Error + Send + Sync> = Box::new(error);
    let mut cause: &dyn std::error::Error = &*error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let lost = Status::unavailable(format!("TCP: {cause}"));
    Status::try_from_error(error).ok().filter(|status| status.code() != Code::Cancelled).unwrap_or(lost)
}

impl Service<Request<Body>> for AnyChannel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let shared = self.shared.clone();
        Box::pin(async move { shared.call(request).await })
    }
}
