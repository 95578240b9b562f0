//! A service under test, in a process of its own.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail, ensure};
use control::launch::Service;

use super::args::Store;

/// Environment variables that begin so would override the configuration.
const OVERRIDES: &str = "AETHERFLOW_";

/// A running service, which ends with this.
pub(super) struct Server {
    process: Process,
    /// gRPC, over TCP and over Quantum.
    pub(super) address: SocketAddr,
    /// SHA-256 of its public key, in hexadecimal.
    pub(super) fingerprint: String,
}

impl Server {
    /// Starts a service on a free port of loopback with its data in `data`, and waits until it says that it is up.
    ///
    /// # Errors
    /// If the program is missing, or ends before it is up.
    pub(super) fn start(service: Service, store: Store, data: &Path) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?.with_file_name("aetherflow");
        ensure!(program.exists(), "{} is missing: build the package aetherflow", program.display());
        let name = match service {
            Service::Session => "session",
            Service::Statesync => "statesync",
        };
        let (file, log) = (data.join(format!("{name}.yaml")), data.join(format!("{name}.log")));
        std::fs::write(&file, configuration(store, data)?).context("cannot write the service's configuration")?;
        let mut command = Command::new(program);
        command.arg(name).arg("-f").arg(&file).stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(File::create(&log).context("cannot write the service's log")?);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with(OVERRIDES) {
                command.env_remove(variable);
            }
        }
        let mut process = Process(command.spawn().context("cannot start aetherflow")?);
        let output = process.0.stdout.take().expect("standard output is a pipe");
        let Some((address, fingerprint)) = announced(BufReader::new(output)) else {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            bail!("aetherflow {name} ended before it was up: {}", said.trim());
        };
        Ok(Self { process, address, fingerprint })
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.process.0.id()
    }

    /// The memory that it has resident, in bytes.
    pub(super) fn resident_bytes(&self) -> Option<u64> {
        resident_bytes(&std::fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?)
    }
}

/// The keys that are not the defaults. Text in JSON's quotes is text in YAML's.
fn configuration(store: Store, data: &Path) -> anyhow::Result<String> {
    let data = serde_json::to_string(data).context("the data folder's name is not UTF-8")?;
    Ok(format!(
        "Server:\n  Port: 0\n  Data: {data}\nStore:\n  Type: {}\nMetrics:\n  Port: 0\nLog:\n  Level: warn\n",
        store.name()
    ))
}

/// The address and the fingerprint that a service tells when it is up; what it says later is read and dropped.
fn announced(output: impl BufRead + Send + 'static) -> Option<(SocketAddr, String)> {
    let mut lines = output.lines().map_while(Result::ok);
    let mut address: Option<SocketAddr> = None;
    let fingerprint = lines.by_ref().find_map(|line| {
        // The first is gRPC; readiness and metrics follow.
        address = address.or_else(|| line.split_once("http://")?.1.trim().parse().ok());
        line.contains("fingerprint").then(|| line.split_whitespace().next_back().map(str::to_owned))?
    });
    let announced = (address?, fingerprint?);
    std::thread::spawn(move || lines.for_each(drop));
    Some(announced)
}

/// Resident memory in bytes in `proc_pid_status(5)`, which has it in KiB.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// A process that does not outlive this.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Already ended: both say so, and that is fine. Its data are thrown away, so it need not end in order.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::{announced, configuration, resident_bytes};
    use crate::services::args::Store;

    #[test]
    fn a_service_tells_its_address_and_its_fingerprint() {
        let said = "The session service of AetherFlow is up. Press Ctrl-C to stop.\n\
                    \x20 gRPC over TCP  http://127.0.0.1:4001\n  over Quantum   quantum://127.0.0.1:4001\n\
                    \x20 readiness      http://127.0.0.1:4002/readyz\n\
                    \x20 fingerprint (SHA-256 of the public key)  abcd\n";
        let (address, fingerprint) = announced(said.as_bytes()).unwrap();
        assert_eq!((address.port(), fingerprint.as_str()), (4001, "abcd"));
        assert!(announced("It is not up.\n".as_bytes()).is_none());
    }

    #[test]
    fn the_folder_is_quoted_and_resident_memory_is_found() {
        let text = configuration(Store::Memory, std::path::Path::new("/a \"b\"")).unwrap();
        assert!(text.contains("Data: \"/a \\\"b\\\"\"\n") && text.contains("Type: memory\n"), "{text}");
        assert_eq!(resident_bytes("Name:\ta\nVmRSS:\t    12 kB\n"), Some(12_288));
        assert_eq!(resident_bytes("Name:\ta\n"), None);
    }
}
