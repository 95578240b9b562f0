//! How a call chooses whether its stream is protected against losses.

use http::{Extensions, HeaderMap, HeaderName, HeaderValue};

/// The metadata that asks whether the call's stream is protected, in both directions: `on` or `off`.
pub const FEC_HEADER: HeaderName = HeaderName::from_static("quantum-fec");

const ON: HeaderValue = HeaderValue::from_static("on");
const OFF: HeaderValue = HeaderValue::from_static("off");

/// Whether forward error correction, where the connection has it, protects a call's stream. Among the extensions of a request it
/// counts for both directions, among those of a response for that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fec {
    /// As it is unless said otherwise.
    On,
    /// No repair symbols: what is lost is sent again.
    Off,
}

impl Fec {
    /// What a request asks for: by its extensions, or else by its metadata. What the extension says goes into the metadata, for
    /// the server to send its response alike.
    pub(crate) fn of_request(extensions: &Extensions, headers: &mut HeaderMap) -> Option<Self> {
        let Some(&fec) = extensions.get::<Self>() else { return Self::of_headers(headers) };
        headers.insert(FEC_HEADER, if fec == Self::On { ON } else { OFF });
        Some(fec)
    }

    /// What metadata asks for. What cannot be understood asks for nothing.
    pub(crate) fn of_headers(headers: &HeaderMap) -> Option<Self> {
        match headers.get(FEC_HEADER)? {
            value if value == ON => Some(Self::On),
            value if value == OFF => Some(Self::Off),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_caller_says_is_what_the_server_reads() {
        for fec in [Fec::On, Fec::Off] {
            let (mut extensions, mut headers) = (Extensions::new(), HeaderMap::new());
            extensions.insert(fec);
            assert_eq!(Fec::of_request(&extensions, &mut headers), Some(fec));
            assert_eq!(Fec::of_headers(&headers), Some(fec));
            assert_eq!(Fec::of_request(&Extensions::new(), &mut headers), Some(fec), "metadata alone will do");
        }
    }

    #[test]
    fn nonsense_asks_for_nothing() {
        for text in ["", "0", "OFF", "of", "off on"] {
            let headers = HeaderMap::from_iter([(FEC_HEADER, HeaderValue::from_str(text).unwrap())]);
            assert_eq!(Fec::of_headers(&headers), None, "{text}");
        }
    }
}
