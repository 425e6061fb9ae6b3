//! Bodies in and out: limits, time, compression.
//!
//! A body is refused by its declared length before a byte of it is read, and by its real length
//! as soon as it exceeds the limit, before and after decompression. Memory is taken as bytes
//! come, not as the client announces them.

use std::borrow::BorrowMut;
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

/// The largest window of zstd that is kept for a body, as a power of two: 8 MiB, which is what
/// RFC 9659 lets clients of HTTP use. A frame may ask for far more.
const ZSTD_WINDOW: u32 = 23;

/// The quickest level that is not made for speed alone.
const ZSTD_LEVEL: i32 = 1;

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
    #[error("content-encoding '{0}' is not supported; send zstd, gzip, deflate or identity")]
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
    Zstd,
    Gzip,
    Deflate,
}

impl Coding {
    /// The one that we like best first. Of random FP32 values in JSON, zstd made 0.61 of the bytes
    /// that gzip made, in its time at 10 kB and 0.6 of it at 100 kB; of the same in binary 0.86 of
    /// the bytes in 0.3 of the time.
    const ALL: [Self; 3] = [Self::Zstd, Self::Gzip, Self::Deflate];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// The coding of this name, in whatever case.
    fn named(name: &str) -> Option<Self> {
        let name = if name.eq_ignore_ascii_case("x-gzip") { "gzip" } else { name };
        Self::ALL.into_iter().find(|coding| coding.name().eq_ignore_ascii_case(name))
    }
}

/// Reads a whole body of at most `limit` bytes, decompressed, within `time`.
pub(super) async fn read(
    head: &http::request::Parts,
    mut body: impl BorrowMut<Incoming>,
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
    let body = collect(body.borrow_mut(), announced, limit, time, is_http1).await?;
    match coding {
        None => Ok(body),
        Some(coding) => inflate(coding, &body, limit),
    }
}

async fn collect(
    body: &mut Incoming,
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
        let frame = match ready_frame(body, is_http1).await {
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
        if whole.is_none() && http_body::Body::is_end_stream(body) {
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
    let name = encoding.to_str().unwrap_or("that is not text").trim();
    if name.is_empty() || name.eq_ignore_ascii_case("identity") {
        return Ok(None);
    }
    Coding::named(name).map(Some).ok_or_else(|| BodyError::Encoding(name.to_owned()))
}

/// Decompresses to at most `limit` bytes.
pub(super) fn inflate(coding: Coding, body: &[u8], limit: u64) -> Result<Bytes, BodyError> {
    let mut whole = Vec::new();
    // One byte more than allowed tells too much from just enough.
    let most = limit.saturating_add(1);
    let read = match coding {
        Coding::Zstd => zstd::stream::read::Decoder::with_buffer(body).and_then(|mut decoder| {
            decoder.window_log_max(ZSTD_WINDOW)?;
            decoder.take(most).read_to_end(&mut whole)
        }),
        Coding::Gzip => GzDecoder::new(body).take(most).read_to_end(&mut whole),
        Coding::Deflate => ZlibDecoder::new(body).take(most).read_to_end(&mut whole),
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
        let whole = deflate(coding, size, std::iter::once(&body).chain(&rest));
        // Numbers in binary may not get any shorter.
        whole.ok().filter(|whole| whole.len() < size).map(|whole| (coding, whole))
    });
    let body = match compressed {
        Some((coding, whole)) => {
            reply.set(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
            reply.add(VARY, HeaderValue::from_static("accept-encoding"));
            Body::from(Bytes::from(whole))
        }
        None => Body::pieces(body, rest),
    };
    *reply.response.body_mut() = body;
}

/// Compresses pieces of `size` bytes altogether into one.
pub(super) fn deflate<'a>(
    coding: Coding,
    size: usize,
    mut pieces: impl Iterator<Item = &'a Bytes>,
) -> std::io::Result<Vec<u8>> {
    let level = Compression::fast();
    match coding {
        Coding::Zstd => {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
            encoder.set_pledged_src_size(Some(size as u64))?;
            pieces.try_for_each(|piece| encoder.write_all(piece))?;
            encoder.finish()
        }
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

/// The coding of ours that the client likes best; of several, the one that we do. Nothing where it
/// would rather have the answer as it is.
fn accepted(head: &HeaderMap) -> Option<Coding> {
    let mut qualities = [None; Coding::ALL.len()];
    let (mut identity, mut any) = (None, None);
    for value in head.get_all(ACCEPT_ENCODING) {
        for item in value.to_str().unwrap_or_default().split(',') {
            let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
            let name = name.trim();
            let quality = quality(parameters);
            match Coding::named(name) {
                Some(coding) => qualities[coding as usize] = Some(quality),
                None if name.eq_ignore_ascii_case("identity") => identity = Some(quality),
                None if name == "*" => any = Some(quality),
                None => {}
            }
        }
    }
    let liked = |coding: Coding| qualities[coding as usize].or(any).unwrap_or(0);
    let best = Coding::ALL.into_iter().rev().max_by_key(|&coding| liked(coding))?;
    // What a client names nothing of, it takes, but asks for the less.
    let is_liked = liked(best) > 0 && liked(best) >= identity.unwrap_or(0);
    is_liked.then_some(best)
}

/// A quality value in thousandths, as which it has three decimals at most; what is none is 1.
fn quality(parameters: &str) -> u16 {
    let mut parameters = parameters.split(';').map(str::trim);
    let value = parameters.find_map(|p| p.strip_prefix("q=").or(p.strip_prefix("Q=")));
    let value = value.and_then(|value| value.trim().parse::<f64>().ok());
    value.map_or(1000, |value| (value.clamp(0.0, 1.0) * 1000.0) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coding_that_the_client_likes_best_and_then_we() {
        for (header, expected) in [
            ("gzip", Some(Coding::Gzip)),
            ("x-gzip", Some(Coding::Gzip)),
            ("GZIP", Some(Coding::Gzip)),
            ("gzip, deflate, br, zstd", Some(Coding::Zstd)),
            ("br, deflate;q=0.5, gzip", Some(Coding::Gzip)),
            ("gzip;q=0.5, deflate;q=0.501", Some(Coding::Deflate)),
            ("gzip;q=0, deflate", Some(Coding::Deflate)),
            ("zstd; q=0.2, gzip; q=0.1", Some(Coding::Zstd)),
            ("gzip;q=0", None),
            ("*", Some(Coding::Zstd)),
            ("*;q=0.5, gzip", Some(Coding::Gzip)),
            ("*, zstd;q=0", Some(Coding::Gzip)),
            ("*;q=0", None),
            ("identity", None),
            ("identity;q=1, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.5", Some(Coding::Gzip)),
            ("gzip;q=nonsense", Some(Coding::Gzip)),
            ("br", None),
            ("", None),
        ] {
            let head = HeaderMap::from_iter([(ACCEPT_ENCODING, header.parse().unwrap())]);
            assert_eq!(accepted(&head), expected, "{header}");
        }
        assert_eq!(accepted(&HeaderMap::new()), None);
    }

    #[test]
    fn what_is_compressed_is_inflated_again() {
        let body = Bytes::from(vec![b'7'; 5000]);
        for coding in Coding::ALL {
            let head =
                HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(coding.name()))]);
            let mut reply = Reply::ok(HeaderValue::from_static("text/plain"), Bytes::new());
            compress(&head, &mut reply, body.clone(), vec![body.clone()]);
            assert_eq!(reply.response.headers()[CONTENT_ENCODING], coding.name());
            let mut body = std::mem::take(reply.response.body_mut());
            let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
            let frame = http_body::Body::poll_frame(std::pin::Pin::new(&mut body), context);
            let std::task::Poll::Ready(Some(Ok(frame))) = frame else { panic!("{frame:?}") };
            let whole = inflate(coding, frame.data_ref().unwrap(), 10_000).unwrap();
            assert_eq!(whole, vec![b'7'; 10_000]);
        }
    }

    #[test]
    fn a_frame_that_wants_much_memory_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(ZSTD_WINDOW + 1).unwrap();
        // Without the size, since a frame of known size needs no more than that.
        encoder.write_all(&vec![0; 1 << 25]).unwrap();
        let body = encoder.finish().unwrap();
        let error = inflate(Coding::Zstd, &body, 1 << 26).unwrap_err();
        assert!(error.to_string().starts_with("the body is not valid zstd"), "{error}");
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
        let bomb = zstd::encode_all(&vec![0; 10 << 20][..], 1).unwrap();
        let error = inflate(Coding::Zstd, &bomb, 1 << 20).unwrap_err();
        assert_eq!(error.code(), Code::TooLarge);
        assert_eq!(inflate(Coding::Zstd, &bomb, 10 << 20).unwrap().len(), 10 << 20);
        let error = inflate(Coding::Deflate, b"not compressed", 100).unwrap_err();
        assert!(error.to_string().starts_with("the body is not valid deflate"), "{error}");
    }
}
