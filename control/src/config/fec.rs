//! The section of forward error correction.

use std::ops::RangeInclusive;

use quantum::FecConfig;
use serde::{Deserialize, Deserializer, Serialize, de::Error};
use serde_json::Value;

use super::Refused;

/// Packets of a group.
const DATA_SHARDS: RangeInclusive<u64> = 1..=quantum::FecMode::MEMBERS_MAX as u64;
/// Repair symbols of a group.
const PARITY_SHARDS: RangeInclusive<u64> = 1..=quantum::FecMode::REPAIRS_MAX as u64;
/// Ten times as much repair as data is more than any path that carries something needs.
const OVERHEAD_PERCENT: RangeInclusive<u64> = 1..=1000;

/// Forward error correction of what this side sends over Quantum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Fec {
    /// When packets are protected.
    #[serde(deserialize_with = "mode")]
    pub mode: FecMode,
    /// With mode fixed: packets of a group at most.
    pub data_shards: u64,
    /// With mode fixed: repair symbols of each group.
    pub parity_shards: u64,
    /// With mode adaptive: bytes of repair for a hundred bytes of the application, at most.
    pub overhead_percent: u64,
}

/// When packets are protected by repair symbols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum FecMode {
    /// As the path's losses call for it
    #[default]
    Adaptive,
    /// Always: groups of 10 packets get 3 symbols each, unless a file says otherwise
    Fixed,
    /// Never; what the peer repairs is not taken either
    Off,
}

impl Default for Fec {
    fn default() -> Self {
        let overhead_percent = FecConfig::default().overhead_percent_max.into();
        Self { mode: FecMode::default(), data_shards: 10, parity_shards: 3, overhead_percent }
    }
}

impl Fec {
    pub(super) fn check(&self) -> Result<(), Refused> {
        for (key, value, range) in [
            ("Quantum.FEC.DataShards", self.data_shards, DATA_SHARDS),
            ("Quantum.FEC.ParityShards", self.parity_shards, PARITY_SHARDS),
            ("Quantum.FEC.OverheadPercent", self.overhead_percent, OVERHEAD_PERCENT),
        ] {
            if !range.contains(&value) {
                return Err((key, format!("{value} is not between {} and {}", range.start(), range.end())));
            }
        }
        Ok(())
    }

    /// The endpoint's settings.
    pub(crate) fn options(&self) -> FecConfig {
        let byte = |value: u64| u8::try_from(value).unwrap_or(u8::MAX);
        let mode = match self.mode {
            FecMode::Adaptive => quantum::FecMode::Adaptive,
            FecMode::Fixed => {
                quantum::FecMode::Fixed { members: byte(self.data_shards), repairs: byte(self.parity_shards) }
            }
            FecMode::Off => quantum::FecMode::Off,
        };
        let overhead_percent_max = u16::try_from(self.overhead_percent).unwrap_or(u16::MAX);
        FecConfig { mode, overhead_percent_max, ..FecConfig::default() }
    }
}

/// In YAML `off` without quotes is false, and `on` is true.
fn mode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<FecMode, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Bool(false) => Ok(FecMode::Off),
        Value::Bool(true) => Err(D::Error::custom("on is no mode: use adaptive, fixed or off")),
        written => FecMode::deserialize(written).map_err(D::Error::custom),
    }
}
