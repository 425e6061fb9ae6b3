//! The command line of the load generator.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;
use std::{fs, io};

use clap::Parser;

use crate::client::Plan;
use crate::http::Target;

/// A generator that was forgotten must end by itself.
const LONGEST: Duration = Duration::from_secs(600);
/// How long the pacer of an open loop sleeps at least.
const SHORTEST_TICK: Duration = Duration::from_micros(100);
const DEFAULT_DURATION: Duration = Duration::from_secs(10);
const DEFAULT_BODIES: &str = "models/digits/requests.jsonl";

/// Sends predictions to a server on this machine as fast as it answers them, and reports throughput
/// and latency. Ends with code 1 if a request failed (a status other than 200, or no whole answer).
#[derive(Debug, Parser)]
pub struct Options {
    /// Where to send requests; only loopback addresses are accepted
    #[arg(long, default_value = "http://127.0.0.1:8000/v2/models/digits/versions/1/infer")]
    pub url: Target,
    /// File with one request body a line, sent in turn [default: models/digits/requests.jsonl]
    #[arg(long, value_name = "FILE", conflicts_with = "body")]
    pub bodies: Option<PathBuf>,
    /// File that is one request body
    #[arg(long, value_name = "FILE")]
    pub body: Option<PathBuf>,
    /// Connections, each with one request under way
    #[arg(long, default_value = "32")]
    pub connections: NonZeroUsize,
    /// Open loop: so many requests a second are due, whatever the server does
    #[arg(long, value_name = "N", value_parser = parse_rate)]
    pub rate: Option<f64>,
    /// The generator wakes up once in this time at most, to send what is due and to take what was
    /// answered; latencies are up to so much longer [default: 100 µs for what is due, else at once]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub tick: Option<Duration>,

    /// An open loop uses the connection that was used last first, as clients' pools of connections do,
    /// so that it uses no more of them than it needs; else the one that rested longest
    #[arg(long, requires = "rate")]
    pub pooled: bool,

    /// A header to send: NAME:VALUE
    #[arg(long = "header", value_name = "NAME:VALUE", value_parser = parse_header)]
    pub headers: Vec<String>,
    /// How long to measure, at most 10m [default: 10s, or 10m with --requests]
    #[arg(long, value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// End after so many measured requests
    #[arg(long, value_name = "N")]
    pub requests: Option<NonZeroU64>,
    /// Time before the measurement; a failure in it counts as one nevertheless
    #[arg(long, value_parser = parse_duration, default_value = "2s")]
    pub warmup: Duration,
    /// A request without an answer after this time has failed
    #[arg(long, value_parser = parse_duration, default_value = "10s")]
    pub timeout: Duration,
    /// Threads of the generator itself
    #[arg(long, default_value = "1")]
    pub threads: NonZeroUsize,
    /// Write the report to this file as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// End with code 0 even if requests failed
    #[arg(long)]
    pub allow_failures: bool,
}

impl Options {
    /// Reads the bodies and makes requests of them.
    pub fn plan(&self) -> io::Result<Plan> {
        let bodies = match &self.body {
            Some(file) => vec![read(file)?],
            None => {
                let file = self.bodies.clone().unwrap_or_else(|| DEFAULT_BODIES.into());
                lines(&read(&file)?)
            }
        };
        if bodies.is_empty() {
            return Err(io::Error::other("no request bodies in the file"));
        }
        let duration = match (self.duration, self.requests) {
            (Some(duration), _) => duration,
            (None, Some(_)) => LONGEST,
            (None, None) => DEFAULT_DURATION,
        };
        Ok(Plan {
            target: self.url.clone(),
            requests: bodies.iter().map(|body| self.url.post(body, &self.headers)).collect(),
            warmup: self.warmup,
            duration,
            limit: self.requests.map(NonZeroU64::get),
            timeout: self.timeout,
            rate: self.rate,
            tick: self.tick.unwrap_or(SHORTEST_TICK),
            pooled: self.pooled,
        })
    }
}

fn read(file: &PathBuf) -> io::Result<Vec<u8>> {
    fs::read(file).map_err(|error| io::Error::other(format!("{}: {error}", file.display())))
}

fn lines(text: &[u8]) -> Vec<Vec<u8>> {
    let lines = text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    lines.filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
}

/// `500ms`, `10s` or `2m`, at most [`LONGEST`].
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => return Err("expected a number with ms, s or m".into()),
    };
    let number: u64 = number.parse().map_err(|_| "expected a number with ms, s or m")?;
    match number.checked_mul(millis).map(Duration::from_millis) {
        Some(duration) if duration <= LONGEST => Ok(duration),
        _ => Err("more than 10 minutes".into()),
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.1..=1e6).contains(&rate) => Ok(rate),
        _ => Err("expected a number from 0.1 to 1000000".into()),
    }
}

fn parse_header(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    match text.split_once(':') {
        Some((name, _)) if !name.is_empty() && text.bytes().all(is_plain) => Ok(text.to_owned()),
        _ => Err("expected NAME:VALUE in printable ASCII".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("0s"), Ok(Duration::ZERO));
        assert_eq!(parse_duration("10m"), Ok(LONGEST));
        for text in ["", "10", "s", "1.5s", "-1s", "10h", "11m", "601s", "99999999999999999999m"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert!(parse_duration(&format!("{}m", u64::MAX)).is_err());
    }

    #[test]
    fn empty_lines_are_no_bodies() {
        assert_eq!(lines(b"{\"a\":1}\r\n\n {} \n"), [b"{\"a\":1}".to_vec(), b"{}".to_vec()]);
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Options::command().debug_assert();
    }
}
