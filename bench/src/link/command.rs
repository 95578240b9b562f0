//! Runs the command under the link.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};
use tokio::signal::unix::{self, SignalKind};

/// A command that was asked to end has so long before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// The signals that end the link.
pub(super) struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    /// From here on they are waited for in place of ending the process.
    pub(super) fn catch() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
            hangup: unix::signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.hangup.recv() => Signal::HUP,
        }
    }
}

/// Runs `words` with more in its environment and gives its exit code; that of a signal, if one ended it or the link.
pub(super) async fn run(
    words: &[OsString],
    environment: &[(&str, OsString)],
    mut signals: Signals,
    link_ended: impl Future<Output = ()>,
) -> anyhow::Result<ExitCode> {
    let [program, arguments @ ..] = words else { bail!("no command to run") };
    let mut command = Command::new(program);
    command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value))).kill_on_drop(true);
    // Its own group, so that a signal reaches all that it started. A terminal does that by itself, and would stop an
    // interactive command that is not in its foreground group.
    let is_group = !std::io::stdin().is_terminal();
    if is_group {
        command.process_group(0);
    }
    let mut child = command.spawn().with_context(|| format!("{} does not start", program.display()))?;
    tokio::select! {
        status = child.wait() => Ok(exit_code(status?)),
        signal = signals.next() => {
            end(&mut child, is_group, signal).await?;
            Ok(signal_code(signal.as_raw()))
        }
        () = link_ended => {
            end(&mut child, is_group, Signal::TERM).await?;
            Err(anyhow!("the link ended before the command"))
        }
    }
}

async fn end(child: &mut Child, is_group: bool, signal: Signal) -> anyhow::Result<()> {
    let pid = child.id().and_then(|id| Pid::from_raw(id as i32));
    let tell = |signal| {
        // It fails only if the command has ended meanwhile, which is what is wanted.
        let _ = match pid {
            Some(group) if is_group => rustix::process::kill_process_group(group, signal),
            Some(pid) => rustix::process::kill_process(pid, signal),
            None => Ok(()),
        };
    };
    tell(signal);
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        tell(Signal::KILL);
        child.kill().await?;
    }
    Ok(())
}

fn exit_code(status: ExitStatus) -> ExitCode {
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitCode::from(code as u8),
        (None, signal) => signal_code(signal.unwrap_or(0)),
    }
}

/// As shells report it.
fn signal_code(signal: i32) -> ExitCode {
    ExitCode::from((128 + signal) as u8)
}
