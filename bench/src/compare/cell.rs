//! One measurement: `serve` at one end of a link, `drive` or `bulk` at the other, all of them this program.

use std::path::{Path as FilePath, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use quantum_sim::LinkStats;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use super::model::{Goodput, Latency, Outcome, Share, Workload};
use super::plan::Task;
use super::{paths, peer};
use crate::link::{ADDR_B, Line};
use crate::load::Recovery;

/// The first flow's server; others follow.
const PORT: u16 = 7000;
/// A server that takes longer will not start.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that takes so much longer than its measurement hangs. It may connect for 20 s, wait for answers for 10 round trips
/// of seconds each, or for a report for 30 s.
const CLIENT_GRACE: Duration = Duration::from_secs(75);
/// Of what a failed process said, as much is kept.
const REASON_LEN_MAX: usize = 300;

/// What measurements share.
#[derive(Debug)]
pub(super) struct Bench {
    program: PathBuf,
    certs: tempfile::TempDir,
}

/// The JSON of `drive`, as far as it is needed.
#[derive(Deserialize)]
struct Driven {
    sent: u64,
    received: u64,
    errors: u64,
    rps: f64,
    histogram: String,
    wire_bytes_sent: u64,
    wire_bytes_received: u64,
    cpu_s: f64,
    server_cpu_s: f64,
    #[serde(flatten)]
    recovery: Option<Recovery>,
}

/// The JSON of `bulk`, as far as it is needed.
#[derive(Deserialize)]
struct Uploaded {
    goodput_mbit: f64,
    goodput_second_half_mbit: f64,
    wire_bytes_sent: u64,
    cpu_s: f64,
    server_cpu_s: f64,
}

impl Bench {
    /// Makes the certificate that both ends use.
    pub(super) fn new() -> anyhow::Result<Self> {
        let certs = tempfile::tempdir()?;
        crate::certs::identity(&certs.path().join("made"))?;
        Ok(Self { program: std::env::current_exe().context("where this program is")?, certs })
    }

    /// Measures tasks at the same time. A link is made for each before the first begins, and taken down after the last ended.
    pub(super) async fn measure(&self, tasks: &[Task]) -> Vec<Outcome> {
        let lines: Vec<_> = tasks.iter().enumerate().map(|(index, task)| line(task, index)).collect();
        let measurements = tasks.iter().zip(&lines).map(async |(task, line)| match line {
            Ok(line) => self.measure_on(task, line).await,
            Err(error) => bail!("no link: {error:#}"),
        });
        let measured = futures_util::future::join_all(measurements).await;
        let finished = measured.into_iter().zip(lines).zip(tasks).map(|((measured, line), task)| {
            let finished = line.and_then(Line::finish);
            Ok(finish(task, measured?, finished?))
        });
        finished.map(|outcome: anyhow::Result<Outcome>| outcome.unwrap_or_else(failed)).collect()
    }

    async fn measure_on(&self, task: &Task, line: &Line) -> anyhow::Result<Outcome> {
        match task.workload {
            Workload::Messages => self.drive(task, line, &["--rate", "200"]).await,
            Workload::Concurrent => self.drive(task, line, &["--rate", "0", "--concurrency", "64"]).await,
            Workload::PingPong => self.drive(task, line, &["--rate", "0"]).await,
            Workload::Bulk | Workload::BulkUnlimited => self.bulk(task, line).await,
            Workload::Fairness => self.share(task, line).await,
        }
    }

    async fn drive(&self, task: &Task, line: &Line, load: &[&str]) -> anyhow::Result<Outcome> {
        let server = self.serve(line, &task.peer, PORT).await?;
        let mut command = self.client(line, "drive", task, &server)?;
        command.args(["--size", "256", "--histogram", "--warmup", &task.warmup_s.to_string()]).args(load);
        let driven: Driven = ask(command, task).await?;
        Ok(Outcome::Latency(Latency {
            sent: driven.sent,
            received: driven.received,
            errors: driven.errors,
            histogram: driven.histogram,
            per_s: driven.rps,
            wire_bytes_sent: driven.wire_bytes_sent,
            wire_bytes_received: driven.wire_bytes_received,
            cpu_s: driven.cpu_s + driven.server_cpu_s,
            recovery: driven.recovery,
        }))
    }

    async fn bulk(&self, task: &Task, line: &Line) -> anyhow::Result<Outcome> {
        let server = self.serve(line, &task.peer, PORT).await?;
        let sent: Uploaded = ask(self.client(line, "bulk", task, &server)?, task).await?;
        Ok(Outcome::Goodput(Goodput {
            mbit_per_s: sent.goodput_mbit,
            queue_bytes_mean: None,
            wire_bytes_sent: sent.wire_bytes_sent,
            cpu_s: sent.cpu_s + sent.server_cpu_s,
        }))
    }

    /// Every flow with a server of its own; all begin together.
    async fn share(&self, task: &Task, line: &Line) -> anyhow::Result<Outcome> {
        let mut servers = Vec::new();
        for (flow, port) in peer::flows(&task.peer).into_iter().zip(PORT..) {
            servers.push(self.serve(line, flow, port).await?);
        }
        let clients = servers.iter().map(async |server| -> anyhow::Result<Share> {
            let sent: Uploaded = ask(self.client(line, "bulk", task, server)?, task).await?;
            Ok(Share { peer: server.peer.clone(), mbit_per_s: sent.goodput_second_half_mbit })
        });
        Ok(Outcome::Shares(futures_util::future::try_join_all(clients).await?))
    }

    /// Starts a server at the second end and waits until it listens.
    async fn serve(&self, line: &Line, peer: &str, port: u16) -> anyhow::Result<Server> {
        let mut command = self.command(line.namespaces()[1]);
        command.args(["serve", "--json", "--listen", &format!("{ADDR_B}:{port}")]);
        command.arg("--certs").arg(self.certs()).args(peer::flags(peer)?);
        let mut process = command.spawn().context("serve does not start")?;
        let mut lines = BufReader::new(process.stdout.take().expect("standard output is a pipe")).lines();
        match tokio::time::timeout(START_TIMEOUT, lines.next_line()).await {
            Ok(Ok(Some(_))) => Ok(Server { process, peer: peer.to_owned(), port }),
            Ok(_) => bail!("serve: {}", last_words(&mut process).await),
            Err(_) => bail!("serve did not start in {START_TIMEOUT:?}"),
        }
    }

    fn client(&self, line: &Line, subcommand: &str, task: &Task, server: &Server) -> anyhow::Result<Command> {
        let mut command = self.command(line.namespaces()[0]);
        let pid = server.process.id().context("the server ended")?.to_string();
        command.args([subcommand, "--json", "--connect", &format!("{ADDR_B}:{}", server.port)]);
        command.args(["--seconds", &task.seconds.to_string(), "--server-pid", &pid]);
        command.arg("--certs").arg(self.certs()).args(peer::flags(&server.peer)?);
        Ok(command)
    }

    /// This program inside a namespace. It is in a group of its own, so that Ctrl-C reaches only who cleans up, and it is
    /// killed when its handle is dropped.
    fn command(&self, namespace: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(&self.program);
        command.env_remove("RUST_LOG").process_group(0).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn certs(&self) -> PathBuf {
        FilePath::join(self.certs.path(), "made")
    }
}

/// A running `serve`, which ends with this.
struct Server {
    process: Child,
    peer: String,
    port: u16,
}

fn line(task: &Task, index: usize) -> anyhow::Result<Line> {
    let name = format!("aether-compare-{}-{index}", std::process::id());
    match task.workload {
        Workload::Messages | Workload::Bulk | Workload::Fairness => {
            Line::emulated(&name, &paths::link(&task.path), task.seed)
        }
        Workload::Concurrent | Workload::PingPong | Workload::BulkUnlimited => Line::direct(&name),
    }
}

/// Runs a client to its end; gives its JSON line.
async fn ask<T: DeserializeOwned>(mut command: Command, task: &Task) -> anyhow::Result<T> {
    let client = command.spawn().context("the client does not start")?;
    let limit = Duration::from_secs_f64(task.warmup_s + task.seconds) + CLIENT_GRACE;
    let output = tokio::time::timeout(limit, client.wait_with_output()).await;
    let output = output.with_context(|| format!("the client did not end in {limit:?}"))??;
    ensure!(output.status.success(), "{}: {}", output.status, tail(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().context("the client printed nothing")?;
    serde_json::from_str(line).context("the client's JSON")
}

fn finish(task: &Task, outcome: Outcome, stats: Option<LinkStats>) -> Outcome {
    match (outcome, stats) {
        (Outcome::Goodput(goodput), Some(stats)) => {
            let queue_bytes_mean = Some(stats.queue.byte_ns as f64 / (task.seconds * 1e9));
            Outcome::Goodput(Goodput { queue_bytes_mean, ..goodput })
        }
        (outcome, _) => outcome,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `unwrap_or_else` gives")]
fn failed(error: anyhow::Error) -> Outcome {
    Outcome::Failed(format!("{error:#}"))
}

async fn last_words(process: &mut Child) -> String {
    let mut said = Vec::new();
    if let Some(output) = &mut process.stderr {
        let _ = tokio::time::timeout(START_TIMEOUT, output.read_to_end(&mut said)).await;
    }
    tail(&said)
}

/// The last line, or its beginning.
fn tail(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    line.chars().take(REASON_LEN_MAX).collect()
}
