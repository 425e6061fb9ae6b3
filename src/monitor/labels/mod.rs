//! Labels find their predictions: a bounded, forgetful table of what was answered.
//!
//! - A prediction waits for its label at most so long, and at most so many rows wait: the oldest
//!   go first and are counted.
//! - Ids are kept as 64 bits of a hash seeded by the process. Two of n waiting ids collide with
//!   probability n²/2⁶⁵ (one in 3.7 billion for 100,000): the newer prediction then takes the
//!   place of the older one, whose label joins the wrong row or none. One error among 100,000
//!   labels moves no figure.
//! - A label that comes before its prediction was counted (observations pass through a queue)
//!   waits [`EARLY_FOR`] for it.
//! - Ids whose time is over are remembered in a Bloom filter, so that a late label is told from
//!   one that never had a prediction; at most one unknown label in 200 counts as late.
//! - Until the first label comes, predictions are only appended: they get their places with it, and
//!   those that left before it are not remembered.

mod gone;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

use half::f16;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use self::gone::Gone;

pub use crate::protocol::v2::{FeedbackCounts, FeedbackRecord, Label};

/// Milliseconds that a label waits for a prediction that is not counted yet.
pub const EARLY_FOR: u64 = 10_000;

/// Labels that wait for their predictions, at most.
const MOST_EARLY: usize = 10_000;

/// What was answered for one row.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// The class's place in the list of classes, or the value.
    pub value: f64,
    /// A probability by class; of the positive class alone where there are two; none where the
    /// model has no score.
    pub scores: SmallVec<[f32; 4]>,
}

/// How a prediction is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A class and so many scores.
    Class {
        /// Scores of a row.
        n_scores: usize,
    },
    /// A value.
    Value,
}

/// What became of a label.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// Here is its prediction.
    Joined(Prediction),
    /// Its prediction may still come.
    Waiting,
    /// Its prediction waited too long, or had to make room.
    Late,
    /// No such prediction is known.
    Unknown,
    /// The row has its label.
    Duplicate,
}

/// A label whose prediction came after it.
#[derive(Debug, Clone, PartialEq)]
pub struct Met {
    /// What was answered.
    pub prediction: Prediction,
    /// What is true, as [`Join::labelled`] was told.
    pub truth: f64,
}

/// What a [`Join`] has seen since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct JoinCounts {
    /// Rows that were predicted under an id.
    pub predicted: u64,
    /// Labels that found their prediction.
    pub joined: u64,
    /// Labels that came too late.
    pub late: u64,
    /// Labels that never had a prediction here.
    pub unknown: u64,
    /// Labels of rows that had one.
    pub duplicate: u64,
    /// Labels that are none of the model's.
    pub invalid: u64,
    /// Rows that left without a label because their time was over.
    pub expired: u64,
    /// Rows that left without a label to make room, or because their id came again.
    pub dropped: u64,
    /// Rows that wait for their label now.
    pub waiting: u64,
    /// Labels that wait for their prediction now.
    pub early: u64,
}

/// One request's rows, packed: a flag, then the prediction, `width` bytes a row.
#[derive(Debug)]
struct Entry {
    at: u64,
    rows: SmallVec<[u8; 16]>,
}

#[derive(Debug)]
struct Early {
    row: u32,
    truth: f64,
    at: u64,
}

/// Predictions that wait for their labels.
///
/// Every operation is O(1) a row, amortised. A row of a binary classifier in a request of its own
/// takes up to 160 bytes, the tables' spare room included.
#[derive(Debug)]
pub struct Join {
    form: Form,
    most: usize,
    wait: u64,
    seed: RandomState,
    /// Predictions in the order of their coming, until the first label comes: most models never get
    /// one, and appending costs a fraction of a place in the table.
    unasked: Option<VecDeque<(u64, Entry)>>,
    entries: HashMap<u64, Entry, BuildHasherDefault<Hashed>>,
    /// Ids in the order of their coming, with the time that tells a repeated one.
    order: VecDeque<(u64, u64)>,
    /// Rows in `entries`, with and without their labels.
    held: usize,
    gone: Gone,
    early: HashMap<u64, SmallVec<[Early; 1]>, BuildHasherDefault<Hashed>>,
    early_order: VecDeque<(u64, u64)>,
    counts: JoinCounts,
}

impl Join {
    /// A table of at most `most` rows, each of which waits at most `wait_ms` milliseconds.
    #[must_use]
    pub fn new(form: Form, most: usize, wait_ms: u64) -> Self {
        Self {
            form,
            most,
            wait: wait_ms,
            seed: RandomState::new(),
            unasked: Some(VecDeque::new()),
            entries: HashMap::default(),
            order: VecDeque::new(),
            held: 0,
            gone: Gone::new(most),
            early: HashMap::default(),
            early_order: VecDeque::new(),
            counts: JoinCounts::default(),
        }
    }

    /// Keeps the rows that were predicted under `id`; returns those whose labels are here already.
    /// A request of more rows than the table takes keeps its first ones.
    pub fn predicted(
        &mut self,
        id: &[u8],
        rows: impl Iterator<Item = Prediction>,
        now_ms: u64,
    ) -> Vec<Met> {
        self.expire(now_ms);
        let hash = self.seed.hash_one(id);
        let width = self.width();
        let mut packed = SmallVec::new();
        let (mut n_rows, mut n_left_out) = (0, 0);
        for prediction in rows {
            if n_rows < self.most {
                self.pack(&prediction, &mut packed);
                n_rows += 1;
            } else {
                n_left_out += 1;
            }
        }
        self.counts.predicted += (n_rows + n_left_out) as u64;
        self.counts.dropped += n_left_out as u64;
        if self.unasked.is_some() {
            while self.held + n_rows > self.most {
                let Some(n_unlabelled) = self.leave_unasked() else { break };
                self.counts.dropped += n_unlabelled;
            }
            if n_rows > 0 {
                packed.shrink_to_fit();
                self.held += n_rows;
                self.counts.waiting += n_rows as u64;
                let entry = Entry { at: now_ms, rows: packed };
                self.unasked.get_or_insert_default().push_back((hash, entry));
            }
            return Vec::new();
        }
        if let Some(old) = self.entries.remove(&hash) {
            self.counts.dropped += self.forget(&old);
        }
        while self.held + n_rows > self.most {
            let Some((oldest, at)) = self.order.pop_front() else { break };
            self.counts.dropped += self.leave(oldest, at);
        }
        if n_rows == 0 {
            return Vec::new();
        }
        packed.shrink_to_fit();
        self.held += n_rows;
        self.counts.waiting += n_rows as u64;
        self.entries.insert(hash, Entry { at: now_ms, rows: packed });
        self.order.push_back((hash, now_ms));
        let Some(early) = self.early.remove(&hash) else { return Vec::new() };
        self.counts.early -= early.len() as u64;
        let mut met = Vec::new();
        for Early { row, truth, .. } in early {
            match self.take(hash, row, width) {
                Some(Some(prediction)) => {
                    self.counts.joined += 1;
                    met.push(Met { prediction, truth });
                }
                Some(None) => self.counts.duplicate += 1,
                None => self.counts.unknown += 1,
            }
        }
        met
    }

    /// Finds the prediction that a label belongs to. `truth` is the class's place in the list of
    /// classes, or the value.
    pub fn labelled(&mut self, id: &[u8], row: u32, truth: f64, now_ms: u64) -> Found {
        self.begin();
        self.expire(now_ms);
        let hash = self.seed.hash_one(id);
        if self.entries.contains_key(&hash) {
            return match self.take(hash, row, self.width()) {
                Some(Some(prediction)) => {
                    self.counts.joined += 1;
                    Found::Joined(prediction)
                }
                Some(None) => {
                    self.counts.duplicate += 1;
                    Found::Duplicate
                }
                None => {
                    self.counts.unknown += 1;
                    Found::Unknown
                }
            };
        }
        if self.gone.contains(hash) {
            self.counts.late += 1;
            return Found::Late;
        }
        let waiting = self.early.get(&hash);
        if waiting.is_some_and(|labels| labels.iter().any(|label| label.row == row)) {
            self.counts.duplicate += 1;
            return Found::Duplicate;
        }
        if self.counts.early as usize >= MOST_EARLY {
            self.counts.unknown += 1;
            return Found::Unknown;
        }
        self.early.entry(hash).or_default().push(Early { row, truth, at: now_ms });
        self.early_order.push_back((hash, now_ms));
        self.counts.early += 1;
        Found::Waiting
    }

    /// Counts a label that is none of the model's.
    pub fn count_invalid(&mut self) {
        self.counts.invalid += 1;
    }

    /// The first label is here: predictions get their places in the table.
    fn begin(&mut self) {
        for (hash, entry) in self.unasked.take().into_iter().flatten() {
            if let Some(old) = self.entries.remove(&hash) {
                self.counts.dropped += self.forget(&old);
            }
            self.order.push_back((hash, entry.at));
            self.entries.insert(hash, entry);
        }
    }

    /// Removes the oldest prediction of those before the first label; returns its rows. It is not
    /// remembered: should its label be the first to come, it is unknown rather than late.
    fn leave_unasked(&mut self) -> Option<u64> {
        let (_, entry) = self.unasked.as_mut()?.pop_front()?;
        Some(self.forget(&entry))
    }

    /// Lets go of what waited long enough at `now_ms`.
    pub fn expire(&mut self, now_ms: u64) {
        let wait = self.wait;
        let is_over = |at: u64| now_ms.saturating_sub(at) > wait;
        while self.unasked.as_ref().and_then(VecDeque::front).is_some_and(|(_, e)| is_over(e.at)) {
            self.counts.expired += self.leave_unasked().unwrap_or_default();
        }
        while let Some(&(hash, at)) = self.order.front() {
            if now_ms.saturating_sub(at) <= self.wait {
                break;
            }
            self.order.pop_front();
            self.counts.expired += self.leave(hash, at);
        }
        while let Some(&(hash, at)) = self.early_order.front() {
            if now_ms.saturating_sub(at) <= EARLY_FOR {
                break;
            }
            self.early_order.pop_front();
            // Those that came later wait on; the list of an id is in the order of their coming.
            if let Some(labels) = self.early.get_mut(&hash) {
                let before = labels.len();
                labels.retain(|label| now_ms.saturating_sub(label.at) <= EARLY_FOR);
                let n_gone = (before - labels.len()) as u64;
                self.counts.early -= n_gone;
                self.counts.unknown += n_gone;
                if labels.is_empty() {
                    self.early.remove(&hash);
                }
            }
        }
    }

    /// What was seen so far, and what waits now.
    #[must_use]
    pub fn counts(&self) -> JoinCounts {
        self.counts
    }

    fn width(&self) -> usize {
        match self.form {
            Form::Value => 1 + 8,
            Form::Class { n_scores: n @ (0 | 1) } => 1 + 2 + 4 * n,
            Form::Class { n_scores } => 1 + 2 + 2 * n_scores,
        }
    }

    fn pack(&self, prediction: &Prediction, out: &mut SmallVec<[u8; 16]>) {
        out.push(0);
        match self.form {
            Form::Value => out.extend_from_slice(&prediction.value.to_le_bytes()),
            Form::Class { n_scores } => {
                // A float to integer conversion saturates; NaN is 0.
                let class =
                    if prediction.value.is_nan() { u16::MAX } else { prediction.value as u16 };
                out.extend_from_slice(&class.to_le_bytes());
                let given = prediction.scores.iter().copied().chain(std::iter::repeat(f32::NAN));
                for score in given.take(n_scores) {
                    match n_scores {
                        1 => out.extend_from_slice(&score.to_le_bytes()),
                        _ => out.extend_from_slice(&f16::from_f32(score).to_le_bytes()),
                    }
                }
            }
        }
    }

    fn unpack(&self, row: &[u8]) -> Option<Prediction> {
        let mut scores = SmallVec::new();
        let value = match self.form {
            Form::Value => f64::from_le_bytes(*row.first_chunk()?),
            Form::Class { n_scores } => {
                let (class, rest) = row.split_first_chunk()?;
                if n_scores == 1 {
                    scores.push(f32::from_le_bytes(*rest.first_chunk()?));
                } else {
                    let halves = rest.as_chunks().0.iter();
                    scores.extend(halves.map(|half| f16::from_le_bytes(*half).to_f32()));
                }
                match u16::from_le_bytes(*class) {
                    u16::MAX => f64::NAN,
                    class => f64::from(class),
                }
            }
        };
        Some(Prediction { value, scores })
    }

    /// Takes a row's prediction: nothing where there is no such row, `Some(None)` where it was
    /// taken before.
    fn take(&mut self, hash: u64, row: u32, width: usize) -> Option<Option<Prediction>> {
        let entry = self.entries.get_mut(&hash)?;
        let start = (row as usize).checked_mul(width)?;
        let (flag, rest) = entry.rows.get_mut(start..)?.split_first_mut()?;
        if *flag != 0 {
            return Some(None);
        }
        *flag = 1;
        let packed: SmallVec<[u8; 16]> = rest.get(..width - 1)?.into();
        self.counts.waiting -= 1;
        self.unpack(&packed).map(Some)
    }

    /// Removes an id that came at `at`; returns its rows without labels.
    fn leave(&mut self, hash: u64, at: u64) -> u64 {
        if self.entries.get(&hash).is_none_or(|entry| entry.at != at) {
            return 0;
        }
        self.gone.insert(hash);
        self.entries.remove(&hash).map_or(0, |entry| self.forget(&entry))
    }

    /// Takes a removed entry out of the sums; returns its rows without labels.
    fn forget(&mut self, entry: &Entry) -> u64 {
        let rows = entry.rows.chunks_exact(self.width());
        self.held -= rows.len();
        let n_unlabelled = rows.filter(|row| row.first() == Some(&0)).count() as u64;
        self.counts.waiting -= n_unlabelled;
        n_unlabelled
    }
}

/// Keys are hashes already.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.0 = self.0.rotate_left(8) ^ u64::from(byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
