//! Congestion control: how much may be in flight, and how fast it leaves.

mod bbr;
mod cubic;
mod round;

use std::time::Duration;

use crate::Time;
use crate::recovery::{RateSample, Stamp};
use crate::stats::CongestionStats;
use bbr::Bbr;
use cubic::Cubic;

/// Bytes of BBR's state.
pub(crate) const BBR_SIZE: usize = size_of::<Bbr>();

/// Which controller the connections of an endpoint use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CongestionControl {
    /// BBR version 3 (draft-ietf-ccwg-bbr), which holds its rate on paths that lose packets by themselves.
    #[default]
    Bbr,
    /// CUBIC (RFC 9438), which backs off at every loss.
    Cubic,
}

/// What a controller has to know about its connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CongestionConfig {
    /// Bytes of a full packet.
    pub(crate) datagram_size: u16,
    /// Bytes that may be in flight at first.
    pub(crate) initial_window: u64,
    /// Randomness.
    pub(crate) seed: u64,
}

/// The connection as the controller sees it when something happens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PathView {
    /// Bytes in flight, after what happened.
    pub(crate) in_flight: u64,
    /// Bytes delivered so far.
    pub(crate) delivered: u64,
    /// Bytes lost so far.
    pub(crate) lost: u64,
    /// Smoothed round-trip time.
    pub(crate) rtt_smoothed: Duration,
    /// The window, not the application or the pacer, has held the sender back since the last acknowledgement.
    pub(crate) is_window_limited: bool,
    /// The application has held it back.
    pub(crate) is_app_limited: bool,
    /// The acknowledgement echoes a congestion mark.
    pub(crate) ce: bool,
}

/// A congestion controller.
#[derive(Debug)]
pub(crate) enum Controller {
    Bbr(Box<Bbr>),
    Cubic(Box<Cubic>),
}

impl Controller {
    /// A controller for a connection that has sent nothing.
    pub(crate) fn new(now: Time, kind: CongestionControl, config: &CongestionConfig) -> Self {
        match kind {
            CongestionControl::Bbr => Self::Bbr(Box::new(Bbr::new(now, config))),
            CongestionControl::Cubic => Self::Cubic(Box::new(Cubic::new(config))),
        }
    }

    /// A packet of the flight is about to leave.
    pub(crate) fn on_send(&mut self, now: Time, path: &PathView) {
        match self {
            Self::Bbr(bbr) => bbr.on_send(now, path),
            Self::Cubic(_) => {}
        }
    }

    /// A packet is lost: `size` bytes, sent under `stamp`. Comes before the acknowledgement that revealed it.
    pub(crate) fn on_lost(&mut self, now: Time, size: u16, stamp: &Stamp, path: &PathView) {
        match self {
            Self::Bbr(bbr) => bbr.on_lost(now, size, stamp, path),
            Self::Cubic(cubic) => cubic.on_lost(now, stamp),
        }
    }

    /// An acknowledgement of something new was processed.
    pub(crate) fn on_ack(&mut self, now: Time, sample: &RateSample, path: &PathView) {
        match self {
            Self::Bbr(bbr) => bbr.on_ack(now, sample, path),
            Self::Cubic(cubic) => cubic.on_ack(now, sample, path),
        }
    }

    /// Everything sent over several probe timeouts was lost (RFC 9002 section 7.6).
    pub(crate) fn on_persistent_congestion(&mut self, now: Time) {
        match self {
            Self::Bbr(bbr) => bbr.on_persistent_congestion(),
            Self::Cubic(cubic) => cubic.on_persistent_congestion(now),
        }
    }

    /// All recent losses were only late.
    pub(crate) fn on_losses_undone(&mut self, now: Time) {
        match self {
            Self::Bbr(bbr) => bbr.on_losses_undone(now),
            Self::Cubic(cubic) => cubic.on_losses_undone(),
        }
    }

    /// A full packet has so many bytes from here on.
    pub(crate) fn set_datagram_size(&mut self, size: u16) {
        match self {
            Self::Bbr(bbr) => bbr.set_datagram_size(size),
            Self::Cubic(cubic) => cubic.set_datagram_size(size),
        }
    }

    /// Bytes that may be in flight.
    pub(crate) fn window(&self) -> u64 {
        match self {
            Self::Bbr(bbr) => bbr.window(),
            Self::Cubic(cubic) => cubic.window(),
        }
    }

    /// Bytes per second at which packets leave.
    pub(crate) fn pacing_rate(&self) -> u64 {
        match self {
            Self::Bbr(bbr) => bbr.pacing_rate(),
            Self::Cubic(cubic) => cubic.pacing_rate(),
        }
    }

    /// Bytes per second that the path is known to carry.
    pub(crate) fn bandwidth(&self) -> u64 {
        match self {
            Self::Bbr(bbr) => bbr.known_bandwidth(),
            Self::Cubic(cubic) => cubic.known_bandwidth(),
        }
    }

    /// Fills in what the controller knows.
    pub(crate) fn stats(&self, stats: &mut CongestionStats) {
        match self {
            Self::Bbr(bbr) => bbr.stats(stats),
            Self::Cubic(cubic) => cubic.stats(stats),
        }
    }
}
