//! `aetherflow-bench link` with real namespaces and real sockets.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_aetherflow-bench");
/// Says that the link is up and under which names, then waits for the end of its input.
const WAIT: &str = "echo $NS_A $NS_B $ADDR_A $ADDR_B; exec cat";

/// One link at a time: they are measured.
static ALONE: Mutex<()> = Mutex::new(());

/// Whether links can be made here. A machine that tests the project must be able to.
fn may_run() -> Option<MutexGuard<'static, ()>> {
    let is_able = rustix::process::geteuid().is_root()
        && Path::new("/dev/net/tun").exists()
        && Command::new("tc").arg("-V").output().is_ok()
        && Command::new("ip").args(["netns", "list"]).output().is_ok_and(|output| output.status.success());
    if is_able {
        return Some(ALONE.lock().unwrap_or_else(PoisonError::into_inner));
    }
    assert!(std::env::var_os("CI").is_none(), "links need root, /dev/net/tun and iproute2");
    println!("SKIPPED: links need root, /dev/net/tun and iproute2");
    None
}

/// A running link.
struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
    namespaces: [String; 2],
    addresses: [String; 2],
}

impl Running {
    fn start(name: &str, flags: &[&str]) -> Self {
        let name = format!("test-{name}-{}", std::process::id());
        let mut child = Command::new(BINARY)
            .args(["link", "--name", &name])
            .args(flags)
            .args(["--", "sh", "-c", WAIT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let [ns_a, ns_b, addr_a, addr_b] = <[String; 4]>::try_from(words).expect("the command sees four variables");
        assert_eq!((&ns_a, &ns_b), (&format!("{name}-a"), &format!("{name}-b")));
        Self { child, output, namespaces: [ns_a, ns_b], addresses: [addr_a, addr_b] }
    }

    /// Something made inside one of the namespaces; sockets stay there.
    fn inside<T: Send>(&self, end: usize, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(Path::new("/run/netns").join(&self.namespaces[end])).unwrap();
        thread::scope(|scope| {
            let enter = || {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work()
            };
            scope.spawn(enter).join().unwrap()
        })
    }

    /// A socket at each end, connected to each other.
    fn sockets(&self) -> [UdpSocket; 2] {
        let [socket_a, socket_b] =
            [0, 1].map(|end| self.inside(end, || UdpSocket::bind((self.addresses[end].as_str(), 7)).unwrap()));
        socket_a.connect((self.addresses[1].as_str(), 7)).unwrap();
        socket_b.connect((self.addresses[0].as_str(), 7)).unwrap();
        for socket in [&socket_a, &socket_b] {
            socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        }
        [socket_a, socket_b]
    }

    /// Ends the command and gives the counters of the link.
    fn finish(mut self) -> Value {
        drop(self.child.stdin.take());
        let (status, report) = self.end();
        assert!(status.success());
        report
    }

    fn end(mut self) -> (ExitStatus, Value) {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        let status = self.child.wait().unwrap();
        for namespace in &self.namespaces {
            assert!(!Path::new("/run/netns").join(namespace).exists(), "{namespace} is left");
        }
        let report = rest.lines().last().expect("the counters are the last line");
        (status, serde_json::from_str(report).expect("the counters are JSON"))
    }
}

fn count(report: &Value, direction: &str, name: &str) -> u64 {
    report[direction][name].as_u64().unwrap_or_else(|| panic!("no {direction}.{name} in {report}"))
}

/// The least round-trip time of pings that are spaced as those of a person are: what the link takes where the machine wakes who is
/// waited for at once, which a busy host's does only now and then.
fn round_trip(delay_ms: &str) -> Duration {
    let link = Running::start("delay", &["--delay-ms", delay_ms]);
    let [near, far] = link.sockets();
    let mut times = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 64];
            while let Ok(len) = far.recv(&mut buffer) {
                far.send(&buffer[..len]).unwrap();
            }
        });
        for _ in 0..100 {
            let start = Instant::now();
            near.send(&[7; 64]).unwrap();
            near.recv(&mut [0; 64]).expect("nothing is lost");
            times.push(start.elapsed());
        }
    });
    link.finish();
    times.sort();
    println!("{delay_ms} ms each way: {:?} at least, median {:?}", times[0], times[times.len() / 2]);
    times[0]
}

#[test]
fn the_delay_is_right_within_three_tenths_of_a_millisecond() {
    let Some(_alone) = may_run() else { return };
    let base = round_trip("0");
    for delay_ms in ["5", "20"] {
        let delay = Duration::from_millis(delay_ms.parse().unwrap());
        let is_right = |least: Duration| {
            assert!(least >= 2 * delay, "{least:?}");
            least.saturating_sub(base).abs_diff(2 * delay) / 2 <= Duration::from_micros(300)
        };
        assert!((0..10).any(|_| is_right(round_trip(delay_ms))), "{delay_ms} ms each way is more in every try");
    }
}

/// Sends numbered packets from the first end to the second and gives the numbers that arrive.
fn send_numbered(link: &Running, packets: u32, len: usize) -> Vec<u32> {
    let [near, far] = link.sockets();
    thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let mut buffer = [0; 2048];
            let mut numbers = Vec::new();
            while let Ok(received) = far.recv(&mut buffer) {
                assert_eq!(received, len);
                assert!(buffer[4..len].iter().all(|byte| *byte == 0x5a), "what is corrupted is not delivered");
                numbers.push(u32::from_be_bytes(buffer[..4].try_into().unwrap()));
            }
            numbers
        });
        let mut packet = vec![0x5a; len];
        for number in 0..packets {
            packet[..4].copy_from_slice(&number.to_be_bytes());
            near.send(&packet).unwrap();
        }
        receiver.join().unwrap()
    })
}

/// Paces delivery to 4000 packets a second, so that the receiving socket's buffer cannot overflow.
const PACED: [&str; 6] = ["--rate-mbit", "5", "--queue", "10000000", "--seed", "7"];

#[test]
fn loss_is_binomial_and_what_arrives_is_what_is_counted() {
    let Some(_alone) = may_run() else { return };
    let link = Running::start("loss", &[&PACED[..], &["--loss", "10", "--duplicate", "5", "--reorder", "2"]].concat());
    let mut numbers = send_numbered(&link, 4_000, 128);
    let report = link.finish();
    let count = |name| count(&report, "a_to_b", name);
    assert_eq!(count("sent"), 4_000);
    // Five standard deviations.
    assert!((305..=495).contains(&count("dropped_loss")), "{report}");
    assert!((110..=250).contains(&count("duplicated")), "{report}");
    assert_eq!(numbers.len() as u64, 4_000 - count("dropped_loss") + count("duplicated"));
    assert_eq!(numbers.len() as u64, count("delivered"));
    let late = numbers.iter().scan(0, |highest, number| {
        let is_late = number < highest;
        *highest = (*highest).max(*number);
        Some(u64::from(is_late))
    });
    assert_eq!(late.sum::<u64>(), count("reordered"));
    assert!((30..=150).contains(&count("reordered")), "{report}");
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len() as u64, 4_000 - count("dropped_loss"), "every copy is of another packet");
}

#[test]
fn corrupted_packets_are_counted_and_the_kernel_refuses_them() {
    let Some(_alone) = may_run() else { return };
    let link = Running::start("corrupt", &[&PACED[..], &["--corrupt", "10"]].concat());
    let numbers = send_numbered(&link, 2_000, 128);
    let report = link.finish();
    let corrupted = count(&report, "a_to_b", "corrupted");
    assert!((130..=270).contains(&corrupted), "{report}");
    assert_eq!(numbers.len() as u64, 2_000 - corrupted);
}

#[test]
fn a_bottleneck_has_its_rate_and_its_queue_drops_the_tail() {
    let Some(_alone) = may_run() else { return };
    let link = Running::start("rate", &["--rate-mbit", "10", "--queue", "60000"]);
    let start = Instant::now();
    let numbers = send_numbered(&link, 100, 1_222);
    let report = link.finish();
    assert!(start.elapsed() >= Duration::from_millis(48), "60 kB take 48 ms");
    let (peak, dropped) = (count(&report, "a_to_b", "queue_bytes_peak"), count(&report, "a_to_b", "dropped_queue"));
    assert!((58_750..=60_000).contains(&peak), "{report}");
    // 48 packets of 1250 bytes fit, and one more for each millisecond that sending takes.
    assert!((1..=52).contains(&dropped), "{report}");
    assert_eq!(numbers.len() as u64, 100 - dropped);
    assert!(numbers.is_sorted() && numbers[..48].iter().copied().eq(0..48));
}

#[test]
fn a_burst_loses_packets_in_runs() {
    let Some(_alone) = may_run() else { return };
    let link = Running::start("burst", &[&PACED[..], &["--burst", "2,25,100"]].concat());
    let numbers = send_numbered(&link, 4_000, 128);
    let report = link.finish();
    let dropped = count(&report, "a_to_b", "dropped_burst");
    let runs = numbers.windows(2).filter(|pair| pair[1] != pair[0] + 1).count() as u64;
    assert!((150..=450).contains(&dropped), "2 / 27 of the packets: {report}");
    assert!((2..=6).contains(&(dropped / runs)), "{dropped} lost in {runs} runs");
}

#[test]
fn the_link_carries_500_mbit_per_second() {
    let Some(_alone) = may_run() else { return };
    let link = Running::start("speed", &["--delay-ms", "1"]);
    let listener = link.inside(1, || TcpListener::bind((link.addresses[1].as_str(), 7)).unwrap());
    let mut near = link.inside(0, || TcpStream::connect((link.addresses[1].as_str(), 7)).unwrap());
    let (mut far, _) = listener.accept().unwrap();
    let mbit_per_s = thread::scope(|scope| {
        scope.spawn(move || {
            let (start, block) = (Instant::now(), vec![0; 1 << 17]);
            while start.elapsed() < Duration::from_secs(2) {
                near.write_all(&block).unwrap();
            }
        });
        let (start, mut bytes, mut buffer) = (Instant::now(), 0, vec![0; 1 << 17]);
        while let Ok(len @ 1..) = far.read(&mut buffer) {
            bytes += len;
        }
        bytes as f64 * 8.0 / 1e6 / start.elapsed().as_secs_f64()
    });
    let report = link.finish();
    println!("{mbit_per_s:.0} Mbit/s of TCP in packets of 1500 bytes: {report}");
    assert!(mbit_per_s >= 500.0, "{mbit_per_s} Mbit/s");
}

#[test]
fn the_exit_code_is_the_commands() {
    let Some(_alone) = may_run() else { return };
    let code = |words: &[&str]| Command::new(BINARY).args(["link", "--"]).args(words).status().unwrap().code();
    assert_eq!(code(&["sh", "-c", "exit 42"]), Some(42));
    assert_eq!(code(&["sh", "-c", "kill -9 $$"]), Some(137));
    assert_eq!(code(&["/nonexistent"]), Some(2));
}

#[test]
fn a_signal_ends_the_command_and_removes_the_namespaces() {
    let Some(_alone) = may_run() else { return };
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let link = Running::start("signal", &[]);
        let pid = Pid::from_raw(i32::try_from(link.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        assert_eq!(link.end().0.code(), Some(code));
    }
}

#[test]
fn a_stale_namespace_is_reported_with_the_fix() {
    let Some(_alone) = may_run() else { return };
    let link = Running::start("stale", &[]);
    let name = link.namespaces[0].trim_end_matches("-a");
    let second = Command::new(BINARY).args(["link", "--name", name, "--", "true"]).output().unwrap();
    assert_eq!(second.status.code(), Some(2));
    let message = String::from_utf8(second.stderr).unwrap();
    assert!(message.contains(&format!("ip netns del {name}-a; ip netns del {name}-b")), "{message}");
    link.finish();
}
