//! Credit and stream slots.

use super::*;
use crate::sent_frame::SentFrame;

#[test]
fn a_stream_that_nobody_reads_stops_no_other() {
    let config = StreamsConfig { connection_window: 12_000, ..CONFIG };
    let mut pair = Pair::new(config);
    let stalled = pair.client.open().unwrap();
    assert_eq!(write(&mut pair.client, stalled, 20_000), 20_000);
    pair.settle();
    assert_eq!(pair.server.stats().receive_buffered_bytes, 10_000, "as much as the stream's window");
    for _ in 0..100 {
        let id = pair.client.open().unwrap();
        write(&mut pair.client, id, 9_000);
        pair.client.finish(id).unwrap();
        pair.settle();
        let (data, end) = read_all(&mut pair.server, id);
        assert_eq!((data.len(), end), (9_000, Read::Finished));
        pair.server.finish(id).unwrap();
        pair.settle();
        assert_eq!(pair.client.read(id, 1), Read::Finished);
    }
    assert_eq!(pair.client.stats().live, 1);
}

#[test]
fn stream_credit_returns_as_the_application_reads() {
    let mut pair = Pair::new(CONFIG);
    let id = pair.client.open().unwrap();
    write(&mut pair.client, id, 20_000);
    while let Some(packet) = packet(&mut pair.client, 1200) {
        deliver(&mut pair.server, &packet.bytes).unwrap();
    }
    assert!(packet(&mut pair.server, 1200).is_none());
    let mut read = 0;
    while read < 10_000 {
        let Read::Data(data) = pair.server.read(id, 1_000) else { panic!("{read} bytes were read") };
        read += data.len();
        let told = packet(&mut pair.server, 1200).map(|packet| frames(&packet));
        let half_read = (5_000..5_000 + data.len()).contains(&read);
        let max = 10_000 + read as u64;
        assert_eq!(told, half_read.then(|| vec![format!("{:?}", Frame::MaxStreamData { id, max })]));
    }
}

#[test]
fn lost_credit_is_told_again_with_its_latest_value() {
    let mut pair = Pair::new(CONFIG);
    let id = pair.client.open().unwrap();
    write(&mut pair.client, id, 20_000);
    while let Some(packet) = packet(&mut pair.client, 1200) {
        deliver(&mut pair.server, &packet.bytes).unwrap();
    }
    let mut read = 0;
    while read < 6_000 {
        let Read::Data(data) = pair.server.read(id, 1_000) else { panic!("{read} bytes were read") };
        read += data.len();
    }
    let told = packet(&mut pair.server, 1200).unwrap();
    assert_eq!(told.sent.as_slice(), [SentFrame::MaxStreamData(id)]);
    let Read::Data(data) = pair.server.read(id, 700) else { panic!("{read} bytes were read") };
    assert!(!pair.server.has_pending());
    lose(&mut pair.server, &told);
    let again = packet(&mut pair.server, 1200).unwrap();
    let max = 10_000 + (read + data.len()) as u64;
    assert_eq!(frames(&again), [format!("{:?}", Frame::MaxStreamData { id, max })]);
}

#[test]
fn lost_connection_credit_and_stream_limits_are_told_again() {
    let mut server = end(Side::Server, StreamsConfig { streams_max: 1, ..CONFIG });
    server.on_stream(StreamId(0), 0, &[0; 10_000], false).unwrap();
    server.on_reset_stream(StreamId(0), 0, 10_000).unwrap();
    server.reset(StreamId(0), 0);
    server.read(StreamId(0), 1);
    let reset = packet(&mut server, 1200).unwrap();
    acknowledge(&mut server, &reset);
    let told = packet(&mut server, 1200).unwrap();
    assert_eq!(frames(&told), ["MaxStreams(2)"]);
    lose(&mut server, &told);
    lose(
        &mut server,
        &Packet { bytes: vec![], sent: [SentFrame::MaxData].into_iter().collect(), filled: Filled::default() },
    );
    assert_eq!(frames(&packet(&mut server, 1200).unwrap()), ["MaxData(60000)", "MaxStreams(2)"]);
}

#[test]
fn without_connection_credit_only_what_needs_none_is_sent() {
    let config = StreamsConfig { connection_window: 1_000, ..CONFIG };
    let mut client = end(Side::Client, config);
    let [blocked, ended] = [client.open().unwrap(), client.open().unwrap()];
    write(&mut client, blocked, 2_000);
    let first = packet(&mut client, 1200).unwrap();
    assert_eq!(frames(&first), ["stream 0 0+1000 false"]);
    assert!(packet(&mut client, 1200).is_none());
    client.finish(ended).unwrap();
    assert_eq!(frames(&packet(&mut client, 1200).unwrap()), ["stream 2 0+0 true"]);
    lose(&mut client, &first);
    assert_eq!(frames(&packet(&mut client, 1200).unwrap()), ["stream 0 0+1000 false"]);
    assert!(packet(&mut client, 1200).is_none());
    client.on_max_data(1_500);
    assert_eq!(frames(&packet(&mut client, 1200).unwrap()), ["stream 0 1000+500 false"]);
}

#[test]
fn data_for_a_stopped_stream_is_dropped_and_credited() {
    let mut pair = Pair::new(CONFIG);
    let id = opened(&mut pair);
    pair.server.stop(id, 1);
    for part in 0..3 {
        pair.server.on_stream(id, 1 + part * 3_000, &[0; 3_000], false).unwrap();
    }
    assert_eq!(pair.server.stats().receive_buffered_bytes, 0);
    assert_eq!(pair.server.granted.consumed(), 9_001);
}

#[test]
fn a_refused_open_is_possible_when_streams_are_over() {
    let mut pair = Pair::new(StreamsConfig { streams_max: 2, ..CONFIG });
    let [first, _second] = [pair.client.open().unwrap(), pair.client.open().unwrap()];
    assert_eq!(pair.client.open(), Err(OpenError::Blocked));
    pair.client.finish(first).unwrap();
    pair.settle();
    assert_eq!(read_all(&mut pair.server, first).1, Read::Finished);
    pair.server.finish(first).unwrap();
    pair.settle();
    let have = events(&mut pair.client);
    assert!(have.contains(&Event::StreamsAvailable), "{have:?}");
    pair.client.open().unwrap();
    assert_eq!(pair.client.open(), Err(OpenError::Blocked));
}

#[test]
fn nothing_can_be_opened_before_the_peers_limits_are_known() {
    let mut client = Streams::new(Side::Client, CONFIG);
    assert_eq!(client.open(), Err(OpenError::Blocked));
    client.set_peer_limits(PeerLimits { stream_window: 1, connection_window: 1, streams_max: 1 });
    assert_eq!(events(&mut client), [Event::StreamsAvailable]);
    client.open().unwrap();
}

#[test]
fn a_hundred_thousand_streams_beside_a_lasting_one_leave_nothing_behind() {
    let mut pair = Pair::new(CONFIG);
    let lasting = opened(&mut pair);
    for _ in 0..100_000 {
        let id = pair.client.open().unwrap();
        write(&mut pair.client, id, 20);
        pair.client.finish(id).unwrap();
        pair.settle();
        assert_eq!(read_all(&mut pair.server, id).1, Read::Finished);
        write(&mut pair.server, id, 20);
        pair.server.finish(id).unwrap();
        pair.settle();
        assert_eq!(read_all(&mut pair.client, id).1, Read::Finished);
        pair.settle();
        events(&mut pair.client);
        events(&mut pair.server);
    }
    for streams in [&pair.client, &pair.server] {
        assert_eq!(streams.stats().live, 1);
        assert!(streams.live.contains_key(&lasting));
        assert!(streams.live.capacity() <= 64);
        assert_eq!(streams.ids.unseen(), 0);
        assert!(streams.lines.fresh.is_empty() && streams.lines.resend.is_empty() && streams.lines.control.is_empty());
    }
}

#[test]
fn a_window_that_is_too_small_for_the_path_grows_to_its_limits_if_the_application_reads() {
    let config = StreamsConfig { connection_window: 200_000, send_buffer_max: 1 << 20, ..CONFIG };
    let mut pair = Pair::new(config);
    let mut windows = Vec::new();
    for _ in 0..3 {
        let id = pair.client.open().unwrap();
        write(&mut pair.client, id, 1 << 20);
        let mut sent_at_once = 0;
        // A round: everything that credit allows is sent, then read, then the credit comes back.
        for _ in 0..12 {
            let mut came = 0;
            while let Some(packet) = packet(&mut pair.client, 1200) {
                acknowledge(&mut pair.client, &packet);
                let own = |frame: &SentFrame| match *frame {
                    SentFrame::Stream { id: of, len, .. } if of == id => len,
                    _ => 0,
                };
                let bytes = packet.sent.iter().map(own);
                came += bytes.sum::<u32>();
                deliver(&mut pair.server, &packet.bytes).unwrap();
                read_all(&mut pair.server, id);
            }
            sent_at_once = came.max(sent_at_once);
            carry(&mut pair.server, &mut pair.client);
        }
        windows.push(sent_at_once);
    }
    // To the 10,000 of the start the first adds two thirds of 200,000, the next ones as much of what is left.
    assert!(windows[0] >= 120_000 && windows[0] <= 145_000, "{windows:?}");
    assert!(windows[1] >= 40_000 && windows[1] <= 56_000, "{windows:?}");
    assert!(windows[2] >= 15_000 && windows[2] <= 30_000, "{windows:?}");
}

#[test]
fn a_window_does_not_grow_for_an_application_that_does_not_read() {
    let mut pair = Pair::new(CONFIG);
    let id = pair.client.open().unwrap();
    write(&mut pair.client, id, 20_000);
    for _ in 0..10 {
        pair.settle();
        pair.server.on_stream_data_blocked(id).unwrap();
    }
    assert_eq!(pair.server.stats().receive_buffered_bytes, 10_000);
}

#[test]
fn a_sender_without_credit_says_so_once_for_each_limit_and_again_if_it_was_lost() {
    let mut client = end(Side::Client, CONFIG);
    let id = client.open().unwrap();
    write(&mut client, id, 20_000);
    let told = vec![format!("{:?}", Frame::StreamDataBlocked { id, max: 10_000 })];
    // It says so once a quarter of it is on its way.
    let mut tells = Vec::new();
    while let Some(next) = packet(&mut client, 1200) {
        tells.push(frames(&next).contains(&told[0]));
    }
    assert_eq!(tells.iter().filter(|tells| **tells).count(), 1, "{tells:?}");
    assert!(tells[2] || tells[3], "{tells:?}");
    lose(
        &mut client,
        &Packet {
            bytes: vec![],
            sent: [SentFrame::StreamDataBlocked(id)].into_iter().collect(),
            filled: Filled::default(),
        },
    );
    assert_eq!(frames(&packet(&mut client, 1200).unwrap()), told);
    assert!(!client.has_pending());
    client.on_max_stream_data(id, 10_100).unwrap();
    let more = frames(&packet(&mut client, 1200).unwrap());
    let told = format!("{:?}", Frame::StreamDataBlocked { id, max: 10_100 });
    assert_eq!(more, [told.as_str(), "stream 0 10000+100 false"]);
    assert!(!client.has_pending());
    client.reset(id, 1);
    assert_eq!(frames(&packet(&mut client, 1200).unwrap()).len(), 1);
    assert!(!client.has_pending());
}
