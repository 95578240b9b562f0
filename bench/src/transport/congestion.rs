//! Which congestion control a transport uses.

use std::io::ErrorKind;

use anyhow::{Context, bail};
use clap::ValueEnum;
use socket2::Socket;

const AVAILABLE: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";

/// Congestion control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Congestion {
    /// BBR
    Bbr,
    /// CUBIC
    Cubic,
}

impl Congestion {
    /// The kernel's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bbr => "bbr",
            Self::Cubic => "cubic",
        }
    }
}

/// What this kernel offers, in its order.
pub fn available() -> Vec<String> {
    let list = std::fs::read_to_string(AVAILABLE).unwrap_or_default();
    list.split_whitespace().map(str::to_owned).collect()
}

/// Sets a TCP socket's congestion control, which the connections that it accepts inherit; none leaves the kernel's default.
///
/// # Errors
/// If the kernel does not have it, with those that it has.
pub fn apply(socket: &Socket, congestion: Option<Congestion>) -> anyhow::Result<()> {
    let Some(congestion) = congestion else { return Ok(()) };
    let name = congestion.name();
    match socket.set_tcp_congestion(name.as_bytes()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(
            "this kernel has no TCP congestion control {name}, but {}: leave --congestion out, or load it (modprobe tcp_{name})",
            available().join(", ")
        ),
        Err(error) => Err(error).with_context(|| format!("the TCP congestion control {name} cannot be set")),
    }
}
