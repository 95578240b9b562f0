//! Reports of made-up results.

mod sample;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use roxmltree::Document;

use super::merge::Campaign;
use super::targets::{self, State};
use super::{page, read, write};
use crate::compare::model::{Cell, Outcome, Results, Workload};

struct Report {
    html: String,
    markdown: String,
    chart: String,
}

fn report(results: &Results) -> Report {
    let folder = tempfile::tempdir().unwrap();
    write(results, folder.path()).unwrap();
    let of = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let report = Report { html: of("report.html"), markdown: of("summary.md"), chart: of("chart.svg") };
    check(&report);
    report
}

/// What holds for every report: well-formed, no script, nothing from elsewhere, no broken number, all marks inside.
fn check(report: &Report) {
    let xml = report.html.replace("<!DOCTYPE html>", "").replace("<meta ", "<meta/><meta-data ");
    // `meta` has no end tag; everything else has.
    let xml = xml
        .split("<meta-data ")
        .enumerate()
        .map(|(nth, part)| if nth == 0 { part.to_owned() } else { part.split_once('>').unwrap().1.to_owned() })
        .collect::<String>();
    let html = Document::parse(&xml).unwrap();
    let chart = Document::parse(&report.chart).unwrap();
    for node in html.descendants().chain(chart.descendants()).filter(roxmltree::Node::is_element) {
        assert!(!["script", "img", "link", "iframe", "object", "foreignObject"].contains(&node.tag_name().name()));
        for attribute in node.attributes() {
            let (name, value) = (attribute.name(), attribute.value());
            assert!(!name.starts_with("on") && name != "src", "{name}={value}");
            assert!(name != "href" || value.starts_with('#'), "{value}");
            let drawn =
                ["d", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "width", "height", "points"].contains(&name);
            assert!(!drawn || !(value.contains("NaN") || value.contains("inf")), "{name}={value}");
        }
    }
    for svg in html
        .descendants()
        .chain(chart.descendants())
        .filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "svg")))
    {
        inside(svg);
    }
    let ids: Vec<&str> = html.descendants().filter_map(|node| node.attribute("id")).collect();
    for link in html.descendants().filter_map(|node| node.attribute("href")) {
        assert!(ids.contains(&&link[1..]), "{link}");
    }
}

fn inside(svg: roxmltree::Node<'_, '_>) {
    let size: Vec<f64> = svg.attribute("viewBox").unwrap().split(' ').map(|number| number.parse().unwrap()).collect();
    for node in svg.descendants() {
        for (names, most) in [(["x", "x1", "x2", "cx"], size[2]), (["y", "y1", "y2", "cy"], size[3])] {
            for value in names.iter().filter_map(|name| node.attribute(*name)) {
                assert!((0.0..=most).contains(&value.parse().unwrap()), "{value} of {most}: {node:?}");
            }
        }
    }
}

fn messages(peer: &str, round: u32, outcome: Outcome) -> Cell {
    sample::cell(Workload::Messages, sample::path(50.0, 5.0), peer, round, outcome)
}

#[test]
fn a_full_campaign_becomes_a_page_a_summary_and_a_chart() {
    let results = sample::results(sample::campaign());
    let report = report(&results);
    for peer in sample::PEERS {
        assert!([&report.html, &report.markdown, &report.chart].iter().all(|text| text.contains(peer)), "{peer}");
    }
    for text in ["with changes that are in no commit", "Linux 6.18.0", "7, 14, 21", "TLS13_AES_128_GCM_SHA256"] {
        assert!(report.html.contains(text) && report.markdown.contains(&text.replace('_', "\\_")), "{text}");
    }
    // For whoever wants to look at it: REPORT_SAMPLE=DIR.
    if let Some(folder) = std::env::var_os("REPORT_SAMPLE") {
        write(&results, folder.as_ref()).unwrap();
    }
}

#[test]
fn nothing_measured_is_said_to_be_not_measured() {
    let report = report(&sample::results(Vec::new()));
    assert!(report.html.contains("Not measured in this run."));
    assert!(report.chart.contains("not measured"));
    let empty = sample::results(Vec::new());
    let (met, missed, unmeasured) = targets::count(&targets::evaluate(&Campaign::new(&empty)));
    assert_eq!((met, missed), (0, 0));
    assert!(unmeasured > 20);
}

#[test]
fn failed_cells_and_missing_rounds_are_shown_with_their_reason_and_are_no_zero() {
    let all = vec![
        messages("quinn-bbr", 1, Outcome::Failed("the peer aborted".to_owned())),
        messages("tcp-bbr", 1, sample::latency(&[(60.0, 2_000)])),
        messages("tcp-bbr", 3, sample::latency(&[(60.0, 2_000)])),
        messages("quantum-grpc", 1, sample::latency(&[(50.0, 2_000)])),
        messages("quantum-grpc", 2, Outcome::Failed("link gone".to_owned())),
        messages("quantum-grpc", 3, sample::latency(&[(52.0, 2_000)])),
    ];
    let report = report(&sample::results(all));
    for text in [&report.html, &report.markdown] {
        assert!(text.contains("round 1 failed: the peer aborted; 2 rounds not measured"), "{text}");
        assert!(text.contains("round 2 failed: link gone"));
        assert!(text.contains("1 round not measured"));
        assert!(text.contains("50.0 / 52.0 / 52.0"), "both rounds are in one histogram");
    }
    let row = report.markdown.lines().find(|line| line.starts_with("| quinn-bbr |")).unwrap();
    assert_eq!(row, "| quinn-bbr | **failed** [3] |");
}

#[test]
fn markup_in_names_and_reasons_stays_text() {
    let evil = "<script>alert(1)</script>\"'&]]>|`**\u{0}\u{7f}\nnext";
    let mut results = sample::results(vec![
        messages(evil, 1, Outcome::Failed(evil.to_owned())),
        messages(&format!("quantum-grpc{evil}"), 1, sample::latency(&[(50.0, 2_000)])),
        sample::cell(Workload::Concurrent, sample::path(1.0, 0.0), evil, 1, sample::latency(&[(1.0, 5)])),
    ]);
    let mut cell = messages("quantum-grpc", 1, sample::latency(&[(50.0, 2_000)]));
    cell.path.name = format!("wifi{evil}");
    results.cells.push(cell);
    for text in [&mut results.commit, &mut results.cipher, &mut results.machine.kernel, &mut results.plan] {
        text.push_str(evil);
    }
    let report = report(&results);
    assert!(
        !report.html.contains("<script") && !report.chart.contains("<script") && !report.markdown.contains("<script")
    );
    assert!(report.markdown.lines().all(|line| !line.starts_with("next")));
}

#[test]
fn bad_histograms_fail_their_cell_and_nothing_else() {
    let Outcome::Latency(good) = sample::latency(&[(50.0, 2_000)]) else { unreachable!() };
    let packed = STANDARD.decode(&good.histogram).unwrap();
    let mut bad = vec![
        (String::new(), "too short"),
        ("not base64!".to_owned(), "not base64"),
        ("A".repeat(800 << 10), "longer than"),
        (STANDARD.encode(&packed[..12]), "inflated"),
        (STANDARD.encode(b"\x1c\x84\x93\x14\0\0\0\x04abcd"), "inflated"),
        (STANDARD.encode(deflated(&vec![0; 2 << 20])), "too long when inflated"),
        (STANDARD.encode(deflated(&header(&[], 2, u64::MAX))), "higher values"),
        (STANDARD.encode(deflated(&header(&[], 5, 1 << 40))), "more digits"),
        (STANDARD.encode(deflated(&header(&[0xff; 18], 3, 1 << 40))), "beyond any measurement"),
        (STANDARD.encode(deflated(&header(&[], 3, 1 << 40))), "no request"),
        (STANDARD.encode(deflated(&header(&[0xff], 3, 1 << 40))), "V2"),
    ];
    bad.extend((0..packed.len()).map(|cut| (STANDARD.encode(&packed[..cut]), "histogram")));
    for (text, reason) in bad {
        let mut latency = good.clone();
        latency.histogram = text;
        let results = sample::results(vec![messages("quinn-bbr", 1, Outcome::Latency(latency))]);
        let campaign = Campaign::new(&results);
        let trouble = campaign.groups[0].trouble(1).unwrap();
        assert!(trouble.contains(reason), "{reason}: {trouble}");
        assert!(campaign.groups[0].requests().is_none());
    }
}

fn header(counts: &[u8], digits: u32, highest: u64) -> Vec<u8> {
    let mut plain = 0x1c84_9313_u32.to_be_bytes().to_vec();
    for word in [counts.len() as u32, 0, digits] {
        plain.extend(word.to_be_bytes());
    }
    plain.extend(1_u64.to_be_bytes());
    plain.extend(highest.to_be_bytes());
    plain.extend(1.0_f64.to_be_bytes());
    plain.extend(counts);
    plain
}

fn deflated(plain: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(plain).unwrap();
    let body = encoder.finish().unwrap();
    let mut packed = 0x1c84_9314_u32.to_be_bytes().to_vec();
    packed.extend((body.len() as u32).to_be_bytes());
    packed.extend(body);
    packed
}

#[test]
fn hostile_numbers_neither_panic_nor_leave_the_charts() {
    let mut cells = sample::campaign();
    let extremes = [f64::MAX, -1.0, 0.0, 5e-324, 1e300];
    for (nth, cell) in cells.iter_mut().enumerate() {
        let extreme = extremes[nth % extremes.len()];
        match &mut cell.outcome {
            Outcome::Goodput(goodput) => {
                (goodput.mbit_per_s, goodput.queue_bytes_mean, goodput.cpu_s) = (extreme, Some(extreme), extreme);
            }
            Outcome::Shares(shares) => shares[0].mbit_per_s = extreme,
            Outcome::Latency(latency) => {
                (latency.sent, latency.received, latency.errors) = (u64::MAX, 0, u64::MAX);
                (latency.per_s, latency.cpu_s, latency.wire_bytes_sent) = (extreme, extreme, u64::MAX);
            }
            Outcome::Failed(_) => cell.outcome = Outcome::Shares(Vec::new()),
        }
        if nth % 3 == 0 {
            (cell.path.rtt_ms, cell.path.rate_mbit, cell.seconds) = (extreme, Some(extreme), extreme);
        }
    }
    report(&sample::results(cells));
}

#[test]
fn more_peers_than_labels_fit_are_drawn_without_labels() {
    let cells = (0..200).map(|nth| messages(&format!("peer-{nth}"), 1, sample::latency(&[(50.0, 2_000)]))).collect();
    report(&sample::results(cells));
}

fn verdicts(cells: Vec<Cell>, kind: &str) -> Vec<(State, String)> {
    let results = sample::results(cells);
    let kinds = targets::evaluate(&Campaign::new(&results));
    let kind = kinds.into_iter().find(|known| known.title.contains(kind)).unwrap();
    let all = kind.verdicts.into_iter().filter(|verdict| verdict.state != State::NotMeasured);
    all.map(|verdict| (verdict.state, verdict.measured)).collect()
}

#[test]
fn targets_of_latency_are_computed_from_the_histograms_of_all_rounds() {
    let slow = |count| sample::latency(&[(50.0, 6_000 - count), (59.6, count)]);
    let rounds = |count| (1..=3).map(|round| messages("quantum-grpc", round, slow(count))).collect::<Vec<_>>();
    let (met, missed) = (verdicts(rounds(50), "loss: p99"), verdicts(rounds(70), "loss: p99"));
    assert_eq!(met, [(State::Met, "50.0 ms".to_owned())]);
    assert_eq!(missed, [(State::Missed, "59.6 ms".to_owned())], "59.5 is the limit");
    let short = verdicts(vec![messages("quantum-grpc", 1, slow(50))], "loss: p99");
    assert_eq!(short, [(State::Met, "50.0 ms; from 20 s, 1 round, 1 seed only".to_owned())]);
    let few = verdicts(vec![messages("quantum-grpc", 1, sample::latency(&[(50.0, 800)]))], "p99.9");
    assert_eq!(few, [], "800 requests have no p99.9");
}

#[test]
fn a_clean_path_is_compared_with_the_better_grpc_over_tcp() {
    let clean = |peer: &str, ms: f64| {
        sample::cell(Workload::Messages, sample::path(50.0, 0.0), peer, 1, sample::latency(&[(ms, 2_000)]))
    };
    let cells = vec![clean("tcp-grpc-bbr", 60.0), clean("tcp-grpc-cubic", 50.0), clean("quantum-grpc", 53.0)];
    let states: Vec<State> = verdicts(cells, "beside gRPC").into_iter().map(|(state, _)| state).collect();
    assert_eq!(states, [State::Missed, State::Missed]);
}

#[test]
fn bulk_fairness_and_unlimited_targets_are_computed() {
    let cells = sample::campaign();
    let state = |kind: &str| verdicts(cells.clone(), kind).into_iter().map(|(state, _)| state).collect::<Vec<_>>();
    assert_eq!(
        state("beside a flow"),
        [State::Missed, State::Met, State::Missed, State::Met],
        "22 of 92 is no quarter"
    );
    assert_eq!(state("several flows"), [State::Met; 4]);
    assert!(!state("ahead of every peer").is_empty() && !state("half a BDP").is_empty());
    assert!(!state("first round").is_empty() && !state("final").is_empty());
}

#[test]
fn the_better_number_of_workers_counts_for_each_side() {
    let fast = |peer: &str, count| {
        let answered = sample::latency(&[(1.0, count)]);
        sample::cell(Workload::Concurrent, sample::unlimited(), peer, 1, answered)
    };
    let cells = vec![
        fast("quantum-grpc", 200_000),
        fast("quantum-grpc-1-worker", 300_000),
        fast("quantum-grpc-nofec", 900_000),
        fast("tcp-grpc-cubic", 100_000),
        fast("tcp-grpc-cubic-1-worker", 400_000),
    ];
    let (state, measured) = verdicts(cells, "first round").swap_remove(0);
    assert_eq!(state, State::Missed);
    assert_eq!(measured, "quantum-grpc-1-worker 15,000, tcp-grpc-cubic-1-worker 20,000: 0.75 x");
}

#[test]
fn a_folder_with_bad_results_gives_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let error = |text: Option<&str>| {
        if let Some(text) = text {
            std::fs::write(folder.path().join("results.json"), text).unwrap();
        }
        format!("{:#}", read(folder.path()).unwrap_err())
    };
    assert!(error(None).contains("results.json cannot be opened"));
    assert!(error(Some("{\"cells\": [")).contains("results.json does not hold results of a comparison"));
    let deep = "[".repeat(100_000);
    assert!(error(Some(&deep)).contains("does not hold results"));
    let good = serde_json::to_string(&sample::results(sample::campaign())).unwrap();
    std::fs::write(folder.path().join("results.json"), &good).unwrap();
    let again = read(folder.path()).unwrap();
    assert_eq!(
        page::page(&Campaign::new(&again), &[]).len(),
        page::page(&Campaign::new(&sample::results(sample::campaign())), &[]).len()
    );
}

#[test]
fn targets_without_a_measurement_stand_together_and_none_is_left_out() {
    let empty = sample::results(Vec::new());
    let kinds = targets::evaluate(&Campaign::new(&empty));
    assert!(kinds.iter().all(|kind| !kind.verdicts.is_empty()));
    let p99 = targets::table(&kinds[0]).markdown();
    assert_eq!(p99.lines().filter(|line| line.contains("not measured |")).count(), 1, "{p99}");
    assert!(p99.contains("20 ms, 1 %; 20 ms, 5 %") && p99.contains("| p99 &lt;= 1.15 x RTT + 2 ms |"), "{p99}");
}
