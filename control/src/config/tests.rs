use std::path::Path;
use std::time::Duration;

use quantum::{CongestionControl, FecConfig, FecMode};
use serde_json::Value;

use crate::launch::endpoint_options;

use super::{Config, ConfigError, Loaded, LogFormat, SessionConfig, StateSyncConfig, StoreType, SyncMode, parse};

fn session(text: &str) -> Result<SessionConfig, ConfigError> {
    parse(text, Some(Path::new("s.yaml")), &[]).map(|loaded| loaded.config)
}

fn statesync_with(text: &str, variables: &[(&str, &str)]) -> Result<Loaded<StateSyncConfig>, ConfigError> {
    let variables: Vec<_> = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    parse(text, Some(Path::new("d.yaml")), &variables)
}

fn message<T: std::fmt::Debug>(result: Result<T, ConfigError>) -> String {
    result.unwrap_err().to_string()
}

/// The names of the innermost keys, with their sections.
fn keys(value: &Value, section: &str, keys: &mut Vec<String>) {
    let Value::Object(map) = value else { return keys.push(section.to_owned()) };
    for (name, value) in map {
        let inner = if section.is_empty() { name.clone() } else { format!("{section}.{name}") };
        self::keys(value, &inner, keys);
    }
}

fn shows_every_key_with_its_default<T: Config + PartialEq + std::fmt::Debug>() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(T::DEFAULT_FILE);
    let text = std::fs::read_to_string(&path).unwrap();
    let loaded: Loaded<T> = parse(&text, Some(&path), &[]).unwrap();
    assert_eq!(loaded.config, T::default());
    let (mut shown, mut known) = (Vec::new(), Vec::new());
    keys(&serde_saphyr::from_str(&text).unwrap(), "", &mut shown);
    keys(&serde_json::to_value(T::default()).unwrap(), "", &mut known);
    shown.sort();
    known.sort();
    assert_eq!(shown, known);
}

#[test]
fn the_files_in_configs_show_every_key_with_its_default() {
    shows_every_key_with_its_default::<SessionConfig>();
    shows_every_key_with_its_default::<StateSyncConfig>();
}

#[test]
fn what_is_printed_can_be_read_again() {
    let mut config = StateSyncConfig::default();
    config.server.port = 7;
    config.quantum.cores = vec![1];
    config.quantum.fec.mode = super::FecMode::Off;
    config.manager.lock_timeout = Duration::from_millis(1500);
    assert_eq!(statesync_with(&super::to_yaml(&config), &[]).unwrap().config, config);
}

#[test]
fn a_file_overrides_defaults_and_the_environment_overrides_the_file() {
    let text = "Server:\n  Port: 7000\nStore:\n  Type: memory\nManager:\n  LockTimeout: 1m30s\nLog:\n  # all of it commented out\n";
    let variables = [
        ("AETHERFLOW_SERVER_PORT", "7001"),
        ("AETHERFLOW_QUANTUM_CORES", "[0, 1]"),
        ("AETHERFLOW_QUANTUM_SHARDS", "2"),
        ("AETHERFLOW_QUANTUM_QLOG", "/var/log/aetherflow/qlog"),
    ];
    let loaded = statesync_with(text, &variables).unwrap();
    assert_eq!(loaded.config.server.port, 7001);
    assert_eq!(loaded.config.store.r#type, StoreType::Memory);
    assert_eq!(loaded.config.manager.lock_timeout, Duration::from_secs(90));
    assert_eq!(loaded.config.quantum.cores, [0, 1]);
    assert_eq!(loaded.config.quantum.qlog, Path::new("/var/log/aetherflow/qlog"));
    assert_eq!((loaded.config.store.sync, loaded.config.log.format), (SyncMode::Full, LogFormat::Json));
    assert_eq!(loaded.variables.len(), 4);
}

#[test]
fn a_text_in_the_environment_stays_a_text() {
    let loaded = statesync_with("", &[("AETHERFLOW_STORE_POSTGRES_PASSWORD", "12345")]).unwrap();
    assert_eq!(loaded.config.store.postgres.password, "12345");
}

#[test]
fn an_unknown_key_is_named_with_its_file_and_what_may_be_meant() {
    assert_eq!(message(session("Server:\n  Prot: 1\n")), "s.yaml: there is no key Server.Prot; is Server.Port meant?");
    assert_eq!(message(session("Zebra: 1\n")), "s.yaml: there is no key Zebra");
    assert!(message(session("Manager:\n  LockTimeout: 1s\n")).contains("there is no key Manager"), "it is statesync's");
}

#[test]
fn a_variable_that_names_no_key_is_told_of() {
    let variables = [("AETHERFLOW_SERVER_PROT", "1"), ("AETHERFLOW_DATA", "x"), ("PATH", "y")];
    assert_eq!(statesync_with("", &variables).unwrap().ignored, ["AETHERFLOW_SERVER_PROT"]);
}

#[test]
fn a_value_of_the_wrong_type_is_named_with_where_it_comes_from() {
    let said = message(session("Server:\n  Port: 99999\n"));
    assert!(said.starts_with("s.yaml: Server.Port: ") && said.contains("99999"), "{said}");
    let said = message(session("Server:\n  Host: nowhere\n"));
    assert!(said.starts_with("s.yaml: Server.Host: "), "{said}");
    let said = message(statesync_with("", &[("AETHERFLOW_MANAGER_LOCKTIMEOUT", "soon")]));
    assert!(said.starts_with("AETHERFLOW_MANAGER_LOCKTIMEOUT: Manager.LockTimeout: \"soon\" is no duration"), "{said}");
    let said = message(session("Server: 5\n"));
    assert!(said.starts_with("s.yaml: Server: "), "{said}");
}

#[test]
fn values_that_make_no_sense_are_refused() {
    for (text, key) in [
        ("Store:\n  Type: postgres\n", "Store.Type"),
        ("Store:\n  Redis: {Addr: nowhere}\n", "Store.Redis.Addr"),
        ("Store:\n  Redis: {ReadTimeout: 0s}\n", "Store.Redis.ReadTimeout"),
        ("Store:\n  Redis: {PoolSize: 0}\n", "Store.Redis.PoolSize"),
        ("Quantum:\n  Shards: 0\n", "Quantum.Shards"),
        ("Quantum:\n  Shards: 2\n  Cores: [1]\n", "Quantum.Cores"),
        ("Quantum:\n  Io: mmsg\n", "Quantum.Io"),
        ("Quantum:\n  Qlog: /dev/null\n", "Quantum.Qlog"),
        ("Quantum:\n  Congestion: reno\n", "Quantum.Congestion"),
        ("Quantum:\n  FEC: {Mode: sometimes}\n", "Quantum.FEC.Mode"),
        ("Quantum:\n  FEC: {Mode: on}\n", "Quantum.FEC.Mode"),
        ("Quantum:\n  FEC: {DataShards: 0}\n", "Quantum.FEC.DataShards"),
        ("Quantum:\n  FEC: {DataShards: -1}\n", "Quantum.FEC.DataShards"),
        ("Quantum:\n  FEC: {DataShards: 193}\n", "Quantum.FEC.DataShards"),
        ("Quantum:\n  FEC: {ParityShards: 0}\n", "Quantum.FEC.ParityShards"),
        ("Quantum:\n  FEC: {ParityShards: 64}\n", "Quantum.FEC.ParityShards"),
        ("Quantum:\n  FEC: {OverheadPercent: 0}\n", "Quantum.FEC.OverheadPercent"),
        ("Quantum:\n  FEC: {OverheadPercent: 1001}\n", "Quantum.FEC.OverheadPercent"),
        ("Log:\n  Level: \"a=b=c\"\n", "Log.Level"),
        ("Metrics:\n  Path: metrics\n", "Metrics.Path"),
        ("Metrics:\n  Path: /readyz\n", "Metrics.Path"),
        ("Tracing: {Enable: true, Exporter: jaeger}\n", "Tracing.Exporter"),
        ("Tracing: {Enable: true, Endpoint: http://localhost:14268/api/traces}\n", "Tracing.Endpoint"),
        ("Tracing: {Enable: true, ServiceName: \"\"}\n", "Tracing.ServiceName"),
        ("Tracing: {Enable: true, SampleRate: 1.1}\n", "Tracing.SampleRate"),
        ("Tracing: {Enable: true, BatchTimeout: 0}\n", "Tracing.BatchTimeout"),
        ("Tracing: {Enable: true, MaxQueueSize: 0}\n", "Tracing.MaxQueueSize"),
        ("Server:\n  TLS:\n    Cert: c.pem\n", "Server.TLS.Key"),
        ("Server:\n  TLS:\n    ClientCA: c.pem\n", "Server.TLS.Cert"),
        ("Auth: {Leeway: 6m}\n", "Auth.Leeway"),
        ("Auth: {RateLimit: {Rate: 0}}\n", "Auth.RateLimit.Rate"),
        ("Auth: {Keys: [{Id: a}]}\n", "Auth.Keys"),
        ("Auth: {Keys: [{SecretFile: a.key}]}\n", "Auth.Keys"),
        ("Auth: {Keys: [{Id: a, Secret: short}]}\n", "Auth.Keys"),
        ("Auth: {Keys: [{Id: a, SecretFile: a.key, PublicKeyFile: a.pem}]}\n", "Auth.Keys"),
        ("Auth: {Keys: [{Id: a, Algorithm: EdDSA, SecretFile: a.key}]}\n", "Auth.Keys"),
        ("Auth: {Keys: [{Id: a, SecretFile: a.key}, {Id: a, SecretFile: b.key}]}\n", "Auth.Keys"),
    ] {
        let said = message(session(text));
        assert!(said.starts_with(&format!("s.yaml: {key}: ")), "{said}");
    }
    for (text, key) in [
        ("Manager:\n  LockTimeout: 0s\n", "Manager.LockTimeout"),
        ("Manager:\n  PurgeDeletedAfter: 30s\n", "Manager.PurgeDeletedAfter"),
        ("Manager:\n  PurgeDeletedAfter: 30\n", "Manager.PurgeDeletedAfter"),
        ("Store:\n  Type: redis\n", "Store.Type"),
        ("SessionService: {Target: nowhere}\n", "SessionService.Target"),
        ("Store:\n  Postgres: {Host: \"\"}\n", "Store.Postgres.Host"),
        ("Store:\n  Postgres: {Port: 0}\n", "Store.Postgres.Port"),
        ("Store:\n  Postgres: {MaxOpenConns: 1, MaxIdleConns: 1}\n", "Store.Postgres.MaxOpenConns"),
        ("Store:\n  Postgres: {MaxIdleConns: 26}\n", "Store.Postgres.MaxIdleConns"),
        ("Store:\n  Postgres: {StatementTimeout: 0s}\n", "Store.Postgres.StatementTimeout"),
        ("Store:\n  Postgres: {SSLMode: allow}\n", "Store.Postgres.SSLMode"),
        ("Store:\n  Postgres: {SSLMode: require, SSLRootCert: ca.pem}\n", "Store.Postgres.SSLRootCert"),
    ] {
        let said = message(statesync_with(text, &[]));
        assert!(said.starts_with(&format!("d.yaml: {key}: ")), "{said}");
    }
    let never = statesync_with("Manager:\n  PurgeDeletedAfter: 0s\n", &[]).unwrap().config;
    assert_eq!(never.manager.purge_deleted_after, Duration::ZERO);
    let config = statesync_with("Store:\n  Type: postgres\n  Postgres: {SSLMode: verify-full}\n", &[]).unwrap().config;
    assert_eq!(config.store.postgres.ssl_mode, super::SslMode::VerifyFull);
}

#[test]
fn forward_error_correction_and_congestion_control_reach_the_endpoint() {
    let protocol = |text: &str, variables: &[(&str, &str)]| {
        endpoint_options(&statesync_with(text, variables).unwrap().config.quantum).protocol
    };
    let default = protocol("", &[]);
    assert_eq!((default.fec, default.congestion), (FecConfig::default(), CongestionControl::Bbr));
    let fixed = protocol("Quantum:\n  Congestion: cubic\n  FEC: {Mode: fixed, ParityShards: 4}\n", &[]);
    assert_eq!(fixed.fec.mode, FecMode::Fixed { members: 10, repairs: 4 });
    assert_eq!(fixed.congestion, CongestionControl::Cubic);
    let most = protocol("Quantum:\n  FEC: {Mode: fixed, DataShards: 192, ParityShards: 63}\n", &[]);
    assert_eq!(most.fec.mode, FecMode::Fixed { members: 192, repairs: 63 });
    assert_eq!(protocol("Quantum:\n  FEC:\n    Mode: off\n", &[]).fec.mode, FecMode::Off);
    let variables = [
        ("AETHERFLOW_QUANTUM_FEC_MODE", "off"),
        ("AETHERFLOW_QUANTUM_FEC_OVERHEADPERCENT", "50"),
        ("AETHERFLOW_QUANTUM_CONGESTION", "cubic"),
    ];
    let told = protocol("Quantum:\n  FEC: {Mode: fixed}\n", &variables);
    assert_eq!((told.fec.mode, told.fec.overhead_percent_max), (FecMode::Off, 50));
    assert_eq!(told.congestion, CongestionControl::Cubic);
    let said = message(session("Quantum:\n  FEC: {DataShards: 256}\n"));
    assert_eq!(said, "s.yaml: Quantum.FEC.DataShards: 256 is not between 1 and 192");
}

#[test]
fn keys_come_from_files_and_the_environment_and_are_not_shown() {
    let variables = [("AETHERFLOW_AUTH_KEYS", "[{Id: b, Algorithm: EdDSA, PublicKeyFile: b.pem}]")];
    let text = "Auth: {Enabled: true, Keys: [{Id: a, Secret: a secret of more than thirty-two bytes}]}\n";
    let loaded = statesync_with(text, &[]).unwrap().config.auth;
    assert_eq!((loaded.keys[0].id.as_str(), loaded.keys.len()), ("a", 1));
    assert!(!format!("{loaded:?}").contains("thirty-two"));
    assert_eq!(statesync_with(text, &variables).unwrap().config.auth.keys[0].id, "b");
    for text in
        ["Auth: {Keys: [{Id: a, Secrett: hunter2}]}\n", "Auth: {Keys: [{Id: a, Algorithm: none, Secret: hunter2}]}\n"]
    {
        let said = message(session(text));
        assert!(said.starts_with("s.yaml: Auth.Keys[0]") && !said.contains("hunter2"), "{said}");
    }
}

#[test]
fn traces_are_off_until_they_are_asked_for_and_then_every_key_counts() {
    let off = "Tracing: {Exporter: jaeger, Endpoint: http://localhost:14268/api/traces, SampleRate: 7}\n";
    assert_eq!(session(off).unwrap().tracing.options(), None, "what is off may be of another version");
    let variables = [("AETHERFLOW_TRACING_ENABLE", "true"), ("AETHERFLOW_TRACING_SAMPLERATE", "0.25")];
    let options = statesync_with("", &variables).unwrap().config.tracing.options().unwrap();
    assert_eq!((options.endpoint.as_str(), options.sample_rate), ("http://localhost:4317", 0.25));
    assert_eq!((options.service_name.as_str(), options.queue), ("statesync-service", 2048));
    assert_eq!(options.batch_time, Duration::from_secs(5));
}

#[test]
fn files_that_are_no_configuration_are_refused() {
    let deep = "[".repeat(100_000);
    let bomb = format!("a: &a [x, x]\n{}", (0..40).map(|_| "b: &a [*a, *a, *a]\n").collect::<String>());
    for text in ["- a\n- b\n", "Server: [", "just words", "Server:\n Port: 1\n Port: 2\n", "\0", &deep, &bomb] {
        let error = session(text).unwrap_err();
        assert!(
            matches!(error, ConfigError::Syntax { .. } | ConfigError::UnknownKey { .. }),
            "{}: {error}",
            &text[..text.len().min(20)]
        );
    }
    let missing = super::load::<SessionConfig>(Some(Path::new("/nonexistent/s.yaml")));
    assert!(message(missing).contains("/nonexistent/s.yaml"));
}
