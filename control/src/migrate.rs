//! `aetherflow migrate`: the schema of the document service's PostgreSQL database.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use clap::{Args, Subcommand};

use crate::clock::UnixMicros;
use crate::config::{self, StateSyncConfig};
use crate::launch::{LaunchError, postgres_options};
use crate::statesync::postgres::migrate::{self, Step};
use crate::up::UpError;

/// Examples of `migrate`.
pub const EXAMPLES: &str = "\
The database is that of Store.Postgres in the file. A service brings its schema up by itself when it starts, if its role may.

Examples:
  aetherflow migrate status -f configs/statesync.yaml
  AETHERFLOW_STORE_POSTGRES_USER=owner aetherflow migrate up -f configs/statesync.yaml
  aetherflow migrate down -f configs/statesync.yaml
  aetherflow migrate down -f configs/statesync.yaml --delete-documents

Stop the service before `down`: it deletes what its step added. The first step added the documents; it stays while there are any, \
unless --delete-documents says that they are to go.";

/// What to do with the schema.
#[derive(Debug, Clone, Subcommand)]
pub enum Migrate {
    /// Take the steps that are missing
    #[command(after_help = EXAMPLES)]
    Up(DatabaseArgs),
    /// Take the newest step back: what it added is deleted, with all data in it
    #[command(after_help = EXAMPLES)]
    Down(DownArgs),
    /// Say which steps were taken
    #[command(after_help = EXAMPLES)]
    Status(DatabaseArgs),
}

/// Where the database is said.
#[derive(Debug, Clone, Args)]
pub struct DatabaseArgs {
    /// The document service's configuration file [default: configs/statesync.yaml if it is there, else the defaults]
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// What to take back.
#[derive(Debug, Clone, Args)]
pub struct DownArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// Also the step that added the documents, with all that there are: they are deleted for good
    #[arg(long)]
    delete_documents: bool,
}

/// Does it and says what it did.
///
/// # Errors
/// See [`LaunchError`].
pub async fn run(command: &Migrate) -> Result<(), LaunchError> {
    let (Migrate::Up(args) | Migrate::Status(args) | Migrate::Down(DownArgs { database: args, .. })) = command;
    let loaded = config::load::<StateSyncConfig>(args.file.as_deref())?;
    let options = postgres_options(&loaded.config.store.postgres);
    let lines: Vec<String> = match command {
        Migrate::Up(_) => {
            let steps = migrate::up(&options).await.map_err(UpError::from)?;
            steps.iter().map(|step| format!("{} {}: taken", step.version, step.name)).collect()
        }
        Migrate::Down(args) => {
            let step = migrate::down(&options, args.delete_documents).await.map_err(UpError::from)?;
            step.iter().map(|step| format!("{} {}: taken back", step.version, step.name)).collect()
        }
        Migrate::Status(_) => {
            let steps = migrate::status(&options).await.map_err(UpError::from)?;
            steps.iter().map(describe).collect()
        }
    };
    let mut out = std::io::stdout().lock();
    if lines.is_empty() {
        writeln!(out, "nothing to do")?;
    }
    for line in lines {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn describe(step: &Step) -> String {
    match step.applied_at {
        Some(time) => format!("{} {}: taken {}", step.version, step.name, readable(time)),
        None => format!("{} {}: to be taken", step.version, step.name),
    }
}

fn readable(time: UnixMicros) -> humantime::Rfc3339Timestamp {
    let since_1970 = Duration::from_micros(u64::try_from(time.0).unwrap_or_default());
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since_1970)
}
