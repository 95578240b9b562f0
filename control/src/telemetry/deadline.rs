//! The `grpc-timeout` header: how long the client waits.

use std::time::Duration;

use http::HeaderMap;

/// The transport's own timer answers CANCELLED when the deadline passes, so ours, which answers `DEADLINE_EXCEEDED`, has to be
/// first; its clock ticks in milliseconds.
const AHEAD: Duration = Duration::from_millis(2);

/// The time a call may take, if the client set one ("at most 8 digits and a unit", the gRPC over HTTP/2 protocol).
pub(super) fn of_request(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("grpc-timeout")?.to_str().ok()?;
    let (unit_at, unit) = value.char_indices().last()?;
    let digits = &value[..unit_at];
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    let timeout = match unit {
        'H' => Duration::from_secs(count * 3600),
        'M' => Duration::from_secs(count * 60),
        'S' => Duration::from_secs(count),
        'm' => Duration::from_millis(count),
        'u' => Duration::from_micros(count),
        'n' => Duration::from_nanos(count),
        _ => return None,
    };
    Some(timeout.saturating_sub(AHEAD))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_in_every_unit_and_nonsense_is_left_to_the_transport() {
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", value.parse().unwrap());
            of_request(&headers)
        };
        assert_eq!(read("1S"), Some(Duration::from_millis(998)));
        assert_eq!(read("100m"), Some(Duration::from_millis(98)));
        assert_eq!(read("5000u"), Some(Duration::from_millis(3)));
        assert_eq!(read("1n"), Some(Duration::ZERO));
        assert_eq!(read("99999999H"), Some(Duration::from_hours(99_999_999).checked_sub(AHEAD).unwrap()));
        for nonsense in ["", "S", "123456789S", "-1S", "1", "1s", "1.5S"] {
            assert_eq!(read(nonsense), None, "{nonsense:?}");
        }
    }
}
