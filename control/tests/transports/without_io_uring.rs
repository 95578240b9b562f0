//! Machines that refuse `io_uring`: containers often do, and the limit of locked memory is often low.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::common::commands::AETHERFLOW;
use crate::common::process::up;
use crate::common::*;

/// Starts a command for which `io_uring_setup` is forbidden. A filter holds for its thread and all that the thread starts.
fn spawn_without_io_uring(mut command: Command) -> Child {
    let start = move || {
        let forbidden = [(libc::SYS_io_uring_setup, Vec::new())].into();
        let (refuse, arch) = (SeccompAction::Errno(libc::EPERM as u32), std::env::consts::ARCH.try_into().unwrap());
        let filter = SeccompFilter::new(forbidden, SeccompAction::Allow, refuse, arch).unwrap();
        seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
        command.spawn().unwrap()
    };
    std::thread::spawn(start).join().unwrap()
}

/// Starts a command that may lock next to no memory.
fn spawn_with_little_locked_memory(command: &Command) -> Child {
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -l 64; exec \"$@\"", "sh"]).arg(command.get_program()).args(command.get_args());
    limited.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

async fn quantum_is_served(reason: &str, spawn: impl FnOnce(Command) -> Child) {
    let data = tempfile::tempdir().unwrap();
    let base = free_base();
    let mut command = up(data.path(), base);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut up = spawn(command);
    let address = format!("127.0.0.1:{}", base + 2);
    documents(address.parse().unwrap()).await;
    let mut call = Command::new(AETHERFLOW);
    call.args(["call", "--transport=quantum", "--insecure-loopback", &address, "list"]);
    let called = call.output().unwrap();
    up.kill().unwrap();
    up.wait().unwrap();
    let said: Vec<String> = BufReader::new(up.stderr.take().unwrap()).lines().map_while(Result::ok).collect();
    let error = String::from_utf8_lossy(&called.stderr);
    assert!(called.status.success(), "{error}\n{}", said.join("\n"));
    assert!(String::from_utf8_lossy(&called.stdout).contains("statesync.StateSyncService"));
    let told: Vec<&String> = said.iter().filter(|line| line.contains("instead of io_uring")).collect();
    assert!(told.len() == 2 && told.iter().all(|line| line.contains(reason)), "one line of each service: {said:?}");
}

#[tokio::test]
async fn where_io_uring_is_forbidden_quantum_is_served_without_it() {
    quantum_is_served("Operation not permitted", spawn_without_io_uring).await;
}

#[tokio::test]
async fn where_little_memory_may_be_locked_quantum_is_served_without_io_uring() {
    quantum_is_served("64 KiB", |command| spawn_with_little_locked_memory(&command)).await;
}
