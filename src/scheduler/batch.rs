//! Rows of several requests as one batch, and its answers back apart.
//!
//! Only requests whose inputs agree in every dimension but the first are put together, so no row
//! is padded.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::queue::Entry;
use super::runner::Runner;
use super::{Execution, reply};
use crate::tensor::{Datatype, Shape, Tensor};

/// Runs what was taken together, and tells who waits. An I/O thread has a `budget`.
pub(super) fn run(runner: &Runner, entries: Vec<Entry>, budget: Option<Duration>) {
    if let [_, _, ..] = entries.as_slice() {
        let requests: Vec<&[Tensor]> = entries.iter().map(|e| e.inputs.as_slice()).collect();
        let rows: Vec<usize> = entries.iter().map(|entry| entry.rows).collect();
        let batch_rows = rows.iter().sum();
        let started = Instant::now();
        let answers = join(&requests)
            .and_then(|inputs| runner.target.execute(&inputs).ok())
            .and_then(|outputs| split(&outputs, &rows));
        if let Some(answers) = answers {
            let computed = started.elapsed();
            runner.count(batch_rows, computed);
            if budget.is_some() {
                runner.mind(computed, budget);
            }
            let batch = next_number();
            let mut first_row = 0;
            let told = entries.into_iter().zip(answers).map(|(entry, outputs)| {
                let queued = started.saturating_duration_since(entry.admitted);
                let first = first_row;
                first_row += entry.rows;
                let execution =
                    Execution { outputs, queued, computed, batch_rows, batch, first_row: first };
                (entry.reply, Ok(execution))
            });
            reply::send_all(told.collect());
            return;
        }
        // A batch that fails fails for one request's sake: each is run alone, so that the others
        // get their answer and it its own error.
    }
    for entry in entries {
        let times = (entry.admitted, Instant::now());
        let outcome = runner.run_one(&entry.inputs, entry.rows, times);
        if let Ok(execution) = &outcome {
            runner.mind(execution.computed, budget);
        }
        entry.reply.send(outcome);
    }
}

static BATCHES: AtomicU64 = AtomicU64::new(1);

/// The next batch's number. Only batches of several requests have one, so that what runs inline
/// does not meet at the counter.
fn next_number() -> Option<NonZeroU64> {
    NonZeroU64::new(BATCHES.fetch_add(1, Ordering::Relaxed))
}

/// Whether `a` and `b` can be one batch: the same inputs but for their rows.
pub(super) fn fit_together(a: &[Tensor], b: &[Tensor]) -> bool {
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .all(|(a, b)| a.datatype() == b.datatype() && a.shape().get(1..) == b.shape().get(1..))
}

/// Puts the rows of all requests together, input by input. Nothing where they do not fit.
#[must_use]
pub fn join(requests: &[&[Tensor]]) -> Option<Vec<Tensor>> {
    let (first, rest) = requests.split_first()?;
    if !rest.iter().all(|other| fit_together(first, other)) {
        return None;
    }
    (0..first.len()).map(|input| join_input(requests, input)).collect()
}

fn join_input(requests: &[&[Tensor]], input: usize) -> Option<Tensor> {
    let parts = || requests.iter().filter_map(|request| request.get(input));
    let first = parts().next()?;
    let mut shape = Shape::from_slice(first.shape());
    *shape.first_mut()? = parts().map(Tensor::rows).sum();
    let mut data = BytesMut::with_capacity(parts().map(|tensor| tensor.data().len()).sum());
    parts().for_each(|tensor| data.extend_from_slice(tensor.data()));
    Tensor::new(first.datatype(), shape, data.freeze()).ok()
}

/// Takes a batch's outputs apart again: one list of outputs for each entry of `rows`, sharing the
/// batch's memory. Nothing where an output does not have the batch's rows.
#[must_use]
pub fn split(outputs: &[Tensor], rows: &[usize]) -> Option<Vec<Vec<Tensor>>> {
    let mut answers: Vec<Vec<Tensor>> = rows.iter().map(|_| Vec::new()).collect();
    for output in outputs {
        let parts = split_output(output, rows)?;
        answers.iter_mut().zip(parts).for_each(|(answer, part)| answer.push(part));
    }
    Some(answers)
}

fn split_output(output: &Tensor, rows: &[usize]) -> Option<Vec<Tensor>> {
    if output.shape().first() != Some(&rows.iter().sum()) {
        return None;
    }
    let elements_per_row: usize = output.shape().iter().skip(1).product();
    let mut rest: Bytes = output.data().clone();
    let parts = rows.iter().map(|&n_rows| {
        let n_elements = n_rows * elements_per_row;
        let n_bytes = match output.datatype().size() {
            Some(size) => n_elements * size,
            None => bytes_of_elements(&rest, n_elements),
        };
        let mut shape = Shape::from_slice(output.shape());
        *shape.first_mut()? = n_rows;
        Tensor::new(output.datatype(), shape, rest.split_to(n_bytes)).ok()
    });
    parts.collect()
}

/// The bytes that the first `n_elements` elements of BYTES data take.
fn bytes_of_elements(data: &[u8], n_elements: usize) -> usize {
    debug_assert!(Datatype::Bytes.size().is_none());
    let mut position = 0;
    for _ in 0..n_elements {
        let Some((length, _)) = data.get(position..).and_then(|rest| rest.split_first_chunk::<4>())
        else {
            return data.len();
        };
        position += 4 + u32::from_le_bytes(*length) as usize;
    }
    position.min(data.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_tensor(rows: &[Vec<String>]) -> Tensor {
        Tensor::from_elements([rows.len(), 2].as_slice(), rows.iter().flatten()).unwrap()
    }

    fn int_tensor(rows: &[Vec<String>]) -> Tensor {
        let data: Vec<u8> =
            rows.iter().flat_map(|row| (row[0].len() as i64).to_le_bytes()).collect();
        Tensor::new(Datatype::Int64, [rows.len()].as_slice(), data.into()).unwrap()
    }

    proptest! {
        #[test]
        fn joined_and_split_again_is_the_same(
            requests in prop::collection::vec(
                prop::collection::vec(prop::collection::vec(".{0,5}", 2..=2), 0..4), 1..5)
        ) {
            let requests: Vec<Vec<Tensor>> =
                requests.iter().map(|rows| vec![bytes_tensor(rows), int_tensor(rows)]).collect();
            let refs: Vec<&[Tensor]> = requests.iter().map(Vec::as_slice).collect();
            let joined = join(&refs).unwrap();
            let rows: Vec<usize> = requests.iter().map(|request| request[0].rows()).collect();
            prop_assert_eq!(split(&joined, &rows).unwrap(), requests);
        }
    }

    #[test]
    fn other_shapes_do_not_fit() {
        let a = [Tensor::new(Datatype::Uint8, [1, 2].as_slice(), vec![0; 2].into()).unwrap()];
        let b = [Tensor::new(Datatype::Uint8, [1, 3].as_slice(), vec![0; 3].into()).unwrap()];
        assert!(join(&[&a, &b]).is_none());
        // An output without the batch's rows cannot be taken apart.
        assert!(split(&a, &[1, 1]).is_none());
    }
}
