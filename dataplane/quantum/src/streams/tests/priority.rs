//! Who goes first.

use super::*;

/// Sends packets until nothing is left and gives the order in which bytes of each stream left, by packet.
fn order(streams: &mut Streams, packets: usize) -> Vec<Vec<(u64, usize)>> {
    (0..packets)
        .map(|_| {
            let packet = packet(streams, 1_200).expect("there is more to send");
            acknowledge(streams, &packet);
            let frames = FrameIter::new(&packet.bytes).map(Result::unwrap);
            frames
                .filter_map(|frame| match frame {
                    Frame::Stream { id, data, .. } => Some((id.0, data.len())),
                    _ => None,
                })
                .collect()
        })
        .collect()
}

fn bytes(order: &[Vec<(u64, usize)>], id: StreamId) -> usize {
    order.iter().flatten().filter(|(of, _)| *of == id.0).map(|(_, len)| len).sum()
}

/// A client that may send as much as it likes, with so many streams that have a megabyte to send.
fn busy(count: usize) -> (Streams, Vec<StreamId>) {
    let window = 10 << 20;
    let config =
        StreamsConfig { stream_window: window, connection_window: 64 << 20, streams_max: 64, send_buffer_max: 1 << 20 };
    let mut pair = Pair::new(config);
    let ids: Vec<StreamId> = (0..count).map(|_| opened(&mut pair)).collect();
    for &id in &ids {
        assert_eq!(write(&mut pair.client, id, 1 << 20), 1 << 20);
    }
    (pair.client, ids)
}

#[test]
fn an_urgent_message_goes_before_everything_else_and_its_packet_says_so() {
    let (mut client, ids) = busy(8);
    order(&mut client, 3);
    client.set_priority(ids[7], Priority::URGENT);
    let next = packet(&mut client, 1_200).unwrap();
    assert!(next.filled.urgent && frames(&next)[0].starts_with(&format!("stream {} ", ids[7].0)));
    client.set_priority(ids[7], Priority::default());
    let next = packet(&mut client, 1_200).unwrap();
    assert!(!next.filled.urgent);
}

#[test]
fn lost_bytes_of_an_urgent_stream_go_before_fresh_ones_of_others() {
    let (mut client, ids) = busy(3);
    client.set_priority(ids[2], Priority::URGENT);
    let lost = packet(&mut client, 1_200).unwrap();
    client.set_priority(ids[2], Priority::default());
    let others = packet(&mut client, 1_200).unwrap();
    client.set_priority(ids[2], Priority::URGENT);
    lose(&mut client, &others);
    lose(&mut client, &lost);
    let next = packet(&mut client, 1_200).unwrap();
    assert!(next.filled.urgent && next.filled.resent, "{:?}", frames(&next));
    assert!(frames(&next)[0].starts_with(&format!("stream {} ", ids[2].0)), "{:?}", frames(&next));
}

#[test]
fn streams_share_by_their_weights() {
    let (mut client, ids) = busy(4);
    for (&id, weight) in ids.iter().zip([1, 4, 8, 16]) {
        client.set_priority(id, Priority { urgent: false, weight });
    }
    let order = order(&mut client, 1_500);
    let shares = ids.iter().map(|&id| bytes(&order, id) as f64).collect::<Vec<_>>();
    for (share, weight) in shares.iter().zip([1.0, 4.0, 8.0, 16.0]) {
        let expected = shares.iter().sum::<f64>() * weight / 29.0;
        assert!((share / expected - 1.0).abs() < 0.1, "weight {weight}: {share} bytes of {shares:?}");
    }
}

#[test]
fn equal_streams_share_equally_and_a_light_one_alone_fills_its_packets() {
    let (mut client, ids) = busy(3);
    let all = order(&mut client, 900);
    let shares = ids.iter().map(|&id| bytes(&all, id)).collect::<Vec<_>>();
    assert!(shares.iter().all(|share| share.abs_diff(shares[0]) < 5_000), "{shares:?}");
    let (mut client, ids) = busy(1);
    client.set_priority(ids[0], Priority::BACKGROUND);
    assert!(order(&mut client, 100).iter().all(|packet| packet.len() == 1 && packet[0].1 > 1_150));
}

#[test]
fn urgent_streams_leave_a_sixteenth_to_the_others() {
    let (mut client, ids) = busy(4);
    client.set_priority(ids[0], Priority::URGENT);
    client.set_priority(ids[1], Priority::URGENT);
    let order = order(&mut client, 800);
    let [first, second, third, fourth] = [0, 1, 2, 3].map(|index| bytes(&order, ids[index]));
    let rest = third + fourth;
    assert!(first.abs_diff(second) < 5_000 && third.abs_diff(fourth) < 5_000, "{order:?}");
    let share = rest as f64 / (first + second + rest) as f64;
    assert!((0.055..0.07).contains(&share), "{share}");
}
