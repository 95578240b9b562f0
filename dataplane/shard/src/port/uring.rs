//! The port over `io_uring`: one multishot receive into provided buffers, segmented sends, the deadline and the doorbell, all
//! in one ring.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::ManuallyDrop;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::types::{CancelBuilder, Fd, RecvMsgOut, SubmitArgs, TimeoutFlags, Timespec};
use io_uring::{IoUring, Probe, cqueue, opcode, squeue};
use quantum::{Received, Time, Transmit};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use socket2::{MsgHdr, SockAddr, SockRef};

use super::address::{self, NAME_LEN};
use super::buffers::{GROUP, ReceiveBuffers};
use super::control::{self, CONTROL_LEN};
use super::slots::SendSlot;
use super::sys::empty_message;
use super::unreachable::{drain, may_be_of_another};
use super::{Parkable, is_too_large};
use crate::work::{Port, PortCounters, Unreachable};

/// Operations that wait for submission at most.
const RING_ENTRIES: u32 = 256;
/// Completions that wait to be seen: every buffer, every send and some.
const COMPLETION_ENTRIES: u32 = 1024;
/// Transmits on their way at most.
const SEND_SLOTS: usize = 16;
/// Datagrams of one call of `receive`, and bytes: more would leave the processor's cache before they are read, and keep
/// acknowledgements waiting.
const RECEIVES_MAX: usize = 32;
const RECEIVED_BYTES_MAX: usize = 256 << 10;

/// Refused datagrams that wait to be looked at.
const UNREACHABLE_MAX: usize = 256;
/// Rounds of 10 ms that the kernel has for giving up its operations.
const CANCEL_ROUNDS: u32 = 200;
/// `IORING_ENTER_GETEVENTS`: completes what was put off until now.
const ENTER_GETEVENTS: u32 = 1;

/// What a completion is of. Sends have the number of their slot beyond these.
const TAG_RECEIVE: u64 = 0;
const TAG_DOORBELL: u64 = 1;
const TAG_DEADLINE: u64 = 2;
const TAG_OTHER: u64 = 3;
const TAG_SENDS: u64 = 16;

/// Settings of a port.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UringSettings {
    /// Bytes of the largest transmit.
    pub(crate) transmit_len: usize,
}

/// Moves datagrams of one socket through one ring.
pub(crate) struct UringPort {
    ring: IoUring,
    socket: UdpSocket,
    doorbell: OwnedFd,
    /// Rung by the kernel at each completion, if a runtime waits for it.
    event: Option<OwnedFd>,
    /// Dropped only once the kernel is done with it.
    memory: ManuallyDrop<Memory>,
    /// Filled buffers: id and length.
    filled: VecDeque<(u16, usize)>,
    unreachable: VecDeque<Unreachable>,
    free_slots: Vec<usize>,
    /// The slot that `send_buffer` gave last.
    current_slot: Option<usize>,
    armed: Armed,
    counters: PortCounters,
    gso: bool,
}

/// What the kernel has addresses of.
struct Memory {
    buffers: ReceiveBuffers,
    receive_message: Box<libc::msghdr>,
    doorbell_count: Box<[u8; 8]>,
    deadline: Box<Timespec>,
    /// As many as there are from the start, so that none of them ever moves.
    slots: Box<[SendSlot]>,
}

/// Operations that the kernel is at.
#[derive(Debug, Default)]
struct Armed {
    receive: bool,
    doorbell: bool,
    deadline: Option<Time>,
}

/// Whether the kernel has the operations that a port needs.
pub(crate) fn probe() -> io::Result<()> {
    // A ring that goes interrupts a system call of the thread that made it some time later (EINTR), so that thread ends here.
    let probe = std::thread::Builder::new().name("io-uring-probe".to_owned()).spawn(probe_here)?;
    probe.join().unwrap_or_else(|_| Err(io::Error::other("the probe of io_uring panicked")))
}

fn probe_here() -> io::Result<()> {
    let ring = builder().build(8)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let needed = [
        opcode::RecvMsgMulti::CODE,
        opcode::SendMsg::CODE,
        opcode::Timeout::CODE,
        opcode::TimeoutUpdate::CODE,
        opcode::Read::CODE,
        opcode::AsyncCancel2::CODE,
    ];
    if !needed.into_iter().all(|code| probe.is_supported(code)) {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "the kernel's io_uring lacks datagram operations"));
    }
    // Rings of provided buffers are no operation: they are tried.
    ReceiveBuffers::register(&ring.submitter()).map(|buffers| {
        drop(ring);
        drop(buffers);
    })
}

fn builder() -> io_uring::Builder {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_taskrun_flag().setup_defer_taskrun().setup_cqsize(COMPLETION_ENTRIES);
    builder
}

impl UringPort {
    /// A port of `socket` that also waits for `doorbell`, an eventfd. To be made on the thread that uses it.
    pub(crate) fn new(socket: UdpSocket, doorbell: OwnedFd, settings: UringSettings) -> io::Result<Self> {
        let ring = builder().build(RING_ENTRIES)?;
        let buffers = ReceiveBuffers::register(&ring.submitter())?;
        let mut receive_message = Box::new(empty_message());
        receive_message.msg_namelen = NAME_LEN as u32;
        receive_message.msg_controllen = CONTROL_LEN as _;
        let memory = Memory {
            buffers,
            receive_message,
            doorbell_count: Box::new([0; 8]),
            deadline: Box::new(Timespec::new()),
            slots: (0..SEND_SLOTS).map(|_| SendSlot::new(settings.transmit_len)).collect(),
        };
        let mut port = Self {
            ring,
            socket,
            doorbell,
            event: None,
            memory: ManuallyDrop::new(memory),
            filled: VecDeque::new(),
            unreachable: VecDeque::new(),
            free_slots: (0..SEND_SLOTS).collect(),
            current_slot: None,
            armed: Armed::default(),
            counters: PortCounters::default(),
            gso: true,
        };
        port.submit()?;
        Ok(port)
    }

    /// Submits, and has the kernel complete what it has put off.
    fn enter(&mut self) -> io::Result<()> {
        let queued = self.ring.submission().len() as u32;
        let submitter = self.ring.submitter();
        // SAFETY: no argument is passed, and what the queued entries point to outlives their use (see `push`).
        Self::retry(|| unsafe { submitter.enter::<libc::sigset_t>(queued, 0, ENTER_GETEVENTS, None) })
    }

    fn retry(mut enter: impl FnMut() -> io::Result<usize>) -> io::Result<()> {
        loop {
            match enter() {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The completion queue is full: it is taken from next.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Queues the operations that have to be there always and are not.
    fn arm(&mut self) {
        if !self.armed.receive {
            let message = &raw const *self.memory.receive_message;
            let entry = opcode::RecvMsgMulti::new(Fd(self.socket.as_raw_fd()), message, GROUP);
            self.armed.receive = self.push(&entry.build().user_data(TAG_RECEIVE));
        }
        if !self.armed.doorbell {
            let count = self.memory.doorbell_count.as_mut_ptr();
            let entry = opcode::Read::new(Fd(self.doorbell.as_raw_fd()), count, 8);
            self.armed.doorbell = self.push(&entry.build().user_data(TAG_DOORBELL));
        }
    }

    /// Queues an operation. False if the kernel takes none at the moment.
    fn push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: what an entry points to lies in `memory`, boxed or mapped, which outlives the ring's use of it (see Drop).
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            if self.ring.submit().is_err() {
                return false;
            }
        }
        true
    }

    /// Looks at what the kernel has completed.
    fn reap(&mut self) {
        if self.ring.submission().taskrun() || self.ring.submission().cq_overflow() {
            // An error comes again at the end of the turn, where it is seen.
            let _ = self.enter();
        }
        loop {
            let Some(entry) = self.ring.completion().next() else { break };
            self.complete(&entry);
        }
    }

    fn complete(&mut self, entry: &cqueue::Entry) {
        let result = entry.result();
        match entry.user_data() {
            TAG_RECEIVE => {
                if let Some(id) = cqueue::buffer_select(entry.flags()) {
                    self.filled.push_back((id, usize::try_from(result).unwrap_or(0)));
                }
                self.armed.receive = cqueue::more(entry.flags());
                if result == -libc::ENOBUFS {
                    self.counters.buffer_shortages += 1;
                } else if result < 0 {
                    self.drain_errors();
                }
            }
            TAG_DOORBELL => self.armed.doorbell = false,
            TAG_DEADLINE => self.armed.deadline = None,
            slot @ TAG_SENDS.. => self.complete_send((slot - TAG_SENDS) as usize, result),
            _ => {}
        }
    }

    /// What ICMP said of any datagram ends one receive or send. Until it is taken it ends them again.
    fn drain_errors(&mut self) {
        self.counters.unreachable += drain(&self.socket, &mut self.unreachable, UNREACHABLE_MAX);
    }

    fn complete_send(&mut self, slot: usize, result: i32) {
        let segmented = self.memory.slots[slot].is_segmented();
        if segmented && [-libc::EIO, -libc::EINVAL].contains(&result) {
            // The device cannot segment (or not checksum), whatever the socket said; unless the packets are too large for it.
            self.gso = self.send_singly(slot);
        } else if result < 0 {
            self.drain_errors();
            // Not through the ring: sends before it there may have the next error pend when it comes to this one.
            let (remote, ancillary, data) = self.memory.slots[slot].whole();
            let failed = if may_be_of_another(-result) {
                send(&self.socket, remote, ancillary, data).err()
            } else {
                Some(io::Error::from_raw_os_error(-result))
            };
            self.counters.send_errors += u64::from(failed.is_some_and(|error| !is_too_large(&error)));
        }
        self.free_slots.push(slot);
    }

    /// Sends the packets of a transmit one by one. Whether one was too large.
    fn send_singly(&mut self, slot: usize) -> bool {
        let mut has_too_large = false;
        let (remote, ancillary, segments) = self.memory.slots[slot].segments();
        for segment in segments {
            let Err(error) = send(&self.socket, remote, ancillary, segment) else { continue };
            self.counters.unreachable += drain(&self.socket, &mut self.unreachable, UNREACHABLE_MAX);
            let again = may_be_of_another(error.raw_os_error().unwrap_or(0));
            let failed = if again { send(&self.socket, remote, ancillary, segment).err() } else { Some(error) };
            let too_large = failed.as_ref().is_some_and(is_too_large);
            self.counters.send_errors += u64::from(failed.is_some() && !too_large);
            has_too_large |= too_large;
        }
        has_too_large
    }
}

impl Parkable for UringPort {
    fn submit(&mut self) -> io::Result<()> {
        self.arm();
        let queue = self.ring.submission();
        if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
            return Ok(());
        }
        drop(queue);
        self.enter()
    }

    fn has_completions(&mut self) -> bool {
        !self.filled.is_empty() || !self.unreachable.is_empty() || !self.ring.completion().is_empty()
    }

    fn set_deadline(&mut self, deadline: Option<Time>) {
        let Some(deadline) = deadline else { return };
        // One that rings too early costs a turn; only one that would ring too late is moved.
        if self.armed.deadline.is_some_and(|armed| armed <= deadline) {
            return;
        }
        let nanos = deadline.as_nanos();
        *self.memory.deadline = Timespec::new().sec(nanos / 1_000_000_000).nsec((nanos % 1_000_000_000) as u32);
        let timespec = &raw const *self.memory.deadline;
        let entry = if self.armed.deadline.is_some() {
            opcode::TimeoutUpdate::new(TAG_DEADLINE, timespec).flags(TimeoutFlags::ABS).build().user_data(TAG_OTHER)
        } else {
            opcode::Timeout::new(timespec).flags(TimeoutFlags::ABS).build().user_data(TAG_DEADLINE)
        };
        if self.push(&entry) {
            self.armed.deadline = Some(deadline);
        }
    }

    fn wait(&mut self) -> io::Result<()> {
        Self::retry(|| self.ring.submit_and_wait(1))
    }

    fn wake_fd(&mut self) -> io::Result<OwnedFd> {
        // The ring's own descriptor says nothing of completions that are put off. And the kernel does not ring one eventfd
        // while another is rung: it puts that off for milliseconds, so the doorbell is waited for beside the ring.
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        self.ring.submitter().register_eventfd(event.as_raw_fd())?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &event, EventData::new_u64(0), EventFlags::IN)?;
        epoll::add(&epoll, &self.doorbell, EventData::new_u64(0), EventFlags::IN)?;
        self.event = Some(event);
        Ok(epoll)
    }

    fn prepare_wait(&mut self) -> io::Result<bool> {
        self.submit()?;
        if let Some(event) = &self.event {
            // What rang has been seen, or shows in the queues below. Nothing to read: it did not ring.
            let _ = rustix::io::read(event, &mut [0; 8]);
        }
        let queue = self.ring.submission();
        let has_put_off = queue.taskrun() || queue.cq_overflow();
        drop(queue);
        Ok(!has_put_off && !self.has_completions())
    }
}

impl Port for UringPort {
    fn now(&self) -> Time {
        super::monotonic()
    }

    fn receive(&mut self, take: &mut dyn FnMut(Received<'_>)) -> bool {
        self.reap();
        let mut room = RECEIVED_BYTES_MAX;
        for _ in 0..RECEIVES_MAX {
            let Some((id, len)) = self.filled.pop_front_if(|_| room > 0) else { break };
            room = room.saturating_sub(len);
            let memory = &mut *self.memory;
            if let Some((bytes, datagrams)) = deliver(memory.buffers.filled(id, len), &memory.receive_message, take) {
                self.counters.receives += 1;
                self.counters.received_bytes += bytes;
                self.counters.received_datagrams += datagrams;
            }
            self.memory.buffers.give_back(id);
        }
        self.memory.buffers.publish();
        self.arm();
        !self.filled.is_empty()
    }

    fn unreachable(&mut self) -> Option<Unreachable> {
        self.unreachable.pop_front()
    }

    fn send_buffer(&mut self) -> Option<&mut [u8]> {
        if self.current_slot.is_none() {
            if self.free_slots.is_empty() {
                let _ = self.submit();
                self.reap();
            }
            self.current_slot = self.free_slots.pop();
        }
        Some(self.memory.slots[self.current_slot?].data())
    }

    fn send(&mut self, transmit: &Transmit) {
        let Some(slot) = self.current_slot.take() else { return };
        self.counters.sends += 1;
        self.counters.sent_bytes += transmit.len as u64;
        self.counters.sent_datagrams += transmit.len.div_ceil(transmit.segment_size.max(1)) as u64;
        let message = self.memory.slots[slot].prepare(transmit);
        if !self.gso && self.memory.slots[slot].is_segmented() {
            self.send_singly(slot);
            self.free_slots.push(slot);
            return;
        }
        let entry = opcode::SendMsg::new(Fd(self.socket.as_raw_fd()), message).build();
        if !self.push(&entry.user_data(TAG_SENDS + slot as u64)) {
            self.counters.send_errors += 1;
            self.free_slots.push(slot);
        }
    }

    fn counters(&self) -> PortCounters {
        self.counters
    }
}

/// Sends one message at once.
fn send(socket: &UdpSocket, remote: SocketAddr, ancillary: &[u8], data: &[u8]) -> io::Result<usize> {
    let (remote, buffers) = (SockAddr::from(remote), [IoSlice::new(data)]);
    let message = MsgHdr::new().with_addr(&remote).with_buffers(&buffers).with_control(ancillary);
    SockRef::from(socket).sendmsg(&message, 0)
}

/// Hands over a received datagram, or several merged. Gives their length and number; `None` if there was none in the buffer.
fn deliver(buffer: &mut [u8], message: &libc::msghdr, take: &mut dyn FnMut(Received<'_>)) -> Option<(u64, u64)> {
    let out = RecvMsgOut::parse(buffer, message).ok()?;
    let remote = address::decode(out.name_data())?;
    let ancillary = control::decode(out.control_data());
    let len = out.payload_data().len();
    if len == 0 || out.is_payload_truncated() {
        return None;
    }
    let start = buffer.len() - len;
    let data = &mut buffer[start..];
    let segment_size = ancillary.segment_size.unwrap_or(len);
    take(Received { remote, local: ancillary.local, ecn: ancillary.ecn, segment_size, data });
    Some((len as u64, len.div_ceil(segment_size.max(1)) as u64))
}

impl UringPort {
    /// Has the kernel give up what it is at. Whether it is done with the port's memory.
    fn cancel_all(&mut self) -> bool {
        let cancel = opcode::AsyncCancel2::new(CancelBuilder::any()).build().user_data(TAG_OTHER);
        if !self.push(&cancel) {
            return false;
        }
        let wait = Timespec::new().nsec(10_000_000);
        for _ in 0..CANCEL_ROUNDS {
            let sends = SEND_SLOTS - self.free_slots.len() - usize::from(self.current_slot.is_some());
            if !self.armed.receive && !self.armed.doorbell && sends == 0 {
                return true;
            }
            // An error is a wait that ended: the next round sees what it brought.
            let _ = self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&wait));
            self.reap();
        }
        false
    }
}

impl Drop for UringPort {
    fn drop(&mut self) {
        if self.cancel_all() {
            // SAFETY: the kernel is done with the memory, and nothing uses it after this.
            unsafe { ManuallyDrop::drop(&mut self.memory) };
        } else {
            tracing::error!("io_uring operations could not be cancelled; their memory is kept");
        }
    }
}
