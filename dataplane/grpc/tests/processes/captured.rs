//! Real packets: a relay between a client and the server that keeps what it passes on.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Packets that are kept.
const KEPT_MAX: usize = 4_000;

type Kept = Arc<Mutex<Vec<Vec<u8>>>>;

/// Passes datagrams on between one client and a server. Ends with this value.
pub(crate) struct Relay {
    /// Where the client finds it.
    pub(crate) address: SocketAddr,
    /// What the server knows the client by.
    pub(crate) to_server: UdpSocket,
    kept: Kept,
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Relay {
    pub(crate) fn start(server: SocketAddr) -> Self {
        let (to_client, to_server) = (open(), open());
        to_server.connect(server).unwrap();
        let address = to_client.local_addr().unwrap();
        let client: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
        let (kept, ends) = (Kept::default(), Arc::new(AtomicBool::new(false)));
        let keep = {
            let kept = Arc::clone(&kept);
            move |packet: &[u8]| {
                let mut kept = kept.lock().unwrap();
                if kept.len() < KEPT_MAX {
                    kept.push(packet.to_vec());
                }
            }
        };
        let (inward, outward) = (to_client.try_clone().unwrap(), to_server.try_clone().unwrap());
        let (keep_answer, known) = (keep.clone(), Arc::clone(&client));
        let forth = pass(Arc::clone(&ends), to_client, move |packet, from| {
            *client.lock().unwrap() = Some(from);
            keep(packet);
            // Like a network: what cannot be sent is lost.
            let _ = outward.send(packet);
        });
        let back = pass(Arc::clone(&ends), to_server.try_clone().unwrap(), move |packet, _| {
            keep_answer(packet);
            if let Some(client) = *known.lock().unwrap() {
                let _ = inward.send_to(packet, client);
            }
        });
        Self { address, to_server, kept, ends, threads: vec![forth, back] }
    }

    /// What was passed on so far.
    pub(crate) fn packets(&self) -> Vec<Vec<u8>> {
        self.kept.lock().unwrap().clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn open() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    socket
}

fn pass(
    ends: Arc<AtomicBool>,
    from: UdpSocket,
    pass_on: impl Fn(&[u8], SocketAddr) + Send + 'static,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while !ends.load(Ordering::SeqCst) {
            match from.recv_from(&mut buffer) {
                Ok((len, sender)) => pass_on(&buffer[..len], sender),
                Err(error) => assert!(
                    [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::ConnectionRefused].contains(&error.kind()),
                    "{error}"
                ),
            }
        }
    })
}
