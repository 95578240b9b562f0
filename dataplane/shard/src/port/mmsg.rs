//! The port over `sendmsg` and `recvmmsg` (quinn-udp), for kernels and containers without `io_uring`. What it waits for, its
//! socket, the doorbell and the deadline, is one epoll instance, so that a thread or a runtime waits for one descriptor.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

use quantum::{Received, Time, Transmit};
use quinn_udp::{EcnCodepoint, RecvMeta, UdpSocketState};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use super::sys::forget_local_v4;
use super::unreachable::{drain, may_be_of_another};
use super::{Parkable, is_too_large};
use crate::work::{Port, PortCounters, Unreachable};

/// Receives of one system call, and bytes of each: the largest UDP payload, merged ones included.
const RECEIVES: usize = 8;
const BUFFER_LEN: usize = 64 << 10;
/// Refused datagrams that wait to be looked at.
const UNREACHABLE_MAX: usize = 256;
/// Errors of datagrams sent before that one operation gets over.
const ATTEMPTS: usize = 4;

/// Moves datagrams of one socket by system calls.
pub(crate) struct MmsgPort {
    socket: UdpSocket,
    state: UdpSocketState,
    doorbell: OwnedFd,
    timer: OwnedFd,
    epoll: OwnedFd,
    receive_buffers: Vec<Vec<u8>>,
    send_buffer: Vec<u8>,
    /// What the socket had no room for: it is in the send buffer.
    held: Option<Transmit>,
    waits_for_room: bool,
    unreachable: VecDeque<Unreachable>,
    deadline: Option<Time>,
    /// Something may have rung since the last look.
    parked: bool,
    counters: PortCounters,
}

impl MmsgPort {
    /// A port of `socket` that also waits for `doorbell`, an eventfd.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn new(socket: UdpSocket, doorbell: OwnedFd, transmit_len: usize) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        if socket.local_addr()?.is_ipv6() {
            // IPv4 datagrams have their local address in IPv6's way too; quinn-udp has no room for both.
            forget_local_v4(&socket)?;
        }
        rustix::io::ioctl_fionbio(&doorbell, true)?;
        let timer_flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, timer_flags)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for fd in [socket.as_fd(), doorbell.as_fd(), timer.as_fd()] {
            epoll::add(&epoll, fd, EventData::new_u64(0), EventFlags::IN)?;
        }
        Ok(Self {
            socket,
            state,
            doorbell,
            timer,
            epoll,
            receive_buffers: vec![vec![0; BUFFER_LEN]; RECEIVES],
            send_buffer: vec![0; transmit_len],
            held: None,
            waits_for_room: false,
            unreachable: VecDeque::new(),
            deadline: None,
            parked: false,
            counters: PortCounters::default(),
        })
    }

    /// After a wait: silences what rang, and takes what ICMP said, which would ring on.
    fn look_around(&mut self) {
        let mut count = [0; 8];
        // Not rung, not due: nothing to read.
        let _ = rustix::io::read(&self.doorbell, &mut count);
        if self.deadline.is_some_and(|deadline| deadline <= self.now()) {
            let _ = rustix::io::read(&self.timer, &mut count);
            self.deadline = None;
        }
        self.counters.unreachable += drain(&self.socket, &mut self.unreachable, UNREACHABLE_MAX);
    }

    /// Does it again while errors are of datagrams that were sent before.
    fn attempt<T>(&mut self, mut operate: impl FnMut(&mut Self) -> io::Result<T>) -> io::Result<T> {
        let mut attempts = 1;
        loop {
            let outcome = operate(self);
            let Err(error) = &outcome else { return outcome };
            if attempts == ATTEMPTS || !error.raw_os_error().is_some_and(may_be_of_another) {
                return outcome;
            }
            attempts += 1;
            self.counters.unreachable += drain(&self.socket, &mut self.unreachable, UNREACHABLE_MAX);
        }
    }

    /// Sends what the send buffer holds. False if the socket has no room.
    fn try_send(&mut self, transmit: &Transmit) -> bool {
        let len = transmit.len.min(self.send_buffer.len());
        let segment = transmit.segment_size.max(1);
        let at_once = segment * self.state.max_gso_segments();
        let mut sent = 0;
        while sent < len {
            let end = len.min(sent + at_once);
            let outcome = self.attempt(|port| port.send_part(transmit, sent..end));
            match outcome {
                // Devices that cannot segment refuse the first time, and quinn-udp tries no more: one by one then.
                Err(error) if is_segmentation_refused(&error) && end - sent > segment => {
                    return self.send_singly(transmit, sent..len);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if sent > 0 {
                        // The rest counts as lost in the socket, as it would in any full queue.
                        self.counters.send_errors += 1;
                    }
                    return sent > 0;
                }
                Err(error) => self.counters.send_errors += u64::from(!is_too_large(&error)),
                Ok(()) => {}
            }
            sent = end;
        }
        true
    }

    fn send_singly(&mut self, transmit: &Transmit, range: std::ops::Range<usize>) -> bool {
        let segment = transmit.segment_size.max(1);
        for start in range.clone().step_by(segment) {
            let end = range.end.min(start + segment);
            if let Err(error) = self.attempt(|port| port.send_part(transmit, start..end)) {
                self.counters.send_errors += u64::from(!is_too_large(&error));
            }
        }
        true
    }

    fn send_part(&self, transmit: &Transmit, range: std::ops::Range<usize>) -> io::Result<()> {
        let segment_size = (range.len() > transmit.segment_size).then_some(transmit.segment_size);
        let datagram = quinn_udp::Transmit {
            destination: transmit.remote,
            ecn: EcnCodepoint::from_bits(transmit.ecn),
            contents: &self.send_buffer[range],
            segment_size,
            src_ip: transmit.local.filter(|local| local.is_ipv6() == transmit.remote.is_ipv6()),
        };
        self.state.try_send((&self.socket).into(), &datagram)
    }

    /// Tells epoll whether room in the socket counts.
    fn watch_for_room(&mut self, wanted: bool) {
        if self.waits_for_room == wanted {
            return;
        }
        let flags = if wanted { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        if epoll::modify(&self.epoll, &self.socket, EventData::new_u64(0), flags).is_ok() {
            self.waits_for_room = wanted;
        }
    }
}

/// What devices without segmentation or checksums answer (`udp(7)`, `UDP_SEGMENT`).
fn is_segmentation_refused(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL))
}

impl Parkable for MmsgPort {
    fn submit(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn has_completions(&mut self) -> bool {
        !self.unreachable.is_empty()
    }

    fn set_deadline(&mut self, deadline: Option<Time>) {
        self.parked = true;
        let Some(deadline) = deadline else { return };
        // One that rings too early costs a turn; only one that would ring too late is moved.
        if self.deadline.is_some_and(|armed| armed <= deadline) {
            return;
        }
        let nanos = deadline.as_nanos().max(1);
        let value = Timespec { tv_sec: (nanos / 1_000_000_000) as i64, tv_nsec: (nanos % 1_000_000_000) as _ };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        if rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once).is_ok() {
            self.deadline = Some(deadline);
        }
    }

    fn wait(&mut self) -> io::Result<()> {
        let mut events = [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 4];
        match epoll::wait(&self.epoll, &mut events[..], None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn wake_fd(&mut self) -> io::Result<OwnedFd> {
        self.epoll.try_clone()
    }

    fn prepare_wait(&mut self) -> io::Result<bool> {
        Ok(true)
    }
}

impl Port for MmsgPort {
    fn now(&self) -> Time {
        super::monotonic()
    }

    fn receive(&mut self, take: &mut dyn FnMut(Received<'_>)) -> bool {
        if std::mem::take(&mut self.parked) {
            self.look_around();
        }
        let mut metas = [RecvMeta::default(); RECEIVES];
        let received = self.attempt(|port| {
            let mut buffers = port.receive_buffers.iter_mut();
            let mut slices: [IoSliceMut<'_>; RECEIVES] =
                std::array::from_fn(|_| IoSliceMut::new(buffers.next().map_or(&mut [], |buffer| buffer)));
            port.state.recv((&port.socket).into(), &mut slices, &mut metas)
        });
        let Ok(count) = received else { return false };
        for (meta, buffer) in metas[..count].iter().zip(&mut self.receive_buffers) {
            let len = meta.len.min(buffer.len());
            if len == 0 {
                continue;
            }
            let segment_size = meta.stride.max(1);
            self.counters.receives += 1;
            self.counters.received_bytes += len as u64;
            self.counters.received_datagrams += len.div_ceil(segment_size) as u64;
            take(Received {
                // A socket for both families has the other one's addresses mapped; the protocol compares them as they are.
                remote: SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port()),
                local: meta.dst_ip.map(|local| local.to_canonical()),
                ecn: meta.ecn.map_or(0, |ecn| ecn as u8),
                segment_size,
                data: &mut buffer[..len],
            });
        }
        count == RECEIVES
    }

    fn unreachable(&mut self) -> Option<Unreachable> {
        self.unreachable.pop_front()
    }

    fn send_buffer(&mut self) -> Option<&mut [u8]> {
        if let Some(held) = self.held.take()
            && !self.try_send(&held)
        {
            self.held = Some(held);
            self.watch_for_room(true);
            return None;
        }
        self.watch_for_room(false);
        Some(&mut self.send_buffer)
    }

    fn send(&mut self, transmit: &Transmit) {
        self.counters.sends += 1;
        self.counters.sent_bytes += transmit.len as u64;
        self.counters.sent_datagrams += transmit.len.div_ceil(transmit.segment_size.max(1)) as u64;
        if !self.try_send(transmit) {
            self.held = Some(*transmit);
        }
    }

    fn counters(&self) -> PortCounters {
        self.counters
    }
}
