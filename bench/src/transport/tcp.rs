//! Frames over kernel TCP, on plain blocking threads: the least that a TCP program can do.
//!
//! A connection starts with one byte that says what it is for. Echo: frames of a 4-byte length (of what follows), an 8-byte
//! number and a payload, answered as they are. Upload: 8 bytes that say how many milliseconds to count, then payload; when they
//! are over a report comes back (`load/arrivals.rs`), and what still arrives is dropped.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use super::congestion::{self, Congestion};
use crate::load::{Arrivals, Arrived, arrivals};

const ECHO: u8 = b'e';
const UPLOAD: u8 = b'u';
const LENGTH_BYTES: usize = 4;
const NUMBER_BYTES: usize = 8;
const READ_BYTES: usize = 256 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// The largest payload of one frame.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;

/// A socket for connections with that peer, not connected.
///
/// # Errors
/// If the kernel has no such congestion control.
pub fn socket(peer: SocketAddr, congestion: Option<Congestion>) -> anyhow::Result<Socket> {
    let socket = Socket::new(Domain::for_address(peer), Type::STREAM, Some(Protocol::TCP))?;
    congestion::apply(&socket, congestion)?;
    Ok(socket)
}

/// Listens; what is accepted has the congestion control.
///
/// # Errors
/// If the address cannot be bound, or the kernel has no such congestion control.
pub fn bind(listen: SocketAddr, congestion: Option<Congestion>) -> anyhow::Result<TcpListener> {
    let socket = socket(listen, congestion)?;
    let bound = socket.set_reuse_address(true).and_then(|()| socket.bind(&listen.into()));
    bound.and_then(|()| socket.listen(BACKLOG)).with_context(|| format!("cannot listen on {listen}"))?;
    Ok(socket.into())
}

/// Accepts connections and answers each on a thread of its own, until the process ends.
///
/// # Errors
/// If the listener fails.
pub fn serve(listener: &TcpListener) -> anyhow::Result<()> {
    loop {
        let (stream, remote) = match listener.accept() {
            Ok(accepted) => accepted,
            // A client that was gone before it was accepted is nobody's fault.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => continue,
            Err(error) => return Err(error.into()),
        };
        let spawned = std::thread::Builder::new().name("tcp-echo".to_owned()).spawn(move || {
            if let Err(error) = answer(stream) {
                tracing::debug!(%remote, %error, "a connection failed");
            }
        });
        spawned.context("no thread for a connection")?;
    }
}

fn answer(mut stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    match kind[0] {
        ECHO => {
            let mut writer = stream.try_clone()?;
            read_frames(&mut stream, |frames| Ok(writer.write_all(frames)?), |_| {})
        }
        UPLOAD => count(stream),
        other => anyhow::bail!("a connection starts with byte {other}"),
    }
}

/// Counts what arrives, reports it, and drops the rest.
fn count(mut stream: TcpStream) -> anyhow::Result<()> {
    let mut ms = [0; arrivals::REQUEST_BYTES];
    stream.read_exact(&mut ms)?;
    let mut counted = Arrivals::new(Instant::now(), arrivals::measured(u64::from_be_bytes(ms))?);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let left = counted.end().saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => counted.add(Instant::now(), read),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error.into()),
        }
    }
    stream.write_all(&counted.arrived().to_bytes())?;
    stream.set_read_timeout(None)?;
    while stream.read(&mut buffer)? > 0 {}
    Ok(())
}

/// Reads frames until the end: `number` gets each frame's number, `batch` the whole frames of each read together.
fn read_frames(
    stream: &mut TcpStream,
    mut batch: impl FnMut(&[u8]) -> anyhow::Result<()>,
    mut number: impl FnMut(u64),
) -> anyhow::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..])?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let mut whole = 0;
        while let Some(prefix) = buffer[whole..filled].first_chunk::<{ LENGTH_BYTES + NUMBER_BYTES }>() {
            let length = u32::from_be_bytes(*prefix.first_chunk().expect("the prefix holds the length")) as usize;
            ensure!((NUMBER_BYTES..=PAYLOAD_BYTES_MAX + NUMBER_BYTES).contains(&length), "a frame of {length} bytes");
            let frame = LENGTH_BYTES + length;
            if filled - whole < frame {
                if frame > buffer.len() - whole {
                    buffer.resize(whole + frame, 0);
                }
                break;
            }
            number(u64::from_be_bytes(*prefix.last_chunk().expect("the prefix holds the number")));
            whole += frame;
        }
        batch(&buffer[..whole])?;
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
        if filled == buffer.len() {
            buffer.resize(2 * filled, 0);
        }
    }
}

/// A connection of frames.
#[derive(Debug)]
pub struct FramedTcp(TcpStream);

impl FramedTcp {
    /// Connects, trying again for as long as the server may be starting.
    ///
    /// # Errors
    /// If nobody answers within ten seconds.
    pub fn connect(remote: SocketAddr, congestion: Option<Congestion>) -> anyhow::Result<Self> {
        let mut stream = open(remote, congestion)?;
        stream.write_all(&[ECHO])?;
        Ok(Self(stream))
    }

    /// The two directions.
    ///
    /// # Errors
    /// If the socket cannot be shared.
    pub fn split(self) -> anyhow::Result<(FrameWriter, FrameReader)> {
        let reader = FrameReader(self.0.try_clone()?);
        Ok((FrameWriter { stream: self.0, buffer: Vec::new() }, reader))
    }
}

/// The sending direction.
#[derive(Debug)]
pub struct FrameWriter {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl FrameWriter {
    /// Sends frames with the same payload in one write.
    ///
    /// # Errors
    /// If the connection is broken.
    pub fn send(&mut self, numbers: impl Iterator<Item = u64>, payload: &[u8]) -> anyhow::Result<()> {
        self.buffer.clear();
        for number in numbers {
            self.buffer.extend_from_slice(&((NUMBER_BYTES + payload.len()) as u32).to_be_bytes());
            self.buffer.extend_from_slice(&number.to_be_bytes());
            self.buffer.extend_from_slice(payload);
        }
        Ok(self.stream.write_all(&self.buffer)?)
    }

    /// Ends the connection, which ends the reader too.
    pub fn close(&self) {
        // A connection that is already broken needs no end.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// The receiving direction.
#[derive(Debug)]
pub struct FrameReader(TcpStream);

impl FrameReader {
    /// Reads until the end; `batch` gets the numbers of the frames of each read.
    ///
    /// # Errors
    /// If the connection breaks, or `batch` fails.
    pub fn run(mut self, mut batch: impl FnMut(&[u64]) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let numbers = std::cell::RefCell::new(Vec::new());
        let whole = |_: &[u8]| batch(&std::mem::take(&mut *numbers.borrow_mut()));
        read_frames(&mut self.0, whole, |number| numbers.borrow_mut().push(number))
    }
}

/// A connection that carries bulk.
#[derive(Debug)]
pub struct BulkTcp(TcpStream);

impl BulkTcp {
    /// Connects, trying again for as long as the server may be starting.
    ///
    /// # Errors
    /// If nobody answers within ten seconds.
    pub fn connect(remote: SocketAddr, congestion: Option<Congestion>) -> anyhow::Result<Self> {
        Ok(Self(open(remote, congestion)?))
    }

    /// Sends for so long; gives what the other side says it got.
    ///
    /// # Errors
    /// If the connection breaks.
    pub fn upload(self, chunk: &[u8], measured: Duration) -> anyhow::Result<Arrived> {
        let Self(mut stream) = self;
        stream.write_all(&[&[UPLOAD][..], &arrivals::request(measured)?].concat())?;
        let mut reader = stream.try_clone()?;
        reader.set_read_timeout(Some(measured + arrivals::REPORT_TIMEOUT))?;
        std::thread::scope(|scope| {
            let sending = scope.spawn(move || -> std::io::Result<()> {
                loop {
                    stream.write_all(chunk)?;
                }
            });
            let mut report = [0; arrivals::REPORT_BYTES];
            let reported = reader.read_exact(&mut report);
            // Ends the sending, if it did not end by itself.
            let _ = reader.shutdown(Shutdown::Both);
            let sent = sending.join().map_err(|_| anyhow!("the sender panicked"))?;
            match (reported, sent) {
                (Ok(()), _) => Arrived::from_bytes(&report),
                (Err(_), Err(error)) if !is_shut(&error) => Err(error).context("the connection broke"),
                (Err(error), _) => Err(error).context("the receiver did not report what arrived"),
            }
        })
    }
}

/// What a sender sees after its own side was shut.
fn is_shut(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::BrokenPipe
}

fn open(remote: SocketAddr, congestion: Option<Congestion>) -> anyhow::Result<TcpStream> {
    let until = Instant::now() + CONNECT_TIMEOUT;
    let stream: TcpStream = loop {
        let socket = socket(remote, congestion)?;
        match socket.connect_timeout(&remote.into(), CONNECT_TIMEOUT) {
            Ok(()) => break socket.into(),
            Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(50)),
            Err(error) => return Err(error).with_context(|| format!("cannot connect to {remote}")),
        }
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use socket2::SockRef;

    use super::{Congestion, bind, open};
    use crate::transport::congestion::available;

    #[test]
    fn both_ends_use_the_congestion_control_that_is_asked_for() {
        for congestion in [Congestion::Bbr, Congestion::Cubic] {
            let name = congestion.name();
            if !available().iter().any(|offered| offered == name) {
                let error = bind("127.0.0.1:0".parse().unwrap(), Some(congestion)).unwrap_err().to_string();
                assert!(error.contains(&format!("no TCP congestion control {name}")), "{error}");
                println!("SKIPPED: this kernel has no {name}");
                continue;
            }
            let listener = bind("127.0.0.1:0".parse().unwrap(), Some(congestion)).unwrap();
            let client = open(listener.local_addr().unwrap(), Some(congestion)).unwrap();
            let (server, _) = listener.accept().unwrap();
            for end in [&client, &server] {
                let used = SockRef::from(end).tcp_congestion().unwrap();
                assert_eq!(used.split(|byte| *byte == 0).next(), Some(name.as_bytes()));
            }
        }
    }
}
