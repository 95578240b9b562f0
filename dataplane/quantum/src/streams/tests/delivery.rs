//! Sending, losing, resending, ending.

use super::*;

#[test]
fn bytes_arrive_once_and_in_order() {
    let mut pair = Pair::new(CONFIG);
    let id = pair.client.open().unwrap();
    let text: Vec<u8> = (0..9_000_u32).map(|number| number as u8).collect();
    let mut data = Bytes::from(text.clone());
    assert_eq!(pair.client.write(id, &mut data), Ok(9_000));
    pair.client.finish(id).unwrap();
    pair.settle();
    assert_eq!(events(&mut pair.server), [Event::StreamOpened(id), Event::StreamReadable(id)]);
    assert_eq!(read_all(&mut pair.server, id), (text, Read::Finished));
    assert_eq!(events(&mut pair.client), [Event::StreamDelivered(id)]);
}

#[test]
fn a_stream_is_announced_until_the_peer_knows_it() {
    let mut pair = Pair::new(CONFIG);
    let id = pair.client.open().unwrap();
    assert_eq!(pair.client.write(id, &mut Bytes::new()), Ok(0));
    let announcement = packet(&mut pair.client, 1200).unwrap();
    assert_eq!(frames(&announcement), ["stream 0 0+0 false"]);
    assert!(packet(&mut pair.client, 1200).is_none());
    lose(&mut pair.client, &announcement);
    pair.settle();
    assert_eq!(events(&mut pair.server), [Event::StreamOpened(id)]);
    write(&mut pair.client, id, 10);
    lose(&mut pair.client, &announcement);
    pair.settle();
    assert_eq!(pair.client.write(id, &mut Bytes::new()), Ok(0));
    assert!(packet(&mut pair.client, 1200).is_none());
}

#[test]
fn what_came_before_the_peer_closed_can_be_read_and_nothing_else_be_done() {
    let mut pair = Pair::new(CONFIG);
    let id = opened(&mut pair);
    write(&mut pair.client, id, 10);
    pair.settle();
    write(&mut pair.server, id, 10);
    pair.server.clear_unreadable();
    assert_eq!(pair.server.write(id, &mut Bytes::from_static(b"x")), Err(WriteError::Closed));
    assert_eq!(pair.server.finish(id), Err(WriteError::Closed));
    pair.server.reset(id, 1);
    pair.server.stop(id, 1);
    assert!(packet(&mut pair.server, 1200).is_none());
    let (data, end) = read_all(&mut pair.server, id);
    assert!(data.len() >= 10, "{data:?}");
    assert_eq!(end, Read::Blocked, "cut off, not finished");
}

#[test]
fn a_lost_fin_is_sent_again() {
    let mut pair = Pair::new(CONFIG);
    let id = opened(&mut pair);
    pair.client.finish(id).unwrap();
    let fin = packet(&mut pair.client, 1200).unwrap();
    assert_eq!(frames(&fin), ["stream 0 1+0 true"]);
    assert_eq!(fin.filled, Filled { message_end: true, resent: false, protected: true, urgent: false });
    assert!(!pair.client.has_pending());
    lose(&mut pair.client, &fin);
    let again = packet(&mut pair.client, 1200).unwrap();
    assert_eq!(frames(&again), ["stream 0 1+0 true"]);
    deliver(&mut pair.server, &again.bytes).unwrap();
    acknowledge(&mut pair.client, &again);
    assert_eq!(pair.server.read(id, 1), Read::Finished);
    assert_eq!(events(&mut pair.client), [Event::StreamDelivered(id)]);
}

#[test]
fn lost_data_is_sent_again_before_what_follows() {
    let mut pair = Pair::new(CONFIG);
    let id = pair.client.open().unwrap();
    write(&mut pair.client, id, 3_000);
    let first = packet(&mut pair.client, 1200).unwrap();
    assert_eq!(frames(&first), ["stream 0 0+1196 false"]);
    lose(&mut pair.client, &first);
    let second = packet(&mut pair.client, 1000).unwrap();
    assert_eq!(frames(&second), ["stream 0 0+996 false"]);
    assert!(second.filled.resent);
    let third = packet(&mut pair.client, 1000).unwrap();
    assert_eq!(frames(&third), ["stream 0 996+200 false", "stream 0 1196+788 false"]);
    assert_eq!(pair.client.stats().resent_bytes, 1196);
}

#[test]
fn data_declared_lost_but_acknowledged_in_the_end_is_not_sent_again() {
    let mut pair = Pair::new(CONFIG);
    let id = pair.client.open().unwrap();
    write(&mut pair.client, id, 100);
    let only = packet(&mut pair.client, 1200).unwrap();
    lose(&mut pair.client, &only);
    assert!(pair.client.has_pending());
    acknowledge(&mut pair.client, &only);
    assert!(!pair.client.has_pending());
    lose(&mut pair.client, &only);
    assert!(!pair.client.has_pending());
    assert_eq!(pair.client.stats().send_buffered_bytes, 0);
}

#[test]
fn data_acknowledged_out_of_order_and_declared_lost_afterwards_is_not_sent_again() {
    let mut pair = Pair::new(CONFIG);
    let id = pair.client.open().unwrap();
    write(&mut pair.client, id, 3_000);
    let packets: Vec<_> = std::iter::from_fn(|| packet(&mut pair.client, 1006)).collect();
    acknowledge(&mut pair.client, &packets[1]);
    for packet in &packets {
        lose(&mut pair.client, packet);
    }
    let again: Vec<_> =
        std::iter::from_fn(|| packet(&mut pair.client, 1100)).flat_map(|packet| frames(&packet)).collect();
    assert_eq!(again, ["stream 0 0+1002 false", "stream 0 2002+88 false", "stream 0 2090+910 false"]);
}

#[test]
fn the_send_buffer_is_freed_from_the_front_as_acknowledgements_come() {
    let mut pair = Pair::new(CONFIG);
    let id = pair.client.open().unwrap();
    write(&mut pair.client, id, 3_000);
    let packets: Vec<_> = std::iter::from_fn(|| packet(&mut pair.client, 1006)).collect();
    assert_eq!(packets.len(), 3);
    acknowledge(&mut pair.client, &packets[1]);
    assert_eq!(pair.client.stats().send_buffered_bytes, 3_000);
    acknowledge(&mut pair.client, &packets[0]);
    assert_eq!(pair.client.stats().send_buffered_bytes, 998);
    acknowledge(&mut pair.client, &packets[2]);
    assert_eq!(pair.client.stats().send_buffered_bytes, 0);
}

#[test]
fn many_small_writes_are_gathered() {
    let mut pair = Pair::new(StreamsConfig { stream_window: 20_000, ..CONFIG });
    let id = pair.client.open().unwrap();
    let text: Vec<u8> = (0..20_000_u32).map(|number| (number / 3) as u8).collect();
    for byte in &text {
        assert_eq!(pair.client.write(id, &mut Bytes::copy_from_slice(&[*byte])), Ok(1));
    }
    assert!(pair.client.live[&id].sending.chunks() < 32);
    pair.settle();
    assert_eq!(read_all(&mut pair.server, id), (text, Read::Blocked));
}

#[test]
fn a_write_takes_what_fits_and_the_stream_is_writable_once_half_is_free() {
    // The peer takes everything; the buffer has no room to grow.
    let mut pair = Pair::new(StreamsConfig { stream_window: 1 << 20, connection_window: 0, ..CONFIG });
    pair.client.on_max_data(1 << 20);
    let id = pair.client.open().unwrap();
    let mut data = Bytes::from(vec![1; 30_000]);
    assert_eq!(pair.client.write(id, &mut data), Ok(20_000));
    assert_eq!(data.len(), 10_000);
    assert_eq!(pair.client.write(id, &mut data), Ok(0));
    let packets: Vec<_> = std::iter::from_fn(|| packet(&mut pair.client, 1004)).collect();
    for packet in &packets {
        let before = pair.client.stats().send_buffered_bytes;
        acknowledge(&mut pair.client, packet);
        let after = pair.client.stats().send_buffered_bytes;
        let expected = if before > 10_000 && after <= 10_000 { vec![Event::StreamWritable(id)] } else { vec![] };
        assert_eq!(events(&mut pair.client), expected, "from {before} to {after}");
    }
    assert_eq!(pair.client.write(id, &mut data), Ok(10_000));
}

#[test]
fn a_buffer_that_holds_less_than_the_path_grows_to_its_limits_until_the_stream_is_over() {
    let mut pair = Pair::new(StreamsConfig { stream_window: 1 << 20, connection_window: 500_000, ..CONFIG });
    let kept = |pair: &mut Pair| {
        let id = pair.client.open().unwrap();
        let before = pair.client.stats().send_buffered_bytes;
        // Nothing is acknowledged: what is kept is what the path holds.
        while write(&mut pair.client, id, 1 << 20) > 0 {
            while packet(&mut pair.client, 1200).is_some() {}
            assert!(events(&mut pair.client).iter().all(|event| *event == Event::StreamWritable(id)));
        }
        (id, pair.client.stats().send_buffered_bytes - before)
    };
    pair.client.on_max_data(1 << 30);
    let (first, bytes) = kept(&mut pair);
    assert_eq!(bytes, 320_000, "16 times the 20,000 of the start");
    assert_eq!(kept(&mut pair).1, 220_000, "what is left of 500,000, and its own 20,000");
    assert_eq!(kept(&mut pair).1, 20_000);
    pair.client.reset(first, 0);
    pair.client.stop(first, 0);
    let over = packet(&mut pair.client, 1200).unwrap();
    acknowledge(&mut pair.client, &over);
    pair.client.on_reset_stream(first, 0, 0).unwrap();
    assert_eq!(pair.client.send_grown_bytes, 200_000, "the others can have what the first one had");
}

#[test]
fn a_buffer_does_not_grow_for_a_peer_that_takes_nothing() {
    let mut pair = Pair::new(CONFIG);
    let id = pair.client.open().unwrap();
    assert_eq!(write(&mut pair.client, id, 30_000), 20_000);
    while packet(&mut pair.client, 1200).is_some() {}
    assert_eq!((write(&mut pair.client, id, 30_000), events(&mut pair.client)), (0, vec![]));
}

#[test]
fn a_packet_says_whether_it_ends_a_message() {
    let mut pair = Pair::new(CONFIG);
    let id = pair.client.open().unwrap();
    write(&mut pair.client, id, 1_500);
    let first = packet(&mut pair.client, 1200).unwrap();
    assert!(!first.filled.message_end);
    let second = packet(&mut pair.client, 1200).unwrap();
    assert!(second.filled.message_end);
    lose(&mut pair.client, &second);
    let again = packet(&mut pair.client, 1200).unwrap();
    assert_eq!(again.filled, Filled { message_end: true, resent: true, protected: true, urgent: false });
}

#[test]
fn streams_with_much_to_send_take_turns() {
    let mut pair = Pair::new(CONFIG);
    let ids: Vec<_> = (0..3).map(|_| pair.client.open().unwrap()).collect();
    for id in &ids {
        write(&mut pair.client, *id, 5_000);
    }
    let small = pair.client.open().unwrap();
    write(&mut pair.client, small, 100);
    let order: Vec<u64> = (0..4)
        .flat_map(|_| packet(&mut pair.client, 1210).unwrap().sent)
        .map(|frame| match frame {
            crate::sent_frame::SentFrame::Stream { id, .. } => id.0,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(order, [0, 2, 4, 6, 0], "each sends about a packet, the small one behind the others");
}

#[test]
fn a_reset_drops_the_data_and_is_repeated_until_acknowledged() {
    let mut pair = Pair::new(CONFIG);
    let id = opened(&mut pair);
    write(&mut pair.client, id, 5_000);
    let data = packet(&mut pair.client, 1200).unwrap();
    pair.client.reset(id, 77);
    assert_eq!(pair.client.stats().send_buffered_bytes, 0);
    assert_eq!(pair.client.write(id, &mut Bytes::from_static(b"x")), Err(WriteError::Closed));
    lose(&mut pair.client, &data);
    let reset = packet(&mut pair.client, 1200).unwrap();
    assert_eq!(reset.sent.len(), 1);
    lose(&mut pair.client, &reset);
    let again = packet(&mut pair.client, 1200).unwrap();
    assert_eq!(again.bytes, reset.bytes);
    deliver(&mut pair.server, &again.bytes).unwrap();
    acknowledge(&mut pair.client, &again);
    assert!(!pair.client.has_pending());
    assert_eq!(events(&mut pair.server), [Event::StreamReadable(id)]);
    assert_eq!(pair.server.read(id, 100), Read::Reset(77));
}

#[test]
fn a_reset_after_a_message_without_an_end_is_no_end() {
    let mut pair = Pair::new(CONFIG);
    let id = pair.client.open().unwrap();
    write(&mut pair.client, id, 10);
    pair.settle();
    pair.client.reset(id, 5);
    pair.settle();
    assert_eq!(pair.server.read(id, 100), Read::Reset(5));
}

#[test]
fn a_reset_after_everything_arrived_loses_nothing() {
    let mut pair = Pair::new(CONFIG);
    let id = pair.client.open().unwrap();
    write(&mut pair.client, id, 10);
    pair.client.finish(id).unwrap();
    let data = packet(&mut pair.client, 1200).unwrap();
    deliver(&mut pair.server, &data.bytes).unwrap();
    pair.client.reset(id, 5);
    pair.settle();
    assert_eq!(read_all(&mut pair.server, id), (vec![7; 10], Read::Finished));
}

#[test]
fn a_stopped_peer_resets_the_stream_with_the_same_code() {
    let mut pair = Pair::new(CONFIG);
    let id = opened(&mut pair);
    write(&mut pair.client, id, 5_000);
    pair.server.stop(id, 42);
    let stop = packet(&mut pair.server, 1200).unwrap();
    lose(&mut pair.server, &stop);
    let again = packet(&mut pair.server, 1200).unwrap();
    assert_eq!(again.bytes, stop.bytes, "a lost STOP_SENDING is sent again");
    deliver(&mut pair.client, &again.bytes).unwrap();
    acknowledge(&mut pair.server, &again);
    assert_eq!(events(&mut pair.client), [Event::StreamStopped(id, 42)]);
    assert_eq!(pair.client.write(id, &mut Bytes::from_static(b"x")), Err(WriteError::Stopped(42)));
    assert_eq!(pair.client.finish(id), Err(WriteError::Stopped(42)));
    let reset = packet(&mut pair.client, 1200).unwrap();
    assert_eq!(frames(&reset), [format!("{:?}", Frame::ResetStream { id, code: 42, final_size: 1 })]);
    deliver(&mut pair.server, &reset.bytes).unwrap();
    acknowledge(&mut pair.client, &reset);
    pair.server.finish(id).unwrap();
    pair.settle();
    assert_eq!(pair.client.read(id, 1), Read::Finished);
    assert_eq!((pair.client.stats().live, pair.server.stats().live), (0, 0));
    assert_eq!(events(&mut pair.server), [Event::StreamDelivered(id)], "who stopped reads nothing more");
}

#[test]
fn readable_comes_again_only_after_a_read_found_nothing() {
    let mut pair = Pair::new(CONFIG);
    let id = pair.client.open().unwrap();
    write(&mut pair.client, id, 10);
    pair.settle();
    assert_eq!(events(&mut pair.server), [Event::StreamOpened(id), Event::StreamReadable(id)]);
    write(&mut pair.client, id, 10);
    pair.settle();
    assert_eq!(events(&mut pair.server), []);
    assert!(matches!(pair.server.read(id, 100), Read::Data(_)));
    write(&mut pair.client, id, 10);
    pair.settle();
    assert_eq!(events(&mut pair.server), []);
    assert_eq!(read_all(&mut pair.server, id).1, Read::Blocked);
    pair.client.finish(id).unwrap();
    pair.settle();
    assert_eq!(events(&mut pair.server), [Event::StreamReadable(id)]);
}

#[test]
fn a_read_gives_no_more_than_asked_for() {
    let mut pair = Pair::new(CONFIG);
    let id = pair.client.open().unwrap();
    write(&mut pair.client, id, 5);
    pair.settle();
    assert_eq!(pair.server.read(id, 2), Read::Data(Bytes::from_static(&[7; 2])));
    assert_eq!(pair.server.read(id, 0), Read::Data(Bytes::from_static(&[7; 1])));
    assert_eq!(pair.server.read(id, 9), Read::Data(Bytes::from_static(&[7; 2])));
}

#[test]
fn nothing_is_left_and_nothing_moves_once_the_connection_is_over() {
    let mut pair = Pair::new(CONFIG);
    let id = opened(&mut pair);
    write(&mut pair.client, id, 5_000);
    pair.client.on_stream(id, 0, &[0; 9_000], true).unwrap();
    pair.client.stop(id, 1);
    let data = packet(&mut pair.client, 1200).unwrap();
    pair.client.clear();
    assert_eq!(pair.client.stats(), StreamsStats::default());
    lose(&mut pair.client, &data);
    acknowledge(&mut pair.client, &data);
    pair.client.on_stream(StreamId::new(Side::Server, 0), 0, &[0; 9], true).unwrap();
    assert!(packet(&mut pair.client, 1200).is_none());
    assert_eq!(events(&mut pair.client), []);
    assert_eq!(pair.client.open(), Err(OpenError::Closed));
    assert_eq!(pair.client.write(id, &mut Bytes::from_static(b"x")), Err(WriteError::Closed));
    assert_eq!(pair.client.stats(), StreamsStats::default());
}
