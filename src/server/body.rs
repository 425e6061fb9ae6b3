//! Bodies in and out: limits, time, compression.
//!
//! A body is refused by its declared length before a byte of it is read, and by its real length
//! as soon as it exceeds the limit, before and after decompression. Memory is taken as bytes
//! come, not as the client announces them.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderValue, VARY,
};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::reply::{Body, Reply};
use crate::error::{Code, Fault};

/// Memory taken at once for an announced body; more is taken as it comes.
const RESERVE_AT_MOST: u64 = 1 << 20;

/// Answers shorter than this are not worth compressing: they fit into one packet anyway.
const COMPRESS_FROM: usize = 1400;

/// Why a body could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the body has {size} bytes, more than the limit of {limit} (limits.body)")]
    TooLarge { size: u64, limit: u64 },
    #[error("the body decompresses to more than the limit of {limit} bytes (limits.body)")]
    Inflated { limit: u64 },
    #[error("the body did not arrive within {} ms (limits.body_time)", .0.as_millis())]
    Slow(Duration),
    #[error("the body broke off: {0}")]
    Broken(String),
    #[error("content-encoding '{0}' is not supported; send gzip, deflate or identity")]
    Encoding(String),
    #[error("the body is not valid {encoding}: {error}")]
    Corrupt { encoding: &'static str, error: std::io::Error },
    #[error("content-length {0} is not a number")]
    Length(String),
}

impl Fault for BodyError {
    fn code(&self) -> Code {
        match self {
            Self::TooLarge { .. } | Self::Inflated { .. } => Code::TooLarge,
            Self::Slow(_) => Code::SlowClient,
            Self::Encoding(_) => Code::UnsupportedMedia,
            Self::Broken(_) | Self::Corrupt { .. } | Self::Length(_) => Code::InvalidArgument,
        }
    }
}

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Deflate,
}

impl Coding {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }
}

/// Reads a whole body of at most `limit` bytes, decompressed, within `time`.
pub(super) async fn read(
    head: &http::request::Parts,
    body: Incoming,
    limit: u64,
    time: Duration,
) -> Result<Bytes, BodyError> {
    let is_http1 = head.version != http::Version::HTTP_2;
    let head = &head.headers;
    let coding = coding(head)?;
    let announced = match head.get(CONTENT_LENGTH) {
        Some(length) => {
            let text = length.to_str().unwrap_or("that is not text");
            text.parse::<u64>().map_err(|_| BodyError::Length(text.to_owned()))?
        }
        None => 0,
    };
    if announced > limit {
        return Err(BodyError::TooLarge { size: announced, limit });
    }
    let body = collect(body, announced, limit, time, is_http1).await?;
    match coding {
        None => Ok(body),
        Some(coding) => inflate(coding, &body, limit),
    }
}

async fn collect(
    mut body: Incoming,
    announced: u64,
    limit: u64,
    time: Duration,
    is_http1: bool,
) -> Result<Bytes, BodyError> {
    let broken = |error: hyper::Error| BodyError::Broken(error.to_string());
    let deadline = tokio::time::Instant::from_std(Instant::now() + time);
    let mut whole: Option<BytesMut> = None;
    let mut first = Bytes::new();
    loop {
        let frame = match ready_frame(&mut body, is_http1).await {
            Some(frame) => frame,
            None => tokio::time::timeout_at(deadline, body.frame())
                .await
                .map_err(|_| BodyError::Slow(time))?,
        };
        let Some(frame) = frame else { break };
        // What is no data is trailers, which mean nothing here.
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        let so_far = whole.as_ref().map_or(first.len(), BytesMut::len);
        check_size((so_far + data.len()) as u64, limit)?;
        match &mut whole {
            Some(whole) => whole.extend_from_slice(&data),
            // One frame is taken as it is: most bodies come so.
            None if first.is_empty() => first = data,
            None => {
                let reserve = announced.min(RESERVE_AT_MOST).max((so_far + data.len()) as u64);
                let mut bytes = BytesMut::with_capacity(usize::try_from(reserve).unwrap_or(0));
                bytes.extend_from_slice(&first);
                bytes.extend_from_slice(&data);
                whole = Some(bytes);
            }
        }
        if whole.is_none() && http_body::Body::is_end_stream(&body) {
            break;
        }
    }
    Ok(whole.map_or(first, BytesMut::freeze))
}

type Frame = Option<Result<hyper::body::Frame<Bytes>, hyper::Error>>;

/// The next frame, where it comes without a wait; nothing where a timer is worth its cost, which
/// is a lock that all I/O threads share.
///
/// On HTTP/1 hyper reads the body only once it is asked for, in the same task: so the first
/// answer is "not yet" even if all bytes are there, and the second, in the same turn of the
/// connection, is the frame. If the bytes have not come either, the connection's clock, which
/// wakes the task at least every few seconds, sees to it that the second question is asked.
async fn ready_frame(body: &mut Incoming, is_http1: bool) -> Option<Frame> {
    let mut asked = !is_http1;
    std::future::poll_fn(|context| {
        let poll = http_body::Body::poll_frame(std::pin::Pin::new(&mut *body), context);
        match poll {
            std::task::Poll::Ready(frame) => std::task::Poll::Ready(Some(frame)),
            std::task::Poll::Pending if std::mem::replace(&mut asked, true) => {
                std::task::Poll::Ready(None)
            }
            std::task::Poll::Pending => std::task::Poll::Pending,
        }
    })
    .await
}

fn check_size(size: u64, limit: u64) -> Result<(), BodyError> {
    if size > limit { Err(BodyError::TooLarge { size, limit }) } else { Ok(()) }
}

fn coding(head: &HeaderMap) -> Result<Option<Coding>, BodyError> {
    let Some(encoding) = head.get(CONTENT_ENCODING) else { return Ok(None) };
    match encoding.as_bytes() {
        b"" | b"identity" => Ok(None),
        b"gzip" | b"x-gzip" => Ok(Some(Coding::Gzip)),
        b"deflate" => Ok(Some(Coding::Deflate)),
        other => Err(BodyError::Encoding(String::from_utf8_lossy(other).into_owned())),
    }
}

/// Decompresses to at most `limit` bytes.
pub(super) fn inflate(coding: Coding, body: &[u8], limit: u64) -> Result<Bytes, BodyError> {
    let mut whole = Vec::new();
    // One byte more than allowed tells too much from just enough.
    let read = match coding {
        Coding::Gzip => GzDecoder::new(body).take(limit + 1).read_to_end(&mut whole),
        Coding::Deflate => ZlibDecoder::new(body).take(limit + 1).read_to_end(&mut whole),
    };
    read.map_err(|error| BodyError::Corrupt { encoding: coding.name(), error })?;
    if whole.len() as u64 > limit {
        return Err(BodyError::Inflated { limit });
    }
    Ok(whole.into())
}

/// Compresses an answer of several pieces where the client takes it and it is worth it.
pub(super) fn compress(head: &HeaderMap, reply: &mut Reply, body: Bytes, rest: Vec<Bytes>) {
    let size = body.len() + rest.iter().map(Bytes::len).sum::<usize>();
    let coding = accepted(head).filter(|_| size >= COMPRESS_FROM);
    let compressed = coding.and_then(|coding| {
        let whole = deflate(coding, std::iter::once(&body).chain(&rest));
        whole.ok().map(|whole| (coding, whole))
    });
    let body = match compressed {
        Some((coding, whole)) => {
            reply.set(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
            reply.set(VARY, HeaderValue::from_static("accept-encoding"));
            Body::from(Bytes::from(whole))
        }
        None => Body::pieces(body, rest),
    };
    *reply.response.body_mut() = body;
}

/// Compresses pieces into one.
pub(super) fn deflate<'a>(
    coding: Coding,
    mut pieces: impl Iterator<Item = &'a Bytes>,
) -> std::io::Result<Vec<u8>> {
    let level = Compression::fast();
    match coding {
        Coding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), level);
            pieces.try_for_each(|piece| encoder.write_all(piece))?;
            encoder.finish()
        }
        Coding::Deflate => {
            let mut encoder = ZlibEncoder::new(Vec::new(), level);
            pieces.try_for_each(|piece| encoder.write_all(piece))?;
            encoder.finish()
        }
    }
}

/// The first coding of ours that the client lists without refusing it.
fn accepted(head: &HeaderMap) -> Option<Coding> {
    let accepts = head.get(ACCEPT_ENCODING)?.to_str().ok()?;
    accepts.split(',').find_map(|item| {
        let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
        let refused = parameters.trim().strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0));
        match name.trim() {
            _ if refused => None,
            "gzip" | "x-gzip" => Some(Coding::Gzip),
            "deflate" => Some(Coding::Deflate),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_coding_that_is_not_refused() {
        for (header, expected) in [
            ("gzip", Some(Coding::Gzip)),
            ("br, deflate;q=0.5, gzip", Some(Coding::Deflate)),
            ("gzip;q=0, deflate", Some(Coding::Deflate)),
            ("gzip;q=0", None),
            ("identity", None),
            ("", None),
        ] {
            let head = HeaderMap::from_iter([(ACCEPT_ENCODING, header.parse().unwrap())]);
            assert_eq!(accepted(&head), expected, "{header}");
        }
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&vec![0; 10 << 20]).unwrap();
        let bomb = encoder.finish().unwrap();
        assert!(bomb.len() < 20_000);
        let error = inflate(Coding::Gzip, &bomb, 1 << 20).unwrap_err();
        assert_eq!(error.code(), Code::TooLarge);
        assert_eq!(inflate(Coding::Gzip, &bomb, 10 << 20).unwrap().len(), 10 << 20);
        let error = inflate(Coding::Deflate, b"not compressed", 100).unwrap_err();
        assert!(error.to_string().starts_with("the body is not valid deflate"), "{error}");
    }
}
