//! A service in a process of its own, with a configuration file, that may be killed.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::commands::AETHERFLOW;

/// How often the tests that kill something do it: some times, or `STORE_KILLS` times.
pub fn kills() -> usize {
    std::env::var("STORE_KILLS").map_or(5, |kills| kills.parse().unwrap())
}

/// `aetherflow session` or `aetherflow statesync`; ends with this.
pub struct ServiceProcess {
    child: Child,
    name: &'static str,
    folder: TempDir,
    pub address: SocketAddr,
    pub metrics: SocketAddr,
}

impl ServiceProcess {
    /// Starts the service of this name with this section `Store`.
    pub async fn start(name: &'static str, store: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [address, metrics] =
            [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap()).map(|free| free.local_addr().unwrap());
        let file = format!(
            "Server: {{Port: {}, Data: data}}\nMetrics: {{Port: {}}}\nQuantum: {{Enable: false}}\n{store}",
            address.port(),
            metrics.port()
        );
        std::fs::write(folder.path().join("config.yaml"), file).unwrap();
        let mut service = Self { child: spawn(name, &folder), name, folder, address, metrics };
        service.wait().await;
        service
    }

    /// Ends it without any warning.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again.
    pub async fn restart(&mut self) {
        self.child = spawn(self.name, &self.folder);
        self.wait().await;
    }

    async fn wait(&mut self) {
        let deadline = Instant::now() + Duration::from_mins(1);
        while TcpStream::connect(self.address).is_err() {
            assert!(self.child.try_wait().unwrap().is_none(), "the service has ended");
            assert!(Instant::now() < deadline, "the service does not answer");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for ServiceProcess {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(name: &str, folder: &TempDir) -> Child {
    let mut command = Command::new(AETHERFLOW);
    command.args([name, "-f", "config.yaml"]).current_dir(folder.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// What is at `path`, with its head.
pub async fn http_get(address: SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Waits until a service says that it is ready; gives what it says.
pub async fn is_ready_within(metrics: SocketAddr, time: Duration) -> String {
    let deadline = Instant::now() + time;
    loop {
        let answer = http_get(metrics, "/readyz").await;
        if answer.starts_with("HTTP/1.1 200") {
            return answer;
        }
        assert!(Instant::now() < deadline, "{answer}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
