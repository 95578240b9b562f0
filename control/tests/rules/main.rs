//! What operators read, `configs/prometheus` and `configs/grafana`, held to what the services export.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

#[path = "../common/mod.rs"]
mod common;
mod promql;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::commands::{path, said, skip, succeeds};
use common::prometheus::{Prometheus, scrape};
use common::*;
use proto::session as session_pb;
use proto::statesync as pb;
use proto::statesync::state_sync_service_client::StateSyncServiceClient;
use quantum_grpc::{Channel, ClientConfig, Verify};
use serde_json::Value;
use uuid::Uuid;

/// Prometheus makes these by itself.
const OF_PROMETHEUS: [&str; 2] = ["up", "ALERTS"];
/// How long Prometheus may take to have something for every query.
const SHOWN_WITHIN: Duration = Duration::from_mins(1);

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs").canonicalize().unwrap()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(configs().join(path)).unwrap_or_else(|error| panic!("configs/{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|error| panic!("configs/{path}: {error}"))
}

/// The rules of all groups in a file.
fn rules(file: &str) -> Vec<Value> {
    let file = yaml(&format!("prometheus/{file}"));
    let groups = file["groups"].as_array().expect("it has groups");
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

/// The files with tests of alerts, by name.
fn alert_tests() -> BTreeMap<String, Value> {
    let folder = std::fs::read_dir(configs().join("prometheus/tests")).unwrap();
    let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.map(|name| (name.clone(), yaml(&format!("prometheus/tests/{name}")))).collect()
}

/// Where each query of the dashboard is, and the query. The first is that of its variable.
fn queries() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&read("grafana/aetherflow.json")).unwrap();
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let variables = variables.filter_map(|variable| {
        let values = variable["query"]["query"].as_str()?.strip_prefix("label_values(")?;
        Some((text(variable, "name").to_owned(), values.rsplit_once(',').unwrap().0.to_owned()))
    });
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let of_panels = panels.flat_map(|panel| {
        let title = text(panel, "title");
        let targets = panel["targets"].as_array().into_iter().flatten();
        targets.map(move |target| (title.to_owned(), text(target, "expr").to_owned()))
    });
    variables.chain(of_panels).collect()
}

/// Runs promtool in `configs/prometheus`; it has to succeed.
fn promtool(arguments: &[&str]) {
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(configs().join("prometheus")).env("PATH", path()).stdin(Stdio::null());
    let output = command.output().unwrap();
    assert!(output.status.success(), "promtool {arguments:?}:\n{}", said(&output));
}

#[test]
fn promtool_finds_the_files_good_and_every_alert_does_as_its_tests_say() {
    if !succeeds("promtool", &["--version"]) {
        skip("no promtool (Debian: prometheus): .ci/tools.sh fetches it");
        return;
    }
    promtool(&["check", "config", "prometheus.yml"]);
    promtool(&["check", "rules", "rules.yml", "alerts.yml"]);
    for name in alert_tests().keys() {
        promtool(&["test", "rules", &format!("tests/{name}")]);
    }
}

#[test]
fn every_alert_says_what_to_do_and_has_a_test_that_fires_it_and_one_that_does_not() {
    let (mut fired, mut quiet) = (BTreeSet::new(), BTreeSet::new());
    let files = alert_tests();
    for test in files.values().flat_map(|file| file["tests"].as_array().unwrap()) {
        for expected in test["alert_rule_test"].as_array().unwrap() {
            let name = text(expected, "alertname");
            let fires = !expected["exp_alerts"].as_array().unwrap().is_empty();
            let seen = if fires { &mut fired } else { &mut quiet };
            seen.insert(name);
        }
    }
    let alerts = rules("alerts.yml");
    assert!(alerts.len() > 10, "{alerts:?}");
    let mut names = BTreeSet::new();
    for alert in &alerts {
        let name = text(alert, "alert");
        assert!(names.insert(name), "{name} is there twice");
        assert!(fired.contains(name), "no test in configs/prometheus/tests fires {name}");
        assert!(quiet.contains(name), "no test in configs/prometheus/tests leaves {name} quiet");
        assert!(["critical", "warning"].contains(&text(&alert["labels"], "severity")), "{name}");
        assert!(!text(alert, "for").is_empty(), "{name}");
        let (summary, description) =
            (text(&alert["annotations"], "summary"), text(&alert["annotations"], "description"));
        assert!(summary.len() > 20 && description.len() > summary.len() / 2, "{name} does not say what to do");
    }
    let unknown: Vec<_> = fired.union(&quiet).filter(|name| !names.contains(**name)).collect();
    assert!(unknown.is_empty(), "tests of alerts that are not there: {unknown:?}");
}

/// Has every metric counted that a service without trouble has, again and again, until it is dropped.
async fn use_everything(world: &World) {
    let address = world.running.statesync_addr.to_string();
    let config = ClientConfig::new(Verify::Pin(world.running.fingerprint.clone()));
    let mut over_quantum = StateSyncServiceClient::new(Channel::connect(&address, config).await.unwrap());
    let (mut sessions, mut documents) = (world.sessions.clone(), world.documents.clone());
    loop {
        let create = session_pb::CreateSessionRequest {
            user_id: "ada".into(),
            client_ip: "127.0.0.1".into(),
            ..Default::default()
        };
        let session_id = sessions.create_session(create).await.unwrap().into_inner().session.unwrap().session_id;
        let heartbeat = session_pb::HeartbeatRequest { session_id, client_timestamp: None };
        sessions.heartbeat(heartbeat).await.unwrap();
        let doc_id = create_text(&mut documents, "").await;
        let mut events = subscribe(&mut documents, subscription(&doc_id, "bob")).await;
        let operation = Some(insertion(&doc_id, Uuid::now_v7(), 1, 0, "x"));
        over_quantum.apply_operation(pb::ApplyOperationRequest { operation }).await.unwrap();
        next_operation(&mut events).await;
        let missing = pb::GetDocumentRequest { doc_id: Uuid::now_v7().to_string() };
        over_quantum.get_document(missing).await.unwrap_err();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Uses everything for as long as `look` takes.
async fn while_used<T>(world: &World, look: impl Future<Output = T>) -> T {
    tokio::select! {
        () = use_everything(world) => unreachable!("it goes on for ever"),
        looked = look => looked,
    }
}

/// The names of the metrics that a scrape has, as queries call them.
fn exported(scraped: &str) -> BTreeSet<String> {
    let kinds = scraped.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    kinds
        .flat_map(|(name, kind)| {
            let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_count", "_sum"] } else { &[""] };
            suffixes.iter().map(move |suffix| format!("{name}{suffix}"))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_that_is_read_is_exported_and_every_recorded_one_is_read() {
    let world = World::start().await;
    // What ends a stream is counted a moment later.
    let deadline = Instant::now() + SHOWN_WITHIN;
    let exported = while_used(&world, async {
        loop {
            let scraped =
                scrape(world.running.session_metrics_addr).await + &scrape(world.running.statesync_metrics_addr).await;
            if scraped.contains("method=\"SubscribeDocument\",code=\"1\"") || Instant::now() > deadline {
                break exported(&scraped);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    world.running.shutdown().await;
    let recording = rules("rules.yml");
    let recorded: BTreeSet<&str> = recording.iter().map(|rule| text(rule, "record")).collect();
    let of_rules = recording.iter().map(|rule| (text(rule, "record").to_owned(), text(rule, "expr").to_owned()));
    let alerts = rules("alerts.yml");
    let of_alerts = alerts.iter().map(|alert| (text(alert, "alert").to_owned(), text(alert, "expr").to_owned()));
    let (mut missing, mut read) = (Vec::new(), BTreeSet::new());
    for (place, expression) in of_rules.chain(of_alerts).chain(queries()) {
        for metric in promql::metrics(&expression) {
            let is_there = exported.contains(&metric) || OF_PROMETHEUS.contains(&metric.as_str());
            if !is_there && !recorded.contains(metric.as_str()) {
                missing.push(format!("{place}: {metric}"));
            }
            read.insert(metric);
        }
    }
    assert!(missing.is_empty(), "no service exports\n{}\nbut\n{exported:?}", missing.join("\n"));
    assert!(read.len() > 50, "the expressions were not understood: {read:?}");
    let unread: Vec<_> = recorded.iter().filter(|name| !read.contains(**name)).collect();
    assert!(unread.is_empty(), "recorded for nobody: {unread:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_real_prometheus_every_rule_and_panel_has_something_and_no_alert_is_near() {
    let world = World::start().await;
    let (data, configs) = (tempfile::tempdir().unwrap(), configs().join("prometheus"));
    let job = |name: &str, address| {
        format!("  - {{job_name: aetherflow-{name}, static_configs: [{{targets: ['{address}']}}]}}\n")
    };
    let config = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
         rule_files: ['{0}/rules.yml', '{0}/alerts.yml']\nscrape_configs:\n{1}{2}",
        configs.display(),
        job("session", world.running.session_metrics_addr),
        job("statesync", world.running.statesync_metrics_addr)
    );
    let Some(prometheus) = Prometheus::start(data.path(), &config, &[]) else {
        skip("no prometheus (Debian: prometheus): .ci/tools.sh fetches it");
        return;
    };
    let recording = rules("rules.yml");
    let mut empty: Vec<(String, String)> =
        recording.iter().map(|rule| ("rules.yml".to_owned(), text(rule, "record").to_owned())).collect();
    empty.extend(queries());
    let count = empty.len();
    let deadline = Instant::now() + SHOWN_WITHIN;
    let pending = while_used(&world, async {
        while !empty.is_empty() && Instant::now() < deadline {
            let mut still_empty = Vec::new();
            for (place, query) in std::mem::take(&mut empty) {
                let asked = query.replace("$__rate_interval", "10s").replace("$job", "aetherflow-.*");
                let answer = prometheus.query(&asked).await;
                if !answer.is_ok_and(|series| !series.is_empty()) {
                    still_empty.push((place, query));
                }
            }
            empty = still_empty;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        // Every alert has to hold for a minute: what would fire is pending now. A slow machine may be slow.
        prometheus.query("ALERTS{alertname!~\"StoreSlow|HighRequestLatency|HighLatency\"}").await
    })
    .await;
    assert!(empty.is_empty(), "nothing to show: {empty:#?}");
    assert_eq!(pending, Ok(Vec::new()), "alerts although all is well");
    println!("Prometheus has something for each of {count} queries");
    world.running.shutdown().await;
}

#[test]
fn the_dashboard_names_no_data_source_of_its_own_and_its_panels_do_not_overlap() {
    let dashboard: Value = serde_json::from_str(&read("grafana/aetherflow.json")).unwrap();
    assert_eq!(text(&dashboard, "refresh"), "30s");
    let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = text(panel, "title");
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title} has the id of another panel");
        let side = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        for x in side("x")..side("x") + side("w") {
            assert!(x < 24, "{title} is beyond the right edge");
            for y in side("y")..side("y") + side("h") {
                assert!(cells.insert((x, y)), "{title} covers another panel");
            }
        }
        let targets = panel["targets"].as_array().into_iter().flatten();
        let panel = panel["type"].as_str().filter(|kind| *kind != "row").map(|_| panel);
        for asks in panel.into_iter().chain(targets) {
            assert_eq!(text(&asks["datasource"], "uid"), "${datasource}", "{title}");
        }
    }
    let rows = dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] == "row");
    let rows: Vec<_> = rows.map(|row| text(row, "title")).collect();
    assert_eq!(rows, ["Overview", "Requests", "Sessions", "Documents", "Quantum", "Stores", "Process"]);
}
