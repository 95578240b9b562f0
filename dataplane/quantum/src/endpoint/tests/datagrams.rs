//! Datagrams between endpoints: sent once, bounded, paced, restored, and abused.

use std::time::Duration;

use bytes::Bytes;

use super::net::{CLIENT, DELAY, Net, RTT, SERVER, address, config, server_endpoint, with_fec};
use crate::connection::forge::Forged;
use crate::wire::{Epoch, Flags, FrameWriter};
use crate::{
    CloseReason, ConnectionHandle, DatagramConfig, DatagramError, DatagramStats, EndpointConfig, Event,
    TransportErrorCode,
};

fn send(net: &mut Net, place: usize, handle: ConnectionHandle, data: &[u8]) -> Result<(), DatagramError> {
    net.nodes[place].endpoint.connection(handle).unwrap().send_datagram(Bytes::copy_from_slice(data))
}

fn receive(net: &mut Net, place: usize, handle: ConnectionHandle) -> Vec<Bytes> {
    let Some(mut connection) = net.nodes[place].endpoint.connection(handle) else { return Vec::new() };
    std::iter::from_fn(|| connection.recv_datagram()).collect()
}

fn stats(net: &mut Net, place: usize, handle: ConnectionHandle) -> DatagramStats {
    net.nodes[place].endpoint.connection(handle).unwrap().stats().datagrams
}

fn taking(frame_bytes_max: u16) -> EndpointConfig {
    EndpointConfig { datagrams: DatagramConfig { frame_bytes_max, ..DatagramConfig::default() }, ..config() }
}

#[test]
fn datagrams_come_once_each_as_they_were() {
    let (mut net, client, server) = Net::connected(&config());
    let most = net.nodes[CLIENT].endpoint.connection(client).unwrap().datagram_size_max().unwrap();
    assert!(most > 1_000, "{most}");
    let sizes = [0, 1, 63, 64, most];
    for (place, handle) in [(CLIENT, client), (SERVER, server)] {
        for size in sizes {
            send(&mut net, place, handle, &vec![size as u8; size]).unwrap();
        }
    }
    net.run_for(RTT * 3);
    for (place, handle) in [(CLIENT, client), (SERVER, server)] {
        let told = net.nodes[place].events.iter().filter(|event| event.1 == Event::DatagramReceived).count();
        assert_eq!(told, 1, "nothing was received in between");
        let came: Vec<Vec<u8>> = receive(&mut net, place, handle).iter().map(|data| data.to_vec()).collect();
        assert_eq!(came, sizes.map(|size| vec![size as u8; size]));
        let count = sizes.len() as u64;
        let expected = DatagramStats { sent: count, delivered: count, received: count, ..DatagramStats::default() };
        assert_eq!(stats(&mut net, place, handle), expected);
    }
    send(&mut net, CLIENT, client, b"again").unwrap();
    net.run_for(RTT);
    let told = net.nodes[SERVER].events.iter().filter(|event| event.1 == Event::DatagramReceived).count();
    assert!(told == 2 && receive(&mut net, SERVER, server) == [&b"again"[..]]);
}

#[test]
fn a_lost_datagram_is_not_sent_again() {
    let (mut net, client, server) = Net::connected(&config());
    let mut lose = true;
    net.hook = Box::new(move |segment| if std::mem::take(&mut lose) { Vec::new() } else { vec![segment] });
    send(&mut net, CLIENT, client, b"lost").unwrap();
    net.run_for(RTT);
    for _ in 0..5 {
        send(&mut net, CLIENT, client, b"came").unwrap();
        net.run_for(Duration::from_millis(1));
    }
    net.run_for(RTT * 20);
    assert_eq!(receive(&mut net, SERVER, server), [&b"came"[..]; 5]);
    assert_eq!(stats(&mut net, CLIENT, client), DatagramStats { sent: 6, delivered: 5, ..DatagramStats::default() });
    let connection = net.nodes[CLIENT].endpoint.connection(client).unwrap().stats();
    assert_eq!((connection.packets_lost, connection.retransmissions), (1, 0));
}

#[test]
fn a_lost_datagram_is_restored_and_a_late_one_does_not_come_twice() {
    for is_late in [false, true] {
        let (mut net, client, server) = Net::connected(&with_fec());
        net.run_for(RTT * 20);
        let mut first = true;
        net.hook = Box::new(move |mut segment| {
            if std::mem::take(&mut first) {
                segment.delay = DELAY * 3;
                return if is_late { vec![segment] } else { Vec::new() };
            }
            vec![segment]
        });
        let start = net.now;
        send(&mut net, CLIENT, client, b"once").unwrap();
        assert!(net.wait_for(RTT * 3, |net| net.nodes[SERVER].events.iter().any(|it| it.1 == Event::DatagramReceived)));
        assert_eq!(net.now - start, DELAY + Duration::from_millis(1));
        net.run_for(RTT * 10);
        assert_eq!(receive(&mut net, SERVER, server), [&b"once"[..]], "late: {is_late}");
        assert_eq!(stats(&mut net, CLIENT, client).delivered, 1);
    }
}

#[test]
fn datagrams_that_opted_out_get_no_repair_symbols() {
    for protected in [false, true] {
        let datagrams = DatagramConfig { protected, ..DatagramConfig::default() };
        let (mut net, client, _) = Net::connected(&EndpointConfig { datagrams, ..with_fec() });
        net.run_for(RTT * 20);
        let sent = net.log.len();
        send(&mut net, CLIENT, client, b"x").unwrap();
        net.run_for(RTT);
        let repairs = net.log[sent..].iter().filter(|(_, it)| it.is_to_server() && it.has(Flags::FEC)).count();
        assert_eq!(repairs > 0, protected);
    }
}

#[test]
fn the_oldest_goes_when_a_queue_is_full() {
    let (mut net, client, server) = Net::connected(&config());
    for number in 0..1_000_u32 {
        send(&mut net, CLIENT, client, &[&number.to_be_bytes()[..], &[7; 936]].concat()).unwrap();
    }
    // 64 KiB of datagrams with 940 bytes, and 64 for each.
    let kept = (64 << 10) / 1_004;
    assert_eq!(stats(&mut net, CLIENT, client).send_dropped, 1_000 - kept);
    net.run_for(RTT * 10);
    let came = receive(&mut net, SERVER, server);
    let first = came.first().map(|data| u32::from_be_bytes(data[..4].try_into().unwrap()));
    assert_eq!((came.len() as u64, first), (kept, Some(1_000 - kept as u32)));
    // As many again that nobody takes.
    for round in 0..3 {
        for _ in 0..kept {
            send(&mut net, CLIENT, client, &[round; 940]).unwrap();
        }
        net.run_for(RTT * 10);
    }
    assert_eq!(stats(&mut net, SERVER, server).receive_dropped, 2 * kept);
    let came = receive(&mut net, SERVER, server);
    assert!(came.len() as u64 == kept && came.iter().all(|data| data[0] == 2));
}

#[test]
fn a_flood_of_datagrams_keeps_to_the_window_and_streams_go_on() {
    let (mut net, client, server) = Net::connected(&config());
    let data = vec![3; 1_000];
    let id = net.write(CLIENT, client, &vec![9; 200_000]);
    let (mut got, mut came) = (0, 0);
    for _ in 0..2_000 {
        while stats(&mut net, CLIENT, client).send_dropped == 0 {
            send(&mut net, CLIENT, client, &data).unwrap();
        }
        for _ in 0..4 {
            send(&mut net, CLIENT, client, &data).unwrap();
        }
        net.run_for(Duration::from_millis(1));
        let congestion = net.nodes[CLIENT].endpoint.connection(client).unwrap().stats().congestion;
        assert!(congestion.in_flight_bytes <= congestion.window_bytes + 1_200, "{congestion:?}");
        got += net.read(SERVER, server, id).len();
        came += receive(&mut net, SERVER, server).len();
    }
    assert!(got == 200_000 && came > 1_000, "{got} bytes, {came} datagrams");
}

#[test]
fn datagrams_that_cannot_go_are_refused() {
    let mut net = Net::new(&config());
    net.nodes[SERVER].endpoint = server_endpoint(&taking(0));
    let client = net.connect(CLIENT);
    assert_eq!(send(&mut net, CLIENT, client, b"early"), Err(DatagramError::Closed));
    net.run_for(RTT * 5);
    assert_eq!(send(&mut net, CLIENT, client, b"x"), Err(DatagramError::Unsupported));
    let (mut net, client, _) = Net::connected(&taking(100));
    assert_eq!(send(&mut net, CLIENT, client, &[0; 98]), Err(DatagramError::TooLarge(97)));
    assert_eq!(send(&mut net, CLIENT, client, &[0; 97]), Ok(()));
    let now = net.now;
    net.nodes[CLIENT].endpoint.connection(client).unwrap().close(now, 1, b"");
    assert_eq!(send(&mut net, CLIENT, client, b"x"), Err(DatagramError::Closed));
}

#[test]
fn datagrams_that_were_not_allowed_end_the_connection() {
    for (config, len) in [(taking(0), 0), (taking(100), 100), (taking(100), 900)] {
        for with_len in [false, true] {
            let mut payload = vec![0x30; len + 1];
            if with_len {
                let mut buffer = vec![0; 1_100];
                let mut writer = FrameWriter::new(&mut buffer);
                assert!(writer.datagram(&payload[1..]));
                let written = writer.written();
                payload = buffer[..written].to_vec();
            }
            let (mut net, client, _) = Net::connected(&config);
            let forged = Forged::frames(Epoch::OneRtt0, &payload);
            let data = net.nodes[CLIENT].endpoint.slots.get_mut(client).unwrap().forge(&forged).unwrap();
            net.hand(SERVER, address(CLIENT), &data);
            net.run_for(RTT);
            let code = TransportErrorCode::ProtocolViolation as u64;
            let closed = net.closed(SERVER);
            assert!(matches!(closed, Some(CloseReason::Transport { code: told, .. }) if told == code), "{closed:?}");
        }
    }
}

#[test]
fn datagrams_outside_of_1_rtt_end_the_connection() {
    let mut net = Net::new(&config());
    let client = net.connect(CLIENT);
    net.run_for(DELAY);
    let forged = Forged::frames(Epoch::Initial, &[0x31, 1, 7]);
    let data = net.nodes[CLIENT].endpoint.slots.get_mut(client).unwrap().forge(&forged);
    if let Some(data) = data {
        net.hand(SERVER, address(CLIENT), &data);
    }
    net.run_for(RTT);
    assert!(
        matches!(net.closed(CLIENT), Some(CloseReason::Peer { code: 0xa, application: false, .. })),
        "{:?}",
        net.closed(CLIENT)
    );
}
