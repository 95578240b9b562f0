//! Handshakes in memory: who is accepted and who is not.

use std::net::{Ipv4Addr, SocketAddr};

use super::*;

fn client_of(verify: &Verify) -> crate::endpoint::ClientConfig {
    crate::endpoint::ClientConfig::new(verify.clone())
}

fn remote(address: [u8; 4]) -> SocketAddr {
    (Ipv4Addr::from(address), 9001).into()
}

/// Whether a client that verifies like this completes a handshake with that server.
fn handshake(identity: &Identity, verify: &Verify, name: &str) -> Result<(), rustls::Error> {
    let client = client_config(&client_of(verify), remote([127, 0, 0, 1])).unwrap();
    shake_hands(client, server_config(identity, None).unwrap(), name)
}

fn shake_hands(client: Arc<ClientConfig>, server: Arc<ServerConfig>, name: &str) -> Result<(), rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = rustls::ClientConnection::new(client, name).unwrap();
    let mut server = rustls::ServerConnection::new(server).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        server.read_tls(&mut &bytes[..]).unwrap();
        server.process_new_packets()?;
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok(())
}

#[test]
fn a_pinned_key_is_accepted_under_any_name_and_another_is_not() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let identity = Identity::load_or_create(dir.path(), &[]).unwrap();
    let stranger = Identity::load_or_create(other.path(), &[]).unwrap();
    let pin = Verify::Pin(identity.fingerprint());
    handshake(&identity, &pin, "any.name").unwrap();
    assert!(handshake(&stranger, &pin, "localhost").is_err());
}

#[test]
fn a_kept_pin_survives_a_certificate_for_other_names() {
    let dir = tempfile::tempdir().unwrap();
    let pin = Verify::Pin(Identity::load_or_create(dir.path(), &[]).unwrap().fingerprint());
    let renamed = Identity::load_or_create(dir.path(), &["10.0.0.9".to_owned()]).unwrap();
    handshake(&renamed, &pin, "10.0.0.9").unwrap();
}

#[test]
fn a_certificate_file_proves_the_names_in_it_and_no_others() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let identity = Identity::load_or_create(dir.path(), &["10.0.0.9".to_owned()]).unwrap();
    let stranger = Identity::load_or_create(other.path(), &[]).unwrap();
    let verify = Verify::Ca(dir.path().join("cert.pem"));
    for name in ["localhost", "127.0.0.1", "::1", "10.0.0.9"] {
        handshake(&identity, &verify, name).unwrap();
    }
    assert!(handshake(&identity, &verify, "10.0.0.8").is_err());
    assert!(handshake(&stranger, &verify, "localhost").is_err());
}

#[test]
fn an_unverified_server_must_be_on_this_host() {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::load_or_create(dir.path(), &[]).unwrap();
    handshake(&identity, &Verify::InsecureLoopback, "localhost").unwrap();
    let refused = client_config(&client_of(&Verify::InsecureLoopback), remote([192, 0, 2, 1])).unwrap_err();
    assert!(refused.to_string().contains("192.0.2.1"), "{refused}");
}

#[test]
fn what_is_no_fingerprint_and_no_certificate_is_an_error() {
    for pin in ["", "zz", "00", &"0".repeat(63)] {
        assert!(matches!(
            client_config(&client_of(&Verify::Pin(pin.to_owned())), remote([127, 0, 0, 1])),
            Err(TlsError::Fingerprint(_))
        ));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("empty.pem");
    std::fs::write(&path, "").unwrap();
    for path in [path, dir.path().join("absent.pem")] {
        assert!(matches!(
            client_config(&client_of(&Verify::Ca(path)), remote([127, 0, 0, 1])),
            Err(TlsError::Ca { .. })
        ));
    }
}

#[test]
fn a_server_with_authorities_takes_clients_of_theirs_and_no_others() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [identity, ..] = dirs.each_ref().map(|dir| Identity::load_or_create(dir.path(), &[]).unwrap());
    let [_, ours, stranger] = dirs.each_ref().map(|dir| crate::endpoint::ClientCertificate {
        cert: dir.path().join("cert.pem"),
        key: dir.path().join("key.pem"),
    });
    let server = server_config(&identity, Some(&ours.cert)).unwrap();
    let by = |certificate| {
        let client = crate::endpoint::ClientConfig { certificate, ..client_of(&Verify::InsecureLoopback) };
        client_config(&client, remote([127, 0, 0, 1]))
    };
    let mismatch = crate::endpoint::ClientCertificate { key: stranger.key.clone(), ..ours.clone() };
    assert!(matches!(by(Some(mismatch)), Err(TlsError::Ca { .. })));
    shake_hands(by(Some(ours)).unwrap(), Arc::clone(&server), "localhost").unwrap();
    for refused in [Some(stranger), None] {
        assert!(shake_hands(by(refused).unwrap(), Arc::clone(&server), "localhost").is_err());
    }
    let absent = dirs[0].path().join("absent.pem");
    assert!(matches!(server_config(&identity, Some(&absent)), Err(TlsError::Ca { .. })));
}
