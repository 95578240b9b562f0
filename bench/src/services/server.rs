//! A service under test, in a process of its own.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail, ensure};
use control::launch::Service;

use super::dial::Target;
use super::store::Store;
use super::stores::Space;

/// Environment variables that begin so would override the configuration.
const OVERRIDES: &str = "AETHERFLOW_";

/// How a service is started.
pub(super) struct Setup<'a> {
    pub(super) service: Service,
    pub(super) space: &'a Space,
    /// A network namespace and the address there; none: loopback, here.
    pub(super) namespace: Option<(&'a str, IpAddr)>,
    /// Further sections of the configuration.
    pub(super) sections: &'a str,
}

impl<'a> Setup<'a> {
    /// On loopback.
    pub(super) fn new(service: Service, space: &'a Space) -> Self {
        Self { service, space, namespace: None, sections: "" }
    }
}

/// A running service, which ends with this.
pub(super) struct Server {
    process: Process,
    pub(super) target: Target,
}

impl Server {
    /// Starts a service on a free port with its data in `data`, and waits until it says that it is up.
    ///
    /// # Errors
    /// If the program is missing, or ends before it is up.
    pub(super) fn start(setup: &Setup<'_>, data: &Path) -> anyhow::Result<Self> {
        if setup.space.store == Store::TonicFloor {
            let mut floor = Command::new(std::env::current_exe()?);
            floor.args(["services", "--serve-floor"]);
            return Self::spawn(floor, "the floor", data);
        }
        let program = std::env::current_exe()?.with_file_name("aetherflow");
        ensure!(program.exists(), "{} is missing: build the package aetherflow", program.display());
        let name = match setup.service {
            Service::Session => "session",
            Service::Statesync => "statesync",
        };
        let file = data.join(format!("{name}.yaml"));
        std::fs::write(&file, configuration(setup, data)?).context("cannot write the service's configuration")?;
        let mut command = match setup.namespace {
            Some((namespace, _)) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.arg(name).arg("-f").arg(&file);
        Self::spawn(command, name, data)
    }

    fn spawn(mut command: Command, name: &str, data: &Path) -> anyhow::Result<Self> {
        let log = data.join("service.log");
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(File::create(&log).context("cannot write the service's log")?);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with(OVERRIDES) {
                command.env_remove(variable);
            }
        }
        let mut process = Process(command.spawn().with_context(|| format!("cannot start {name}"))?);
        let output = process.0.stdout.take().expect("standard output is a pipe");
        let Some(target) = announced(BufReader::new(output)) else {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            bail!("{name} ended before it was up: {}", said.trim());
        };
        Ok(Self { process, target })
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.process.0.id()
    }
}

/// The keys that are not the defaults. Text in JSON's quotes is text in YAML's.
fn configuration(setup: &Setup<'_>, data: &Path) -> anyhow::Result<String> {
    let data = serde_json::to_string(data).context("the data folder's name is not UTF-8")?;
    let host = setup.namespace.map_or(Ipv4Addr::LOCALHOST.into(), |(_, address)| address);
    Ok(format!(
        "Server:\n  Host: \"{host}\"\n  Port: 0\n  Data: {data}\n{}Auth:\n  AllowAnonymous: {}\nMetrics:\n  Port: 0\nLog:\n  \
         Level: warn\n{}",
        setup.space.section,
        !host.is_loopback(),
        setup.sections
    ))
}

/// The address and the fingerprint that a service tells when it is up; what it says later is read and dropped.
fn announced(output: impl BufRead + Send + 'static) -> Option<Target> {
    let mut lines = output.lines().map_while(Result::ok);
    let mut address = None;
    let fingerprint = lines.by_ref().find_map(|line| {
        // The first is gRPC; readiness and metrics follow.
        address = address.or_else(|| line.split_once("http://")?.1.trim().parse().ok());
        line.contains("fingerprint").then(|| line.split_whitespace().next_back().map(str::to_owned))?
    });
    let announced = Target { address: address?, fingerprint: fingerprint? };
    std::thread::spawn(move || lines.for_each(drop));
    Some(announced)
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
    use std::path::Path;

    use control::launch::Service;

    use super::{Setup, Target, announced, configuration};
    use crate::services::store::Store;
    use crate::services::stores::Space;

    #[test]
    fn a_service_tells_its_address_and_its_fingerprint() {
        let said = "The session service of AetherFlow is up. Press Ctrl-C to stop.\n\
                    \x20 gRPC over TCP  http://127.0.0.1:4001\n  over Quantum   quantum://127.0.0.1:4001\n\
                    \x20 readiness      http://127.0.0.1:4002/readyz\n\
                    \x20 fingerprint (SHA-256 of the public key)  abcd\n";
        let target = announced(said.as_bytes()).unwrap();
        let expected: Target = "127.0.0.1:4001,abcd".parse().unwrap();
        assert_eq!(target, expected);
        assert!(announced("It is not up.\n".as_bytes()).is_none());
    }

    #[test]
    fn the_folder_is_quoted_and_only_loopback_needs_no_leave() {
        let space = Space::embedded(Store::Memory);
        let here = Setup::new(Service::Session, &space);
        let text = configuration(&here, Path::new("/a \"b\"")).unwrap();
        assert!(text.contains("Data: \"/a \\\"b\\\"\"\n") && text.contains("Type: memory\n"), "{text}");
        assert!(text.contains("AllowAnonymous: false"), "{text}");
        let there = Setup { namespace: Some(("a", "10.77.0.2".parse().unwrap())), ..here };
        let text = configuration(&there, Path::new("a")).unwrap();
        assert!(text.contains("Host: \"10.77.0.2\"\n") && text.contains("AllowAnonymous: true"), "{text}");
    }
}
