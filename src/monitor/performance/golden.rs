//! Estimates against NannyML 0.13.1's: `load-tests/drift/golden_performance.py` prints the golden
//! values and writes the data.

use std::path::Path;

use super::*;

fn uniform(i: u64, factor: u64, modulus: u64) -> f64 {
    (i * factor % modulus) as f64 / modulus as f64
}

/// Rows as the reference takes them.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) n_scores: usize,
    pub(super) scores: Vec<f32>,
    pub(super) predicted: Vec<Label>,
    pub(super) labels: Vec<Option<Label>>,
}

impl Rows {
    pub(super) fn predictions(&self) -> Predictions<'_> {
        let predicted = Predicted::Labels(&self.predicted);
        Predictions { scores: &self.scores, n_scores: self.n_scores, predicted }
    }

    pub(super) fn fit(&self) -> ScoreBaseline {
        let reference = Reference {
            predictions: self.predictions(),
            labels: &self.labels,
            classes: &[],
            task: None,
            loss: None,
            is_ordered: false,
        };
        ScoreBaseline::fit(&reference).unwrap()
    }

    pub(super) fn part(&self, start: usize, end: usize) -> Predictions<'_> {
        let scores = &self.scores[start * self.n_scores..end * self.n_scores];
        let predicted = Predicted::Labels(&self.predicted[start..end]);
        Predictions { scores, n_scores: self.n_scores, predicted }
    }
}

/// Scores that are too sure of themselves, and labels; `shift` moves the scores.
pub(super) fn binary(n: u64, shift: f64) -> Rows {
    let mut rows = Rows { n_scores: 1, ..Rows::default() };
    for i in 0..n {
        let (u, v) = (uniform(i, 7919, 100_003), uniform(i, 104_729, 99_991));
        let score = (u + shift * u * (1.0 - u)).clamp(0.0, 1.0) as f32;
        let s = f64::from(score);
        let truth = 0.15 + 0.7 * s * s * (3.0 - 2.0 * s);
        rows.scores.push(score);
        rows.predicted.push(Label::Number(f64::from(u8::from(s >= 0.5))));
        rows.labels.push(Some(Label::Number(f64::from(u8::from(v < truth)))));
    }
    rows
}

/// Three scores that sum to 1, and labels that are less sure.
pub(super) fn multiclass(n: u64, shift: f64) -> Rows {
    let mut rows = Rows { n_scores: 3, ..Rows::default() };
    for i in 0..n {
        let (a, b) = (uniform(i, 7919, 100_003), uniform(i, 15_485_863, 99_989));
        let v = uniform(i, 104_729, 99_991);
        let x = [a + shift * a * (1.0 - a), b, 0.5].map(|x| x * x + 0.01);
        let sum: f64 = x.iter().sum();
        let s = x.map(|x| f64::from((x / sum) as f32));
        let softer = s.map(f64::sqrt);
        let sum: f64 = softer.iter().sum();
        let softer = softer.map(|x| x / sum);
        let label = u8::from(v > softer[0]) + u8::from(v > softer[0] + softer[1]);
        let best = (0..3).fold(0, |best, class| if s[class] > s[best] { class } else { best });
        rows.scores.extend(s.map(|x| x as f32));
        rows.predicted.push(Label::Number(best as f64));
        rows.labels.push(Some(Label::Number(f64::from(label))));
    }
    rows
}

/// In the order of the golden values.
fn bands(estimated: &Estimated) -> [Band; 5] {
    let Estimated { accuracy, precision, recall, f1, roc_auc } = *estimated;
    [accuracy, precision, recall, f1, roc_auc].map(Option::unwrap)
}

fn assert_near(
    name: &str,
    baseline: &ScoreBaseline,
    rows: &Predictions<'_>,
    golden: [(f64, f64); 5],
    tolerance: f64,
) -> f64 {
    let mut counts = ScoreCounts::new(baseline);
    counts.count(baseline, rows);
    let mut worst = 0.0f64;
    for ((index, band), (value, error)) in
        bands(&estimate(baseline, &counts)).iter().enumerate().zip(golden)
    {
        let metric = ["accuracy", "precision", "recall", "f1", "roc_auc"][index];
        let off = (band.value - value).abs();
        assert!(off < tolerance, "{name}, {metric}: {} instead of {value}", band.value);
        let half = (band.high - band.low) / 2.0;
        let is_cut = band.low == 0.0 || band.high == 1.0;
        assert!(
            is_cut || (half / (3.0 * error) - 1.0).abs() < 0.02,
            "{name}, {metric}: error {} instead of {error}",
            half / 3.0
        );
        worst = worst.max(off);
    }
    worst
}

#[test]
fn binary_estimates_are_nannymls_but_for_the_binning() {
    let baseline = binary(20_000, 0.0).fit();
    assert_eq!((baseline.task, baseline.scores.len()), (Task::Binary, 1));
    assert!(baseline.scores[0].is_calibrated && baseline.scores[0].len() <= 129);
    let golden = [
        (0.7339017043999687, 0.007106250593667522),
        (0.7095953041316695, 0.010047574582952842),
        (0.6136748555272337, 0.010048701152439889),
        (0.6581585665893859, 0.012556035471731822),
        (0.7825788505054087, 0.005148097845970434),
    ];
    assert_near("binary", &baseline, &binary(4_000, -0.6).predictions(), golden, 0.002);
}

#[test]
fn multiclass_estimates_are_nannymls_but_for_the_binning() {
    let baseline = multiclass(20_000, 0.0).fit();
    assert_eq!((baseline.task, baseline.scores.len()), (Task::Multiclass, 3));
    let golden = [
        (0.49009237941946193, 0.007893065587906894),
        (0.4891543161425167, 0.008038629801936294),
        (0.48935269415976607, 0.0077798014251026495),
        (0.4864076143225499, 0.005878746209721845),
        (0.675829747373133, 0.004984817544773979),
    ];
    assert_near("multiclass", &baseline, &multiclass(4_000, -0.6).predictions(), golden, 0.003);
}

fn read(path: &Path) -> (Vec<String>, Vec<Vec<String>>) {
    let mut reader = csv::Reader::from_path(path).unwrap();
    let header = reader.headers().unwrap().iter().map(str::to_owned).collect();
    let rows = reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect());
    (header, rows.collect())
}

pub(super) fn rows_of(path: &Path) -> Rows {
    let (header, lines) = read(path);
    let n_scores = header.iter().filter(|name| name.starts_with("y_pred_proba")).count();
    let mut rows = Rows { n_scores, ..Rows::default() };
    for line in lines {
        rows.scores.extend(line[..n_scores].iter().map(|score| score.parse::<f32>().unwrap()));
        rows.predicted.push(Label::Text(line[n_scores].as_str().into()));
        rows.labels.push(Some(Label::Text(line[n_scores + 1].as_str().into())));
    }
    rows
}

#[test]
#[ignore = "needs NannyML's data: see load-tests/drift/golden_performance.py"]
fn estimates_agree_with_nannyml_on_its_data() {
    let folder = std::env::var("TIDEGATE_NANNYML").expect("TIDEGATE_NANNYML names the folder");
    for (name, tolerance) in [("car_loan", 0.001), ("work_home", 0.001), ("credit", 0.003)] {
        let file = |part: &str| Path::new(&folder).join(format!("{name}_{part}.csv"));
        let baseline = rows_of(&file("reference")).fit();
        let analysis = rows_of(&file("analysis"));
        let (_, estimates) = read(&file("estimates"));
        let mut worst = 0.0f64;
        for (chunk, line) in estimates.iter().enumerate() {
            let number = |index: usize| line[index].parse::<f64>().unwrap();
            let golden = [0, 1, 2, 3, 4].map(|metric| (number(2 * metric), number(2 * metric + 1)));
            let rows = analysis.part(chunk * 5_000, chunk * 5_000 + 5_000);
            worst = worst.max(assert_near(
                &format!("{name}, chunk {chunk}"),
                &baseline,
                &rows,
                golden,
                tolerance,
            ));
        }
        println!(
            "{name}: {} chunks, 5 measures, largest difference {worst:.6}, calibrated {:?}",
            estimates.len(),
            baseline.scores.iter().map(|cells| cells.is_calibrated).collect::<Vec<_>>()
        );
    }
}
