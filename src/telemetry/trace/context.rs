//! W3C Trace Context: `traceparent` and `tracestate`, read and written.

use std::fmt;

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// Names the trace and the span above, and whether it is recorded.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What tracing systems tell each other beside it; passed on as it came.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Bytes of version 00: `00-` 32 digits `-` 16 digits `-` 2 digits.
const LENGTH: usize = 55;

/// Bytes of `tracestate` that are passed on: what the specification asks for at least.
const LONGEST_STATE: usize = 512;

/// The span above ours, as the client says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parent {
    pub(super) trace: u128,
    pub(super) span: u64,
    pub(super) is_sampled: bool,
}

/// What goes into calls that are made on behalf of a request, so that they join its trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// The trace.
    pub trace: u128,
    /// The span that the call is made in.
    pub span: u64,
    /// Whether the trace is recorded.
    pub is_sampled: bool,
    /// The client's `tracestate`.
    pub state: Option<HeaderValue>,
}

/// The text of a `traceparent`.
struct Text(u128, u64, bool);

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.0, self.1, u8::from(self.2))
    }
}

impl Carried {
    /// The value of `traceparent`.
    #[must_use]
    pub fn traceparent(&self) -> HeaderValue {
        let text = Text(self.trace, self.span, self.is_sampled).to_string();
        // Digits and dashes: this cannot fail.
        HeaderValue::from_maybe_shared(bytes::Bytes::from(text))
            .unwrap_or(HeaderValue::from_static(""))
    }

    /// Sets `traceparent` and `tracestate` on a call.
    pub fn put(&self, headers: &mut HeaderMap) {
        headers.insert(TRACEPARENT, self.traceparent());
        if let Some(state) = &self.state {
            headers.insert(TRACESTATE, state.clone());
        }
    }
}

/// The client's trace. Where `traceparent` is not there, is there twice or is malformed there is
/// none, and `tracestate` means nothing.
pub(super) fn parent(head: &HeaderMap) -> Option<Parent> {
    let mut values = head.get_all(TRACEPARENT).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { parse(value.as_bytes()) }
}

/// The client's `tracestate`: several headers are one list.
pub(super) fn state(head: &HeaderMap) -> Option<HeaderValue> {
    let mut values = head.get_all(TRACESTATE).iter();
    let first = values.next()?;
    let rest: Vec<&HeaderValue> = values.collect();
    let whole = if rest.is_empty() {
        first.clone()
    } else {
        let all: Vec<&[u8]> =
            std::iter::once(first).chain(rest).map(HeaderValue::as_bytes).collect();
        HeaderValue::from_bytes(&all.join(&b","[..])).ok()?
    };
    (1..=LONGEST_STATE).contains(&whole.len()).then_some(whole)
}

fn parse(text: &[u8]) -> Option<Parent> {
    if text.len() < LENGTH || [text[2], text[35], text[52]] != [b'-'; 3] {
        return None;
    }
    let version = hex(&text[..2])?;
    let is_known = version == 0 && text.len() == LENGTH;
    // Later versions begin the same, and may have more behind another dash.
    let is_later = (1..0xff).contains(&version) && (text.len() == LENGTH || text[LENGTH] == b'-');
    if !is_known && !is_later {
        return None;
    }
    let trace = hex(&text[3..35]).filter(|&trace| trace != 0)?;
    let span = hex(&text[36..52]).filter(|&span| span != 0)?;
    let flags = hex(&text[53..LENGTH])?;
    Some(Parent { trace, span: u64::try_from(span).ok()?, is_sampled: flags & 1 == 1 })
}

/// A number in lower-case hexadecimal, of 32 digits at most.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_is_written_is_read() {
        let parent = parse(GOOD.as_bytes()).unwrap();
        assert_eq!(parent.trace, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(parent.span, 0x00f0_67aa_0ba9_02b7);
        assert!(parent.is_sampled);
        let Parent { trace, span, is_sampled } = parent;
        let carried = Carried { trace, span, is_sampled, state: None };
        assert_eq!(carried.traceparent(), GOOD);
        assert!(!parse(GOOD.replace("-01", "-00").as_bytes()).unwrap().is_sampled);
        assert!(parse(GOOD.replace("-01", "-03").as_bytes()).unwrap().is_sampled);
    }

    #[test]
    fn what_is_malformed_is_no_parent() {
        for text in [
            String::new(),
            GOOD[..54].to_owned(),
            format!("{GOOD}-"),
            format!("{GOOD}0"),
            GOOD.to_uppercase(),
            GOOD.replace("4bf9", "4bg9"),
            GOOD.replacen('-', "_", 1),
            GOOD.replacen("00", "ff", 1),
            format!("00-{:032}-00f067aa0ba902b7-01", 0),
            format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{:016}-01", 0),
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        // A later version may say more.
        assert!(parse(format!("cc{}-more", &GOOD[2..]).as_bytes()).is_some());
        assert!(parse(format!("cc{}more", &GOOD[2..]).as_bytes()).is_none());
    }

    #[test]
    fn two_parents_are_none_and_two_states_are_one() {
        let mut head = HeaderMap::new();
        head.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert!(parent(&head).is_some());
        head.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert_eq!(parent(&head), None);
        head.append(TRACESTATE, HeaderValue::from_static("a=1"));
        head.append(TRACESTATE, HeaderValue::from_static("b=2"));
        assert_eq!(state(&head).unwrap(), "a=1,b=2");
        head.insert(TRACESTATE, "x".repeat(513).parse().unwrap());
        assert_eq!(state(&head), None);
    }
}
