//! SIGHUP: the configuration is read again. What can change without a restart does, and what cannot is named.

use serde_json::Value;

use crate::auth::AuthError;
use crate::config::{self, Auth, Config};
use crate::telemetry;

/// What changes at once.
const LEVEL: &str = "Log.Level";
const AUTH: [&str; 7] = [
    "Auth.Keys",
    "Auth.Issuer",
    "Auth.Audience",
    "Auth.Leeway",
    "Auth.RateLimit.Enable",
    "Auth.RateLimit.Rate",
    "Auth.RateLimit.Burst",
];

/// Reads the configuration of a running service again, and the files of keys with `reload_auth`. One that cannot be used changes
/// nothing.
pub(crate) fn reload<T: Config>(
    running: &mut T,
    file: Option<&std::path::Path>,
    reload_auth: &dyn Fn(&Auth) -> Result<(), AuthError>,
) {
    let loaded = match config::load::<T>(file) {
        Ok(loaded) => loaded.config,
        Err(error) => return tracing::error!(%error, "not reloaded; all stays as it was"),
    };
    // Also where the configuration is the same: the files that it names may not be.
    if let Err(error) = reload_auth(loaded.auth()) {
        return tracing::error!(%error, "not reloaded; all stays as it was");
    }
    if running.auth().enabled {
        tracing::info!("reloaded: the keys of tokens");
    }
    let changed = changed_keys(running, &loaded);
    if changed.is_empty() {
        return tracing::info!("reloaded: the configuration has not changed");
    }
    for key in &changed {
        if key != LEVEL && !AUTH.contains(&key.as_str()) {
            tracing::warn!(key, "not reloaded: this key takes a restart");
        }
    }
    if changed.iter().any(|key| key == LEVEL) {
        match telemetry::set_log_level(&loaded.log().level) {
            Ok(()) => tracing::info!(level = loaded.log().level, "reloaded: the level of the logs"),
            Err(reason) => tracing::warn!(key = LEVEL, reason, "not reloaded"),
        }
    }
    *running = loaded;
}

/// The keys whose values differ, their sections before them.
fn changed_keys<T: Config>(before: &T, after: &T) -> Vec<String> {
    let tree = |config: &T| serde_json::to_value(config).expect("a configuration is a tree of plain values");
    let mut changed = Vec::new();
    compare("", &tree(before), &tree(after), &mut changed);
    changed
}

fn compare(key: &str, before: &Value, after: &Value, changed: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (name, value) in before {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                compare(&key, value, after.get(name).unwrap_or(&Value::Null), changed);
            }
        }
        _ if before != after => changed.push(key.to_owned()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SessionConfig;

    #[test]
    fn keys_that_changed_are_named_with_their_sections() {
        let before = SessionConfig::default();
        let mut after = before.clone();
        assert!(changed_keys(&before, &after).is_empty());
        after.store.redis.addr = "elsewhere:6379".into();
        after.quantum.cores = vec![1];
        after.log.level = "debug".into();
        assert_eq!(changed_keys(&before, &after), ["Log.Level", "Quantum.Cores", "Store.Redis.Addr"]);
    }
}
