//! Processors: how fast they run, how deep they sleep, and what else runs on them.

use crate::finding::{Finding, Wish};
use crate::host::{Host, parse_list};

/// A sleep from which a processor wakes in this time costs no latency that anybody sees.
const WAKE_US: u64 = 10;
/// With fewer processors there is none to set aside.
const ISOLATION_CORES_MIN: usize = 4;

/// How many there are.
pub(super) fn count(host: &Host) -> Finding {
    let wish = Wish {
        name: "processors",
        wanted: "2 or more",
        why: "a busy shard fills its core; the control plane needs another",
    };
    match host.processors().len() {
        0 => wish.unknown("not told"),
        count => wish.judge(count >= 2, count.to_string(), "give the machine more"),
    }
}

/// What chooses their frequency.
pub(super) fn governor(host: &Host) -> Finding {
    let wish = Wish {
        name: "frequency governor",
        wanted: "performance",
        why: "a processor that slows down when idle is slow for the first packets after a pause",
    };
    let path = |core: &usize| format!("sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor");
    let mut governors: Vec<_> = host.processors().iter().filter_map(|core| host.text(&path(core))).collect();
    governors.sort();
    governors.dedup();
    if governors.is_empty() {
        return wish.unknown("no frequency control, as usual in a virtual machine: the host decides");
    }
    let is_good = governors.iter().all(|governor| governor == "performance");
    wish.judge(is_good, governors.join(", "), "cpupower frequency-set -g performance")
}

/// How deep they sleep.
pub(super) fn idle_states(host: &Host) -> Finding {
    let wish = Wish {
        name: "idle states",
        wanted: "none enabled that takes over 10 us to leave",
        why: "a packet that comes to a sleeping core waits until it is awake",
    };
    let Some(core) = host.processors().first().copied() else { return wish.unknown("not told") };
    let folder = format!("sys/devices/system/cpu/cpu{core}/cpuidle");
    let states: Vec<_> = host
        .names(&folder)
        .into_iter()
        .filter_map(|state| {
            let file = |name: &str| host.text(&format!("{folder}/{state}/{name}"));
            let is_on = file("disable").as_deref() != Some("1");
            Some((file("name")?, file("latency")?.parse::<u64>().ok()?)).filter(|_| is_on)
        })
        .collect();
    match states.iter().max_by_key(|(_, latency)| *latency) {
        None => wish.unknown("no idle states, as usual in a virtual machine: the host decides"),
        Some((name, latency)) => {
            let fix = "cpupower idle-set -D 10, or boot with processor.max_cstate=1 intel_idle.max_cstate=1";
            wish.judge(*latency <= WAKE_US, format!("deepest is {name}, {latency} us to leave"), fix)
        }
    }
}

/// Cores that the scheduler leaves alone.
pub(super) fn isolated(host: &Host) -> Finding {
    let wish = Wish {
        name: "isolated cores",
        wanted: "the shards' cores isolated, where there are 4 or more",
        why: "whatever else runs on a shard's core delays its packets by milliseconds",
    };
    let Some(list) = host.text("sys/devices/system/cpu/isolated") else { return wish.unknown("not told") };
    let count = host.processors().len();
    if !list.is_empty() {
        return wish.good(format!("{list}: give them to shards with --cores"));
    }
    if count < ISOLATION_CORES_MIN {
        return wish.good(format!("none, and {count} processors are too few to set one aside"));
    }
    wish.change("none", "boot with isolcpus=managed_irq,domain,N-M nohz_full=N-M rcu_nocbs=N-M, and --cores N,...,M")
}

/// Whether two threads share a core.
pub(super) fn siblings(host: &Host) -> Finding {
    let wish = Wish {
        name: "hyper-threads",
        wanted: "off, or one shard per physical core",
        why: "two busy threads on one core take half of it from each other",
    };
    match host.text("sys/devices/system/cpu/smt/active").as_deref() {
        Some("0") => wish.good("off"),
        Some("1") => {
            let pair = host.text("sys/devices/system/cpu/cpu0/topology/thread_siblings_list").unwrap_or_default();
            wish.change(
                format!("on: processors {pair} are one core"),
                "choose one thread of each core for --cores, or boot with nosmt",
            )
        }
        _ => wish.unknown("not told"),
    }
}

/// Which processors the network devices interrupt.
pub(super) fn interrupts(host: &Host) -> Finding {
    let wish = Wish {
        name: "interrupts",
        wanted: "network interrupts not on isolated cores, and irqbalance off where there are any",
        why: "an interrupt takes the core from the shard in the middle of its work",
    };
    let isolated = host.text("sys/devices/system/cpu/isolated").map(|list| parse_list(&list)).unwrap_or_default();
    let Some(table) = host.text("proc/interrupts") else { return wish.unknown("not told") };
    let numbers = table.lines().filter(|line| is_network(line)).filter_map(|line| line.split(':').next());
    let numbers: Vec<_> = numbers.map(str::trim).filter(|number| number.parse::<u32>().is_ok()).collect();
    let on =
        |number: &str| host.text(&format!("proc/irq/{number}/effective_affinity_list")).map(|list| parse_list(&list));
    let wrong: Vec<_> = numbers
        .iter()
        .filter(|number| on(number).is_some_and(|cores| cores.iter().any(|core| isolated.contains(core))))
        .copied()
        .collect();
    let balancer = host
        .names("proc")
        .iter()
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .any(|process| host.text(&format!("proc/{process}/comm")).as_deref() == Some("irqbalance"));
    if !wrong.is_empty() {
        let found = format!("interrupts {} come to isolated cores", wrong.join(", "));
        return wish.change(found, "write another core into /proc/irq/N/smp_affinity_list for each of them");
    }
    if balancer && !isolated.is_empty() {
        return wish.change("irqbalance runs and may move them to any core", "systemctl disable --now irqbalance");
    }
    wish.good(format!("{} of network devices, none on an isolated core", numbers.len()))
}

/// Whether a line of `/proc/interrupts` is of a network device's queue.
fn is_network(line: &str) -> bool {
    let name = line.split_whitespace().next_back().unwrap_or_default();
    ["eth", "en", "mlx", "virtio", "ixgbe", "i40e", "ice", "bnxt", "ena"].iter().any(|prefix| name.starts_with(prefix))
        && ["rx", "tx", "input", "output", "comp", "TxRx", "Tx-Rx", "eth", "en", "mlx"]
            .iter()
            .any(|word| name.contains(word))
}

/// What tells the time.
pub(super) fn clock_source(host: &Host) -> Finding {
    let wish = Wish {
        name: "clock source",
        wanted: "tsc, kvm-clock, hyperv_clocksource_tsc_page or arch_sys_counter",
        why: "they are read without a system call; hpet and acpi_pm cost a microsecond for every packet",
    };
    let Some(source) = host.text("sys/devices/system/clocksource/clocksource0/current_clocksource") else {
        return wish.unknown("not told");
    };
    let is_good = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"].contains(&source.as_str());
    wish.judge(
        is_good,
        source,
        "boot with tsc=reliable if the processor has an invariant TSC, and choose it in current_clocksource",
    )
}

/// Memory that is nearer to some processors than to others.
pub(super) fn numa(host: &Host) -> Finding {
    let wish = Wish {
        name: "NUMA",
        wanted: "shards on the node of the network device",
        why: "packets and their buffers cross from node to node otherwise",
    };
    let nodes = host.text("sys/devices/system/node/online").map(|list| parse_list(&list)).unwrap_or_default();
    if nodes.len() <= 1 {
        return wish.good("one node");
    }
    let node_of = |device: &String| {
        host.text(&format!("sys/class/net/{device}/device/numa_node")).map(|node| (device.clone(), node))
    };
    let devices: Vec<_> = host.names("sys/class/net").iter().filter_map(node_of).collect();
    let placed: Vec<_> = devices.iter().map(|(device, node)| format!("{device} on node {node}")).collect();
    let cores = devices.iter().find_map(|(_, node)| host.text(&format!("sys/devices/system/node/node{node}/cpulist")));
    let fix = cores.map_or_else(
        || "choose cores near the device for --cores".to_owned(),
        |cores| format!("choose --cores from {cores}"),
    );
    wish.change(format!("{} nodes; {}", nodes.len(), placed.join(", ")), fix)
}
