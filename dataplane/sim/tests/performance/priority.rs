//! Small requests beside streams that fill the path.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use quantum::{Event, Priority, Read, StreamId, Time};
use quantum_sim::Pair;

use super::{connected, path, percentile, with_fec};

const BULKS: usize = 32;
const REQUESTS: u32 = 400;

/// Keeps what the bulk streams send from running out.
fn feed(pair: &mut Pair, bulks: &[StreamId]) {
    let mut client = pair.client();
    for &id in bulks {
        while client.write(id, &mut Bytes::from_static(&[5; 16 << 10])) == Ok(16 << 10) {}
    }
}

/// How long small requests take, one every 10 ms, beside bulk streams that fill a path of 20 Mbit/s and 20 ms; and how many bytes
/// of bulk were sent in that time.
fn requests_beside_bulk(priority: Priority) -> (Vec<Duration>, u64) {
    let mut pair = connected(&path(10, 0.0, Some(20_000_000)), &with_fec(), 7);
    let bulks: Vec<StreamId> = (0..BULKS).map(|_| pair.client().open().expect("streams are allowed")).collect();
    let start = pair.now() + Duration::from_secs(2);
    let due = |nth: u32| start + Duration::from_millis(10) * nth;
    let (mut nth, mut sent, mut times, mut bytes) = (0, HashMap::<StreamId, Time>::new(), Vec::new(), 0);
    while times.len() < REQUESTS as usize {
        assert!(pair.now() < due(REQUESTS) + Duration::from_secs(20), "{} answers", times.len());
        feed(&mut pair, &bulks);
        if nth < REQUESTS && pair.now() >= due(nth) {
            let mut client = pair.client();
            let id = client.open().expect("streams are allowed");
            client.set_priority(id, priority);
            assert_eq!(client.write(id, &mut Bytes::from_static(&[1; 256])), Ok(256));
            client.finish(id).expect("it is open");
            sent.insert(id, due(nth));
            nth += 1;
        }
        let until = if nth < REQUESTS { due(nth) } else { pair.now() + Duration::from_millis(10) };
        pair.step(until, |pair, is_server, event| {
            let (Event::StreamReadable(id) | Event::StreamOpened(id)) = event else { return };
            let connection = if is_server { pair.server() } else { Some(pair.client()) };
            let mut connection = connection.expect("it is connected");
            loop {
                match connection.read(id, usize::MAX) {
                    Read::Data(data) if is_server => bytes += data.len() as u64,
                    Read::Data(_) => {}
                    Read::Finished if is_server => {
                        connection.set_priority(id, priority);
                        let _ = connection.write(id, &mut Bytes::from_static(&[2; 256]));
                        let _ = connection.finish(id);
                        break;
                    }
                    Read::Finished => {
                        drop(connection);
                        times.extend(sent.remove(&id).map(|at| pair.now() - at));
                        break;
                    }
                    Read::Blocked | Read::Reset(_) => break,
                }
            }
        });
    }
    times.sort();
    (times, bytes)
}

#[test]
fn an_urgent_request_beside_full_streams_waits_for_none_of_them() {
    let (usual, usual_bytes) = requests_beside_bulk(Priority::default());
    let (urgent, urgent_bytes) = requests_beside_bulk(Priority::URGENT);
    let [usual_p50, usual_p99] = [0.5, 0.99].map(|share| percentile(&usual, share));
    let [p50, p99] = [0.5, 0.99].map(|share| percentile(&urgent, share));
    println!(
        "256 B beside {BULKS} bulk streams at 20 Mbit/s, RTT 20 ms: p50 {usual_p50:?}, p99 {usual_p99:?}; urgent: p50 {p50:?}, p99 \
         {p99:?}; bulk {usual_bytes} and {urgent_bytes} B"
    );
    assert!(p50 < usual_p50 && p99 < usual_p99, "urgent is faster");
    // The path's queue is half a BDP, 10 ms, at most; nothing waits in the sender.
    assert!(p50 < Duration::from_millis(32), "{p50:?}");
    assert!(urgent_bytes > usual_bytes * 9 / 10, "the bulk goes on");
}
