//! What befalls endpoints beside what their path does: another address, a clock that jumps.

use std::time::Duration;

use quantum::Time;

use crate::Rng;

/// Clients that get another address, in a hundred worlds, and clocks that jump.
const REBIND_PERCENT: f64 = 15.0;
const CLOCK_STEP_PERCENT: f64 = 8.0;
/// Times that the address of one client changes, at most.
const REBINDS_MAX: u64 = 3;

/// Something that happens to one endpoint at a moment of virtual time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incident {
    /// When it happens.
    pub at: Time,
    /// What happens.
    pub kind: IncidentKind,
}

/// What happens to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncidentKind {
    /// A client's address is another one from here on; what is sent to the old one is lost.
    Rebind {
        /// Which client, from 0 on.
        client: usize,
        /// Its host changes too, not only the port: another network, not another mapping of an address translator.
        host: bool,
    },
    /// An endpoint's clock jumps ahead by an hour, as after a suspend.
    ClockStep {
        /// Which client, from 0 on; none: the server.
        client: Option<usize>,
    },
}

impl Incident {
    /// How far clocks jump.
    pub const CLOCK_STEP: Duration = Duration::from_hours(1);

    /// The incidents of a world with so many clients, in the order of their times.
    pub(super) fn draw(rng: &mut Rng, clients: u64) -> Vec<Self> {
        let mut incidents = Vec::new();
        if rng.chance(REBIND_PERCENT) {
            let client = rng.below(clients) as usize;
            for _ in 0..=rng.below(REBINDS_MAX) {
                let host = rng.chance(30.0);
                incidents.push(Self { at: moment(rng), kind: IncidentKind::Rebind { client, host } });
            }
        }
        if rng.chance(CLOCK_STEP_PERCENT) {
            let client = rng.chance(50.0).then(|| rng.below(clients) as usize);
            incidents.push(Self { at: moment(rng), kind: IncidentKind::ClockStep { client } });
        }
        incidents.sort_by_key(|incident| incident.at);
        incidents
    }
}

/// Somewhere in the first eight seconds, early moments being as likely as late ones: a world may last some milliseconds.
fn moment(rng: &mut Rng) -> Time {
    let micros = 1_000 << rng.below(13);
    Time::ZERO + Duration::from_micros(micros + rng.below(micros))
}
