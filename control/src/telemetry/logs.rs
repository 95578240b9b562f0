//! Logs: lines on standard error, as JSON or for people. What is said while an RPC is worked on carries its ids.

use std::fmt::{self, Write as _};
use std::sync::OnceLock;

use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::request::with_current;
use crate::config::{Log, LogFormat};

/// Sends logs to standard error for people, filtered by `RUST_LOG` (default: info).
pub fn init_logs() {
    init_logs_as(&Log { level: "info".to_owned(), format: LogFormat::Pretty });
}

/// Changes which logs are sent, by a filter's text.
type Refilter = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// Set with the subscriber.
static REFILTER: OnceLock<Refilter> = OnceLock::new();

/// Sends logs to standard error, filtered by `RUST_LOG`, or else as `log` says.
pub fn init_logs_as(log: &Log) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(&log.level));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let format = log.format;
    // A second subscriber in one process is no reason to fail; the first stays.
    match format {
        LogFormat::Json => {
            let logs = logs.json().flatten_event(true);
            let logs = logs.map_event_format(|lines| Correlated { lines, format }).with_filter_reloading();
            let handle = logs.reload_handle();
            if logs.try_init().is_ok() {
                let _ = REFILTER.set(Box::new(move |level| reload(level, |filter| handle.reload(filter))));
            }
        }
        LogFormat::Pretty => {
            // Said here because a line with ids is made apart, where colours would be off.
            let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            let logs = logs.map_event_format(|lines| Correlated { lines: lines.with_ansi(colours), format });
            let logs = logs.with_filter_reloading();
            let handle = logs.reload_handle();
            if logs.try_init().is_ok() {
                let _ = REFILTER.set(Box::new(move |level| reload(level, |filter| handle.reload(filter))));
            }
        }
    }
}

fn reload<E: std::error::Error>(level: &str, put: impl Fn(EnvFilter) -> Result<(), E>) -> Result<(), String> {
    let filter = EnvFilter::try_new(level).map_err(|error| error.to_string())?;
    put(filter).map_err(|error| error.to_string())
}

/// Sends the logs of this level, as `Log.Level` has it, from now on.
///
/// # Errors
/// Why it stays as it is.
pub fn set_log_level(level: &str) -> Result<(), String> {
    if std::env::var_os("RUST_LOG").is_some() {
        return Err("RUST_LOG is set, which stands above Log.Level".to_owned());
    }
    let refilter = REFILTER.get().ok_or_else(|| "another part of the program has the logs".to_owned())?;
    refilter(level)
}

/// Lines as `lines` makes them, with the ids of the RPC that they belong to at their end.
struct Correlated<F> {
    lines: F,
    format: LogFormat,
}

impl<S, N, F> FormatEvent<S, N> for Correlated<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some(ids) = with_current(|id, trace_id| ids(self.format, id, trace_id.map(|id| id.to_string()).as_deref()))
        else {
            return self.lines.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.lines.format_event(context, Writer::new(&mut line), event)?;
        let end = if self.format == LogFormat::Json { "}\n" } else { "\n" };
        writer.write_str(line.strip_suffix(end).unwrap_or(&line))?;
        writer.write_str(&ids)?;
        writer.write_str(end)
    }
}

/// Ids as further fields of a line. They are of characters that need no escape.
fn ids(format: LogFormat, id: &str, trace_id: Option<&str>) -> String {
    let mut text = String::new();
    for (name, value) in [("request_id", Some(id)), ("trace_id", trace_id)] {
        let Some(value) = value else { continue };
        let written = match format {
            LogFormat::Json => write!(text, ",\"{name}\":\"{value}\""),
            LogFormat::Pretty => write!(text, " {name}={value}"),
        };
        written.expect("a string takes everything");
    }
    text
}
