//! What is wrong with a configuration, and where.

use std::fmt;

use crate::error::nearest;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, dotted; empty where the trouble is the syntax.
    pub key: String,
    /// Where it stands.
    pub place: Place,
    /// What was expected and what came.
    pub message: String,
}

/// Where a key was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the file, on this line, from 1.
    Line(usize),
    /// In the environment, by this variable.
    Variable(String),
    /// Nobody knows.
    Unknown,
}

/// Everything that is wrong; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<Problem>);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Line(line) => write!(f, "line {line}: ")?,
            Place::Variable(name) => write!(f, "environment variable {name}: ")?,
            Place::Unknown => {}
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.0.iter().enumerate() {
            let newline = if position == 0 { "" } else { "\n" };
            write!(f, "{newline}  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl Problem {
    /// A problem that the TOML reader found in `text`.
    pub(super) fn of_toml(error: &toml::de::Error, text: &str) -> Self {
        let start = error.span().map(|span| span.start);
        let line = start.map(|start| text[..start.min(text.len())].matches('\n').count() + 1);
        let key = line.map(|line| key_on(text, line)).unwrap_or_default();
        let message = with_suggestion(error.message());
        Self { key, place: line.map_or(Place::Unknown, Place::Line), message }
    }

    /// A problem with the value of `key`, which may stand in `text`.
    pub(super) fn of_key(key: &str, text: &str, message: String) -> Self {
        let place = line_of(text, key).map_or(Place::Unknown, Place::Line);
        Self { key: key.to_owned(), place, message }
    }
}

/// The keys of `text` with their lines: enough of TOML for messages, where tables are written as
/// `[header]` and keys one a line, which is how configurations are written.
fn keys(text: &str) -> impl Iterator<Item = (usize, String)> {
    let mut header = String::new();
    text.lines().enumerate().filter_map(move |(index, line)| {
        let line = line.trim();
        if line.starts_with('#') {
            return None;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            header = plain(name.0.trim_start_matches('['));
            return Some((index + 1, header.clone()));
        }
        let (key, _) = line.split_once('=')?;
        let key = plain(key);
        let dot = if header.is_empty() { "" } else { "." };
        Some((index + 1, format!("{header}{dot}{key}")))
    })
}

/// A key without its quotes and spaces.
fn plain(key: &str) -> String {
    key.chars().filter(|c| !c.is_whitespace() && !matches!(c, '"' | '\'')).collect()
}

fn key_on(text: &str, line: usize) -> String {
    let mut before = keys(text).filter(|(at, _)| *at <= line);
    before.by_ref().last().map(|(_, key)| key).unwrap_or_default()
}

/// The line of `key`, or of the nearest table around it.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let mut wanted = key;
    loop {
        if let Some((line, _)) = keys(text).find(|(_, key)| key == wanted) {
            return Some(line);
        }
        wanted = wanted.rsplit_once('.')?.0;
    }
}

/// serde's "unknown field" with the name that was probably meant.
fn with_suggestion(message: &str) -> String {
    let Some(rest) = message.strip_prefix("unknown field `") else {
        return message.to_owned();
    };
    let mut names = rest.split('`').step_by(2);
    let Some(wrong) = names.next() else { return message.to_owned() };
    let best = nearest(wrong, names);
    match best {
        Some(name) => format!("{message}; did you mean `{name}`?"),
        None => message.to_owned(),
    }
}
