//! A link for other parts of this program, which start processes at both ends themselves.

use anyhow::Context;
use quantum_sim::{LinkConfig, LinkStats};

use super::emulator::Emulator;
use super::namespace::Namespaces;

const MTU: u16 = 1500;
/// TCP's windows grow to over ten times the bandwidth-delay product of 100 Mbit/s and 200 ms, so that they never limit.
const TCP_WINDOW_BYTES_MAX: u64 = 64 << 20;
/// The share of packets that the emulator may lose by being late: a twentieth of the least loss that is compared.
const LATE_LOSS_MAX: f64 = 0.0005;

/// Two joined namespaces. Dropping it ends what runs inside and removes them.
pub(crate) struct Line {
    emulator: Option<Emulator>,
    namespaces: Namespaces,
}

impl Line {
    /// Joined by the emulator, with the same effects in both directions.
    ///
    /// # Errors
    /// If the namespaces or devices cannot be made, or a setting makes no sense.
    pub(crate) fn emulated(name: &str, config: &LinkConfig, seed: u64) -> anyhow::Result<Self> {
        let namespaces = Namespaces::create(name)?;
        namespaces.widen_tcp_windows(TCP_WINDOW_BYTES_MAX)?;
        let emulator = Emulator::start(namespaces.tun_devices(MTU)?, config, seed)?;
        Ok(Self { emulator: Some(emulator), namespaces })
    }

    /// Joined by a pair of Ethernet devices, without limits.
    ///
    /// # Errors
    /// If the namespaces or devices cannot be made.
    pub(crate) fn direct(name: &str) -> anyhow::Result<Self> {
        let namespaces = Namespaces::create(name)?;
        namespaces.widen_tcp_windows(TCP_WINDOW_BYTES_MAX)?;
        namespaces.join_directly(MTU)?;
        Ok(Self { emulator: None, namespaces })
    }

    /// Names of the namespaces, the first end's and the second's.
    pub(crate) fn namespaces(&self) -> [&str; 2] {
        self.namespaces.names()
    }

    /// Takes it down; gives what the emulator did from the first end to the second, if there was one.
    ///
    /// # Errors
    /// If the emulator failed, or lost so many packets by not keeping up that the path was another one.
    pub(crate) fn finish(mut self) -> anyhow::Result<Option<LinkStats>> {
        let Some(emulator) = self.emulator.take() else { return Ok(None) };
        let overflows = self.namespaces.device_drops()?;
        let [there, _] = emulator.stop()?;
        let (lost, carried) = (overflows.iter().sum::<u64>(), there.stats.sent);
        anyhow::ensure!(
            lost as f64 <= LATE_LOSS_MAX * carried as f64,
            "the emulator did not keep up: {lost} packets were lost before it, {carried} came through"
        );
        Ok(Some(there.stats))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.emulator.as_ref().map(|emulator| emulator.tell_to_stop().context("the link")) {
            tracing::warn!(%error, "a thread goes on until this process ends");
        }
    }
}
