//! `tidegate feedback`

use std::io::Read;
use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use csv::{Reader, StringRecord};
use indicatif::{ProgressBar, ProgressStyle};

use super::client::Client;
use super::table::Table;
use super::{Failure, print_raw};
use crate::protocol::v2::{FeedbackCounts, FeedbackRecord, Label, encode_feedback};

/// Send labels to a running server: what turned out to be true of requests that it answered.
///
/// The file is a CSV with a header. A line names a request by its id, the row of the request
/// where it had several, and the label: a number, true or false, or a class's name. Lines without
/// a label are passed over. Sending a file twice does no harm: labels that came before are
/// counted as duplicates.
#[derive(Debug, Args)]
pub(super) struct Feedback {
    /// The CSV file
    file: PathBuf,
    /// The model
    #[arg(long, short)]
    model: String,
    /// A version or an alias, instead of the primary
    #[arg(long)]
    version: Option<String>,
    /// The column of the requests' ids
    #[arg(long, value_name = "COLUMN", default_value = "id")]
    id: String,
    /// The column of the labels
    #[arg(long, value_name = "COLUMN", default_value = "label")]
    label: String,
    /// The column of the row within the request, from 0; without it every label is of row 0
    #[arg(long, value_name = "COLUMN")]
    row: Option<String>,
    /// The server
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    url: String,
    /// Labels sent at once
    #[arg(long, default_value_t = 1000)]
    batch: usize,
}

impl Feedback {
    pub(super) fn run(self) -> Result<(), Failure> {
        let named = |error: &dyn std::fmt::Display| Failure {
            code: 1,
            message: format!("{}: {error}", self.file.display()),
        };
        let client = Client::new(&self.url)?;
        let version = self.version.as_ref().map(|v| format!("/versions/{v}")).unwrap_or_default();
        let path = format!("/v2/models/{}{version}/feedback", self.model);
        let file = std::fs::File::open(&self.file).map_err(|error| named(&error))?;
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        let reader = Reader::from_reader(file);
        let mut lines = Lines::new(reader, &self.id, &self.label, self.row.as_deref())
            .map_err(|error| named(&error))?;
        let progress = progress(length);
        let mut total = FeedbackCounts::default();
        let mut n_sent = 0u64;
        loop {
            let batch = lines.take(self.batch.max(1)).map_err(|error| named(&error))?;
            if batch.is_empty() {
                break;
            }
            let body = Bytes::from(encode_feedback(&batch));
            let answer = client.post(&path, body, None).map_err(|error| Failure {
                code: 1,
                message: format!("after {n_sent} labels: {error}"),
            })?;
            let counts: FeedbackCounts = serde_json::from_slice(&answer.body)?;
            add(&mut total, counts);
            n_sent += batch.len() as u64;
            progress.set_message(format!("{n_sent} labels"));
            progress.set_position(lines.position());
        }
        progress.finish_and_clear();
        print_raw(&format!("{}\n", report(&total, lines.n_empty)));
        if n_sent > 0 && total.joined + total.waiting + total.duplicate == 0 {
            eprintln!(
                "no label found its prediction: are the ids those of the requests, and is the model watched?"
            );
        }
        Ok(())
    }
}

/// Shown on a terminal only, on standard error.
fn progress(length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length);
    let template = "{bar:40} {percent} %, {msg}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

fn add(total: &mut FeedbackCounts, counts: FeedbackCounts) {
    let FeedbackCounts { joined, waiting, late, unknown, duplicate, invalid } = counts;
    total.joined += joined;
    total.waiting += waiting;
    total.late += late;
    total.unknown += unknown;
    total.duplicate += duplicate;
    total.invalid += invalid;
}

/// The totals, with what they mean.
fn report(total: &FeedbackCounts, n_empty: u64) -> Table {
    let mut table = Table::new(vec!["labels".to_owned(), "count".to_owned(), String::new()]);
    for (name, count, meaning) in [
        ("joined", total.joined, "found their prediction"),
        ("waiting", total.waiting, "their prediction is not counted yet"),
        ("late", total.late, "their prediction no longer waited (monitor.labels.wait and most)"),
        ("unknown", total.unknown, "no such request is known here"),
        ("duplicate", total.duplicate, "came before"),
        ("invalid", total.invalid, "are none of the model's classes, or no number"),
        ("empty", n_empty, "lines without a label, not sent"),
    ] {
        if count > 0 || name == "joined" {
            table.push(vec![name.to_owned(), count.to_string(), meaning.to_owned()]);
        }
    }
    table
}

/// The lines of a CSV file as records.
struct Lines<R> {
    reader: Reader<R>,
    id: usize,
    label: usize,
    row: Option<usize>,
    /// Lines without a label so far.
    n_empty: u64,
    line: StringRecord,
}

impl<R: Read> Lines<R> {
    fn new(
        mut reader: Reader<R>,
        id: &str,
        label: &str,
        row: Option<&str>,
    ) -> Result<Self, String> {
        let header = reader.headers().map_err(|error| error.to_string())?.clone();
        let column = |name: &str| {
            header.iter().position(|column| column.trim() == name).ok_or_else(|| {
                let columns = header.iter().collect::<Vec<_>>().join(", ");
                format!("there is no column '{name}'; the file has {columns}")
            })
        };
        let (id, label) = (column(id)?, column(label)?);
        let row = row.map(column).transpose()?;
        Ok(Self { reader, id, label, row, n_empty: 0, line: StringRecord::new() })
    }

    /// The next records, at most `most`; none at the end.
    fn take(&mut self, most: usize) -> Result<Vec<FeedbackRecord>, String> {
        let mut records = Vec::new();
        while records.len() < most
            && self.reader.read_record(&mut self.line).map_err(|error| error.to_string())?
        {
            records.extend(self.record()?);
        }
        Ok(records)
    }

    /// The line as a record; nothing where it has no label.
    fn record(&mut self) -> Result<Option<FeedbackRecord>, String> {
        let cell = |column: usize| self.line.get(column).unwrap_or_default().trim();
        let at = |problem: String| {
            let line = self.line.position().map_or(0, csv::Position::line);
            format!("line {line}: {problem}")
        };
        let label = cell(self.label);
        if label.is_empty() {
            self.n_empty += 1;
            return Ok(None);
        }
        let id = cell(self.id);
        if id.is_empty() {
            return Err(at("the id is empty".to_owned()));
        }
        let row = match self.row.map(cell) {
            None => 0,
            Some(row) => row
                .parse()
                .map_err(|_| at(format!("expected a row of the request, from 0, got '{row}'")))?,
        };
        let label = match (label.parse::<f64>(), label) {
            (Ok(number), _) if number.is_finite() => Label::Number(number),
            (_, "true" | "True" | "TRUE") => Label::Bool(true),
            (_, "false" | "False" | "FALSE") => Label::Bool(false),
            (_, name) => Label::Text(name.into()),
        };
        Ok(Some(FeedbackRecord { id: id.to_owned(), row, label }))
    }

    /// Bytes read.
    fn position(&self) -> u64 {
        self.reader.position().byte()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str, row: Option<&str>) -> Result<Lines<std::io::Cursor<String>>, String> {
        let reader = Reader::from_reader(std::io::Cursor::new(text.to_owned()));
        Lines::new(reader, "request", "repaid", row)
    }

    #[test]
    fn lines_become_records_in_batches() {
        let text = "request,part,repaid\na,0,1\nb,2, cat \nc,0,\nd,1,true\n";
        let mut lines = lines(text, Some("part")).unwrap();
        let record = |id: &str, row, label| FeedbackRecord { id: id.to_owned(), row, label };
        let first = [record("a", 0, Label::Number(1.0)), record("b", 2, Label::Text("cat".into()))];
        assert_eq!(lines.take(2).unwrap(), first);
        assert_eq!(lines.take(2).unwrap(), [record("d", 1, Label::Bool(true))]);
        assert_eq!(lines.take(2).unwrap(), []);
        assert_eq!((lines.n_empty, lines.position()), (1, text.len() as u64));
    }

    #[test]
    fn what_is_wrong_with_a_file_is_named() {
        let error = lines("id,repaid\na,1\n", None).err().unwrap();
        assert_eq!(error, "there is no column 'request'; the file has id, repaid");
        for (text, expected) in [
            ("request,repaid,part\n,1,0\n", "line 2: the id is empty"),
            (
                "request,repaid,part\na,1,0\nb,1,x\n",
                "line 3: expected a row of the request, from 0, got 'x'",
            ),
            ("request,repaid,part\na,1\n", "CSV error"),
        ] {
            let error = lines(text, Some("part")).unwrap().take(10).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
