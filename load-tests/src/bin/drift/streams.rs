//! Streams of values, as a watched feature might have them, and their cells.

use fastrand::Rng;

use crate::stats::special::normal_quantile;

/// A law of values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Law {
    /// Standard normal; with a correlation between one value and the next.
    Normal(f64),
    /// exp of a standard normal value.
    Lognormal,
    /// Half of the values standard normal, a quarter each exactly 0 and 1.
    Atoms,
    /// So many categories, the k-th as frequent as 1 / k.
    Categories(usize),
}

impl Law {
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "normal" => Self::Normal(0.0),
            "lognormal" => Self::Lognormal,
            "atoms" => Self::Atoms,
            _ => match name.split_once('-')? {
                ("ar", phi) => Self::Normal(phi.parse().ok()?),
                ("categories", number) => Self::Categories(number.parse().ok()?),
                _ => return None,
            },
        })
    }
}

/// What happens to the values of a standard normal stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shift {
    None,
    /// Plus so much.
    Mean(f64),
    /// Times so much.
    Deviation(f64),
    /// That share of values is exactly 0.5.
    Point(f64),
    /// Two normal halves, mean and variance as before: ±0.8 with deviation 0.6.
    Bimodal,
    /// That share of values is missing.
    Missing(f64),
}

impl Shift {
    pub fn parse(name: &str) -> Option<Self> {
        let number = |text: &str| text.parse().ok();
        Some(match name.split_once(':') {
            None if name == "none" => Self::None,
            None if name == "bimodal" => Self::Bimodal,
            Some(("mean", by)) => Self::Mean(number(by)?),
            Some(("sd", by)) => Self::Deviation(number(by)?),
            Some(("point", share)) => Self::Point(number(share)?),
            Some(("missing", share)) => Self::Missing(number(share)?),
            _ => return None,
        })
    }

    pub fn apply(self, x: f64, rng: &mut Rng) -> f64 {
        match self {
            Self::None => x,
            Self::Mean(by) => x + by,
            Self::Deviation(by) => x * by,
            Self::Point(share) => {
                if rng.f64() < share {
                    0.5
                } else {
                    x
                }
            }
            Self::Bimodal => 0.6 * x + if rng.bool() { 0.8 } else { -0.8 },
            Self::Missing(share) => {
                if rng.f64() < share {
                    f64::NAN
                } else {
                    x
                }
            }
        }
    }
}

/// A stream.
pub struct Stream {
    law: Law,
    rng: Rng,
    last: f64,
    spare: Option<f64>,
    cumulated: Vec<f64>,
}

impl Stream {
    pub fn new(law: Law, seed: u64) -> Self {
        let mut cumulated = Vec::new();
        if let Law::Categories(number) = law {
            let all: f64 = (1..=number).map(|k| 1.0 / k as f64).sum();
            let mut sum = 0.0;
            for k in 1..=number {
                sum += 1.0 / k as f64 / all;
                cumulated.push(sum);
            }
        }
        let mut stream = Self { law, rng: Rng::with_seed(seed), last: 0.0, spare: None, cumulated };
        stream.last = stream.normal();
        stream
    }

    /// Marsaglia's polar method.
    pub fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        loop {
            let (u, v) = (2.0 * self.rng.f64() - 1.0, 2.0 * self.rng.f64() - 1.0);
            let square = u * u + v * v;
            if square > 0.0 && square < 1.0 {
                let scale = (-2.0 * square.ln() / square).sqrt();
                self.spare = Some(v * scale);
                return u * scale;
            }
        }
    }

    pub fn next(&mut self, shift: Shift) -> f64 {
        let x = match self.law {
            Law::Normal(0.0) => self.normal(),
            Law::Normal(phi) => {
                self.last = phi * self.last + (1.0 - phi * phi).sqrt() * self.normal();
                self.last
            }
            Law::Lognormal => self.normal().exp(),
            Law::Atoms => match self.rng.u8(0..4) {
                0 => 0.0,
                1 => 1.0,
                _ => self.normal(),
            },
            Law::Categories(_) => {
                let u = self.rng.f64();
                self.cumulated.partition_point(|&sum| sum < u) as f64
            }
        };
        shift.apply(x, &mut self.rng)
    }
}

/// Cells of a feature: ordered ones by upper bounds, or categories; then one for missing values
/// and one for new categories.
#[derive(Clone)]
pub struct Cells {
    edges: Vec<f64>,
    categories: usize,
}

impl Cells {
    /// By quantiles of a sample: below its least value, 16 cells, above its largest; an atom has a
    /// cell of its own.
    pub fn of(law: Law, sample: &mut [f64]) -> Self {
        if let Law::Categories(number) = law {
            return Self { edges: Vec::new(), categories: number };
        }
        sample.sort_by(f64::total_cmp);
        let mut edges = vec![sample[0].next_down()];
        for k in 1..16 {
            let at = k * sample.len() / 16;
            edges.push(sample[at - 1]);
            // The next edge has the same value: an atom.
            if sample[(at + sample.len() / 16).min(sample.len() - 1)] == sample[at - 1] {
                edges.push(sample[at - 1].next_down());
            }
        }
        edges.push(sample[sample.len() - 1]);
        edges.sort_by(f64::total_cmp);
        edges.dedup();
        Self { edges, categories: 0 }
    }

    /// The 16 of a standard normal law, exactly: no cell is beyond its range.
    pub fn exact() -> Self {
        Self {
            edges: (1..16).map(|k| normal_quantile(f64::from(k) / 16.0)).collect(),
            categories: 0,
        }
    }

    pub fn n_ordered(&self) -> usize {
        if self.categories > 0 { 0 } else { self.edges.len() + 1 }
    }

    pub fn len(&self) -> usize {
        if self.categories > 0 { self.categories + 2 } else { self.edges.len() + 2 }
    }

    pub fn cell(&self, x: f64) -> usize {
        if x.is_nan() {
            self.len() - 1
        } else if self.categories > 0 {
            (x as usize).min(self.categories)
        } else {
            self.edges.iter().map(|&edge| usize::from(x > edge)).sum()
        }
    }

    pub fn count(&self, values: impl Iterator<Item = f64>) -> Vec<u64> {
        let mut counts = vec![0; self.len()];
        values.for_each(|x| counts[self.cell(x)] += 1);
        counts
    }
}
