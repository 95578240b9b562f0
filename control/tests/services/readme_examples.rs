//! Clients that people write in other languages: the blocks of `proto/README.md` and of the front page, run as they stand.

use std::fs::File;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::common::commands::*;
use crate::common::process::UpProcess;
use crate::common::{free_base, has_shards};

const PYTHON: &str = "Python";
const NODE: &str = "Node";
const BUF: &str = "buf";
const CALL: &str = "aetherflow call";
const PROXY: &str = "Over Quantum, from any language";
const LOSSY: &str = "Over Quantum, on a network that loses packets";

/// No example takes longer, on a link that loses packets and a machine that is busy.
const EXAMPLE_TIME: Duration = Duration::from_mins(2);
/// What was asked to end has so long before it is killed.
const GRACE: Duration = Duration::from_secs(10);
/// What an example prints that has done everything.
const FOLLOWED: &str = "50 of 50 edits seen, in order, and the same text: > 0123456789";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the repository").to_owned()
}

/// The blocks of code in a document, each with the heading that it stands under.
fn blocks(document: &Path, language: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(document).unwrap();
    let opening = format!("```{language}");
    let (mut heading, mut block, mut found) = (String::new(), None::<String>, Vec::new());
    for line in text.lines() {
        match block.take() {
            Some(text) if line == "```" => found.push((heading.clone(), text)),
            Some(text) => block = Some(text + line + "\n"),
            None if line == opening => block = Some(String::new()),
            None => heading = line.strip_prefix("### ").map_or(heading, str::to_owned),
        }
    }
    assert!(block.is_none(), "a block of {} has no end", document.display());
    found
}

/// Somebody who follows the README in a copy of its folder.
struct Reader {
    folder: TempDir,
    server: UpProcess,
    _data: TempDir,
    /// Where proxies listen, plus one and two.
    proxies: u16,
}

impl Reader {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for part in ["proto", "examples"] {
            copy(&repository().join("proto").join(part), &folder.path().join(part));
        }
        // As `npm install` leaves it.
        symlink(tools().join("node/node_modules"), folder.path().join("examples/node/node_modules")).unwrap();
        let data = tempfile::tempdir().unwrap();
        Self { folder, server: UpProcess::start(data.path()), _data: data, proxies: free_base() }
    }

    /// Runs the block under a heading of `proto/README.md` and gives what it printed.
    fn follows(&self, heading: &str) -> String {
        let blocks = blocks(&repository().join("proto/README.md"), "bash");
        let (_, block) = blocks.iter().find(|(above, _)| above == heading).expect("the README has such a block");
        self.runs(&["bash", "-euo", "pipefail", "-c", &self.with_free_ports(block)])
    }

    fn with_free_ports(&self, text: &str) -> String {
        [1_u16, 2].iter().fold(text.to_owned(), |text, service| {
            text.replace(&format!("127.0.0.1:900{service}"), &format!("127.0.0.1:{}", self.server.base + service))
                .replace(&format!("127.0.0.1:700{service}"), &format!("127.0.0.1:{}", self.proxies + service))
        })
    }

    /// Runs a command, which has to succeed, and gives what it printed.
    fn runs(&self, words: &[&str]) -> String {
        let logs = tempfile::tempdir().unwrap();
        let [stdout, stderr] = ["stdout", "stderr"].map(|name| logs.path().join(name));
        // Files, as a pipe would be waited for that something in the background keeps open.
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .current_dir(self.folder.path())
            .env("PATH", path())
            .env("HOME", self.folder.path())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap())
            .spawn()
            .unwrap();
        let group = Pid::from_child(&child);
        let status = ended(&mut child, EXAMPLE_TIME);
        if status.is_none() {
            // It may end just now.
            let _ = kill_process_group(group, Signal::TERM);
            ended(&mut child, GRACE);
        }
        // What runs in the background ends with the example; there may be nothing.
        let _ = kill_process_group(group, Signal::KILL);
        child.wait().unwrap();
        let [stdout, stderr] = [stdout, stderr].map(|log| std::fs::read(log).unwrap());
        let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        println!("{stdout}");
        let is_success = status.is_some_and(|status| status.success());
        assert!(is_success, "{status:?} (none: it did not end)\n{}\n{stdout}\n{stderr}", words.join(" "));
        stdout.into_owned()
    }
}

/// Waits for the end of a process, but no longer than `limit`.
fn ended(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let started = Instant::now();
    loop {
        let status = child.try_wait().unwrap();
        if status.is_some() || started.elapsed() > limit {
            return status;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Copies a folder, but nothing that its user made in it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if !source.is_dir() {
            std::fs::copy(source, target).unwrap();
        } else if entry.file_name() != "node_modules" {
            copy(&source, &target);
        }
    }
}

fn has_node() -> bool {
    let has = succeeds("node", &["--version"]) && tools().join("node/installed").exists();
    if !has {
        skip("no Node with @grpc/grpc-js: .ci/tools.sh installs it");
    }
    has
}

#[test]
fn every_block_of_the_readme_is_run_here() {
    let headings: Vec<String> =
        blocks(&repository().join("proto/README.md"), "bash").into_iter().map(|(heading, _)| heading).collect();
    assert_eq!(headings, [PYTHON, NODE, BUF, CALL, PROXY, LOSSY]);
}

#[test]
fn a_python_client_with_generated_stubs_works_over_tcp_and_over_quantum_through_proxies() {
    if !has_shards() || !has_python() {
        return;
    }
    let reader = Reader::new();
    for heading in [PYTHON, PROXY] {
        let printed = reader.follows(heading);
        assert!(printed.contains(FOLLOWED) && printed.contains("NOT_FOUND"), "{heading}: {printed}");
    }
}

#[test]
fn a_python_client_works_over_quantum_while_the_network_loses_packets() {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root || !Path::new("/dev/net/tun").exists() || !succeeds("ip", &["netns", "list"]) {
        return skip("links need root, /dev/net/tun and iproute2");
    }
    if !Path::new(AETHERFLOW).with_file_name("aetherflow-bench").exists() {
        return skip("aetherflow-bench is not built: cargo build -p aetherflow-bench");
    }
    if !has_shards() || !has_python() {
        return;
    }
    let reader = Reader::new();
    // It makes the stubs.
    reader.follows(PYTHON);
    let printed = reader.follows(LOSSY);
    assert!(printed.contains(FOLLOWED) && printed.contains("NOT_FOUND"), "{printed}");
    let counters = printed.lines().last().expect("the last line has the counters");
    let counters: serde_json::Value = serde_json::from_str(counters).unwrap();
    let lost = ["a_to_b", "b_to_a"].map(|direction| counters[direction]["dropped_loss"].as_u64().unwrap());
    assert!(lost.iter().sum::<u64>() > 0, "the link lost nothing: {counters}");
}

#[test]
fn a_node_client_works() {
    if !has_node() {
        return;
    }
    let printed = Reader::new().follows(NODE);
    assert!(printed.contains(FOLLOWED) && printed.contains("NOT_FOUND"), "{printed}");
}

#[test]
fn buf_calls_by_reflection() {
    if !succeeds("buf", &["--version"]) {
        return skip("no buf: .ci/tools.sh installs it");
    }
    let printed = Reader::new().follows(BUF);
    assert!(printed.contains("ApplyOperation") && printed.contains("\"success\""), "{printed}");
    assert!(printed.ends_with("hello world\n"), "{printed}");
}

#[test]
fn the_call_command_does_all_that_a_client_does() {
    if !has_shards() {
        return;
    }
    let printed = Reader::new().follows(CALL);
    assert!(printed.contains("aetherflow.statesync.StateSyncService/ApplyOperation\n"), "{printed}");
    assert!(printed.contains("message aetherflow.statesync.ApplyOperationRequest {"), "{printed}");
    assert_eq!(printed.matches("\"appliedOperation\"").count(), 5, "one call and a stream of four: {printed}");
    assert!(printed.contains("\nsay hello world\n"), "a stream's operations, in their order: {printed}");
    let (_, events) = printed.split_once("say hello world\n").expect("the text is shown");
    assert!(events.contains("\"user_joined\""), "{events}");
}

#[test]
fn the_example_of_the_front_page_works() {
    if !has_python() {
        return;
    }
    let reader = Reader::new();
    let blocks = blocks(&repository().join("README.md"), "python");
    let [(_, example)] = blocks.as_slice() else { panic!("the front page has one example in Python") };
    let printed = reader.runs(&["python", "-c", &reader.with_free_ports(example)]);
    assert_eq!(printed, "True b'hello world'\n");
}
