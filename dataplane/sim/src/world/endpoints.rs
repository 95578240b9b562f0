//! Makes the endpoints of a world.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quantum::{
    Alpn, ConnectOptions, Endpoint, EndpointConfig, FecConfig, FecMode, GuuidGenerator, PathConfig, SecurityConfig,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::Scenario;
use crate::Rng;
use crate::cipher::{Cipher, NullProvider};

const SERVER_NAME: &str = "server.test";
/// 2025-01-01, for ids; the virtual clock has no date.
const UNIX_MS: u64 = 1_735_689_600_000;

/// Half of the worlds have forward error correction as it is meant to be, a quarter in another way, a quarter none.
fn fec(rng: &mut Rng) -> FecConfig {
    let mode = match rng.below(8) {
        0 | 1 => FecMode::Off,
        2 => FecMode::Fixed { members: 10, repairs: 3 },
        3 => FecMode::Fixed { members: 1 + rng.below(64) as u8, repairs: 1 + rng.below(40) as u8 },
        _ => FecMode::Adaptive,
    };
    let memory_max = 8 << 10 << rng.below(6);
    FecConfig { mode, members_max: 1 + rng.below(64) as u8, memory_max, ..FecConfig::default() }
}

fn security(seed: u64) -> SecurityConfig {
    let mut keys = Rng::derive(seed, 303);
    SecurityConfig {
        // Enough for a handshake on the worst of the paths, blackout included.
        handshake_timeout: Duration::from_mins(1),
        // A quarter of the servers want a cookie of everyone, others of the second half-open client on.
        handshakes_without_cookie: [0, 1, 256, 256][Rng::derive(seed, 301).below(4) as usize],
        // Half of the worlds change keys as often as they may, or now and then.
        key_update_packets: if keys.chance(50.0) { 1 << keys.below(10) } else { u64::MAX },
        early_data: false,
    }
}

/// Makes endpoints of equal settings.
pub(super) struct Factory {
    cipher: Cipher,
    config: EndpointConfig,
    rng: Rng,
    ids: GuuidGenerator,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Factory {
    pub(super) fn new(scenario: &Scenario, cipher: Cipher) -> Self {
        let seed = scenario.seed;
        let mut rng = Rng::derive(seed, 300);
        let config = EndpointConfig {
            node_key: rng.seed(),
            path: PathConfig {
                datagram_size: scenario.datagram_size,
                datagram_size_max: scenario.datagram_size_max,
                ..PathConfig::default()
            },
            stream_window: 16 << 10 << rng.below(5),
            connection_window: 64 << 10 << rng.below(6),
            send_buffer_max: 8 << 10 << rng.below(6),
            segments_max: 1 << rng.below(5),
            security: security(seed),
            fec: fec(&mut Rng::derive(seed, 302)),
            ..EndpointConfig::default()
        };
        Self::with_config(config, rng, cipher)
    }

    /// Endpoints with these settings and a randomness of their own.
    pub(super) fn with_config(config: EndpointConfig, mut rng: Rng, cipher: Cipher) -> Self {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("Ed25519 keys can always be made");
        let mut params = rcgen::CertificateParams::new(vec![SERVER_NAME.to_owned()]).expect("the name is a DNS name");
        // A serial number of one length, so that the certificate has one too.
        params.serial_number = Some(rcgen::SerialNumber::from(vec![1; 16]));
        let certificate = params.self_signed(&key).expect("a certificate can be signed with its own key");
        Self {
            ids: GuuidGenerator::new(rng.seed()),
            cipher,
            config,
            rng,
            certificate: certificate.der().clone(),
            key: PrivateKeyDer::try_from(key.serialize_der()).expect("rcgen writes PKCS #8"),
        }
    }

    /// The settings that all endpoints share.
    pub(super) fn config(&self) -> &EndpointConfig {
        &self.config
    }

    /// Bytes that the buffer of a transmit has to have.
    pub(super) fn buffer_len(&self) -> usize {
        let PathConfig { datagram_size, datagram_size_max, .. } = self.config.path;
        self.config.segments_max * usize::from(datagram_size.max(datagram_size_max))
    }

    pub(super) fn server(&mut self) -> Endpoint {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())
            .expect("the key is the certificate's");
        // Tickets carry the time of day, and nothing here resumes.
        tls.send_tls13_tickets = 0;
        let config = EndpointConfig { server: Some(Arc::new(tls)), ..self.config.clone() };
        self.endpoint(config, true)
    }

    pub(super) fn client(&mut self) -> Endpoint {
        self.endpoint(self.config.clone(), false)
    }

    fn endpoint(&mut self, config: EndpointConfig, accepts: bool) -> Endpoint {
        let (config, seed) = (Arc::new(config), self.rng.seed());
        match self.cipher {
            Cipher::Tls => Endpoint::new(config, seed),
            Cipher::Null => Endpoint::with_provider(config, seed, Box::new(NullProvider { accepts })),
        }
    }

    pub(super) fn connect_options(&mut self, remote: SocketAddr) -> ConnectOptions {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("the certificate can be a root");
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        // A post-quantum key share, which takes a second packet.
        provider.kx_groups.sort_by_key(|group| group.name() != rustls::NamedGroup::X25519MLKEM768);
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        ConnectOptions {
            guuid: self.ids.next(UNIX_MS),
            remote,
            server_name: SERVER_NAME.to_owned(),
            alpn: Alpn::Stream,
            tls: Arc::new(tls),
        }
    }
}
