//! The address of a store's server, as it is written on the command line.

use anyhow::{Context, ensure};

/// `SCHEME://[USER[:PASSWORD]@]HOST:PORT[/PATH]`, without anything encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServerUrl {
    pub(super) user: String,
    pub(super) password: String,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) path: String,
}

impl ServerUrl {
    /// Reads a URL of one of `schemes`.
    ///
    /// # Errors
    /// What is wrong; the password is not repeated.
    pub(super) fn parse(text: &str, schemes: &[&str]) -> anyhow::Result<Self> {
        let (scheme, rest) = text.split_once("://").with_context(|| format!("it begins with {}://", schemes[0]))?;
        ensure!(schemes.contains(&scheme), "it begins with {}://", schemes[0]);
        ensure!(!rest.contains(['%', '?', '#']), "it may have no encoded characters and no parameters");
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, server) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let (host, port) = server.rsplit_once(':').context("it has to name HOST:PORT")?;
        let port = port.parse().ok().filter(|port| *port > 0).context("its port is no number of 1 to 65535")?;
        ensure!(!host.is_empty(), "it has to name HOST:PORT");
        let [user, password, host, path] = [user, password, host, path].map(str::to_owned);
        Ok(Self { user, password, host, port, path })
    }
}

#[cfg(test)]
mod tests {
    use super::ServerUrl;

    fn parse(text: &str) -> Option<(String, String, String, u16, String)> {
        let url = ServerUrl::parse(text, &["redis", "valkey"]).ok()?;
        Some((url.user, url.password, url.host, url.port, url.path))
    }

    #[test]
    fn the_parts_of_a_url_are_found_and_what_is_none_is_refused() {
        let parts = |user: &str, password: &str, host: &str, port: u16, path: &str| {
            Some((user.to_owned(), password.to_owned(), host.to_owned(), port, path.to_owned()))
        };
        assert_eq!(parse("redis://localhost:6379"), parts("", "", "localhost", 6379, ""));
        assert_eq!(parse("valkey://a:b:@[::1]:1/3"), parts("a", "b:", "[::1]", 1, "3"));
        for wrong in ["localhost:6379", "http://a:1", "redis://a", "redis://a:0", "redis://:1", "redis://a:1/2?x=1"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
