//! Counts of durations in logarithmic buckets, as HdrHistogram has them: constant memory, constant
//! time to record, and a known relative error.

use std::time::Duration;

/// Each power of two is divided into `2^SUB_BITS` buckets: a bucket is at most 1/128 (0.8 %) wide.
const SUB_BITS: u32 = 7;
/// Enough for every `u64` of nanoseconds, so that no duration needs to be clamped.
const BUCKETS: usize = (64 - SUB_BITS as usize + 1) << SUB_BITS;

/// Durations, to within 0.8 %; the smallest and the largest are exact.
#[derive(Clone)]
pub struct Histogram {
    counts: Box<[u64]>,
    count: u64,
    sum: u128,
    min: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS].into_boxed_slice(),
            count: 0,
            sum: 0,
            min: u64::MAX,
            max: 0,
        }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket_of(nanos)] += 1;
        self.count += 1;
        self.sum += u128::from(nanos);
        self.min = self.min.min(nanos);
        self.max = self.max.max(nanos);
    }

    /// Adds everything that `other` counted.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The smallest duration; zero if there is none.
    pub fn min(&self) -> Duration {
        Duration::from_nanos(if self.count == 0 { 0 } else { self.min })
    }

    /// The largest duration; zero if there is none.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// The mean, which is exact as well; zero if there is none.
    pub fn mean(&self) -> Duration {
        let mean = self.sum.checked_div(u128::from(self.count)).unwrap_or(0);
        Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX))
    }

    /// The duration that the share `q` (0 to 1) of all durations does not exceed, rounded up to the
    /// end of its bucket; zero if there is none.
    pub fn quantile(&self, q: f64) -> Duration {
        let rank = ((q * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(last_of(bucket).clamp(self.min, self.max));
            }
        }
        Duration::ZERO
    }
}

/// Below `2^SUB_BITS` a bucket is one value; above, values keep their `SUB_BITS + 1` leading bits.
fn bucket_of(value: u64) -> usize {
    let shift = value.checked_ilog2().unwrap_or(0).saturating_sub(SUB_BITS);
    ((shift as usize) << SUB_BITS) + (value >> shift) as usize
}

/// The largest value that `bucket_of` puts into `bucket`.
fn last_of(bucket: usize) -> u64 {
    let shift = (bucket >> SUB_BITS).saturating_sub(1);
    let lead = (bucket - (shift << SUB_BITS)) as u64;
    (lead << shift) + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_contiguous_and_narrow() {
        assert_eq!(bucket_of(0), 0);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        assert_eq!(last_of(BUCKETS - 1), u64::MAX);
        let mut first = 0;
        for bucket in 0..BUCKETS - 1 {
            let last = last_of(bucket);
            assert_eq!(bucket_of(first), bucket, "first of {bucket}");
            assert_eq!(bucket_of(last), bucket, "last of {bucket}");
            assert!(last - first <= first / (1 << SUB_BITS), "width of {bucket}");
            first = last + 1;
        }
        assert_eq!(bucket_of(first), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_within_a_bucket_of_the_sorted_values() {
        let mut histogram = Histogram::default();
        let values: Vec<u64> = (1..=100_000_u64).map(|i| i * i).collect();
        for &value in &values {
            histogram.record(Duration::from_nanos(value));
        }
        for q in [0.0, 0.001, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let rank = ((q * 100_000.0_f64).ceil() as usize).max(1);
            let exact = values[rank - 1];
            let found = histogram.quantile(q).as_nanos() as u64;
            assert!((exact..=exact + exact / 128).contains(&found), "{q}: {found}, not {exact}");
        }
        assert_eq!(histogram.min(), Duration::from_nanos(1));
        assert_eq!(histogram.max(), Duration::from_secs(10));
        assert_eq!(histogram.mean(), Duration::from_nanos(3_333_383_333));
    }

    #[test]
    fn one_value_is_every_quantile() {
        let mut histogram = Histogram::default();
        histogram.record(Duration::from_nanos(1_234_567));
        for q in [0.0, 0.5, 0.999, 1.0] {
            assert_eq!(histogram.quantile(q), Duration::from_nanos(1_234_567));
        }
    }

    #[test]
    fn merging_is_recording_both() {
        let (mut both, mut left, mut right) =
            (Histogram::default(), Histogram::default(), Histogram::default());
        for micros in 0..1000 {
            let half = if micros % 3 == 0 { &mut left } else { &mut right };
            half.record(Duration::from_micros(micros));
            both.record(Duration::from_micros(micros));
        }
        left.merge(&right);
        assert_eq!(left.count(), 1000);
        assert_eq!(left.counts, both.counts);
        assert_eq!((left.min(), left.max(), left.mean()), (both.min(), both.max(), both.mean()));
    }

    #[test]
    fn nothing_counted_is_zero() {
        let histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), Duration::ZERO);
        assert_eq!((histogram.min(), histogram.max()), (Duration::ZERO, Duration::ZERO));
        assert_eq!(histogram.mean(), Duration::ZERO);
    }
}
