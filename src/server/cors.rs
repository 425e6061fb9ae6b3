//! Cross-origin resource sharing: whose pages may use the data plane from a browser, as
//! `[server.cors]` says.
//!
//! A browser sends the page's origin, asks before whatever a plain form could not have sent
//! (a preflight, with `OPTIONS`), and lets the page read an answer only if that names the origin.
//! Cookies are no part of it: nothing here reads any.

use http::HeaderMap;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ALLOW, HeaderName, HeaderValue, ORIGIN, VARY,
};

use super::reply::Reply;
use crate::config::Cors;

/// What a page may read of an answer beside its body.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "inference-header-content-length, retry-after, server-timing, tidegate-flags, tidegate-model-digest, tidegate-model-version, tidegate-outlier-score, traceparent, x-request-id",
);
/// Lets a page read `server-timing` through the browser's own measurements as well.
const TIMING_ALLOW_ORIGIN: HeaderName = HeaderName::from_static("timing-allow-origin");

/// A request that may come from a page.
pub(super) struct Visitor {
    /// What names the page's origin in the answer; nothing where it is not allowed, or no page asks.
    origin: Option<HeaderValue>,
    /// Whether the answer depends on the origin.
    varies: bool,
    preflight: Option<Preflight>,
}

/// What a browser asks before the request itself.
struct Preflight {
    headers: Option<HeaderValue>,
    max_age: u64,
}

impl Visitor {
    /// Looks at a request's head; nothing where the configuration allows nobody.
    pub(super) fn of(cors: &Cors, head: &http::request::Parts) -> Option<Self> {
        if cors.origins.is_empty() {
            return None;
        }
        let headers: &HeaderMap = &head.headers;
        let origin = headers.get(ORIGIN).filter(|origin| cors.allows(origin.as_bytes()));
        let origin = origin.map(|origin| match cors.any {
            true => HeaderValue::from_static("*"),
            false => origin.clone(),
        });
        let asks = head.method == http::Method::OPTIONS
            && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        let preflight = asks.then(|| Preflight {
            headers: headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned(),
            max_age: cors.max_age.as_secs(),
        });
        Some(Self { origin, varies: !cors.any, preflight })
    }

    /// Says in the answer what the page may do.
    pub(super) fn tell(self, reply: &mut Reply) {
        let Self { origin, varies, preflight } = self;
        if varies {
            reply.add(VARY, HeaderValue::from_static("origin"));
        }
        let Some(origin) = origin else { return };
        reply.set(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        let Some(Preflight { headers, max_age }) = preflight else {
            reply.set(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
            return reply.set(TIMING_ALLOW_ORIGIN, origin);
        };
        if let Some(methods) = reply.response.headers().get(ALLOW).cloned() {
            reply.set(ACCESS_CONTROL_ALLOW_METHODS, methods);
        }
        // No header is dangerous here: what is not known is passed over.
        if let Some(headers) = headers {
            reply.set(ACCESS_CONTROL_ALLOW_HEADERS, headers);
        }
        reply.set(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(max_age));
    }
}
