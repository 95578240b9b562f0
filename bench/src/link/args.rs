//! The flags of `link`.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::Context;
use quantum_sim::{Burst, LinkConfig, RandomOutage};

/// Longest delay that can be asked for, in milliseconds: a minute.
const DELAY_MS_MAX: f64 = 60_000.0;

const EXAMPLES: &str = "\
Examples:
  A round trip of 50 ms with 5 % loss in each direction:
    sudo aetherflow-bench link --delay-ms 25 --loss 5 -- sh -c 'ip netns exec $NS_A ping $ADDR_B'
  A server in one namespace, a client in the other; the link ends with the client:
    sudo aetherflow-bench link --delay-ms 25 -- sh -c '
      ip netns exec $NS_B aetherflow-bench serve --transport tcp --listen $ADDR_B:9000 \\
          --certs /tmp/certs &
      ip netns exec $NS_A aetherflow-bench drive --transport tcp --connect $ADDR_B:9000 \\
          --rate 200 --size 256 --seconds 5'
  A bottleneck of 20 Mbit/s whose queue holds 100 kB, and bursts of loss, the same in every run:
    sudo aetherflow-bench link --delay-ms 10 --rate-mbit 20 --queue 100000 --burst 1,25,100 \\
        --seed 7 -- ./experiment.sh

COMMAND runs in the namespace of the caller, with the names of the two network namespaces in NS_A and NS_B and the addresses \
of the two ends in ADDR_A and ADDR_B. Whatever still runs in the namespaces when it ends is ended too. The exit code is \
COMMAND's. Counters of both directions go to standard error, and as JSON to the last line of standard output.";

/// Runs COMMAND on a link with delay, loss and other effects between two network namespaces (needs root)
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct LinkArgs {
    /// Name of the link, the beginning of the namespaces' names [default: aether-PID]
    #[arg(long, value_name = "N")]
    pub name: Option<String>,
    /// One way delay in milliseconds, in each direction
    #[arg(long, value_name = "D", default_value_t = 0.0)]
    pub delay_ms: f64,
    /// The delay varies evenly by so many milliseconds up or down; packets closer together may overtake each other
    #[arg(long, value_name = "J", default_value_t = 0.0)]
    pub jitter_ms: f64,
    /// Independent loss in percent of the packets
    #[arg(long, value_name = "PCT", default_value_t = 0.0)]
    pub loss: f64,
    /// Burst loss: chances in percent of the steps good to bad and bad to good per packet, and loss while bad
    #[arg(long, value_name = "P_GOOD_BAD,P_BAD_GOOD,LOSS", value_delimiter = ',', num_args = 1)]
    pub burst: Vec<f64>,
    /// Outages: mean milliseconds that the link works and that it loses everything
    #[arg(long, value_name = "GOOD,BAD", value_delimiter = ',', num_args = 1)]
    pub burst_ms: Vec<f64>,
    /// Rate of the bottleneck in Mbit/s
    #[arg(long, value_name = "R")]
    pub rate_mbit: Option<f64>,
    /// Bytes that the queue before the bottleneck holds [default: the rate times the round trip, at least 48000]
    #[arg(long, value_name = "BYTES")]
    pub queue: Option<u64>,
    /// Percent of the packets that wait until one to eight later ones have passed, or 5 ms
    #[arg(long, value_name = "PCT", default_value_t = 0.0)]
    pub reorder: f64,
    /// Percent of the packets that arrive twice
    #[arg(long, value_name = "PCT", default_value_t = 0.0)]
    pub duplicate: f64,
    /// Percent of the packets of which a bit is flipped
    #[arg(long, value_name = "PCT", default_value_t = 0.0)]
    pub corrupt: f64,
    /// Seed of the randomness; the one in use is reported
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    /// MTU of the two devices
    #[arg(long, value_name = "BYTES", default_value_t = 1500, value_parser = clap::value_parser!(u16).range(576..=9000))]
    pub mtu: u16,
    /// Uses the kernel's netem on a veth pair in place of the emulator
    #[arg(long)]
    pub netem: bool,
    /// What to run
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

impl LinkArgs {
    /// The link's name.
    pub(super) fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| format!("aether-{}", std::process::id()))
    }

    /// The effects of each direction.
    pub(super) fn config(&self) -> anyhow::Result<LinkConfig> {
        let burst = match *self.burst.as_slice() {
            [] => None,
            [good_to_bad_percent, bad_to_good_percent, loss_percent] => {
                Some(Burst { good_to_bad_percent, bad_to_good_percent, loss_percent })
            }
            _ => anyhow::bail!("--burst takes three percentages: P_GOOD_BAD,P_BAD_GOOD,LOSS"),
        };
        let outage = match *self.burst_ms.as_slice() {
            [] => None,
            [good, bad] => Some(RandomOutage {
                good: millis(good).context("--burst-ms")?,
                bad: millis(bad).context("--burst-ms")?,
            }),
            _ => anyhow::bail!("--burst-ms takes two times in milliseconds: GOOD,BAD"),
        };
        Ok(LinkConfig {
            delay: millis(self.delay_ms).context("--delay-ms")?,
            jitter: millis(self.jitter_ms).context("--jitter-ms")?,
            loss_percent: self.loss,
            burst,
            outage,
            rate_bits_per_s: self.rate_mbit.map(rate_bits_per_s).transpose().context("--rate-mbit")?,
            queue_bytes: self.queue,
            reorder_percent: self.reorder,
            duplicate_percent: self.duplicate,
            corrupt_percent: self.corrupt,
            ..LinkConfig::default()
        })
    }
}

fn millis(value: f64) -> anyhow::Result<Duration> {
    anyhow::ensure!((0.0..=DELAY_MS_MAX).contains(&value), "{value} ms is not between 0 and {DELAY_MS_MAX}");
    Ok(Duration::from_nanos((value * 1e6).round() as u64))
}

fn rate_bits_per_s(mbit: f64) -> anyhow::Result<u64> {
    anyhow::ensure!((0.001..=1e6).contains(&mbit), "{mbit} Mbit/s is not between 0.001 and 1000000");
    Ok((mbit * 1e6).round() as u64)
}
