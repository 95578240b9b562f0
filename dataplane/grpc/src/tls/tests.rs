//! Handshakes in memory: who is accepted and who is not.

use std::net::{Ipv4Addr, SocketAddr};

use super::*;

fn remote(address: [u8; 4]) -> SocketAddr {
    (Ipv4Addr::from(address), 9001).into()
}

/// Whether a client that verifies like this completes a handshake with that server.
fn handshake(identity: &Identity, verify: &Verify, name: &str) -> Result<(), rustls::Error> {
    let client = client_config(verify, remote([127, 0, 0, 1])).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = rustls::ClientConnection::new(client, name).unwrap();
    let mut server = rustls::ServerConnection::new(server_config(identity).unwrap()).unwrap();
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
    let refused = client_config(&Verify::InsecureLoopback, remote([192, 0, 2, 1])).unwrap_err();
    assert!(refused.to_string().contains("192.0.2.1"), "{refused}");
}

#[test]
fn what_is_no_fingerprint_and_no_certificate_is_an_error() {
    for pin in ["", "zz", "00", &"0".repeat(63)] {
        assert!(matches!(
            client_config(&Verify::Pin(pin.to_owned()), remote([127, 0, 0, 1])),
            Err(TlsError::Fingerprint(_))
        ));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("empty.pem");
    std::fs::write(&path, "").unwrap();
    for path in [path, dir.path().join("absent.pem")] {
        assert!(matches!(client_config(&Verify::Ca(path), remote([127, 0, 0, 1])), Err(TlsError::Ca { .. })));
    }
}
