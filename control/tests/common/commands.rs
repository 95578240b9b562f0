//! The programs that tests run: this build's, and tools that a machine may lack.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use private_stores::Programs;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

pub const AETHERFLOW: &str = env!("CARGO_BIN_EXE_aetherflow");

/// Where `.ci/tools.sh` puts what tests use and a machine may lack: beside the build.
pub fn tools() -> PathBuf {
    let target = Path::new(AETHERFLOW).ancestors().nth(2);
    target.expect("a program lies in the folder of its profile").join("tools")
}

/// Where programs are looked for: in this build, among the tools, then wherever else.
pub fn path() -> OsString {
    let tools = tools();
    let build = Path::new(AETHERFLOW).parent().expect("a program lies in a folder").to_owned();
    let first = [build, tools.join("python/bin"), tools.join("bin"), tools.join("usr/bin")];
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(first.into_iter().chain(std::env::split_paths(&inherited))).expect("no folder has a colon")
}

/// Where servers of stores are looked for.
pub fn programs() -> Programs {
    Programs::new([], std::env::split_paths(&path()))
}

/// Whether a program is there and says that all is well.
pub fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let mut command = std::process::Command::new(program);
    command.args(arguments).env("PATH", path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Passes a test that cannot run here, but not where all has to be tested.
pub fn skip(reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "{reason}");
    println!("SKIPPED: {reason}");
}

/// Whether clients in Python can be run here; if not, the test is skipped.
pub fn has_python() -> bool {
    let has = succeeds("python", &["-c", "import grpc, grpc_tools, grpc_reflection.v1alpha, grpc_health.v1"]);
    if !has {
        skip("no Python with grpcio: .ci/tools.sh installs it");
    }
    has
}

pub fn aetherflow() -> Command {
    let mut command = Command::new(AETHERFLOW);
    command.kill_on_drop(true);
    command
}

/// Runs `aetherflow call`.
pub async fn call(args: &[&str], input: &str) -> Output {
    let mut command = aetherflow();
    command.arg("call").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A call that fails early does not read its input.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    child.wait_with_output().await.unwrap()
}

pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A proxy's process and where it listens.
pub async fn proxy(to: &str, connect: &[&str]) -> (Child, String) {
    let mut command = aetherflow();
    command.args(["proxy", "--listen", "127.0.0.1:0", "--to", to]).args(connect);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let line = BufReader::new(child.stdout.take().unwrap()).lines().next_line().await.unwrap().unwrap();
    let address = line.split("http://").nth(1).unwrap().split(". ").next().unwrap().to_owned();
    (child, address)
}
