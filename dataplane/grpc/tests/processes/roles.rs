//! The processes beside the test's own.

use std::io::{BufRead, BufReader, Lines, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use quantum_grpc::{Identity, Listener, ServerConfig, serve};

use super::service::{Client, EchoService};
use super::{channel, endpoint};

/// Names the role of a process that a test started.
const ROLE: &str = "QUANTUM_GRPC_TEST_ROLE";
/// Where the server is, for a client.
const SERVER: &str = "QUANTUM_GRPC_TEST_SERVER";
/// What a process says for its test begins with this.
const MARK: char = '@';

/// Clients of one process, each with a socket of its own.
pub(crate) const CLIENTS_EACH: usize = 20;
/// Bytes of each message that a client leaves unread.
pub(crate) const UNREAD_BYTES: u32 = 60_000;

/// A process with a role. Ends with this value.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Open as long as the process is wanted: it reads the one, and the harness of the tests writes to the other.
    _pipes: (ChildStdin, Lines<BufReader<ChildStdout>>),
    /// What it said once it was ready.
    pub(crate) said: String,
}

impl Process {
    /// A server of the echo service on one shard; it says its address.
    pub(crate) fn server() -> Self {
        Self::start("server", "")
    }

    /// Clients of that server, each with a connection, calls, and a stream that it does not read.
    pub(crate) fn clients(server: &str) -> Self {
        Self::start("clients", server)
    }

    fn start(role: &str, server: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "roles::a_process_has_its_role", "--nocapture"])
            .envs([(ROLE, role), (SERVER, server)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // The harness of the tests speaks on the same line before.
        let said = lines.by_ref().map(Result::unwrap).find_map(|line| Some(line.split_once(MARK)?.1.to_owned()));
        Self { child, _pipes: (stdin, lines), said: said.unwrap_or_else(|| panic!("the {role} process ended at once")) }
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Memory that it has in RAM.
    pub(crate) fn rss_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a living process has memory");
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Its open files.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Processor time that it has used.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        // Fields 14 and 15 of proc(5): user and system time, in hundredths of a second.
        let hundredths: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(hundredths * 10)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test: what a process does that a test has started.
#[test]
fn a_process_has_its_role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    // A panic anywhere in it ends it, and the test notices.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN).init();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        match role.as_str() {
            "server" => run_server().await,
            _ => run_clients(&std::env::var(SERVER).unwrap()).await,
        }
    });
}

async fn run_server() {
    let directory = tempfile::tempdir().unwrap();
    let identity = Identity::load_or_create(directory.path(), &["127.0.0.1".to_owned()]).unwrap();
    let config = ServerConfig::new(&identity).unwrap();
    let listener = Listener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &config).unwrap();
    println!("{MARK}{}", listener.local_addr());
    let service = EchoService::new(listener.monitor());
    serve(listener, service, unwanted()).await;
}

async fn run_clients(server: &str) {
    let mut kept = Vec::new();
    for _ in 0..CLIENTS_EACH {
        let endpoint = endpoint();
        let mut client = Client::new(channel(&endpoint, server));
        client.echo(Bytes::from(vec![5; 4_000])).await.unwrap();
        let unread = client.many(u32::MAX, UNREAD_BYTES).await.unwrap();
        kept.push((client, unread));
    }
    println!("{MARK}ready");
    let busy = async {
        // Each says something until its end comes.
        let mut pace = tokio::time::interval(Duration::from_millis(250));
        loop {
            pace.tick().await;
            for (client, _) in &mut kept {
                client.echo(Bytes::from_static(b"still here")).await.unwrap();
            }
        }
    };
    tokio::select! {
        () = unwanted() => {}
        () = busy => {}
    }
}

/// Ends when the test does.
async fn unwanted() {
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        drop(end);
    });
    let _ = ended.await;
}
