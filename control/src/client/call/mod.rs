//! `aetherflow call`: any method of any server that answers reflection, JSON in and JSON lines out.

mod codec;
mod describe;
mod schema;

#[cfg(test)]
mod tests;

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use clap::Args;
use prost_reflect::{DynamicMessage, MethodDescriptor};
use quantum_grpc::AnyChannel;
use serde::de::DeserializeSeed;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, BinaryMetadataKey, BinaryMetadataValue, MetadataMap};
use tonic::{Code, Request, Status};

use super::{ConnectArgs, ConnectError, CredentialArgs, TraceArgs};
use crate::telemetry::{RpcSpan, Tracer};
use codec::DynamicCodec;

/// Bytes of one message, in either direction, at most.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Messages read ahead of what the server takes.
const REQUESTS_AHEAD: usize = 16;
/// What the exit code of a call that failed is above the gRPC status code.
pub const EXIT_STATUS_BASE: u8 = 64;

/// Help with examples.
pub const EXAMPLES: &str = "Examples:
  aetherflow call --insecure-loopback 127.0.0.1:9002 list
  aetherflow call --insecure-loopback 127.0.0.1:9002 describe \\
      aetherflow.statesync.StateSyncService
  aetherflow call --transport tcp 127.0.0.1:9001 session.SessionService/CreateSession \\
      '{\"user_id\": \"ada\", \"client_ip\": \"127.0.0.1\", \"client_port\": 4242}'
  aetherflow call --pin FINGERPRINT example.org:9002 \\
      aetherflow.statesync.StateSyncService/SubscribeDocument \\
      '{\"doc_id\": \"0190...\", \"user_id\": \"ada\"}'
  aetherflow call --transport tcp --tls --ca data/cert.pem example.org:9001 --timeout 2 \\
      -H 'x-session-token: TOKEN' session.SessionService/Heartbeat '{\"session_id\": \"0190...\"}'
  aetherflow call --insecure-loopback --token-file token 127.0.0.1:9002 \\
      aetherflow.statesync.StateSyncService/ListDocuments
  aetherflow call --insecure-loopback --trace http://127.0.0.1:4317 \\
      127.0.0.1:9001 session.SessionService/GetStats
  produce-json-lines | aetherflow call --insecure-loopback 127.0.0.1:9002 my.Service/Upload -

Over Quantum, and over TCP with --tls, it has to know whom to trust: --pin, --ca or, on loopback, --insecure-loopback.

Fields may be written as in the .proto file or in lowerCamelCase; bytes are base64. The exit code is 0 for OK, 64 plus the \
gRPC status code for any other status, and 2 if there was no call.";

/// Arguments of `aetherflow call`.
#[derive(Args, Clone, Debug)]
pub struct CallArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    credentials: CredentialArgs,
    #[command(flatten)]
    trace: TraceArgs,
    /// Metadata sent with the call, repeatable; the value of a name that ends in -bin is base64
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The call's deadline; it holds for connecting too. Without it there is none
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<f64>,
    /// The server; 9001 is where sessions are by default, 9002 documents
    #[arg(value_name = "HOST:PORT")]
    address: String,
    /// `package.Service/Method` to call, `list` for the services, `describe` for a service, method, message or enum
    #[arg(value_name = "METHOD")]
    method: String,
    /// The request as JSON, or one after the other for a stream; `-` reads JSON lines from standard input. For `list` a
    /// service, for `describe` a name
    #[arg(value_name = "JSON")]
    json: Option<String>,
}

/// Why a call did not end with OK.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The server, or the way to it, said so.
    #[error("{}: {}", code_name(.0.code()), .0.message())]
    Status(Box<Status>),
    /// The client could not be set up.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The command line or the request is wrong.
    #[error("{0}")]
    Usage(String),
    /// Writing the answer failed.
    #[error("cannot write the answer: {0}")]
    Output(#[from] std::io::Error),
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl CallError {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Status(status) => EXIT_STATUS_BASE + status.code() as u8,
            _ => 2,
        }
    }
}

/// A status code as the gRPC specification writes it.
fn code_name(code: tonic::Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

/// Runs the command.
///
/// # Errors
/// See [`CallError`].
pub async fn run(
    args: &CallArgs,
    input: impl AsyncBufRead + Send + Unpin + 'static,
    output: &mut (impl AsyncWrite + Unpin),
) -> Result<(), CallError> {
    let channel = args.connect.channel(&args.address)?;
    let deadline = args.deadline()?;
    let tracer = args.trace.tracer("aetherflow-call").map_err(ConnectError::from)?;
    let running = async {
        dispatch(args, channel, tracer.as_ref(), (input, &mut *output)).await?;
        Ok(output.flush().await?)
    };
    // The transports end a call at its deadline too; this holds for connecting and reflection as well.
    let ended: Result<(), CallError> = match deadline {
        None => running.await,
        Some(deadline) => tokio::time::timeout(deadline, running)
            .await
            .unwrap_or_else(|_elapsed| Err(Status::deadline_exceeded("the call's deadline has passed").into())),
    };
    if let Some(tracer) = tracer {
        tracer.shutdown().await;
    }
    ended
}

async fn dispatch(
    args: &CallArgs,
    channel: AnyChannel,
    tracer: Option<&Tracer>,
    (input, output): (impl AsyncBufRead + Send + Unpin + 'static, &mut (impl AsyncWrite + Unpin)),
) -> Result<(), CallError> {
    match args.method.as_str() {
        "list" => {
            let names = match &args.json {
                None => schema::services(channel).await?,
                Some(service) => describe::methods(&schema::of_symbol(channel, service).await?, service)?,
            };
            Ok(output.write_all(lines(&names).as_bytes()).await?)
        }
        "describe" => {
            let names = match &args.json {
                Some(name) => vec![name.clone()],
                None => schema::services(channel.clone()).await?,
            };
            for name in names {
                let pool = schema::of_symbol(channel.clone(), &name.replace('/', ".")).await?;
                output.write_all(describe::describe(&pool, &name.replace('/', "."))?.as_bytes()).await?;
            }
            Ok(())
        }
        _ => call(args, channel, tracer, (input, output)).await,
    }
}

fn lines(names: &[String]) -> String {
    names.iter().flat_map(|name| [name, "\n"]).collect()
}

async fn call(
    args: &CallArgs,
    channel: AnyChannel,
    tracer: Option<&Tracer>,
    (input, output): (impl AsyncBufRead + Send + Unpin + 'static, &mut (impl AsyncWrite + Unpin)),
) -> Result<(), CallError> {
    let (service, method) = args.method.rsplit_once('/').ok_or_else(|| {
        CallError::Usage(format!(
            "{:?} is no method: give package.Service/Method, list or describe; `list` shows what there is",
            args.method
        ))
    })?;
    let token = args.credentials.header(&args.connect, &args.address)?;
    let pool = schema::of_symbol(channel.clone(), service).await?;
    let unknown =
        || CallError::Usage(format!("{service} has no method {method:?}: `list {service}` shows what it has"));
    let found = pool.get_service_by_name(service).ok_or_else(unknown)?;
    let method = found.methods().find(|found| found.name() == method).ok_or_else(unknown)?;
    let (requests, failed) = requests(args, &method, input)?;
    let mut request = Request::new(requests);
    *request.metadata_mut() = metadata(&args.headers)?;
    if let Some(token) = token
        && !request.metadata().contains_key("authorization")
    {
        let token = AsciiMetadataValue::try_from(token.as_bytes()).map_err(|_| ConnectError::Token)?;
        request.metadata_mut().insert("authorization", token);
    }
    if let Some(deadline) = args.deadline()? {
        request.set_timeout(deadline);
    }
    let path = format!("/{service}/{}", method.name());
    let mut span = tracer.map(|tracer| traced(tracer, &path, request.metadata_mut()));
    let path = path.parse().map_err(|_| CallError::Usage(format!("{path:?} is no path")))?;
    let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    grpc.ready().await?;
    let answered = async {
        let mut answers = grpc.streaming(request, path, DynamicCodec::new(&method)).await?.into_inner();
        while let Some(answer) = answers.message().await? {
            let mut line = serde_json::to_vec(&answer).map_err(|error| CallError::Usage(error.to_string()))?;
            line.push(b'\n');
            output.write_all(&line).await?;
            // Events are to be seen as they come.
            output.flush().await?;
        }
        Ok(())
    };
    let ended = tokio::select! {
        biased;
        Ok(error) = failed => Err(error),
        answered = answered => answered,
    };
    match (&mut span, &ended) {
        (Some(span), Ok(())) => span.end(Code::Ok.into()),
        (Some(span), Err(CallError::Status(status))) => span.end(status.code().into()),
        // Given up on this side: that is how it ends by itself.
        _ => {}
    }
    ended
}

/// The span of a call, which its metadata names from here on.
fn traced(tracer: &Tracer, path: &str, metadata: &mut MetadataMap) -> RpcSpan {
    let mut headers = std::mem::take(metadata).into_headers();
    let span = RpcSpan::sent(tracer, path, &mut headers);
    *metadata = MetadataMap::from_headers(headers);
    tracing::info!(trace_id = %span.context().trace_id(), kept = span.context().is_sampled(), "the call is traced");
    span
}

type Requests = ReceiverStream<DynamicMessage>;
type Failure = tokio::sync::oneshot::Receiver<CallError>;

/// The messages to send, and what tells if one of them is wrong.
fn requests(
    args: &CallArgs,
    method: &MethodDescriptor,
    input: impl AsyncBufRead + Send + Unpin + 'static,
) -> Result<(Requests, Failure), CallError> {
    let (sender, receiver) = mpsc::channel(REQUESTS_AHEAD);
    let (failed, failure) = tokio::sync::oneshot::channel();
    let method = method.clone();
    if args.json.as_deref() == Some("-") {
        tokio::spawn(async move {
            if let Err(error) = feed(&method, input, &sender).await {
                // The call may be over and nobody listen.
                let _ = failed.send(error);
                // The stream must not look finished before the failure is heard of.
                std::future::pending::<()>().await;
            }
        });
        return Ok((ReceiverStream::new(receiver), failure));
    }
    let messages = parse(&method, args.json.as_deref().unwrap_or("{}"))?;
    if !method.is_client_streaming() && messages.len() != 1 {
        let count = messages.len();
        return Err(CallError::Usage(format!("{} takes one message, not {count}", method.full_name())));
    }
    tokio::spawn(async move {
        for message in messages {
            if sender.send(message).await.is_err() {
                return;
            }
        }
    });
    Ok((ReceiverStream::new(receiver), failure))
}

/// Sends a line of `input` after the other; for a method that takes one message all of it.
async fn feed(
    method: &MethodDescriptor,
    mut input: impl AsyncBufRead + Unpin,
    sender: &mpsc::Sender<DynamicMessage>,
) -> Result<(), CallError> {
    let unreadable = |error| CallError::Usage(format!("cannot read standard input: {error}"));
    if !method.is_client_streaming() {
        let mut text = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut input, &mut text).await.map_err(unreadable)?;
        let message = parse(method, &text)?.into_iter().next();
        let message = message.ok_or_else(|| CallError::Usage("standard input holds no message".to_owned()))?;
        // A receiver that is gone has its answer already.
        let _ = sender.send(message).await;
        return Ok(());
    }
    let mut lines = input.lines();
    while let Some(line) = lines.next_line().await.map_err(unreadable)? {
        for message in parse(method, &line)? {
            if sender.send(message).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The messages in a text of JSON values.
fn parse(method: &MethodDescriptor, text: &str) -> Result<Vec<DynamicMessage>, CallError> {
    let input = method.input();
    let wrong = |error: serde_json::Error| {
        let name = input.full_name();
        CallError::Usage(format!("the request is no {name}: {error}; `describe {name}` shows its fields"))
    };
    let mut messages = Vec::new();
    let mut values = serde_json::Deserializer::from_str(text);
    // Not at its end: another value follows.
    while values.end().is_err() {
        messages.push(input.clone().deserialize(&mut values).map_err(wrong)?);
    }
    Ok(messages)
}

/// The headers of the command line as metadata.
fn metadata(headers: &[String]) -> Result<MetadataMap, CallError> {
    let mut map = MetadataMap::new();
    for header in headers {
        let wrong = || CallError::Usage(format!("{header:?} is no header: write \"name: value\""));
        let (name, value) = header.split_once(':').ok_or_else(wrong)?;
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        if name.ends_with("-bin") {
            let name: BinaryMetadataKey = name.parse().map_err(|_| wrong())?;
            let bytes = BASE64.decode(value).map_err(|_| wrong())?;
            map.append_bin(name, BinaryMetadataValue::from_bytes(&bytes));
        } else {
            let name: AsciiMetadataKey = name.parse().map_err(|_| wrong())?;
            map.append(name, value.parse().map_err(|_| wrong())?);
        }
    }
    Ok(map)
}

impl CallArgs {
    fn deadline(&self) -> Result<Option<Duration>, CallError> {
        let Some(seconds) = self.timeout else { return Ok(None) };
        let wrong = || CallError::Usage(format!("--timeout {seconds} is no time: give seconds, for example 2.5"));
        Duration::try_from_secs_f64(seconds).map(Some).map_err(|_| wrong())
    }
}
