//! As much of HTTP/1.1 as the load generator needs: a request as bytes, and the head of an answer
//! that says how long its body is.

use std::fmt;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// Larger heads than this are refused, so that a broken server cannot fill the memory.
const MAX_HEAD: usize = 64 * 1024;

/// Where requests go: `http://HOST:PORT/PATH`, on this machine only.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// The address to connect to.
    pub address: SocketAddr,
    /// The path, with a query if there is one.
    pub path: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        let rest = url.strip_prefix("http://").ok_or("the address must begin with http://")?;
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, "/"),
        };
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the path must be printable ASCII without spaces".into());
        }
        let address = match authority.strip_prefix("localhost:") {
            Some(port) => {
                let port = port.parse().map_err(|_| format!("{port} is not a port"))?;
                SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
            }
            None => authority
                .parse::<SocketAddr>()
                .map_err(|_| format!("{authority} is not localhost:PORT or ADDRESS:PORT"))?,
        };
        if !address.ip().is_loopback() {
            return Err(format!("{} is not a loopback address", address.ip()));
        }
        Ok(Self { address, path: path.to_owned() })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.address, self.path)
    }
}

impl Target {
    /// A POST of `body`, ready to be written to a socket: as JSON, unless one of `headers` says
    /// otherwise.
    pub fn post(&self, body: &[u8], headers: &[String]) -> Vec<u8> {
        let Self { address, path } = self;
        let mut request = Vec::with_capacity(path.len() + body.len() + 128);
        // Writing to a vector cannot fail.
        let _ = write!(
            request,
            "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n",
            body.len()
        );
        let is_type = |header: &String| {
            let name = header.split(':').next().unwrap_or_default();
            name.trim().eq_ignore_ascii_case("content-type")
        };
        if !headers.iter().any(is_type) {
            request.extend_from_slice(b"content-type: application/json\r\n");
        }
        for header in headers {
            request.extend_from_slice(header.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(body);
        request
    }
}

/// What the head of an answer says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Head {
    /// The status code.
    pub status: u16,
    /// Bytes up to and including the empty line.
    pub head_bytes: usize,
    /// Bytes of the body.
    pub body_bytes: usize,
    /// Whether the server closes the connection after this answer.
    pub close: bool,
}

/// Reads the head at the start of `bytes`: `None` if more bytes are needed. Answers without a
/// `content-length` (chunked ones, for instance) are an error: the servers measured here send one.
pub fn parse_head(bytes: &[u8]) -> Result<Option<Head>, &'static str> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if bytes.len() > MAX_HEAD { Err("the head is too long") } else { Ok(None) };
    };
    let head = str::from_utf8(&bytes[..end]).map_err(|_| "the head is not text")?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 "))
        .and_then(|line| line.get(..3))
        .and_then(|status| status.parse().ok())
        .ok_or("not an HTTP/1.1 status line")?;
    let (mut body_bytes, mut close) = (None, false);
    for line in lines {
        let (name, value) = line.split_once(':').ok_or("a header without a colon")?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            body_bytes = Some(value.parse().map_err(|_| "content-length is not a number")?);
        } else if name.eq_ignore_ascii_case("connection") {
            close = value.eq_ignore_ascii_case("close");
        }
    }
    let body_bytes = body_bytes.ok_or("no content-length")?;
    Ok(Some(Head { status, head_bytes: end + 4, body_bytes, close }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_of_an_answer() {
        let bytes =
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n{";
        let head = Head { status: 200, head_bytes: bytes.len() - 1, body_bytes: 17, close: false };
        assert_eq!(parse_head(bytes), Ok(Some(head)));
        for cut in 0..bytes.len() - 1 {
            assert_eq!(parse_head(&bytes[..cut]), Ok(None), "{cut} bytes");
        }
    }

    #[test]
    fn connection_close_is_seen() {
        let bytes = b"HTTP/1.1 503 Busy\r\nconnection: Close\r\ncontent-length:0\r\n\r\n";
        let head = Head { status: 503, head_bytes: bytes.len(), body_bytes: 0, close: true };
        assert_eq!(parse_head(bytes), Ok(Some(head)));
    }

    #[test]
    fn malformed_heads_are_errors() {
        for (bytes, error) in [
            ("SSH-2.0-OpenSSH\r\n\r\n", "not an HTTP/1.1 status line"),
            ("HTTP/1.1 2\r\n\r\n", "not an HTTP/1.1 status line"),
            ("HTTP/1.1 abc\r\n\r\n", "not an HTTP/1.1 status line"),
            ("HTTP/1.1 200 OK\r\n\r\n", "no content-length"),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "no content-length"),
            ("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "content-length is not a number"),
            ("HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", "a header without a colon"),
        ] {
            assert_eq!(parse_head(bytes.as_bytes()), Err(error), "{bytes:?}");
        }
        assert_eq!(parse_head(b"HTTP/1.1 200 \xff\r\n\r\n"), Err("the head is not text"));
        assert_eq!(parse_head(&[b'a'; MAX_HEAD + 1]), Err("the head is too long"));
    }

    #[test]
    fn targets_are_loopback_only() {
        let target: Target = "http://localhost:8000/v2/models/a/infer".parse().unwrap();
        assert_eq!(target.address, "127.0.0.1:8000".parse().unwrap());
        assert_eq!(target.path, "/v2/models/a/infer");
        assert_eq!("http://[::1]:80".parse::<Target>().unwrap().path, "/");
        for url in [
            "https://127.0.0.1:8000/",
            "http://192.0.2.1:8000/",
            "http://0.0.0.0:8000/",
            "http://example.org:80/",
            "http://localhost.example.org:80/",
            "http://127.0.0.1/",
            "http://127.0.0.1:8000/a b",
            "http://localhost:x/",
        ] {
            assert!(url.parse::<Target>().is_err(), "{url}");
        }
    }

    #[test]
    fn a_post_is_complete() {
        let target: Target = "http://127.0.0.1:8000/a".parse().unwrap();
        let expected = "POST /a HTTP/1.1\r\nhost: 127.0.0.1:8000\r\n\
                        content-length: 2\r\ncontent-type: application/json\r\n\r\n{}";
        assert_eq!(String::from_utf8(target.post(b"{}", &[])).unwrap(), expected);
        let headers = ["Content-Type: text/plain".to_owned(), "a:b".to_owned()];
        let expected = "POST /a HTTP/1.1\r\nhost: 127.0.0.1:8000\r\n\
                        content-length: 2\r\nContent-Type: text/plain\r\na:b\r\n\r\n{}";
        assert_eq!(String::from_utf8(target.post(b"{}", &headers)).unwrap(), expected);
    }
}
