//! TLS 1.3 through rustls's QUIC interface (RFC 9001, with packet protection only: the header is visible and authenticated).

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::quic::{self, KeyChange, Keys, Secrets, Suite, Version};

use super::session::{EarlyData, KeyPair, KeyUpdates, PacketKey, Provider, Session, SessionError, TAG_LEN};
use crate::wire::Epoch;
use crate::{Alpn, ConnectError, ConnectOptions, Guuid, Side};

/// Packets of at most 2^11 bytes that AES-GCM may seal under one key (RFC 9001 appendix B.1.1).
const SHORT_PACKETS_MAX: u64 = 1 << 28;

/// TLS as the handshake of an endpoint.
pub(crate) struct TlsProvider {
    server: Option<Arc<rustls::ServerConfig>>,
    initial: Suite,
    /// Clients offer early data where they remember a session.
    early_data: bool,
}

impl TlsProvider {
    /// Accepts with `server`, with the ALPN names of this protocol; with session tickets only for the sake of early data. A ticket is
    /// good once: the configuration's session storage, which all endpoints of a node share, gives a session out and forgets it.
    pub(crate) fn new(server: Option<&Arc<rustls::ServerConfig>>, early_data: bool) -> Self {
        let server = server.map(|config| {
            let mut config = rustls::ServerConfig::clone(config);
            config.alpn_protocols = vec![Alpn::Grpc.name().to_vec(), Alpn::Stream.name().to_vec()];
            // Without early data a ticket buys one signature and costs state.
            config.send_tls13_tickets = usize::from(early_data);
            config.max_early_data_size = if early_data { u32::MAX } else { 0 };
            Arc::new(config)
        });
        let initial = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256
            .tls13()
            .and_then(rustls::Tls13CipherSuite::quic_suite)
            .expect("the aws-lc-rs provider has QUIC keys for TLS13_AES_128_GCM_SHA256");
        Self { server, initial, early_data }
    }
}

impl Provider for TlsProvider {
    fn initial_keys(&self, guuid: Guuid, side: Side) -> KeyPair {
        let side = match side {
            Side::Client => rustls::Side::Client,
            Side::Server => rustls::Side::Server,
        };
        key_pair(self.initial.keys(guuid.as_bytes(), side, Version::V1))
    }

    fn connect(&self, options: &ConnectOptions, parameters: Vec<u8>) -> Result<Box<dyn Session>, ConnectError> {
        let alpn = vec![options.alpn.name().to_vec()];
        if !self.early_data {
            return connect_with_alpn(options, parameters, alpn);
        }
        let mut tls = rustls::ClientConfig::clone(&options.tls);
        tls.enable_early_data = true;
        connect_with_alpn(&ConnectOptions { tls: Arc::new(tls), ..options.clone() }, parameters, alpn)
    }

    fn accepts(&self) -> bool {
        self.server.is_some()
    }

    fn accept(&self, parameters: Vec<u8>) -> Option<Box<dyn Session>> {
        let config = Arc::clone(self.server.as_ref()?);
        let connection = quic::ServerConnection::new(config, Version::V1, parameters).ok()?;
        Some(Box::new(TlsSession::new(connection.into(), None)))
    }
}

/// The client's side of a handshake that offers these application protocols.
pub(crate) fn connect_with_alpn(
    options: &ConnectOptions,
    parameters: Vec<u8>,
    alpn: Vec<Vec<u8>>,
) -> Result<Box<dyn Session>, ConnectError> {
    let name = ServerName::try_from(options.server_name.clone())
        .map_err(|_| ConnectError::ServerName(options.server_name.clone()))?;
    let connection =
        quic::ClientConnection::new_with_alpn(Arc::clone(&options.tls), Version::V1, name, parameters, alpn)
            .map_err(|error| ConnectError::Tls(error.to_string()))?;
    Ok(Box::new(TlsSession::new(connection.into(), Some(options.alpn))))
}

struct TlsSession {
    tls: quic::Connection,
    /// From which the keys of later phases are made, once those of the first one were.
    secrets: Option<Secrets>,
    /// What a client asked for: a server accepts early data for no other protocol than that of the session.
    offered: Option<Alpn>,
}

impl TlsSession {
    fn new(tls: quic::Connection, offered: Option<Alpn>) -> Self {
        Self { tls, secrets: None, offered }
    }
}

impl Session for TlsSession {
    fn read(&mut self, data: &[u8]) -> Result<(), SessionError> {
        self.tls
            .read_hs(data)
            .map_err(|error| SessionError { alert: self.tls.alert().map_or(0x50, u8::from), reason: error.to_string() })
    }

    fn write(&mut self, out: &mut Vec<u8>) -> Option<(Epoch, KeyPair)> {
        Some(match self.tls.write_hs(out)? {
            KeyChange::Handshake { keys } => (Epoch::Handshake, key_pair(keys)),
            KeyChange::OneRtt { keys, next } => {
                self.secrets = Some(next);
                (Epoch::OneRtt0, key_pair(keys))
            }
        })
    }

    fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    fn peer_parameters(&self) -> Option<Vec<u8>> {
        self.tls.quic_transport_parameters().map(<[u8]>::to_vec)
    }

    fn alpn(&self) -> Option<Alpn> {
        Alpn::from_name(self.tls.alpn_protocol()?)
    }

    fn key_updates(&mut self) -> Option<Box<dyn KeyUpdates>> {
        Some(Box::new(TlsKeyUpdates(self.secrets.take()?)))
    }

    fn early_data(&mut self) -> Option<EarlyData> {
        let alpn = self.alpn().or(self.offered)?;
        let keys = self.tls.zero_rtt_keys()?;
        Some(EarlyData { key: Box::new(TlsKey(keys.packet)), alpn })
    }

    fn is_early_data_accepted(&self) -> bool {
        matches!(&self.tls, quic::Connection::Client(client) if client.is_early_data_accepted())
    }

    fn has_ticket(&self) -> bool {
        matches!(&self.tls, quic::Connection::Client(client) if client.tls13_tickets_received() > 0)
    }
}

struct TlsKeyUpdates(Secrets);

impl KeyUpdates for TlsKeyUpdates {
    fn next_keys(&mut self) -> KeyPair {
        let keys = self.0.next_packet_keys();
        KeyPair { local: Box::new(TlsKey(keys.local)), remote: Box::new(TlsKey(keys.remote)) }
    }
}

fn key_pair(keys: Keys) -> KeyPair {
    KeyPair { local: Box::new(TlsKey(keys.local.packet)), remote: Box::new(TlsKey(keys.remote.packet)) }
}

struct TlsKey(Box<dyn quic::PacketKey>);

impl PacketKey for TlsKey {
    fn seal(&self, number: u64, header: &[u8], payload: &mut [u8]) {
        let (plaintext, tag_room) = payload.split_at_mut(payload.len() - TAG_LEN);
        let tag = self
            .0
            .encrypt_in_place(number, header, plaintext)
            .expect("a packet is far shorter than the AEAD's limit for one message");
        tag_room.copy_from_slice(tag.as_ref());
    }

    fn open(&self, number: u64, header: &[u8], payload: &mut [u8]) -> Option<usize> {
        self.0.decrypt_in_place(number, header, payload).ok().map(<[u8]>::len)
    }

    fn packets_max(&self) -> u64 {
        // The limit is for packets of up to 2^16 bytes; those of this crate have at most 2^11.
        self.0.confidentiality_limit().max(SHORT_PACKETS_MAX)
    }

    fn failures_max(&self) -> u64 {
        self.0.integrity_limit()
    }
}
