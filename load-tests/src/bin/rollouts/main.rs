//! Rollouts simulated gate by gate: `load-tests/rollouts/run` says how many, and prints the table.
//!
//! One line of JSON a case. Everything is seeded: the same call prints the same figures.

// The statistics are pure: including their files builds in seconds, where the whole crate with its
// engine takes minutes.
#[allow(
    dead_code,
    missing_docs,
    unused_imports,
    unreachable_pub,
    reason = "a module of another crate, used in part"
)]
#[path = "../../../../src/stats/mod.rs"]
mod stats;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use stats::sequential::{Count, Decision, Evidence, Thresholds, difference, distance, rate};

/// Rollouts simulated gate by gate.
#[derive(Parser)]
struct Options {
    /// Rollouts of each case.
    #[arg(long, default_value_t = 2000)]
    rollouts: u64,
    /// Probability of a wrong promotion and of a wrong abort that is permitted.
    #[arg(long, default_value_t = 0.05)]
    rate: f64,
    /// Requests of the candidate after which an undecided rollout is given up.
    #[arg(long, default_value_t = 40_000)]
    most: u64,
    /// Requests of the candidate between two looks.
    #[arg(long, default_value_t = 50)]
    step: u64,
}

/// A gate's way of counting: adds `step` requests of the candidate and tells the evidence.
type Gate = Box<dyn FnMut(&mut fastrand::Rng, u64) -> Evidence>;

/// What is simulated: the gate, the candidate, and how to begin one rollout.
struct Case {
    gate: &'static str,
    candidate: &'static str,
    begin: Box<dyn Fn() -> Gate>,
}

fn events(rng: &mut fastrand::Rng, n: u64, p: f64) -> u64 {
    (0..n).filter(|_| rng.f64() < p).count() as u64
}

/// A rate of the candidate alone against a limit.
fn one(gate: &'static str, candidate: &'static str, p: f64, limit: f64) -> Case {
    let begin = move || -> Gate {
        let (mut n, mut sum) = (0, 0);
        Box::new(move |rng, step| {
            n += step;
            sum += events(rng, step, p);
            rate(Count::of(sum, n), limit)
        })
    };
    Case { gate, candidate, begin: Box::new(begin) }
}

/// A rate against the primary's, which has `more` requests for each of the candidate's.
fn two(gate: &'static str, candidate: &'static str, p: [f64; 2], margin: f64, more: u64) -> Case {
    let begin = move || -> Gate {
        let (mut n, mut sums) = (0, [0, 0]);
        Box::new(move |rng, step| {
            n += step;
            sums[0] += events(rng, step * more, p[0]);
            sums[1] += events(rng, step, p[1]);
            difference(Count::of(sums[0], n * more), Count::of(sums[1], n), margin)
        })
    };
    Case { gate, candidate, begin: Box::new(begin) }
}

/// Distributions over 16 cells, of which a share moved from the first ones to the last ones.
fn cells(candidate: &'static str, moved: f64, limit: f64) -> Case {
    const N: usize = 16;
    let begin = move || -> Gate {
        let mut counts = [[0_u64; N]; 2];
        Box::new(move |rng, step| {
            for _ in 0..step {
                counts[0][rng.usize(..N)] += 1;
                let cell = rng.usize(..N);
                // Half of the cells lose twice the share.
                let moves = cell < N / 2 && rng.f64() < 2.0 * moved;
                counts[1][if moves { N - 1 - cell } else { cell }] += 1;
            }
            distance(&counts[0], &counts[1], limit)
        })
    };
    Case { gate: "distance of outputs", candidate, begin: Box::new(begin) }
}

/// An equal candidate, one just at the limit (the worst that must pass and the best that must
/// not), and one that is worse by twice what is tolerated.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (gate, limit) in [("agreement", 0.05), ("errors of pairs", 0.005), ("tolerance", 0.1)] {
        cases.push(one(gate, "equal", limit / 10.0, limit));
        cases.push(one(gate, "at the limit", limit, limit));
        cases.push(one(gate, "twice", 2.0 * limit, limit));
    }
    // Of pairs of equal versions the candidate is the slower by half as often as 1 in 10.
    cases.push(one("p50 of pairs", "equal", 0.1, 0.5));
    cases.push(one("p50 of pairs", "at the limit", 0.5, 0.5));
    cases.push(one("p50 of pairs", "twice", 0.9, 0.5));
    for (gate, p, margin, more) in [
        ("errors", 0.002, 0.005, 19),
        ("errors, half and half", 0.002, 0.005, 1),
        ("p50", 0.5, 0.05, 3),
        ("p99", 0.01, 0.01, 3),
        ("accuracy", 0.2, 0.05, 3),
    ] {
        cases.push(two(gate, "equal", [p, p], margin, more));
        cases.push(two(gate, "at the limit", [p, p + margin], margin, more));
        cases.push(two(gate, "twice", [p, p + 2.0 * margin], margin, more));
    }
    cases.push(cells("equal", 0.0, 0.1));
    cases.push(cells("at the limit", 0.1, 0.1));
    cases.push(cells("twice", 0.2, 0.1));
    cases
}

/// One rollout: what was decided, and after how many requests of the candidate.
fn rollout(case: &Case, options: &Options, seed: u64) -> (Decision, u64) {
    let thresholds = Thresholds::new(options.rate, options.rate);
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut gate = (case.begin)();
    let mut n = 0;
    while n < options.most {
        n += options.step;
        let decision = gate(&mut rng, options.step).decide(thresholds);
        if decision != Decision::NotYet {
            return (decision, n);
        }
    }
    (Decision::NotYet, n)
}

fn main() -> ExitCode {
    let options = Options::parse();
    let mut out = std::io::stdout().lock();
    for case in cases() {
        let (mut passed, mut failed, mut requests) = (0_u64, 0_u64, Vec::new());
        for seed in 0..options.rollouts {
            let (decision, n) = rollout(&case, &options, seed);
            passed += u64::from(decision == Decision::Pass);
            failed += u64::from(decision == Decision::Fail);
            if decision != Decision::NotYet {
                requests.push(n);
            }
        }
        requests.sort_unstable();
        let median = requests.get(requests.len() / 2).copied();
        let line = serde_json::json!({
            "gate": case.gate, "candidate": case.candidate, "rollouts": options.rollouts,
            "rate": options.rate, "passed": passed, "failed": failed,
            "undecided": options.rollouts - passed - failed, "median_requests": median,
        });
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            // Nobody reads on.
            return ExitCode::SUCCESS;
        }
    }
    ExitCode::SUCCESS
}
