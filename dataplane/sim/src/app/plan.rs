//! What a client does.

use std::time::Duration;

use crate::Rng;

/// Streams of a client at most.
const STREAMS_MAX: u64 = 24;
/// Streams that the server opens to a client at most.
const PUSHES_MAX: u64 = 4;

/// What a client does on its connection.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The streams that it opens, in the order of their times.
    pub streams: Vec<StreamPlan>,
    /// The sizes of the streams that the server opens to it, which it reads.
    pub pushes: Vec<u64>,
    /// The client is silent for so long at the end, before it closes.
    pub rest: Duration,
}

/// One stream that a client opens.
#[derive(Clone, Copy, Debug)]
pub struct StreamPlan {
    /// How long after the connection it is opened.
    pub after: Duration,
    /// Bytes that it sends.
    pub size: u64,
    /// How it ends.
    pub kind: StreamKind,
}

/// How a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// Everything is sent, finished, echoed and read.
    Echo,
    /// The client resets it after so many bytes.
    Reset(u64),
    /// The client sends everything, and stops the echo after so many bytes.
    Stop(u64),
}

impl Plan {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let mut streams: Vec<StreamPlan> = (0..=rng.below(STREAMS_MAX)).map(|_| StreamPlan::draw(rng)).collect();
        streams.sort_by_key(|stream| stream.after);
        let pushes = (0..rng.below(PUSHES_MAX + 1)).map(|_| size(rng)).collect();
        // One in ten rests for longer than the keepalive takes.
        let rest = if rng.chance(10.0) { Duration::from_secs(25) } else { Duration::from_millis(rng.below(200)) };
        Self { streams, pushes, rest }
    }
}

impl StreamPlan {
    fn draw(rng: &mut Rng) -> Self {
        let size = size(rng);
        let kind = match rng.below(10) {
            0 => StreamKind::Reset(rng.below(size + 1)),
            1 => StreamKind::Stop(rng.below(size + 1)),
            _ => StreamKind::Echo,
        };
        Self { after: Duration::from_micros(rng.below(2) * rng.below(2_000_000)), size, kind }
    }
}

/// Empty once in sixteen times, else up to 256 KiB, small ones being as likely as large ones.
fn size(rng: &mut Rng) -> u64 {
    match rng.below(16) {
        0 => 0,
        magnitude => rng.below(8 << magnitude),
    }
}
