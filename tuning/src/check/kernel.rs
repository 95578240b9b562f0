//! The kernel: its version, `io_uring`, and the limits of a process.

use std::io;

use io_uring::IoUring;
use rustix::process::{Resource, getrlimit};

use crate::finding::{Finding, Wish};
use crate::host::Host;

/// Locked memory of a shard with its ring and buffers.
const LOCKED_BYTES: u64 = 8 << 20;
/// Files that a server with many clients has open.
const FILES: u64 = 65_536;

/// The kernel's release.
pub(super) fn version(host: &Host) -> Finding {
    let wish = Wish {
        name: "kernel",
        wanted: "Linux 6.1 or later",
        why: "a shard's io_uring uses single-issuer mode and deferred task work, which came with 6.0 and 6.1",
    };
    let Some(release) = host.text("proc/sys/kernel/osrelease") else { return wish.unknown("no release is told") };
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    wish.judge(version >= (6, 1), release, "install a kernel of 6.1 or later")
}

/// Whether a ring of the kind that shards use can be made.
pub(super) fn io_uring(host: &Host) -> Finding {
    let wish = Wish {
        name: "io_uring",
        wanted: "allowed for this user",
        why: "shards send, receive and sleep through it: one system call for many packets",
    };
    let disabled = host.number("proc/sys/kernel/io_uring_disabled");
    if disabled == Some(2) {
        return wish.change("switched off (kernel.io_uring_disabled = 2)", "sysctl -w kernel.io_uring_disabled=0");
    }
    if !host.is_here() {
        return wish.unknown(
            disabled.map_or_else(|| "not told".into(), |value| format!("kernel.io_uring_disabled = {value}")),
        );
    }
    let ring: io::Result<IoUring> = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(8);
    match ring {
        Ok(_) => wish.good("works, with single-issuer mode and deferred task work"),
        Err(error) => wish.change(
            format!("refused: {error}"),
            "allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp profile, and set \
             kernel.io_uring_disabled=0",
        ),
    }
}

/// The limit of locked memory.
pub(super) fn locked_memory(host: &Host) -> Finding {
    let wish = Wish {
        name: "locked memory",
        wanted: "at least 8 MiB for each shard",
        why: "glommio and registered buffers lock their memory; under 512 KiB a shard does not start",
    };
    if !host.is_here() {
        return wish.unknown("the limit of a process on another host");
    }
    let fix = "LimitMEMLOCK=infinity in the systemd unit, or `* - memlock unlimited` in /etc/security/limits.conf";
    match getrlimit(Resource::Memlock).current {
        None => wish.good("unlimited"),
        Some(bytes) => {
            let shards = bytes / LOCKED_BYTES;
            let found = format!("{} KiB, enough for {shards} shard{}", bytes >> 10, if shards == 1 { "" } else { "s" });
            wish.judge(shards >= 1, found, fix)
        }
    }
}

/// The limit of open files.
pub(super) fn open_files(host: &Host) -> Finding {
    let wish = Wish {
        name: "open files",
        wanted: "65536 or more",
        why: "every client over TCP is an open file; one over Quantum is none",
    };
    if !host.is_here() {
        return wish.unknown("the limit of a process on another host");
    }
    let limit = getrlimit(Resource::Nofile);
    let found = |limit: Option<u64>| limit.map_or("unlimited".to_owned(), |files| files.to_string());
    let text = format!("{}, could be raised to {}", found(limit.current), found(limit.maximum));
    wish.judge(
        limit.current.is_none_or(|files| files >= FILES),
        text,
        "LimitNOFILE=1048576 in the systemd unit, or ulimit -n 65536",
    )
}
