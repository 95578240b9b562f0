//! How a call chooses where its stream stands among those that want to send.

use http::{Extensions, HeaderMap, HeaderName, HeaderValue};
use quantum::Priority;

/// The metadata that asks for a priority, in both directions of the call: `urgent`, a weight from 1 to 64, or both
/// (`urgent 16`).
pub const PRIORITY_HEADER: HeaderName = HeaderName::from_static("quantum-priority");

/// The priority that a request asks for: by a [`Priority`] among its extensions, or else by its metadata. What the extension
/// says goes into the metadata, for the server to send its response alike.
pub(crate) fn of_request(extensions: &Extensions, headers: &mut HeaderMap) -> Option<Priority> {
    let Some(&priority) = extensions.get::<Priority>() else { return of_headers(headers) };
    headers.insert(PRIORITY_HEADER, value(priority));
    Some(priority)
}

/// The priority that metadata asks for. What cannot be understood asks for nothing.
pub(crate) fn of_headers(headers: &HeaderMap) -> Option<Priority> {
    let text = headers.get(PRIORITY_HEADER)?.to_str().ok()?;
    let (urgent, weight) = match text.strip_prefix("urgent") {
        Some(rest) => (true, rest.trim()),
        None => (false, text.trim()),
    };
    let weight = match weight {
        "" if urgent => Priority::default().weight,
        weight => weight.parse().ok().filter(|weight| (1..=64).contains(weight))?,
    };
    Some(Priority { urgent, weight })
}

fn value(priority: Priority) -> HeaderValue {
    let Priority { urgent, weight } = priority;
    let text = if urgent { format!("urgent {weight}") } else { weight.to_string() };
    HeaderValue::from_str(&text).expect("letters and digits can be in a header")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_caller_says_is_what_the_server_reads() {
        for priority in
            [Priority::default(), Priority::URGENT, Priority { urgent: true, weight: 64 }, Priority::BACKGROUND]
        {
            let (mut extensions, mut headers) = (Extensions::new(), HeaderMap::new());
            extensions.insert(priority);
            assert_eq!(of_request(&extensions, &mut headers), Some(priority));
            assert_eq!(of_headers(&headers), Some(priority));
            assert_eq!(of_request(&Extensions::new(), &mut headers), Some(priority), "metadata alone will do");
        }
    }

    #[test]
    fn nonsense_asks_for_nothing() {
        for text in ["", "0", "65", "-1", "urgently", "urgent 0", "urgent x", "4 urgent", "999999999999999999999"] {
            let headers = HeaderMap::from_iter([(PRIORITY_HEADER, HeaderValue::from_str(text).unwrap())]);
            assert_eq!(of_headers(&headers), None, "{text}");
        }
        let headers = HeaderMap::from_iter([(PRIORITY_HEADER, HeaderValue::from_bytes(&[0xff]).unwrap())]);
        assert_eq!(of_headers(&headers), None);
    }
}
