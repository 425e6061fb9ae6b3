//! Which of a version's outputs are its predictions, and how they are read: scores as numbers,
//! classes by number or name, values.

use half::{bf16, f16};

use super::feature::FeaturePlan;
use super::labels::Label;
use super::performance::{Predicted, Predictions, ScoreBaseline, Task};
use crate::tensor::{Datatype, Signature, Tensor};

/// Where predictions are found among the outputs.
#[derive(Debug, Clone)]
pub struct PredictionReader {
    /// The output of scores and its columns.
    score: Option<(usize, usize)>,
    /// The output of classes or values.
    prediction: Option<usize>,
    task: Task,
    classes: Vec<String>,
}

/// Predictions of some rows; kept, so that reading takes no memory.
#[derive(Debug, Default)]
pub struct PredictionRows {
    scores: Vec<f32>,
    n_scores: usize,
    predicted: Column,
}

#[derive(Debug, Default)]
enum Column {
    #[default]
    None,
    Numbers(Vec<f64>),
    Labels(Vec<Label>),
}

impl PredictionReader {
    /// A reader of the outputs that the plan found; nothing where it found neither scores nor
    /// predictions. `labels` are names of classes by output.
    #[must_use]
    pub fn new(
        plan: &FeaturePlan,
        signature: &Signature,
        labels: &[Option<Vec<String>>],
    ) -> Option<Self> {
        let score = plan.score().map(|score| (score.output, score.n_columns));
        let names = |output: usize| labels.get(output).cloned().flatten();
        let numbered = |n: usize| (0..n).map(|class| class.to_string()).collect::<Vec<_>>();
        let is_value = |&output: &usize| {
            signature.outputs.get(output).is_some_and(|spec| spec.datatype.is_float())
        };
        let prediction = plan.prediction();
        let (task, classes) = match (score, prediction) {
            (Some((output, n_columns @ 2..)), _) => {
                let names = names(output).or_else(|| prediction.and_then(names));
                let names = names.filter(|names| names.len() == n_columns);
                let task = if n_columns == 2 { Task::Binary } else { Task::Multiclass };
                (task, names.unwrap_or_else(|| numbered(n_columns)))
            }
            (Some((output, _)), Some(prediction)) => {
                let names = names(prediction).or_else(|| names(output));
                let names = names.filter(|names| names.len() == 2);
                (Task::Binary, names.unwrap_or_else(|| numbered(2)))
            }
            (Some(_), None) => (Task::Binary, numbered(2)),
            (None, Some(prediction)) if is_value(&prediction) => (Task::Regression, Vec::new()),
            (None, Some(prediction)) => match names(prediction) {
                Some(names) => (Task::Multiclass, names),
                None => return None,
            },
            (None, None) => match signature.outputs.as_slice() {
                // One output of one floating-point column is a regression's value.
                [only]
                    if only.datatype.is_float()
                        && only.shape.iter().skip(1).all(|d| *d == Some(1)) =>
                {
                    return Some(Self {
                        score: None,
                        prediction: Some(0),
                        task: Task::Regression,
                        classes: Vec::new(),
                    });
                }
                _ => return None,
            },
        };
        Some(Self { score, prediction, task, classes })
    }

    /// What the model does, as far as its outputs tell.
    #[must_use]
    pub fn task(&self) -> Task {
        self.task
    }

    /// The names of its classes.
    #[must_use]
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// What is known of the score where no labels have told more.
    #[must_use]
    pub fn unlabelled(&self) -> ScoreBaseline {
        ScoreBaseline::unlabelled(self.task, &self.classes, self.score.is_some())
    }

    /// Reads the predictions of one request's rows in place of what `rows` held.
    pub fn read(&self, outputs: &[Tensor], rows: &mut PredictionRows) {
        rows.clear();
        self.push(outputs, rows);
    }

    /// Appends the predictions of one request's rows.
    pub fn push(&self, outputs: &[Tensor], rows: &mut PredictionRows) {
        rows.n_scores = self.score.map_or(0, |(_, n_columns)| n_columns);
        if let Some(tensor) = self.score.and_then(|(output, _)| outputs.get(output)) {
            for_each_number(tensor, 0, tensor.len(), |number| rows.scores.push(number as f32));
        }
        let Some(tensor) = self.prediction.and_then(|output| outputs.get(output)) else { return };
        if tensor.datatype() == Datatype::Bytes {
            let labels = tensor.elements().map(|text| {
                Label::Text(String::from_utf8_lossy(text).into_owned().into_boxed_str())
            });
            match &mut rows.predicted {
                Column::Labels(all) => all.extend(labels),
                column => *column = Column::Labels(labels.collect()),
            }
        } else {
            if !matches!(rows.predicted, Column::Numbers(_)) {
                rows.predicted = Column::Numbers(Vec::new());
            }
            if let Column::Numbers(all) = &mut rows.predicted {
                for_each_number(tensor, 0, tensor.len(), |number| all.push(number));
            }
        }
    }
}

impl PredictionRows {
    /// Forgets the rows.
    pub fn clear(&mut self) {
        self.scores.clear();
        match &mut self.predicted {
            Column::None => {}
            Column::Numbers(numbers) => numbers.clear(),
            Column::Labels(labels) => labels.clear(),
        }
    }

    /// The rows, as performance takes them.
    #[must_use]
    pub fn as_predictions(&self) -> Predictions<'_> {
        let predicted = match &self.predicted {
            Column::None => Predicted::None,
            Column::Numbers(numbers) => Predicted::Numbers(numbers),
            Column::Labels(labels) => Predicted::Labels(labels),
        };
        Predictions { scores: &self.scores, n_scores: self.n_scores, predicted }
    }
}

/// Calls `take` with `n` elements of a tensor of numbers from element `start` on; with none where
/// it is one of texts or not that long. Integers beyond 2^53 are rounded.
pub(super) fn for_each_number(tensor: &Tensor, start: usize, n: usize, mut take: impl FnMut(f64)) {
    let Some(size) = tensor.datatype().size() else { return };
    let Some(bytes) = tensor.data().get(start * size..(start + n) * size) else { return };
    macro_rules! each {
        ($n:literal, $read:expr) => {
            bytes.as_chunks::<$n>().0.iter().for_each(|&chunk| take($read(chunk)))
        };
    }
    match tensor.datatype() {
        Datatype::Bool | Datatype::Uint8 => bytes.iter().for_each(|&byte| take(f64::from(byte))),
        Datatype::Int8 => each!(1, |c| f64::from(i8::from_le_bytes(c))),
        Datatype::Uint16 => each!(2, |c| f64::from(u16::from_le_bytes(c))),
        Datatype::Int16 => each!(2, |c| f64::from(i16::from_le_bytes(c))),
        Datatype::Uint32 => each!(4, |c| f64::from(u32::from_le_bytes(c))),
        Datatype::Int32 => each!(4, |c| f64::from(i32::from_le_bytes(c))),
        Datatype::Uint64 => each!(8, |c| u64::from_le_bytes(c) as f64),
        Datatype::Int64 => each!(8, |c| i64::from_le_bytes(c) as f64),
        Datatype::Fp16 => each!(2, |c| f16::from_le_bytes(c).to_f64()),
        Datatype::Bf16 => each!(2, |c| bf16::from_le_bytes(c).to_f64()),
        Datatype::Fp32 => each!(4, |c| f64::from(f32::from_le_bytes(c))),
        Datatype::Fp64 => each!(8, f64::from_le_bytes),
        Datatype::Bytes => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Monitor;
    use crate::tensor::TensorSpec;

    fn spec(name: &str, datatype: Datatype, columns: usize) -> TensorSpec {
        TensorSpec { name: name.to_owned(), datatype, shape: vec![None, Some(columns)] }
    }

    fn reader(outputs: Vec<TensorSpec>) -> Option<PredictionReader> {
        let signature = Signature { inputs: vec![spec("x", Datatype::Fp32, 2)], outputs };
        let labels = vec![None; signature.outputs.len()];
        let plan = FeaturePlan::new(&signature, &Monitor::default(), &[], &labels).unwrap();
        PredictionReader::new(&plan, &signature, &labels)
    }

    #[test]
    fn tasks_are_told_by_the_outputs() {
        let task = |outputs| reader(outputs).map(|reader| reader.task());
        let probability = || spec("probability", Datatype::Fp32, 1);
        let label = || spec("label", Datatype::Int64, 1);
        assert_eq!(task(vec![probability(), label()]), Some(Task::Binary));
        assert_eq!(task(vec![spec("probabilities", Datatype::Fp32, 2)]), Some(Task::Binary));
        assert_eq!(task(vec![spec("y", Datatype::Fp32, 10)]), Some(Task::Multiclass));
        assert_eq!(task(vec![spec("y", Datatype::Fp32, 1)]), Some(Task::Regression));
        assert_eq!(task(vec![spec("y", Datatype::Bytes, 3)]), None);
    }

    #[test]
    fn rows_are_read_whatever_the_datatype() {
        let outputs =
            vec![spec("probability", Datatype::Fp32, 1), spec("label", Datatype::Int64, 1)];
        let reader = reader(outputs).unwrap();
        let floats: Vec<u8> = [0.25_f32, 0.75].iter().flat_map(|x| x.to_le_bytes()).collect();
        let integers: Vec<u8> = [0_i64, 1].iter().flat_map(|x| x.to_le_bytes()).collect();
        let tensors = [
            Tensor::new(Datatype::Fp32, [2, 1].as_slice(), floats.into()).unwrap(),
            Tensor::new(Datatype::Int64, [2, 1].as_slice(), integers.into()).unwrap(),
        ];
        let mut rows = PredictionRows::default();
        for _ in 0..2 {
            reader.read(&tensors, &mut rows);
            let expected = Predictions {
                scores: &[0.25, 0.75],
                n_scores: 1,
                predicted: Predicted::Numbers(&[0.0, 1.0]),
            };
            assert_eq!(rows.as_predictions(), expected);
        }
    }
}
