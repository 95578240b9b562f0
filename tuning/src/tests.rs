use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use tempfile::TempDir;

use crate::check;
use crate::cli::{Cli, report};
use crate::finding::{Finding, Verdict};
use crate::host::{Host, parse_list};

/// A made-up host with these files.
fn host(files: &[(&str, &str)]) -> (TempDir, Host) {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let host = Host::at(root.path().to_owned());
    (root, host)
}

fn finding(files: &[(&str, &str)], name: &str) -> Finding {
    let (_root, host) = host(files);
    check::all(&host).into_iter().find(|finding| finding.name == name).unwrap()
}

fn verdict(files: &[(&str, &str)], name: &str) -> Verdict {
    finding(files, name).verdict
}

const FOUR: (&str, &str) = ("sys/devices/system/cpu/online", "0-3\n");

#[test]
fn nothing_is_known_of_a_host_without_files_and_nothing_fails() {
    let (_root, host) = host(&[]);
    for finding in check::all(&host) {
        // What cannot be found out is not called good, but for what is so on every small machine.
        assert!(finding.verdict == Verdict::Unknown || finding.name == "NUMA", "{finding:?}");
    }
}

#[test]
fn garbage_in_files_is_unknown_and_no_panic() {
    let files = [
        "proc/sys/kernel/osrelease",
        "proc/sys/kernel/io_uring_disabled",
        "proc/sys/net/core/rmem_max",
        "proc/interrupts",
        "sys/devices/system/cpu/online",
        "sys/devices/system/cpu/isolated",
        "sys/devices/system/node/online",
        "sys/devices/system/cpu/smt/active",
        "sys/devices/system/clocksource/clocksource0/current_clocksource",
    ];
    for text in ["", "-1", "9-1,x,99999999999999999999", "\u{0}\u{ff}:::", "0-65535,0-65535"] {
        let files: Vec<_> = files.iter().map(|file| (*file, text)).collect();
        let (_root, host) = host(&files);
        assert_eq!(check::all(&host).len(), 17);
    }
}

#[test]
fn lists_of_processors_are_read_as_the_kernel_writes_them() {
    assert_eq!(parse_list("0-2,5,7-8"), [0, 1, 2, 5, 7, 8]);
    assert_eq!(parse_list(""), [] as [usize; 0]);
    assert_eq!(parse_list("3-1,a,4"), [4]);
}

#[test]
fn old_kernels_and_switched_off_rings_are_told_of() {
    assert_eq!(verdict(&[("proc/sys/kernel/osrelease", "5.15.0-91-generic")], "kernel"), Verdict::Change);
    assert_eq!(verdict(&[("proc/sys/kernel/osrelease", "6.1.0")], "kernel"), Verdict::Good);
    assert_eq!(verdict(&[("proc/sys/kernel/io_uring_disabled", "2")], "io_uring"), Verdict::Change);
}

#[test]
fn small_socket_buffers_are_told_of_with_what_raises_them() {
    let small = finding(&[("proc/sys/net/core/rmem_max", "212992\n")], "receive buffers");
    assert_eq!((small.verdict, small.found.as_str()), (Verdict::Change, "208 KiB"));
    assert!(small.fix.unwrap().contains("sysctl -w net.core.rmem_max=8388608"));
    assert_eq!(verdict(&[("proc/sys/net/core/wmem_max", "8388608")], "send buffers"), Verdict::Good);
    assert_eq!(verdict(&[("proc/sys/net/core/netdev_max_backlog", "1000")], "device backlog"), Verdict::Change);
}

#[test]
fn sleepy_and_slow_processors_are_told_of() {
    let governor = "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor";
    assert_eq!(verdict(&[FOUR, (governor, "powersave")], "frequency governor"), Verdict::Change);
    assert_eq!(verdict(&[FOUR, (governor, "performance")], "frequency governor"), Verdict::Good);
    let deep = [
        FOUR,
        ("sys/devices/system/cpu/cpu0/cpuidle/state0/name", "POLL"),
        ("sys/devices/system/cpu/cpu0/cpuidle/state0/latency", "0"),
        ("sys/devices/system/cpu/cpu0/cpuidle/state3/name", "C6"),
        ("sys/devices/system/cpu/cpu0/cpuidle/state3/latency", "133"),
    ];
    assert!(finding(&deep, "idle states").found.contains("C6, 133 us"));
    assert_eq!(verdict(&deep, "idle states"), Verdict::Change);
    let off = [&deep[..], &[("sys/devices/system/cpu/cpu0/cpuidle/state3/disable", "1")]].concat();
    assert_eq!(verdict(&off, "idle states"), Verdict::Good);
    let clock = "sys/devices/system/clocksource/clocksource0/current_clocksource";
    assert_eq!(verdict(&[(clock, "hpet")], "clock source"), Verdict::Change);
    assert_eq!(verdict(&[(clock, "tsc")], "clock source"), Verdict::Good);
}

#[test]
fn interrupts_on_isolated_cores_are_told_of() {
    let table = "            CPU0  CPU1\n 38:  0  39423  PCI-MSIX 1-edge virtio2-input.0\n 42: 1 2 PCI-MSIX 1-edge virtio1-req.0\n";
    let isolated = ("sys/devices/system/cpu/isolated", "2-3");
    let wrong = [FOUR, isolated, ("proc/interrupts", table), ("proc/irq/38/effective_affinity_list", "2")];
    assert!(finding(&wrong, "interrupts").found.contains("38"));
    assert_eq!(verdict(&wrong, "interrupts"), Verdict::Change);
    let right = [FOUR, isolated, ("proc/interrupts", table), ("proc/irq/38/effective_affinity_list", "0-1")];
    assert_eq!(verdict(&right, "interrupts"), Verdict::Good);
    let balanced = [&right[..], &[("proc/77/comm", "irqbalance")]].concat();
    assert_eq!(verdict(&balanced, "interrupts"), Verdict::Change);
    assert_eq!(verdict(&[FOUR, ("sys/devices/system/cpu/isolated", "")], "isolated cores"), Verdict::Change);
}

#[test]
fn the_node_of_the_network_device_is_named() {
    let files = [
        ("sys/devices/system/node/online", "0-1"),
        ("sys/class/net/eth0/device/numa_node", "1"),
        ("sys/devices/system/node/node1/cpulist", "16-31"),
    ];
    let numa = finding(&files, "NUMA");
    assert!(numa.found.contains("eth0 on node 1") && numa.fix.unwrap().contains("16-31"));
}

#[test]
fn the_report_has_the_remedy_beneath_what_is_worth_changing() {
    let (_root, host) = host(&[("proc/sys/net/core/rmem_max", "212992"), ("proc/sys/net/core/wmem_max", "16777216")]);
    let mut out = Vec::new();
    report(&mut out, &check::all(&host), false).unwrap();
    let text = String::from_utf8(out).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let at = lines.iter().position(|line| line.starts_with("change   receive buffers")).unwrap();
    assert!(lines[at + 1].trim().starts_with("wanted: "));
    assert!(lines[at + 3].trim().starts_with("how:    sysctl"));
    assert!(text.contains("good     send buffers"));
    assert!(text.ends_with("1 of 17 are worth changing.\n"), "{text}");
}

/// On the host that runs the tests: every line says what was found, whatever that is.
#[test]
fn this_host_can_be_checked() {
    let findings = check::all(&Host::at(Path::new("/").to_owned()));
    assert!(findings.iter().all(|finding| !finding.found.is_empty() && !finding.why.is_empty()));
    let kernel = findings.iter().find(|finding| finding.name == "kernel").unwrap();
    assert_eq!(kernel.found, std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().trim());
}

#[test]
fn every_command_has_examples_and_every_shell_completions() {
    let mut cli = Cli::command();
    cli.build();
    for command in [&mut cli.clone(), cli.find_subcommand_mut("check").unwrap()] {
        let help = command.render_long_help().to_string();
        assert!(help.contains("Examples:\n  aetherflow-tune check"), "{help}");
        assert!(help.lines().all(|line| line.len() <= 100 || !line.starts_with("  aetherflow")), "{help}");
    }
    for shell in [Shell::Bash, Shell::Elvish, Shell::Fish, Shell::PowerShell, Shell::Zsh] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut cli, "aetherflow-tune", &mut script);
        let script = String::from_utf8(script).unwrap();
        assert!(script.contains("check") && script.contains("strict"), "{shell}");
    }
}
