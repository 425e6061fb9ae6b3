//! What a replay tells: a table for people, JSON for programs.

use serde::Serialize;

use super::compare::{Cell, Comparison, Latency};
use super::{Failure, Mode, Replay, Skipped};
use crate::cli::table::Table;

/// Who ran.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Subject {
    pub(super) model: String,
    pub(super) version: String,
    pub(super) digest: Option<String>,
    pub(super) engine: Option<String>,
    pub(super) cpu_features: Option<String>,
    pub(super) against: Option<String>,
}

/// The report.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    #[serde(flatten)]
    subject: Subject,
    mode: &'static str,
    #[serde(flatten)]
    comparison: Comparison,
    skipped: Skipped,
    /// Batches of several requests that were run together again.
    batches_reformed: u64,
    /// Rows of batches of which not all members were recorded.
    rows_not_reformed: u64,
    recorded_latency: Latency,
    replayed_latency: Latency,
}

impl Report {
    pub(super) fn new(
        replay: &Replay,
        subject: Subject,
        mut comparison: Comparison,
        skipped: Skipped,
        (batches_reformed, rows_not_reformed): (u64, u64),
    ) -> Self {
        let (recorded_latency, replayed_latency) = comparison.latencies();
        let mode = match replay.mode {
            Mode::Exact => "exact",
            Mode::Numeric => "numeric",
            Mode::Monitor => "monitor",
        };
        Self {
            subject,
            mode,
            comparison,
            skipped,
            batches_reformed,
            rows_not_reformed,
            recorded_latency,
            replayed_latency,
        }
    }

    /// Prints the report; fails where a promise was broken or a request got no answer.
    pub(super) fn finish(self, replay: &Replay) -> Result<(), Failure> {
        if replay.json {
            println!("{}", serde_json::to_string_pretty(&self)?);
        } else {
            self.print(replay);
        }
        let Comparison { rows, broken, failed, .. } = self.comparison;
        if broken > 0 {
            let message = format!("{broken} rows differ although the same bits are promised");
            return Err(Failure { code: 1, message });
        }
        if failed > 0 {
            let message = format!("{failed} requests got no answer that can be compared");
            return Err(Failure { code: 1, message });
        }
        if rows == 0 {
            let message = "no recorded request could be run; --json says why".to_owned();
            return Err(Failure { code: 1, message });
        }
        Ok(())
    }

    fn print(&self, replay: &Replay) {
        let Comparison { rows, bit_equal, promised, class_flips, failed, .. } = self.comparison;
        let mut table = Table::new(["", ""]);
        let share = |part: u64| match rows {
            0 => part.to_string(),
            rows => format!("{part} ({:.4} %)", part as f64 * 100.0 / rows as f64),
        };
        let comparison = &self.comparison;
        table.push(["rows", &rows.to_string()]);
        table.push(["bit-equal", &share(bit_equal)]);
        table.push(["bit-equality promised", &share(promised)]);
        table.push(["class flips", &share(class_flips)]);
        table.push(["largest difference", &format!("{:e}", comparison.largest_difference)]);
        let relative = format!("{:e}", comparison.largest_relative_difference);
        table.push(["largest relative difference", &relative]);
        if replay.mode == Mode::Exact {
            table.push(["batches formed again", &self.batches_reformed.to_string()]);
            table.push(["rows of incomplete batches", &self.rows_not_reformed.to_string()]);
        }
        let Skipped { errors, redacted, other_versions } = self.skipped;
        table.push(["requests without an answer", &errors.to_string()]);
        table.push(["redacted requests", &redacted.to_string()]);
        table.push(["requests of other versions", &other_versions.to_string()]);
        table.push(["failed now", &failed.to_string()]);
        for (name, Latency { p50_us, p99_us, max_us }) in
            [("recorded", self.recorded_latency), ("replayed", self.replayed_latency)]
        {
            let text = format!("p50 {p50_us:.1} µs, p99 {p99_us:.1} µs, max {max_us:.1} µs");
            table.push([&format!("latency {name}"), &text]);
        }
        println!("{table}");
        self.print_distances();
        for failure in &comparison.failures {
            println!("{}: {}", failure.request_id, failure.reason);
        }
        if !comparison.worst.is_empty() {
            let mut table =
                Table::new(["request", "row", "output", "recorded", "replayed", "difference"]);
            for worst in &comparison.worst {
                table.push([
                    worst.request_id.clone(),
                    worst.row.to_string(),
                    format!("{}[{}]", worst.output, worst.element),
                    worst.recorded.to_string(),
                    worst.replayed.to_string(),
                    format!("{:e}", worst.difference),
                ]);
            }
            println!("largest differences\n{table}");
        }
        let Subject { model, version, digest, against, .. } = &self.subject;
        let place = against.as_ref().map(|url| format!(" at {url}")).unwrap_or_default();
        println!("{model} version {version}{place}, {}", digest.as_deref().unwrap_or("no digest"));
        if promised < rows {
            println!("{}", self.no_promise(rows - promised));
        }
    }

    fn print_distances(&self) {
        let counted: Vec<&Cell> =
            self.comparison.ulps.iter().filter(|cell| cell.elements > 0).collect();
        if counted.iter().all(|cell| cell.at_most == Some(0)) {
            return;
        }
        let mut table = Table::new(["units in the last place", "elements"]);
        for cell in counted {
            let name = match cell.at_most {
                None => "one is no number".to_owned(),
                Some(u64::MAX) => "more".to_owned(),
                Some(most) => format!("at most {most}"),
            };
            table.push([name, cell.elements.to_string()]);
        }
        println!("{table}");
    }

    fn no_promise(&self, rows: u64) -> String {
        let why = match (&self.subject.against, self.mode) {
            (Some(_), _) => {
                "a server forms its own batches, and its engine and CPU are not known here"
            }
            (None, "numeric") => "in this mode each request is run by itself",
            _ => {
                "the same bits are promised of the same model file, engine and CPU features, and of batches that are formed again"
            }
        };
        format!("bit-equality is not promised of {rows} rows: {why}")
    }
}
