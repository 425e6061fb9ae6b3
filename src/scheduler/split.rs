//! One large request as several runs, so that all compute threads work on it.
//!
//! Only rows that do not know of each other are taken apart: whoever submits says so, having tried it.

use std::time::Duration;

use tokio::sync::oneshot;

use super::{ExecuteError, Execution, Executor, Job, batch};
use crate::tensor::Tensor;

/// A part takes this long at least: below it, a thread's waking would show.
const SHORTEST_PART: Duration = Duration::from_millis(1);

/// A request at the pool, in one part or several. Dropping it withdraws what has not begun to run.
#[derive(Debug)]
pub struct Pending(Vec<oneshot::Receiver<Result<Execution, ExecuteError>>>);

impl Pending {
    /// Waits for all parts; they are one execution again.
    pub async fn outcome(self) -> Result<Execution, ExecuteError> {
        let mut parts = Vec::with_capacity(self.0.len());
        for part in self.0 {
            // The pool answers everything that it takes, or is gone.
            parts.push(part.await.unwrap_or(Err(ExecuteError::ShuttingDown))?);
        }
        match parts.len() {
            1 => parts.pop().ok_or(ExecuteError::ShuttingDown),
            _ => join(&parts).ok_or(ExecuteError::ShuttingDown),
        }
    }
}

/// Parts side by side as one. Nothing where their outputs do not fit together, which those of rows that
/// do not know of each other do.
fn join(parts: &[Execution]) -> Option<Execution> {
    let outputs: Vec<&[Tensor]> = parts.iter().map(|part| part.outputs.as_slice()).collect();
    Some(Execution {
        outputs: batch::join(&outputs)?,
        queued: parts.iter().map(|part| part.queued).min()?,
        computed: parts.iter().map(|part| part.computed).max()?,
        batch_rows: parts.iter().map(|part| part.batch_rows).sum(),
        // It met nobody else's rows.
        batch: None,
        first_row: 0,
    })
}

impl Executor {
    /// Hands the request to the pool, in as many parts as there are threads where `may_split` and it is
    /// worth it.
    pub fn submit_parts(&self, job: Job, may_split: bool) -> Result<Pending, ExecuteError> {
        let n_parts = if may_split { self.n_parts(job.rows) } else { 1 };
        let rows: Vec<usize> = shares(job.rows, n_parts);
        let Some(inputs) = (n_parts > 1).then(|| batch::split(&job.inputs, &rows)).flatten() else {
            return Ok(Pending(vec![self.submit(job)?]));
        };
        let Job { priority, admitted, deadline, .. } = job;
        let parts = inputs
            .into_iter()
            .zip(rows)
            .map(|(inputs, rows)| self.submit(Job { inputs, rows, priority, admitted, deadline }));
        // Where one is refused, those before it are withdrawn.
        Ok(Pending(parts.collect::<Result<_, _>>()?))
    }

    /// Parts for a request of so many rows: none is too short, and other requests keep their places.
    fn n_parts(&self, rows: usize) -> usize {
        let expected = self.expect(rows).as_nanos() / SHORTEST_PART.as_nanos();
        let worth = usize::try_from(expected).unwrap_or(usize::MAX).min(rows);
        let room = self.limits().max_in_flight / self.in_flight().max(1);
        self.n_threads().min(worth).min(room).max(1)
    }
}

/// `rows` in `n_parts` shares that differ by one at most.
fn shares(rows: usize, n_parts: usize) -> Vec<usize> {
    let (share, more) = (rows / n_parts, rows % n_parts);
    (0..n_parts).map(|part| share + usize::from(part < more)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{Datatype, Tensor};

    #[test]
    fn shares_add_up() {
        assert_eq!(shares(10_001, 2), [5001, 5000]);
        assert_eq!(shares(7, 3), [3, 2, 2]);
        assert_eq!(shares(5, 1), [5]);
    }

    #[test]
    fn parts_are_one_execution_again() {
        let part = |bytes: &[u8], ms| Execution {
            outputs: vec![
                Tensor::new(Datatype::Uint8, [bytes.len()].as_slice(), bytes.to_vec().into())
                    .unwrap(),
            ],
            queued: Duration::from_millis(ms),
            computed: Duration::from_millis(2 * ms),
            batch_rows: bytes.len(),
            batch: None,
            first_row: 0,
        };
        let whole = join(&[part(&[1, 2], 3), part(&[3], 4)]).unwrap();
        assert_eq!(whole.outputs[0].data()[..], [1, 2, 3]);
        assert_eq!((whole.queued.as_millis(), whole.computed.as_millis()), (3, 8));
        assert_eq!(whole.batch_rows, 3);
    }
}
