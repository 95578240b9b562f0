//! Trace context as gRPC metadata: `traceparent` and `tracestate` (W3C Trace Context, level 1).

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// `00-`, 32 digits, `-`, 16 digits, `-`, 2 digits.
const PARENT_BYTES: usize = 55;
/// A later version may say more behind these; what is longer is not worth reading.
const PARENT_BYTES_MAX: usize = 128;
/// So much of a `tracestate` has to be passed on (section 3.3.1.5); what is longer is left out.
const STATE_BYTES_MAX: usize = 512;

/// The caller's span. What is not exactly as the standard has it is no span; a `tracestate` that is not is left out.
pub(crate) fn of_headers(headers: &HeaderMap) -> Option<SpanContext> {
    let parent = only(headers)?;
    if parent.len() < PARENT_BYTES || parent.len() > PARENT_BYTES_MAX {
        return None;
    }
    let (known, more) = parent.split_at(PARENT_BYTES);
    let version = number(&known[..2])?;
    let fits = match version {
        0 => more.is_empty(),
        0xff => false,
        _ => more.is_empty() || more[0] == b'-',
    };
    if !fits || [known[2], known[35], known[52]] != *b"---" {
        return None;
    }
    let trace_id = TraceId::from(number(&known[3..35])?);
    let span_id = SpanId::from(number(&known[36..52])? as u64);
    let flags = TraceFlags::new(number(&known[53..55])? as u8) & TraceFlags::SAMPLED;
    let context = SpanContext::new(trace_id, span_id, flags, true, state(headers));
    context.is_valid().then_some(context)
}

/// Names a span as the one that called, in place of what was there.
pub(crate) fn put(context: &SpanContext, headers: &mut HeaderMap) {
    let sampled = u8::from(context.is_sampled());
    let parent = format!("00-{}-{}-{sampled:02x}", context.trace_id(), context.span_id());
    headers.insert(TRACEPARENT, HeaderValue::from_str(&parent).expect("digits and hyphens can stand in a header"));
    headers.remove(TRACESTATE);
    let state = context.trace_state().header();
    if let Some(state) = HeaderValue::try_from(state).ok().filter(|state| !state.is_empty()) {
        headers.insert(TRACESTATE, state);
    }
}

/// The `traceparent`, if there is one and no other.
fn only(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    values.next().filter(|_| values.next().is_none()).map(HeaderValue::as_bytes)
}

/// The number that at most 32 lower-case hexadecimal digits are.
fn number(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

fn state(headers: &HeaderMap) -> TraceState {
    let mut joined = String::new();
    for value in headers.get_all(TRACESTATE) {
        let Ok(value) = value.to_str() else { return TraceState::NONE };
        if joined.len() + 1 + value.len() > STATE_BYTES_MAX {
            return TraceState::NONE;
        }
        if !joined.is_empty() {
            joined.push(',');
        }
        joined.push_str(value);
    }
    // The library takes keys that are empty.
    if joined.split(',').any(|member| member.trim_start().starts_with('=')) {
        return TraceState::NONE;
    }
    joined.parse().unwrap_or(TraceState::NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(parents: &[&str], states: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, values) in [(TRACEPARENT, parents), (TRACESTATE, states)] {
            for value in values {
                headers.append(name.clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
        }
        headers
    }

    #[test]
    fn a_span_is_read_and_written_as_the_standard_has_it() {
        let span = of_headers(&headers(&[GOOD], &["a=1", "b=2,c@d=x:y"])).unwrap();
        assert_eq!(span.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(span.span_id().to_string(), "00f067aa0ba902b7");
        assert!(span.is_sampled() && span.is_remote());
        let mut written = headers(&["nonsense", "twice"], &["z=9"]);
        put(&span, &mut written);
        assert_eq!(written, headers(&[GOOD], &["a=1,b=2,c@d=x:y"]));
        let unsampled = of_headers(&headers(&[&GOOD.replace("-01", "-00")], &[])).unwrap();
        assert!(!unsampled.is_sampled());
        put(&unsampled, &mut written);
        assert_eq!(written, headers(&[&GOOD.replace("-01", "-00")], &[]));
    }

    #[test]
    fn a_later_version_may_say_more_and_unknown_flags_are_dropped() {
        let later = GOOD.replacen("00-", "cc-", 1) + "-what-comes";
        assert!(of_headers(&headers(&[&later], &[])).unwrap().is_sampled());
        let flags = of_headers(&headers(&[&GOOD.replace("-01", "-fe")], &[])).unwrap();
        assert_eq!(flags.trace_flags(), TraceFlags::NOT_SAMPLED);
    }

    #[test]
    fn what_is_not_exactly_a_span_is_none() {
        let long = GOOD.replacen("00-", "01-", 1) + "-" + &"x".repeat(PARENT_BYTES_MAX);
        for hostile in [
            "",
            "00",
            &GOOD.to_uppercase(),
            &GOOD[..54],
            &GOOD[1..],
            &format!("{GOOD}-"),
            &format!("{GOOD}00"),
            &format!(" {GOOD}"),
            &GOOD.replacen("00-", "ff-", 1),
            &(GOOD.replacen("00-", "01-", 1) + "x"),
            &GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &GOOD.replace('b', "g"),
            &GOOD.replacen('-', "_", 1),
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e47360-0f067aa0ba902b7-01",
            "00-\u{e4}bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            &long,
        ] {
            assert_eq!(of_headers(&headers(&[hostile], &[])), None, "{hostile:?}");
        }
        assert_eq!(of_headers(&headers(&[GOOD, GOOD], &[])), None, "which of two?");
        assert_eq!(of_headers(&headers(&[], &["a=1"])), None);
    }

    #[test]
    fn a_state_that_is_too_long_or_no_list_is_left_out_and_the_span_stays() {
        let long = format!("a={},b={}", "x".repeat(255), "y".repeat(255));
        for state in [&long[..], "nonsense", "A=1", "=1", "a=1=2", "\u{e4}=1", ","] {
            let span = of_headers(&headers(&[GOOD], &[state])).unwrap();
            assert_eq!(span.trace_state().header(), "", "{state:?}");
        }
        let many = vec!["k=v"; 1000];
        assert_eq!(of_headers(&headers(&[GOOD], &many)).unwrap().trace_state().header(), "");
    }
}
