use super::*;

const DATA: ReceivedInfo =
    ReceivedInfo { ack_eliciting: true, repair_only: false, message_end: false, ce: false, epoch: Epoch::OneRtt0 };

fn at(micros: u64) -> Time {
    Time::from_nanos(micros * 1000)
}

fn with(numbers: impl IntoIterator<Item = u64>) -> ReceivedPackets {
    let mut received = ReceivedPackets::new();
    for number in numbers {
        assert!(received.on_received(at(0), number, DATA));
    }
    received.on_ack_sent();
    received
}

#[test]
fn a_lone_packet_waits_for_data_to_ride_on_and_the_second_does_not() {
    let mut received = with([]);
    assert!(received.on_received(at(10), 0, DATA));
    assert_eq!(received.ack_due(), Some(at(1010)));
    assert!(received.on_received(at(20), 1, DATA));
    assert_eq!(received.ack_due(), Some(at(20)));
    received.on_ack_sent();
    assert_eq!(received.ack_due(), None);
}

#[test]
fn the_delay_is_a_share_of_a_short_round_trip() {
    let (end, repair) = (ReceivedInfo { message_end: true, ..DATA }, ReceivedInfo { repair_only: true, ..DATA });
    let (short, long) = (Duration::from_micros(800), Duration::from_millis(200));
    for (info, rtt, due) in [
        (DATA, short, 100),
        (end, short, 50),
        (repair, short, 200),
        (DATA, long, 1_000),
        (end, long, 500),
        (repair, long, 5_000),
    ] {
        let mut received = with([0]);
        received.set_ack_delay(rtt);
        received.on_received(at(0), 1, info);
        assert_eq!(received.ack_due(), Some(at(due)), "{info:?} {rtt:?}");
    }
}

#[test]
fn gaps_reordering_marks_and_handshakes_are_acknowledged_at_once() {
    let cases = [
        (5, DATA),
        (2, DATA),
        (4, ReceivedInfo { ce: true, ..DATA }),
        (4, ReceivedInfo { epoch: Epoch::Handshake, ..DATA }),
    ];
    for (number, info) in cases {
        let mut received = with([0, 1, 3]);
        received.on_received(at(7), number, info);
        assert_eq!(received.ack_due(), Some(at(7)), "{number} {info:?}");
    }
}

#[test]
fn acknowledgements_are_not_acknowledged_alone() {
    let mut received = with([0]);
    received.on_received(at(5), 4, ReceivedInfo { ack_eliciting: false, ..DATA });
    assert_eq!(received.ack_due(), None);
    assert_eq!(received.sack_blocks().collect::<Vec<_>>(), [(4, 4), (0, 0)]);
}

#[test]
fn duplicates_are_told() {
    let mut received = with([0, 1, 2, 9]);
    assert!(!received.on_received(at(0), 1, DATA));
    assert!(received.is_duplicate(9) && !received.is_duplicate(8));
    received.on_ack_of_ack(9);
    assert!(received.is_duplicate(2) && !received.is_duplicate(5));
}

#[test]
fn at_most_eight_blocks_go_into_a_header_and_the_newest_come_first() {
    let received = with((0..20).map(|index| index * 2));
    assert!(received.needs_ack_frame());
    let blocks: Vec<_> = received.sack_blocks().collect();
    assert_eq!(blocks.len(), SACK_BLOCKS_MAX);
    assert_eq!(blocks[0], (38, 38));
    assert_eq!(received.ranges().count(), 20);
}

#[test]
fn a_reported_range_is_reported_until_the_report_is_acknowledged() {
    let mut received = with([0, 1, 5, 6]);
    received.on_ack_of_ack(1);
    assert_eq!(received.ranges().collect::<Vec<_>>(), [(5, 6)]);
    received.on_ack_of_ack(6);
    assert_eq!(received.ranges().collect::<Vec<_>>(), [(6, 6)], "block 0 always ends at the largest number");
}

#[test]
fn a_late_packet_is_reported_though_an_older_report_up_to_there_is_acknowledged() {
    let mut received = with([0, 1, 5, 6]);
    // The report of 0, 1, 5, 6 is on its way when 3 comes in.
    assert!(received.on_received(at(9), 3, DATA));
    received.on_ack_of_ack(6);
    assert_eq!(received.ranges().collect::<Vec<_>>(), [(6, 6), (3, 3)]);
    assert!(received.on_received(at(9), 7, DATA));
    received.on_ack_of_ack(7);
    assert_eq!(received.ranges().collect::<Vec<_>>(), [(7, 7)]);
}

#[test]
fn memory_stays_bounded_and_the_oldest_count_as_received() {
    let mut received = with((0..1000).map(|index| index * 2));
    assert_eq!(received.seen.len(), RANGES_MAX);
    assert_eq!(received.ranges().count(), RANGES_MAX);
    assert!(!received.on_received(at(0), 1, DATA), "too old to tell");
    assert!(received.on_received(at(0), 1997, DATA), "a recent gap still fills");
    assert!(received.late.len() <= LATE_MAX);
}

#[test]
fn a_mark_is_echoed_once() {
    let mut received = with([0]);
    received.on_received(at(0), 1, ReceivedInfo { ce: true, ..DATA });
    assert!(received.ce_pending());
    received.on_ack_sent();
    assert!(!received.ce_pending());
}
