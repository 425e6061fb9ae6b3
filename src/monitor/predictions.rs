//! What a version predicts, as far as its outputs tell: classes or values, and what the classes are
//! called.

use super::feature::FeaturePlan;
use super::performance::{ScoreBaseline, Task};
use crate::tensor::Signature;

/// What is known of the score where no labels have told more; nothing where the outputs tell neither
/// classes nor values. `labels` are names of classes by output.
pub(super) fn unlabelled(
    plan: &FeaturePlan,
    signature: &Signature,
    labels: &[Option<Vec<String>>],
) -> Option<ScoreBaseline> {
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
        (None, None) => return None,
    };
    Some(ScoreBaseline::unlabelled(task, &classes, score.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Monitor;
    use crate::tensor::{Datatype, TensorSpec};

    fn spec(name: &str, datatype: Datatype, columns: usize) -> TensorSpec {
        TensorSpec { name: name.to_owned(), datatype, shape: vec![None, Some(columns)] }
    }

    fn task(outputs: Vec<TensorSpec>) -> Option<Task> {
        let signature = Signature { inputs: vec![spec("x", Datatype::Fp32, 2)], outputs };
        let labels = vec![None; signature.outputs.len()];
        let plan = FeaturePlan::new(&signature, &Monitor::default(), &[], &labels).unwrap();
        unlabelled(&plan, &signature, &labels).map(|score| score.task)
    }

    #[test]
    fn tasks_are_told_by_the_outputs() {
        let probability = || spec("probability", Datatype::Fp32, 1);
        let label = || spec("label", Datatype::Int64, 1);
        assert_eq!(task(vec![probability(), label()]), Some(Task::Binary));
        assert_eq!(task(vec![spec("probabilities", Datatype::Fp32, 2)]), Some(Task::Binary));
        assert_eq!(task(vec![spec("y", Datatype::Fp32, 10)]), Some(Task::Multiclass));
        assert_eq!(task(vec![spec("prediction", Datatype::Fp32, 1)]), Some(Task::Regression));
        assert_eq!(task(vec![spec("y", Datatype::Bytes, 3)]), None);
    }
}
