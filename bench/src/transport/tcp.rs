//! Frames over kernel TCP, on plain blocking threads: the least that a TCP program can do.
//!
//! A connection starts with one byte that says what it is for. Echo: frames of a 4-byte length (of what follows), an 8-byte
//! number and a payload, answered as they are. Upload: bytes until the end, then their count in 8 bytes comes back.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

const ECHO: u8 = b'e';
const UPLOAD: u8 = b'u';
const LENGTH_BYTES: usize = 4;
const NUMBER_BYTES: usize = 8;
const READ_BYTES: usize = 256 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest payload of one frame.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;

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
        UPLOAD => {
            let mut buffer = vec![0; READ_BYTES];
            let mut bytes = 0u64;
            loop {
                match stream.read(&mut buffer)? {
                    0 => break,
                    read => bytes += read as u64,
                }
            }
            Ok(stream.write_all(&bytes.to_be_bytes())?)
        }
        other => anyhow::bail!("a connection starts with byte {other}"),
    }
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
    pub fn connect(remote: SocketAddr) -> anyhow::Result<Self> {
        let mut stream = open(remote)?;
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

/// Sends until the time is over; gives the bytes that the other side says it got.
///
/// # Errors
/// If the connection breaks.
pub fn upload(remote: SocketAddr, chunk: &[u8], duration: Duration) -> anyhow::Result<(u64, Instant)> {
    let mut stream = open(remote)?;
    stream.write_all(&[UPLOAD])?;
    let started = Instant::now();
    while started.elapsed() < duration {
        stream.write_all(chunk)?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok((u64::from_be_bytes(bytes), started))
}

fn open(remote: SocketAddr) -> anyhow::Result<TcpStream> {
    let until = Instant::now() + CONNECT_TIMEOUT;
    let stream = loop {
        match TcpStream::connect_timeout(&remote, CONNECT_TIMEOUT) {
            Ok(stream) => break stream,
            Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(50)),
            Err(error) => return Err(error).with_context(|| format!("cannot connect to {remote}")),
        }
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}
