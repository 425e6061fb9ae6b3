//! What `tidegate drift` prints. Colour is for terminals only: the `console` crate sees to that.

use std::fmt::Write;

use console::{Style, style};

use super::Summary;
use super::bars::{ago, bar, grouped, percent, sparkline};
use super::columns::Columns;
use crate::monitor::baseline::Origin;
use crate::monitor::compare::Comparison;
use crate::monitor::feature::{Kind, Side};
use crate::monitor::performance::{Measures, PerformanceVerdict};
use crate::monitor::render::by_name;
use crate::monitor::times::rfc3339;
use crate::monitor::verdict::{
    BaselineInfo, FeatureVerdict, Histogram, History, State, Verdict, WindowVerdict,
};
use crate::stats::effect::RULE;

/// Characters of an evidence bar: full is what means drift.
const BAR: usize = 10;

/// Characters of a sparkline.
const SPARKLINE: usize = 20;

/// Cells named in a row, at most.
const MOST_MOVED: usize = 3;

/// Everything that is watched.
pub(super) fn overview(summaries: &[Summary], now: u64) -> String {
    let mut columns = Columns::new(
        &[
            "model",
            "version",
            "segment",
            "state",
            "since",
            "evidence",
            "rows",
            "features that moved",
        ],
        &[1, 6],
    );
    for of in summaries {
        let moved = match (of.drifted.as_slice(), of.suspected.as_slice()) {
            ([], []) => String::new(),
            (drifted, []) => drifted.join(", "),
            ([], suspected) => format!("suspected: {}", suspected.join(", ")),
            (drifted, suspected) => {
                format!("{}; suspected: {}", drifted.join(", "), suspected.join(", "))
            }
        };
        columns.push(vec![
            of.model.clone(),
            of.version.to_string(),
            of.segment.clone().unwrap_or_default(),
            state(of.state, of.acknowledged),
            ago(now, of.state_since),
            evidence(of.evidence, of.threshold, of.state),
            grouped(of.rows),
            match of.baseline.learning {
                Some(missing) => learning(&of.baseline, missing),
                None => moved,
            },
        ]);
    }
    let mut text = String::new();
    columns.write(&mut text);
    text
}

/// One verdict: its head, a row for each feature, and what it means in words.
pub(super) fn verdict(verdict: &Verdict, window: &str, limit: usize, now: u64) -> String {
    let mut text = head(verdict, now);
    if verdict.features.is_empty() {
        return text;
    }
    text.push('\n');
    let mut columns = Columns::new(
        &[
            "feature",
            "",
            "state",
            "evidence",
            "lately",
            "psi",
            "js",
            "missing",
            "outside",
            "moved most",
        ],
        &[5, 6, 7, 8],
    );
    let mut windows = Vec::new();
    // What one feature needs, for the mean of all to be beyond the threshold whatever the others say.
    let alone = verdict.threshold + (verdict.features.len() as f64).ln();
    for feature in verdict.features.iter().take(limit) {
        let shown = chosen(feature, window);
        windows.extend(shown.map(|shown| shown.window.as_str()));
        columns.push(row(feature, shown, alone));
    }
    columns.write(&mut text);
    if verdict.features.len() > limit {
        let more = verdict.features.len() - limit;
        let _ = writeln!(text, "and {more} more with less evidence (--limit)");
    }
    windows.sort_unstable();
    windows.dedup();
    let _ = writeln!(
        text,
        "{}",
        style(format!(
            "effect sizes of window {}; psi is debiased; outside: new categories, numbers out of the baseline's range",
            windows.join(", ")
        ))
        .dim()
    );
    if let Some(of) = &verdict.performance {
        performance(of, window, &mut text);
    }
    for sentence in &verdict.text {
        let _ = writeln!(text, "- {sentence}");
    }
    text
}

/// Measures of the baseline, by labels and estimated; nothing where there is none of them.
fn performance(of: &PerformanceVerdict, window: &str, text: &mut String) {
    let realised = of.realised.iter().find(|o| o.window == window).or_else(|| of.realised.last());
    let estimated =
        of.estimated.iter().find(|o| o.window == window).or_else(|| of.estimated.last());
    let realised = realised.filter(|o| o.rows > 0);
    let estimated = estimated.filter(|o| o.rows > 0);
    if realised.is_none() && estimated.is_none() {
        return;
    }
    let _ = writeln!(
        text,
        "\nperformance: {} {}; {} labels, {} rows wait for theirs",
        state(of.state, of.acknowledged),
        evidence(of.loss.evidence, of.loss.threshold, of.state),
        grouped(of.labels.joined),
        grouped(of.labels.waiting),
    );
    let none = Measures::default();
    let baseline = by_name(of.baseline.as_ref().unwrap_or(&none));
    let realised = by_name(realised.map_or(&none, |o| &o.measures));
    let bands = estimated.map(|o| &o.measures);
    let band = |measure: &str| {
        let bands = bands?;
        match measure {
            "accuracy" => bands.accuracy,
            "precision" => bands.precision,
            "recall" => bands.recall,
            "f1" => bands.f1,
            "roc_auc" => bands.roc_auc,
            _ => None,
        }
    };
    let number = |value: Option<f64>| value.map(|value| format!("{value:.4}")).unwrap_or_default();
    let mut columns = Columns::new(&["measure", "baseline", "by labels", "estimated"], &[1, 2]);
    for ((measure, baseline), (_, realised)) in baseline.into_iter().zip(realised) {
        let band = band(measure);
        if baseline.is_none() && realised.is_none() && band.is_none() {
            continue;
        }
        let estimated =
            band.map(|band| format!("{:.4} ({:.4} to {:.4})", band.value, band.low, band.high));
        let estimated = estimated.unwrap_or_default();
        columns.push(vec![measure.to_owned(), number(baseline), number(realised), estimated]);
    }
    columns.write(text);
    if estimated.is_some() {
        let hint = "estimated from scores: right as long as a score means what it did";
        let _ = writeln!(text, "{}", style(hint).dim());
    }
}

fn head(verdict: &Verdict, now: u64) -> String {
    let subject = &verdict.subject;
    let segment = subject.segment.as_ref().map(|segment| format!(", segment {segment}"));
    let mut text = format!(
        "{}: {} since {} ({})\n",
        style(format!(
            "{} version {}{}",
            subject.model,
            subject.version,
            segment.unwrap_or_default()
        ))
        .bold(),
        state(verdict.state, verdict.acknowledged),
        rfc3339(verdict.state_since),
        ago(now, verdict.state_since),
    );
    let baseline = &verdict.baseline;
    let of_baseline = match baseline.learning {
        Some(missing) => learning(baseline, missing),
        None => {
            format!("baseline of {} rows ({})", grouped(baseline.rows), origin(baseline.origin))
        }
    };
    let _ = writeln!(
        text,
        "{} rows in {} ticks, the last {}; {of_baseline}",
        grouped(verdict.rows),
        grouped(verdict.ticks),
        ago(now, verdict.at),
    );
    let _ = writeln!(
        text,
        "all features together: {} of {:.1}, which comes of chance at most {}",
        evidence(verdict.evidence, verdict.threshold, verdict.state),
        verdict.threshold,
        verdict.false_alarms,
    );
    text
}

fn row(feature: &FeatureVerdict, window: Option<&WindowVerdict>, threshold: f64) -> Vec<String> {
    let mut row = vec![
        feature.name.clone(),
        side(feature.side),
        state(feature.state, false),
        evidence(feature.evidence, threshold, feature.state),
        sparkline(&feature.recent, threshold, SPARKLINE),
    ];
    let Some(window) = window else {
        row.extend(std::iter::repeat_n(String::new(), 5));
        return row;
    };
    row.extend([
        format!("{:.3}", window.effects.psi_debiased),
        format!("{:.3}", window.effects.jensen_shannon),
        percent(window.missing),
        percent(outside(feature.kind, window)),
        // Where nothing speaks against the baseline, chance moved them.
        match feature.state {
            State::Ok => style(moved(window)).dim().to_string(),
            _ => moved(window),
        },
    ]);
    row
}

/// Rows of a file against a baseline. No evidence: a file is looked at once, and an effect size says
/// how much, not whether.
pub(super) fn comparison(comparison: &Comparison, limit: usize) -> String {
    let mut text = format!(
        "{} rows against {} of the baseline\n\n",
        grouped(comparison.rows),
        grouped(comparison.baseline_rows)
    );
    let mut columns = Columns::new(
        &[
            "feature",
            "",
            "psi",
            "95 %",
            "js",
            "ks",
            "wasserstein",
            "missing",
            "outside",
            "moved most",
        ],
        &[2, 3, 4, 5, 6, 7, 8],
    );
    let number = |value: Option<f64>| value.map(|value| format!("{value:.3}")).unwrap_or_default();
    for feature in comparison.features.iter().take(limit) {
        let effects = &feature.window.effects;
        let (low, high) = effects.psi_interval;
        // By custom: up to 0.1 little, beyond 0.25 much.
        let psi = match effects.psi_debiased {
            psi if psi < 0.1 => Style::new(),
            psi if psi < 0.25 => Style::new().yellow(),
            _ => Style::new().red(),
        };
        columns.push(vec![
            feature.name.clone(),
            side(feature.side),
            psi.apply_to(format!("{:.3}", effects.psi_debiased)).to_string(),
            format!("{low:.3} to {high:.3}"),
            format!("{:.3}", effects.jensen_shannon),
            number(effects.ks),
            number(effects.wasserstein),
            percent(feature.window.missing),
            percent(outside(feature.kind, &feature.window)),
            moved(&feature.window),
        ]);
    }
    columns.write(&mut text);
    if comparison.features.len() > limit {
        let more = comparison.features.len() - limit;
        let _ = writeln!(text, "and {more} more that moved less (--limit)");
    }
    if let Some(outliers) = comparison.outliers {
        let _ = writeln!(
            text,
            "{} of the rows are outliers, as 0.1 % of the baseline's are",
            percent(outliers)
        );
    }
    let _ = writeln!(text, "{}", style(RULE).dim());
    text
}

/// The window that is wished; where a feature has none of that name, the longest.
fn chosen<'a>(feature: &'a FeatureVerdict, wished: &str) -> Option<&'a WindowVerdict> {
    let mut windows = feature.windows.iter();
    windows.find(|window| window.window == wished).or_else(|| feature.windows.last())
}

fn side(side: Side) -> String {
    let side = match side {
        Side::Input => "in",
        Side::Output => "out",
        Side::Derived => "made",
    };
    style(side).dim().to_string()
}

/// The share of values that the baseline does not know.
fn outside(kind: Kind, window: &WindowVerdict) -> f64 {
    match kind {
        Kind::Numeric => window.out_of_range,
        Kind::Categorical => window.new,
    }
}

/// The cells that moved most, with their shares before and now.
fn moved(window: &WindowVerdict) -> String {
    let cells = window.moved.iter().take(MOST_MOVED).map(|cell| {
        let (expected, actual) = (percent(cell.expected), percent(cell.actual));
        format!("{} {expected} → {actual}", cell.cell)
    });
    cells.collect::<Vec<_>>().join("; ")
}

/// A feature's cells in the baseline and now, and its history.
pub(super) fn feature(histogram: &Histogram, history: &History) -> String {
    let (before, now): (u64, u64) = (histogram.baseline.iter().sum(), histogram.live.iter().sum());
    let mut text = format!(
        "{}: {} values of window {}, {} of the baseline\n\n",
        style(&histogram.feature).bold(),
        grouped(now),
        histogram.window,
        grouped(before),
    );
    let share = |count: u64, all: u64| if all == 0 { 0.0 } else { count as f64 / all as f64 };
    let shares = histogram.cells.iter().zip(&histogram.baseline).zip(&histogram.live);
    let shares: Vec<(&String, f64, f64)> = shares
        .map(|((cell, old), new)| (cell, share(*old, before), share(*new, now)))
        // Cells that nothing ever was in say nothing.
        .filter(|(_, old, new)| *old > 0.0 || *new > 0.0)
        .collect();
    let most = shares.iter().fold(0.0, |most: f64, (_, old, new)| most.max(*old).max(*new));
    let mut columns = Columns::new(&["cell", "baseline", "", "now", "", "times"], &[1, 3, 5]);
    for (cell, old, new) in shares {
        let times = match old > 0.0 {
            true => format!("{:.2}", new / old),
            false => "new".to_owned(),
        };
        let strong = if old > 0.0 && (0.5..=2.0).contains(&(new / old)) {
            Style::new()
        } else {
            Style::new().yellow()
        };
        columns.push(vec![
            cell.clone(),
            percent(old),
            bar(old / most, 2 * BAR),
            percent(new),
            strong.apply_to(bar(new / most, 2 * BAR)).to_string(),
            times,
        ]);
    }
    columns.write(&mut text);
    let points = &history.points;
    if let (Some(first), Some(last)) = (points.first(), points.last()) {
        let _ = writeln!(text, "\nfrom {} to {}", rfc3339(first.at), rfc3339(last.at));
        for (name, values) in [
            ("evidence", points.iter().map(|point| point.evidence).collect::<Vec<_>>()),
            ("psi", points.iter().map(|point| point.psi).collect()),
            ("missing", points.iter().map(|point| point.missing).collect()),
        ] {
            let most = values.iter().copied().fold(0.0, f64::max);
            let line = sparkline(&values, 0.0, 3 * SPARKLINE);
            let _ = writeln!(text, "{name:9} {line}  at most {most:.3}");
        }
    }
    text
}

fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::File => "of a file",
        Origin::Live => "learned live",
    }
}

fn learning(baseline: &BaselineInfo, missing: u64) -> String {
    let wanted = baseline.rows.saturating_add(missing);
    format!("learning a baseline: {} of {} rows", grouped(baseline.rows), grouped(wanted))
}

fn state(state: State, acknowledged: bool) -> String {
    let name = match acknowledged {
        true => format!("{}, seen", state.name()),
        false => state.name().to_owned(),
    };
    colour(state).apply_to(name).to_string()
}

fn evidence(evidence: f64, threshold: f64, of: State) -> String {
    let bar = bar(evidence / threshold, BAR);
    // No evidence yet is the logarithm of nothing.
    let evidence = if evidence.is_finite() { evidence } else { 0.0 };
    format!("{}{} {evidence:.1}", colour(of).apply_to(bar), style("▏").dim())
}

fn colour(state: State) -> Style {
    match state {
        State::Learning => Style::new().cyan(),
        State::Ok => Style::new().green(),
        State::Suspected => Style::new().yellow(),
        State::Drifted => Style::new().red().bold(),
        State::Recovered => Style::new().blue(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::sample;

    /// No colour in tests, whatever they run on.
    fn plain(text: &str) -> String {
        console::strip_ansi_codes(text).into_owned()
    }

    #[test]
    fn a_verdict_says_what_moved_since_when_and_how_much() {
        let sample = sample::verdict("loan", 2, Some("north"));
        let text = plain(&verdict(&sample, "1h", 2, sample.at + 1000));
        for expected in [
            "loan version 2, segment north: drifted since 2026-09-21T14:05:00.000Z (8 min ago)\n",
            "50,000 rows in 1,000 ticks, the last 1 s ago; baseline of 20,000 rows (of a file)\n",
            "██████████▏ 40.0 of 14.8, which comes of chance at most 1 per 30 days",
            "income   in  drifted  ██████████▏ 41.0",
            "0.250  0.200    2.0 %    0.3 %  (41, 57] 6.2 % → 12 %\n",
            "and 1 more with less evidence",
            "- income moved",
        ] {
            assert!(text.contains(expected), "{expected} is missing in\n{text}");
        }
    }

    #[test]
    fn a_feature_is_shown_by_its_cells() {
        let histogram = Histogram {
            feature: "income".to_owned(),
            window: "1h".to_owned(),
            cells: ["(-inf, 4]", "(4, 9]", "missing", "infinite"].map(str::to_owned).into(),
            baseline: vec![50, 50, 0, 0],
            live: vec![25, 70, 5, 0],
        };
        let history = History { feature: "income".to_owned(), points: Vec::new() };
        let text = plain(&feature(&histogram, &history));
        for expected in ["(4, 9]         50 %", "1.40\n", "5.0 %", "new\n"] {
            assert!(text.contains(expected), "{expected} is missing in\n{text}");
        }
        assert!(!text.contains("infinite"), "{text}");
    }

    #[test]
    fn evidence_of_nothing_is_no_number() {
        assert_eq!(plain(&evidence(f64::NEG_INFINITY, 14.0, State::Ok)), "          ▏ 0.0");
    }
}
