//! The same link by the kernel's netem: the commands that make it.

use std::time::Duration;

use anyhow::bail;
use quantum_sim::LinkConfig;

use super::{ADDR_A, ADDR_B, DEVICE};

/// Packets that netem may hold; its default of 1000 would drop at 120 Mbit/s and a delay of 100 ms.
const LIMIT_PACKETS: &str = "100000";

/// The commands that join two namespaces by a veth pair with the effects of `config` at both ends, in their order.
pub(super) fn commands(
    ns_a: &str,
    ns_b: &str,
    config: &LinkConfig,
    mtu: u16,
    seed: Option<u64>,
) -> anyhow::Result<Vec<Vec<String>>> {
    let mut lines = Vec::new();
    let mut line = |text: String| lines.push(text.split_whitespace().map(str::to_owned).collect());
    line(format!("ip -n {ns_a} link add {DEVICE} mtu {mtu} type veth peer name {DEVICE} mtu {mtu} netns {ns_b}"));
    let effects = effects(config)?;
    for (ns, address, seed) in [(ns_a, ADDR_A, seed), (ns_b, ADDR_B, seed.map(|seed| seed.wrapping_add(1)))] {
        // Segmentation offload would make netem lose, delay and count up to 64 KiB at a time.
        line(format!("ip -n {ns} link set {DEVICE} gso_max_segs 1"));
        line(format!("ip -n {ns} addr add {address}/24 dev {DEVICE}"));
        line(format!("ip -n {ns} link set {DEVICE} up"));
        let seed = seed.map(|seed| format!(" seed {seed}")).unwrap_or_default();
        line(format!(
            "tc -n {ns} qdisc replace dev {DEVICE} root handle 1: netem limit {LIMIT_PACKETS}{effects}{seed}"
        ));
        if let Some(rate) = config.rate_bits_per_s {
            // A bucket of two packets: the rate holds from packet to packet.
            let (queue, bucket) = (config.queue_bytes_max(), u32::from(mtu) * 2);
            line(format!(
                "tc -n {ns} qdisc replace dev {DEVICE} parent 1:1 handle 10: tbf rate {rate}bit burst {bucket} limit {queue}"
            ));
        }
    }
    Ok(lines)
}

fn effects(config: &LinkConfig) -> anyhow::Result<String> {
    if config.outage.is_some() {
        bail!("netem has no --burst-ms: leave out --netem");
    }
    if config.burst.is_some() && config.loss_percent > 0.0 {
        bail!("netem takes one of --loss and --burst: leave one out, or --netem");
    }
    if config.reorder_percent > 0.0 && config.delay.is_zero() {
        bail!("netem reorders by sending without delay: --reorder needs --delay-ms");
    }
    let mut effects = Vec::new();
    if !config.delay.is_zero() || !config.jitter.is_zero() {
        effects.push(format!(" delay {}us", micros(config.delay)));
    }
    if !config.jitter.is_zero() {
        effects.push(format!(" {}us", micros(config.jitter)));
    }
    if let Some(burst) = config.burst {
        let (there, back, loss) = (burst.good_to_bad_percent, burst.bad_to_good_percent, burst.loss_percent);
        effects.push(format!(" loss gemodel {there}% {back}% {loss}% 0%"));
    }
    let shares = [
        ("loss", config.loss_percent),
        ("duplicate", config.duplicate_percent),
        ("corrupt", config.corrupt_percent),
        ("reorder", config.reorder_percent),
    ];
    let shares = shares.into_iter().filter(|(_, percent)| *percent > 0.0);
    effects.extend(shares.map(|(name, percent)| format!(" {name} {percent}%")));
    Ok(effects.concat())
}

fn micros(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quantum_sim::{Burst, LinkConfig, RandomOutage};

    fn text(config: &LinkConfig, seed: Option<u64>) -> String {
        let lines = super::commands("t-a", "t-b", config, 1500, seed).expect("netem can do it");
        lines.iter().map(|line| line.join(" ") + "\n").collect()
    }

    #[test]
    fn the_commands_of_a_full_link_are_these() {
        let config = LinkConfig {
            delay: Duration::from_millis(25),
            jitter: Duration::from_micros(2_500),
            loss_percent: 5.0,
            rate_bits_per_s: Some(10_000_000),
            queue_bytes: Some(100_000),
            reorder_percent: 1.0,
            duplicate_percent: 0.5,
            corrupt_percent: 0.25,
            ..LinkConfig::default()
        };
        let netem = "netem limit 100000 delay 25000us 2500us loss 5% duplicate 0.5% corrupt 0.25% reorder 1%";
        let tbf = "parent 1:1 handle 10: tbf rate 10000000bit burst 3000 limit 100000";
        let expected = format!(
            "ip -n t-a link add link0 mtu 1500 type veth peer name link0 mtu 1500 netns t-b\n\
             ip -n t-a link set link0 gso_max_segs 1\n\
             ip -n t-a addr add 10.77.0.1/24 dev link0\n\
             ip -n t-a link set link0 up\n\
             tc -n t-a qdisc replace dev link0 root handle 1: {netem} seed 7\n\
             tc -n t-a qdisc replace dev link0 {tbf}\n\
             ip -n t-b link set link0 gso_max_segs 1\n\
             ip -n t-b addr add 10.77.0.2/24 dev link0\n\
             ip -n t-b link set link0 up\n\
             tc -n t-b qdisc replace dev link0 root handle 1: {netem} seed 8\n\
             tc -n t-b qdisc replace dev link0 {tbf}\n"
        );
        assert_eq!(text(&config, Some(7)), expected);
    }

    #[test]
    fn a_burst_is_a_gilbert_elliott_model() {
        let burst = Burst { good_to_bad_percent: 1.0, bad_to_good_percent: 25.0, loss_percent: 80.0 };
        let config = LinkConfig { burst: Some(burst), ..LinkConfig::default() };
        assert!(text(&config, None).contains("netem limit 100000 loss gemodel 1% 25% 80% 0%\n"));
    }

    #[test]
    fn what_netem_cannot_do_is_refused() {
        let outage = RandomOutage { good: Duration::from_millis(90), bad: Duration::from_millis(10) };
        let burst = Burst { good_to_bad_percent: 1.0, bad_to_good_percent: 25.0, loss_percent: 80.0 };
        let refused = [
            LinkConfig { outage: Some(outage), ..LinkConfig::default() },
            LinkConfig { burst: Some(burst), loss_percent: 1.0, ..LinkConfig::default() },
            LinkConfig { reorder_percent: 1.0, ..LinkConfig::default() },
        ];
        for config in refused {
            assert!(super::commands("t-a", "t-b", &config, 1500, None).is_err(), "{config:?}");
        }
    }
}
