//! From a classifier's scores to labels and probabilities.
//!
//! With three classes and more the first of the highest scores wins. For two, the specification
//! leaves open what a single column of scores means, and exporters rely on ONNX Runtime's rules,
//! which these are: the second class wins if its score is above zero, or above 0.5 where all leaves
//! speak for one class and no weight is negative; and a column alone is the second class's.
//!
//! One thing is not as there: where leaves speak for both of two classes, ONNX Runtime 1.32 tells
//! 0 and 1 whatever integers the classes are labelled with, and the labels are told here.

use super::super::post_transform::{PostTransform, logistic, probit};
use super::super::rows::Labels;
use super::forest::{Forest, Number};
use super::scores::Scores;

#[derive(Debug)]
pub(super) struct Classes {
    pub(super) labels: Labels,
    base: Vec<f64>,
    post_transform: PostTransform,
    /// Two classes, and all leaves speak for one of them.
    is_one_sided: bool,
    has_negative_weights: bool,
}

impl Classes {
    pub(super) fn new(
        labels: Labels,
        base: Vec<f64>,
        post_transform: PostTransform,
        forest: &Forest<f64>,
    ) -> Self {
        let mut targets: Vec<u32> = forest.leaves.iter().flatten().map(|leaf| leaf.0).collect();
        targets.sort_unstable();
        targets.dedup();
        let is_one_sided = labels.len() == 2 && targets.len() == 1;
        let has_negative_weights = forest.leaves.iter().flatten().any(|leaf| leaf.1 < 0.0);
        Self { labels, base, post_transform, is_one_sided, has_negative_weights }
    }

    /// Columns of the scores.
    pub(super) fn n_scores(&self) -> usize {
        self.labels.len()
    }

    /// The winner of each row, and its scores, row after row.
    pub(super) fn finish<T: Number>(
        &self,
        n_rows: usize,
        mut scores: Scores<T>,
    ) -> (Vec<usize>, Vec<f32>) {
        let mut winners = Vec::with_capacity(n_rows);
        let mut finished = Vec::with_capacity(n_rows * self.n_scores());
        for row in 0..n_rows {
            let (scores, is_given) = scores.row(row);
            winners.push(match scores {
                [score] => self.finish_one(*score, &mut finished),
                [first, second] => {
                    let is_given = (is_given[0], is_given[1]);
                    self.finish_two((*first, *second), is_given, &mut finished)
                }
                scores => self.finish_many(scores, is_given, &mut finished),
            });
        }
        (winners, finished)
    }

    fn base<T: Number>(&self, class: usize) -> T {
        T::from_f64(self.base.get(class).copied().unwrap_or(0.0))
    }

    /// A classifier of a single class.
    fn finish_one<T: Number>(&self, mut score: T, finished: &mut Vec<f32>) -> usize {
        score += self.base(0);
        let score = score.to_f32();
        finished.push(if self.post_transform == PostTransform::Probit {
            probit(score)
        } else {
            score
        });
        0
    }

    fn finish_two<T: Number>(
        &self,
        (mut first, mut second): (T, T),
        (first_is_given, second_is_given): (bool, bool),
        finished: &mut Vec<f32>,
    ) -> usize {
        match self.base.len() {
            // The first base value is not used where the second class has a score.
            2 if second_is_given => {
                second = first;
                second += self.base(1);
                first = -second;
            }
            2 | 1 => first += self.base(0),
            _ => {}
        }
        let positive = if second_is_given { second } else { first };
        let is_positive = self.is_one_sided && !self.has_negative_weights;
        let threshold = T::from_f64(if is_positive { 0.5 } else { 0.0 });
        let winner = usize::from(positive > threshold);
        if second_is_given || self.base.len() == 2 {
            // A score that no leaf gives anything to is zero, whatever its base value.
            let or_zero = |is_given: bool, score: T| if is_given { score.to_f32() } else { 0.0 };
            let mut scores = [or_zero(first_is_given, first), or_zero(second_is_given, second)];
            self.post_transform.apply(&mut scores);
            finished.extend(scores);
            return winner;
        }
        let score = first.to_f32();
        finished.extend(match self.post_transform {
            PostTransform::Probit => [probit(score), 0.0],
            PostTransform::Logistic => [logistic(-score), logistic(score)],
            _ if is_positive => [1.0 - score, score],
            _ => [-score, score],
        });
        winner
    }

    fn finish_many<T: Number>(
        &self,
        scores: &mut [T],
        is_given: &[bool],
        finished: &mut Vec<f32>,
    ) -> usize {
        let n_base = self.base.len();
        let mut winner = None;
        for class in 0..scores.len() {
            scores[class] += self.base(class);
            let is_given = is_given[class] || class < n_base;
            if is_given && winner.is_none_or(|winner: usize| scores[class] > scores[winner]) {
                winner = Some(class);
            }
        }
        let at = finished.len();
        finished.extend(scores.iter().map(|score| score.to_f32()));
        self.post_transform.apply(&mut finished[at..]);
        winner.unwrap_or(0)
    }
}
