//! How what this side sends over Quantum leaves and is protected, from the command line.

use clap::Args;
use quantum::EndpointConfig;

use crate::config::{Congestion, Fec, FecMode};

/// What `up`, `call` and `proxy` can be told of it.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct SendingArgs {
    /// Quantum: how much of what this side sends may be on its way, and how fast it leaves
    #[arg(long, value_name = "C", value_enum, default_value_t)]
    pub congestion: Congestion,
    /// Quantum: when what this side sends is protected by repair symbols, from which lost packets come back
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    pub fec: FecMode,
}

impl SendingArgs {
    /// The section of forward error correction that says so.
    pub fn fec(self) -> Fec {
        Fec { mode: self.fec, ..Fec::default() }
    }

    /// Puts it into an endpoint's settings.
    pub(crate) fn apply(self, protocol: &mut EndpointConfig) {
        protocol.congestion = self.congestion.control();
        protocol.fec = self.fec().options();
    }
}
