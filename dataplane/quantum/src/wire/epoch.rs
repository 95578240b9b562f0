//! Key epochs: which keys protect a packet.

/// The keys that protect a packet, as the high four bits of the version byte tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Epoch {
    /// Keys derived from the connection id. Anybody who sees the packet has them.
    Initial = 0,
    /// TLS handshake keys.
    Handshake = 1,
    /// Application keys of the even key phases.
    OneRtt0 = 2,
    /// Application keys of the odd key phases.
    OneRtt1 = 3,
    /// Keys of early data.
    ZeroRtt = 4,
}

impl Epoch {
    /// The epoch of that number, if there is one.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Initial,
            1 => Self::Handshake,
            2 => Self::OneRtt0,
            3 => Self::OneRtt1,
            4 => Self::ZeroRtt,
            _ => return None,
        })
    }

    /// The number of the epoch on the wire.
    pub const fn bits(self) -> u8 {
        self as u8
    }

    /// Whether the keys are those of a complete handshake.
    pub const fn is_one_rtt(self) -> bool {
        matches!(self, Self::OneRtt0 | Self::OneRtt1)
    }

    /// Whether an acknowledgement in a packet of epoch `report` counts for a packet of this one: anybody can make packets of epoch 0,
    /// and 0-RTT packets have been sent before there was anything else but those.
    pub(crate) const fn is_acked_in(self, report: Self) -> bool {
        let least = match self {
            Self::ZeroRtt => Self::Handshake,
            epoch => epoch,
        };
        report as u8 >= least as u8
    }

    /// Whether packets of this epoch carry application data.
    pub const fn is_application(self) -> bool {
        matches!(self, Self::OneRtt0 | Self::OneRtt1 | Self::ZeroRtt)
    }
}
