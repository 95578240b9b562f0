//! A service in a process of its own, with a configuration file, that may be killed.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::commands::AETHERFLOW;
use super::eventually;
use super::process::Process;

/// `aetherflow session` or `aetherflow statesync`; ends with this.
pub struct ServiceProcess {
    process: Process,
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
        configure(&folder, [address, metrics], store);
        let mut service = Self { process: spawn(name, &folder), name, folder, address, metrics };
        service.wait().await;
        service
    }

    /// Has it read its file again, with this in place of what it was started with.
    pub fn reconfigure(&self, store: &str) {
        configure(&self.folder, [self.address, self.metrics], store);
        self.process.signal("-HUP");
    }

    /// Waits for a line of its log that has this.
    pub async fn logs(&self, part: &str) {
        eventually(Duration::from_secs(20), async || {
            let logs = std::fs::read_to_string(self.folder.path().join("logs")).unwrap();
            if logs.contains(part) { Ok(()) } else { Err(format!("it does not log {part:?}")) }
        })
        .await;
    }

    /// Ends it without any warning.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again.
    pub async fn restart(&mut self) {
        self.process = spawn(self.name, &self.folder);
        self.wait().await;
    }

    async fn wait(&mut self) {
        let answers = async || {
            assert!(self.process.0.try_wait().unwrap().is_none(), "the service has ended");
            TcpStream::connect(self.address)
        };
        eventually(Duration::from_mins(1), answers).await;
    }
}

fn configure(folder: &TempDir, [address, metrics]: [SocketAddr; 2], store: &str) {
    let file = format!(
        "Server: {{Port: {}, Data: data}}\nMetrics: {{Port: {}}}\nQuantum: {{Enable: false}}\n{store}",
        address.port(),
        metrics.port()
    );
    std::fs::write(folder.path().join("config.yaml"), file).unwrap();
}

fn spawn(name: &str, folder: &TempDir) -> Process {
    let logs = std::fs::File::options().create(true).append(true).open(folder.path().join("logs")).unwrap();
    let mut command = Command::new(AETHERFLOW);
    command.args([name, "-f", "config.yaml"]).current_dir(folder.path());
    Process::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(logs))
}
