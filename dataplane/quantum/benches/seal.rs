//! Sealing and opening a packet of 1200 bytes, beside what the AEAD alone takes for as many bytes.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use divan::{Bencher, black_box};
use quantum::session::{KeyPair, TAG_LEN, tls_provider};
use quantum::wire::{Epoch, Flags, HEADER_LEN, Header, VERSION};
use quantum::{Guuid, GuuidGenerator, Side};

const PACKET_LEN: usize = 1_200;
const NUMBER: u64 = 77;

fn main() {
    divan::main();
}

fn guuid() -> Guuid {
    GuuidGenerator::new([1; 32]).next(1_735_689_600_000)
}

/// What one side seals and the other opens.
fn keys() -> (KeyPair, KeyPair) {
    let provider = tls_provider(None, false);
    (provider.initial_keys(guuid(), Side::Client), provider.initial_keys(guuid(), Side::Server))
}

/// The floor: AES-128-GCM of aws-lc-rs in place, with as much associated data.
#[divan::bench]
fn aead_alone(bencher: Bencher<'_, '_>) {
    let key = || LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[7; 16]).unwrap());
    let (sealing, opening) = (key(), key());
    let mut packet = vec![0; PACKET_LEN];
    bencher.bench_local(|| {
        let nonce = || Nonce::assume_unique_for_key([9; 12]);
        let (header, payload) = black_box(packet.as_mut_slice()).split_at_mut(HEADER_LEN);
        let (plain, tag_room) = payload.split_at_mut(PACKET_LEN - HEADER_LEN - TAG_LEN);
        let tag = sealing.seal_in_place_separate_tag(nonce(), Aad::from(&*header), plain).unwrap();
        tag_room.copy_from_slice(tag.as_ref());
        opening.open_in_place(nonce(), Aad::from(&*header), payload).unwrap().len()
    });
}

/// Ours, without the header.
#[divan::bench]
fn packet_keys(bencher: Bencher<'_, '_>) {
    let (client, server) = keys();
    let mut packet = vec![0; PACKET_LEN];
    bencher.bench_local(|| {
        let (header, payload) = black_box(packet.as_mut_slice()).split_at_mut(HEADER_LEN);
        client.local.seal(NUMBER, header, payload);
        server.remote.open(NUMBER, header, payload).unwrap()
    });
}

/// Ours, from a header's fields to the opened payload.
#[divan::bench]
fn header_and_packet_keys(bencher: Bencher<'_, '_>) {
    let (client, server) = keys();
    let mut packet = vec![0; PACKET_LEN];
    let payload_len = (PACKET_LEN - HEADER_LEN) as u16;
    let (epoch, flags) = (Epoch::OneRtt0, Flags::PSH);
    let header =
        Header { version: VERSION, epoch, flags, guuid: guuid(), sequence: NUMBER as u32, ack: 1, payload_len };
    bencher.bench_local(|| {
        let packet = black_box(packet.as_mut_slice());
        black_box(&header).encode(packet);
        let (bytes, payload) = packet.split_at_mut(HEADER_LEN);
        client.local.seal(NUMBER, bytes, payload);
        let (decoded, _) = Header::decode(black_box(packet)).unwrap();
        let (bytes, payload) = packet.split_at_mut(HEADER_LEN);
        server.remote.open(u64::from(decoded.sequence), bytes, payload).unwrap()
    });
}
