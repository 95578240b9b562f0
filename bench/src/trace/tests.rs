use std::io::Write;

use super::{Causality, TraceError, generate, parse, to_json};

fn error(json: &str) -> String {
    parse(json.as_bytes()).and_then(|trace| Causality::new(&trace).map(|_| ())).unwrap_err().to_string()
}

#[test]
fn a_trace_written_and_read_again_is_the_same() {
    let mut trace = generate(3, 500, 9);
    trace.transactions.iter_mut().for_each(|transaction| transaction.time_ms = 0);
    let json = to_json(&trace).unwrap();
    assert_eq!(parse(&json).unwrap(), trace);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&json).unwrap();
    assert_eq!(parse(&packed.finish().unwrap()).unwrap(), trace);
}

#[test]
fn the_same_seed_generates_the_same_trace_and_writers_really_work_at_the_same_time() {
    let trace = generate(2, 1000, 5);
    assert_eq!(trace, generate(2, 1000, 5));
    assert_ne!(trace.end_content, generate(2, 1000, 6).end_content);
    let merges = trace.transactions.iter().filter(|transaction| transaction.parents.len() == 2).count();
    assert!(merges > 20, "{merges} merges of concurrent work");
}

#[test]
fn a_sequential_trace_has_one_writer_and_starts_with_its_start_content() {
    let json =
        r#"{"startContent":"ab","endContent":"aXb","txns":[{"time":"2020-01-01T00:00:00Z","patches":[[1,0,"X"]]}]}"#;
    let trace = parse(json.as_bytes()).unwrap();
    assert_eq!((trace.agents, trace.transactions.len(), trace.concurrent), (1, 2, false));
    assert_eq!(trace.transactions[0].patches[0].inserted, "ab");
    assert_eq!(trace.transactions[1].parents, [0]);
}

#[test]
fn malformed_traces_are_refused_with_the_reason() {
    let concurrent = |txns: &str| format!(r#"{{"kind":"concurrent","endContent":"","numAgents":2,"txns":[{txns}]}}"#);
    let cases = [
        ("{", "not a trace"),
        ("[]", "not a trace"),
        (r#"{"endContent":"","txns":[]}"#, "0 transactions"),
        (r#"{"endContent":"","txns":[{"patches":[[-1,0,""]]}]}"#, "not a trace"),
        (r#"{"endContent":"","numAgents":0,"txns":[{"patches":[]}]}"#, "0 writers"),
        (r#"{"endContent":"","numAgents":99999,"txns":[{"patches":[]}]}"#, "99999 writers"),
        (
            &concurrent(r#"{"parents":[0],"agent":0,"patches":[]}"#),
            "transaction 0: its parent 0 does not come before it",
        ),
        (&concurrent(r#"{"parents":[],"agent":2,"patches":[]}"#), "its agent is 2"),
        (&concurrent(r#"{"agent":0,"patches":[]}"#), "no parents"),
        (&concurrent(r#"{"parents":[],"agent":0,"time":"yesterday","patches":[]}"#), "RFC 3339"),
        (
            &concurrent(r#"{"parents":[],"agent":0,"patches":[]},{"parents":[],"agent":0,"patches":[]}"#),
            "transaction 1: writer 0 had not seen its own",
        ),
    ];
    for (json, reason) in cases {
        let said = error(json);
        assert!(said.contains(reason), "{json}: {said}");
    }
    assert!(matches!(parse(&[0x1f, 0x8b, 1, 2, 3]), Err(TraceError::Read(_))));
    for source in
        ["generate:", "generate:0,1,1", "generate:2,1", "generate:2,1,1,1", "generate:a,b,c", "generate:65,1,1"]
    {
        assert!(matches!(super::load(source), Err(TraceError::Generate(_))), "{source}");
    }
}

#[test]
fn a_packed_bomb_is_refused_before_it_fills_the_memory() {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let zeros = vec![b' '; 1 << 20];
    for _ in 0..300 {
        packed.write_all(&zeros).unwrap();
    }
    assert!(matches!(parse(&packed.finish().unwrap()), Err(TraceError::TooLarge)));
}

#[test]
fn times_with_and_without_a_zone_offset_are_read() {
    let ms = super::parse::timestamp_ms;
    assert_eq!(ms("1970-01-01T00:00:00Z"), Some(0));
    assert_eq!(ms("1970-01-01T00:00:00+00:00"), Some(0));
    assert_eq!(ms("2020-10-18T07:27:11.250Z"), Some(1_603_006_031_250));
    assert_eq!(ms("2020-10-18T09:27:11.250+02:00"), Some(1_603_006_031_250));
    for wrong in [
        "",
        "T",
        "2020-13-01T00:00:00Z",
        "2020-01-01T00:00:00",
        "2020-01-01T00:00:00+9999999999999999:00",
        "2020-01-01T00:00:00é",
    ] {
        assert_eq!(ms(wrong), None, "{wrong}");
    }
}

#[test]
fn ancestors_are_a_prefix_of_every_writer() {
    let txn = |parents: &str, agent: u32| format!(r#"{{"parents":{parents},"agent":{agent},"patches":[]}}"#);
    let txns = [txn("[]", 0), txn("[0]", 0), txn("[0]", 1), txn("[1,2]", 1), txn("[1]", 0)].join(",");
    let json = format!(r#"{{"kind":"concurrent","endContent":"","numAgents":2,"txns":[{txns}]}}"#);
    let causality = Causality::new(&parse(json.as_bytes()).unwrap()).unwrap();
    assert_eq!(causality.frontier(2), [1, 0]);
    assert_eq!(causality.frontier(3), [2, 1]);
    assert_eq!(causality.frontier(4), [2, 0]);
    assert_eq!((causality.own(0), causality.own(1)), (&[0, 1, 4][..], &[2, 3][..]));
    assert!(causality.crosses(0) && causality.crosses(1) && !causality.crosses(2));
    assert_eq!(causality.totals(), [3, 2]);
}
