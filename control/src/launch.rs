//! Services in processes of their own: `aetherflow session`, `aetherflow statesync`, and the programs that are nothing else.

use std::future::Future;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, ValueEnum};
use quantum_grpc::{EndpointOptions, HostKind, IoKind};
use sqlx::postgres::PgSslMode;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::auth::{self, AuthError};
use crate::config::{
    self, Auth, AuthKey, Config, ConfigError, Loaded, Metrics, Quantum, QuantumHost, QuantumIo, Server, SessionConfig,
    SslMode, StateSyncConfig, StoreType, SyncMode, Tls,
};
use crate::reload::reload;
use crate::session::{OnDisconnect, RedisOptions};
use crate::statesync::{DocumentOptions, PostgresOptions};
use crate::store::{Durability, StoreKind};
use crate::telemetry;
use crate::up::{self, RunningService, ServiceOptions, TlsFiles, UpError};

/// Examples of the commands that run one service.
pub const EXAMPLES: &str = "\
Every key of the file has a default, and an environment variable that overrides it: AETHERFLOW_SERVER_PORT is Server.Port. \
configs/session.yaml and configs/statesync.yaml show every key. `aetherflow config check FILE` reads a file and starts nothing.

Examples:
  aetherflow session -f configs/session.yaml
  aetherflow statesync -f configs/statesync.yaml
  AETHERFLOW_SERVER_PORT=9012 AETHERFLOW_LOG_FORMAT=pretty aetherflow statesync

SIGHUP reads the file again, and the files of keys: Log.Level and what is under Auth but Enabled and AllowAnonymous change at \
once, and the log names the keys that take a restart. RUST_LOG, if it is set, stands above Log.Level. Ctrl-C and SIGTERM stop the service within five seconds; what it acknowledged is kept.";

/// Examples of `config`.
pub const CONFIG_EXAMPLES: &str = "Examples:
  aetherflow config check configs/session.yaml
  aetherflow config check --service statesync --print /etc/aetherflow/documents.yaml";

/// Which service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Service {
    /// Sessions
    Session,
    /// Documents
    Statesync,
}

/// The configuration file of a service.
#[derive(Debug, Clone, Args)]
pub struct FileArgs {
    /// The configuration file [default: configs/session.yaml or configs/statesync.yaml if it is there, else the defaults]
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// A configuration file to check.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// The configuration file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The service that it is for [default: the one whose name, session or statesync, is in the file's name]
    #[arg(long, value_enum)]
    pub service: Option<Service>,
    /// Print every key with the value that it would have, passwords left out
    #[arg(long)]
    pub print: bool,
}

/// Why a service does not run.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The service does not start.
    #[error(transparent)]
    Up(#[from] UpError),
    /// The keys of tokens cannot be used.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The name of a file does not say for which service it is.
    #[error("{0} does not say for which service it is: add --service session or --service statesync")]
    WhichService(PathBuf),
    /// The system refuses.
    #[error("{0}")]
    System(#[from] std::io::Error),
}

/// The `main` of a program that is one service.
pub fn main(service: Service) -> ExitCode {
    #[derive(Parser)]
    #[command(version, after_help = EXAMPLES)]
    struct Cli {
        #[command(flatten)]
        file: FileArgs,
    }
    let about = match service {
        Service::Session => "The session service of AetherFlow; the same as `aetherflow session`",
        Service::Statesync => "The document service of AetherFlow; the same as `aetherflow statesync`",
    };
    let matches = Cli::command().about(about).get_matches();
    let args = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()).file;
    let ended = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(LaunchError::from).and_then(
        |runtime| {
            let ended = runtime.block_on(run(service, &args));
            runtime.shutdown_background();
            ended
        },
    );
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a service until Ctrl-C or SIGTERM; SIGHUP reads its configuration again.
///
/// # Errors
/// See [`LaunchError`].
pub async fn run(service: Service, args: &FileArgs) -> Result<(), LaunchError> {
    let stop = asked_to_stop()?;
    let hangups = signal(SignalKind::hangup())?;
    let file = args.file.as_deref();
    match service {
        Service::Session => {
            let mut config = configured::<SessionConfig>(file)?;
            let running = up::start_session(session_options(&config)).await?;
            announce(service, &running, &config)?;
            until(stop, hangups, || reload(&mut config, file, &|auth| running.reload_auth(auth))).await;
            end(running).await;
        }
        Service::Statesync => {
            let mut config = configured::<StateSyncConfig>(file)?;
            let running = up::start_statesync(statesync_options(&config), document_options(&config)).await?;
            announce(service, &running, &config)?;
            until(stop, hangups, || reload(&mut config, file, &|auth| running.reload_auth(auth))).await;
            end(running).await;
        }
    }
    Ok(())
}

fn configured<T: Config>(file: Option<&Path>) -> Result<T, ConfigError> {
    let loaded = config::load::<T>(file)?;
    telemetry::init_logs_as(loaded.config.log());
    tell(&loaded);
    Ok(loaded.config)
}

/// Waits for `stop`, and does `reload` at each hangup.
async fn until(stop: impl Future<Output = ()>, mut hangups: Signal, mut reload: impl FnMut()) {
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return,
            _ = hangups.recv() => reload(),
        }
    }
}

async fn end(running: RunningService) {
    tracing::info!("stopping: streams end, open calls finish");
    running.shutdown().await;
}

/// Reads a configuration file and says what is wrong with it, or what it means.
///
/// # Errors
/// See [`LaunchError`].
pub fn check(args: &CheckArgs) -> Result<(), LaunchError> {
    let by_name = || {
        let stem = args.file.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
        [("statesync", Service::Statesync), ("session", Service::Session)]
            .into_iter()
            .find_map(|(name, service)| stem.contains(name).then_some(service))
    };
    let service = args.service.or_else(by_name).ok_or_else(|| LaunchError::WhichService(args.file.clone()))?;
    let (variables, ignored, text) = match service {
        Service::Session => {
            let mut loaded = config::load::<SessionConfig>(Some(&args.file))?;
            auth::check_keys(&loaded.config.auth)?;
            loaded.config.auth.keys.iter_mut().for_each(AuthKey::hide);
            hide(&mut loaded.config.store.redis.password);
            (loaded.variables, loaded.ignored, config::to_yaml(&loaded.config))
        }
        Service::Statesync => {
            let mut loaded = config::load::<StateSyncConfig>(Some(&args.file))?;
            auth::check_keys(&loaded.config.auth)?;
            loaded.config.auth.keys.iter_mut().for_each(AuthKey::hide);
            hide(&mut loaded.config.store.postgres.password);
            (loaded.variables, loaded.ignored, config::to_yaml(&loaded.config))
        }
    };
    let mut out = std::io::stdout().lock();
    if args.print {
        return Ok(out.write_all(text.as_bytes())?);
    }
    writeln!(out, "{}: good", args.file.display())?;
    for name in variables {
        writeln!(out, "  {name} overrides a key")?;
    }
    for name in ignored {
        writeln!(out, "  {name} is no key's variable and is ignored")?;
    }
    Ok(())
}

fn hide(password: &mut String) {
    if !password.is_empty() {
        "(hidden)".clone_into(password);
    }
}

/// Waits for Ctrl-C or SIGTERM, which are caught from here on.
///
/// # Errors
/// The system refuses to tell of signals.
pub fn asked_to_stop() -> std::io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

fn tell<T: Config>(loaded: &Loaded<T>) {
    let file = loaded.file.as_ref().map_or_else(|| "none: defaults".to_owned(), |file| file.display().to_string());
    tracing::info!(file, overridden_by = ?loaded.variables, "configured");
    for name in &loaded.ignored {
        tracing::warn!("{name} is no key's variable and is ignored");
    }
}

fn announce<T: Config>(service: Service, running: &RunningService, config: &T) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let what = if service == Service::Session { "session" } else { "document" };
    writeln!(out, "The {what} service of AetherFlow is up. Press Ctrl-C to stop.")?;
    writeln!(out, "  gRPC over TCP  http{}://{}", if running.has_tls { "s" } else { "" }, running.address)?;
    if running.has_quantum {
        writeln!(out, "  over Quantum   quantum://{}", running.address)?;
    }
    if let Some(address) = running.metrics_address {
        writeln!(out, "  readiness      http://{address}/readyz")?;
        writeln!(out, "  metrics        http://{address}{}", running.metrics_path)?;
    }
    writeln!(out, "  fingerprint (SHA-256 of the public key)  {}", running.fingerprint)?;
    if config.auth().enabled && config.auth().keys.is_empty() {
        let secret = running.data_file(auth::SECRET_FILE);
        writeln!(out, "  a token        aetherflow token --key-file {} --sub USER", secret.display())?;
    }
    out.flush()
}

/// How the session service starts by its configuration.
pub fn session_options(config: &SessionConfig) -> ServiceOptions {
    let store = (config.store.r#type, config.store.sync);
    let redis = (config.store.r#type == StoreType::Redis).then(|| redis_options(&config.store.redis));
    let options = options(&config.server, &config.metrics, &config.quantum, store, &config.auth);
    let (on_disconnect, tracing) = (config.manager.on_disconnect, config.tracing.options());
    ServiceOptions { redis, on_disconnect, tracing, ..options }
}

fn redis_options(redis: &config::Redis) -> RedisOptions {
    RedisOptions {
        address: redis.addr.clone(),
        password: redis.password.clone(),
        database: redis.db,
        key_prefix: redis.key_prefix.clone(),
        connections: redis.pool_size as usize,
        retries: redis.max_retries as usize,
        connect_timeout: redis.dial_timeout,
        response_timeout: redis.read_timeout.max(redis.write_timeout),
    }
}

/// How the document service starts by its configuration.
pub fn statesync_options(config: &StateSyncConfig) -> ServiceOptions {
    let store = (config.store.r#type, config.store.sync);
    let postgres = (config.store.r#type == StoreType::Postgres).then(|| postgres_options(&config.store.postgres));
    let options = options(&config.server, &config.metrics, &config.quantum, store, &config.auth);
    let (session_service, tracing) = (config.session_service.target.clone(), config.tracing.options());
    ServiceOptions { session_service, postgres, tracing, ..options }
}

/// How PostgreSQL is spoken to by its section.
pub fn postgres_options(postgres: &config::Postgres) -> PostgresOptions {
    PostgresOptions {
        host: postgres.host.clone(),
        port: postgres.port,
        user: postgres.user.clone(),
        password: postgres.password.clone(),
        database: postgres.db_name.clone(),
        ssl_mode: match postgres.ssl_mode {
            SslMode::Disable => PgSslMode::Disable,
            SslMode::Prefer => PgSslMode::Prefer,
            SslMode::Require => PgSslMode::Require,
            SslMode::VerifyCa => PgSslMode::VerifyCa,
            SslMode::VerifyFull => PgSslMode::VerifyFull,
        },
        ssl_root_cert: set(&postgres.ssl_root_cert),
        connections: postgres.max_open_conns,
        idle_connections: postgres.max_idle_conns,
        connect_timeout: postgres.dial_timeout,
        statement_timeout: postgres.statement_timeout,
    }
}

fn document_options(config: &StateSyncConfig) -> DocumentOptions {
    DocumentOptions {
        lock_timeout: config.manager.lock_timeout,
        idle_time: config.manager.cleanup_interval,
        auto_resolve_conflicts: config.manager.auto_resolve_conflicts,
        retained_operations: config.manager.retained_operations,
        purge_deleted_after: config.manager.purge_deleted_after,
    }
}

fn options<const PORT: u16, const METRICS_PORT: u16>(
    server: &Server<PORT>,
    metrics: &Metrics<METRICS_PORT>,
    quantum: &Quantum,
    (kind, sync): (StoreType, SyncMode),
    auth: &Auth,
) -> ServiceOptions {
    ServiceOptions {
        data: server.data.clone(),
        grpc: server.address(),
        metrics: metrics.address(),
        metrics_path: metrics.path.clone(),
        allow_anonymous: auth.allow_anonymous,
        auth: auth.clone(),
        session_service: String::new(),
        quantum: quantum.enable.then(|| endpoint_options(quantum)),
        tls: tls_files(&server.tls),
        store: match kind {
            StoreType::Memory => StoreKind::Memory,
            StoreType::Redis => StoreKind::Redis,
            StoreType::Postgres => StoreKind::Postgres,
            StoreType::Sqlite => StoreKind::Sqlite,
        },
        durability: if sync == SyncMode::Full { Durability::Disk } else { Durability::System },
        redis: None,
        on_disconnect: OnDisconnect::default(),
        postgres: None,
        tracing: None,
    }
}

/// How Quantum runs by its section.
pub fn endpoint_options(quantum: &Quantum) -> EndpointOptions {
    let mut options = EndpointOptions {
        shards: quantum.shards,
        cores: quantum.cores.clone(),
        spin: Duration::from_micros(quantum.spin_us),
        host: match quantum.host {
            QuantumHost::Glommio => HostKind::Glommio,
            QuantumHost::Monoio => HostKind::Monoio,
            QuantumHost::Bare => HostKind::Bare,
        },
        io: match quantum.io {
            QuantumIo::Uring => IoKind::Uring,
            QuantumIo::Mmsg => IoKind::Mmsg,
        },
        qlog: set(&quantum.qlog),
        ..EndpointOptions::default()
    };
    options.protocol.security.early_data = quantum.early_data;
    options.protocol.congestion = quantum.congestion.control();
    options.protocol.fec = quantum.fec.options();
    options
}

fn tls_files(tls: &Tls) -> Option<TlsFiles> {
    set(&tls.cert).map(|cert| TlsFiles { cert, key: tls.key.clone(), client_ca: set(&tls.client_ca) })
}

/// A path, if it is one.
fn set(path: &Path) -> Option<PathBuf> {
    Some(path.to_owned()).filter(|path| !path.as_os_str().is_empty())
}
