//! PROTOCOL.md's test vector, made with rustls and compared with the text.

use rustls::Side;
use rustls::quic::Version;

use super::*;

#[test]
fn the_specification_shows_the_first_packet_that_is_really_sent() {
    let guuid = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f".parse().expect("canonical");
    let (epoch, flags) = (Epoch::Initial, Flags::SYN);
    let header = Header { version: VERSION, epoch, flags, guuid, sequence: 1, ack: 0, payload_len: 4 + 16 };
    let mut packet = [0; HEADER_LEN + 4 + 16];
    header.encode(&mut packet);
    let (associated, payload) = packet.split_at_mut(HEADER_LEN);
    let (plaintext, tag) = payload.split_at_mut(4);
    let mut writer = FrameWriter::new(plaintext);
    assert!(writer.ping());
    writer.padding(3);
    let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256
        .tls13()
        .and_then(rustls::Tls13CipherSuite::quic_suite)
        .expect("a suite for QUIC");
    let keys = suite.keys(guuid.as_bytes(), Side::Client, Version::V1);
    let sealed = keys.local.packet.encrypt_in_place(1, associated, plaintext).expect("sealed");
    tag.copy_from_slice(sealed.as_ref());

    let shown: String = include_str!("../../PROTOCOL.md")
        .lines()
        .skip_while(|line| !line.starts_with("    packet "))
        .take(2)
        .flat_map(|line| line.trim_start().trim_start_matches("packet").trim().chars())
        .collect();
    let sent = packet.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    assert_eq!(shown, sent);
}
