//! Humility: what is done in the request itself when a row is unlike anything the model was made
//! for. Evaluated only where a rule or the outlier header asks for it, on the request's own thread,
//! from the same cells that are counted.

use std::sync::Arc;

use bytes::Bytes;

use super::baseline::Baseline;
use super::feature::{FeaturePlan, Measures};
use super::reader::{CellReader, RowCells};
use super::rows::{self, Rows};
use crate::config::{Monitor, Rule, Then, When};
use crate::tensor::{Datatype, Signature, Tensor, push_element};

/// Judges the rows of one request.
#[derive(Debug)]
pub(super) struct Judge {
    reader: Arc<CellReader>,
    rules: Vec<Ruled>,
    /// Features with the cells in which a value is a new category, or out of range.
    new: Vec<(usize, u8)>,
    out_of_range: Vec<(usize, u8)>,
    /// The outlier score beyond which a row is one.
    outlier: f32,
    /// The output of scores.
    score: Option<usize>,
    tells_scores: bool,
}

#[derive(Debug)]
struct Ruled {
    when: When,
    then: Then,
    margin: f64,
    replacement: Option<Replacement>,
}

/// What a row's prediction is replaced by.
#[derive(Debug)]
struct Replacement {
    output: usize,
    /// One element in the protocol's binary form; of BYTES without its length.
    element: Vec<u8>,
}

/// What rules say of a request.
#[derive(Debug, Default, PartialEq)]
pub struct Judgement {
    /// Rules that held, each with its rows.
    pub flags: Vec<(When, Vec<usize>)>,
    /// Why the request is refused, where it is.
    pub refusal: Option<String>,
    /// The outputs in whose place others go, by position.
    pub replaced: Vec<(usize, Tensor)>,
    /// The outlier score of every row, where the settings ask for it.
    pub outlier_scores: Option<Vec<f32>>,
}

impl Judge {
    /// A judge, where the settings ask for one.
    pub(super) fn new(
        settings: &Monitor,
        signature: &Signature,
        plan: &FeaturePlan,
        baseline: &Baseline,
        reader: Arc<CellReader>,
    ) -> Result<Option<Self>, String> {
        if settings.rules.is_empty() && !settings.outlier_header {
            return Ok(None);
        }
        let rules = settings.rules.iter().map(|rule| ruled(rule, signature, plan));
        let rules = rules.collect::<Result<Vec<_>, String>>()?;
        let needs_score = rules.iter().any(|rule| rule.when == When::LowMargin);
        if needs_score && plan.score().is_none() {
            return Err("monitor.rules: low_margin needs an output of probabilities; name it with monitor.score".to_owned());
        }
        let cell = |cell: usize| u8::try_from(cell).unwrap_or(u8::MAX);
        let inputs = || {
            let features = baseline.features.iter().enumerate();
            features.filter(|(_, feature)| feature.side == super::feature::Side::Input)
        };
        let new = inputs()
            .filter_map(|(index, feature)| Some((index, cell(feature.cells.new_category()?))));
        let out_of_range = inputs().flat_map(|(index, feature)| {
            let cells = feature.cells.out_of_range();
            cells.into_iter().map(move |number| (index, cell(number)))
        });
        Ok(Some(Self {
            rules,
            new: new.collect(),
            out_of_range: out_of_range.collect(),
            outlier: baseline.outlier.as_ref().map_or(f32::INFINITY, |o| o.threshold as f32),
            score: plan.score().map(|score| score.output),
            tells_scores: settings.outlier_header,
            reader,
        }))
    }

    /// Judges one request. O(rows × features).
    pub(super) fn judge(
        &self,
        plan: &FeaturePlan,
        inputs: &[Tensor],
        outputs: &[Tensor],
    ) -> Judgement {
        let mut rows = Rows::new(plan);
        rows.push(plan, inputs, outputs);
        let mut cells = RowCells::default();
        self.reader.read(&rows, &mut cells);
        let mut judgement = Judgement::default();
        for rule in &self.rules {
            let held: Vec<usize> =
                (0..rows.len()).filter(|&row| self.holds(rule, &cells, outputs, row)).collect();
            if held.is_empty() {
                continue;
            }
            match (rule.then, &rule.replacement) {
                (Then::Reject, _) => {
                    judgement.refusal.get_or_insert_with(|| {
                        format!(
                            "row {}: {}, which monitor.rules rejects",
                            held[0],
                            words(rule.when)
                        )
                    });
                }
                (Then::Override, Some(replacement)) => {
                    let earlier =
                        judgement.replaced.iter().position(|(o, _)| *o == replacement.output);
                    let present = match earlier {
                        Some(at) => Some(judgement.replaced.swap_remove(at).1),
                        None => outputs.get(replacement.output).cloned(),
                    };
                    let replaced =
                        present.and_then(|tensor| replace(&tensor, &held, &replacement.element));
                    judgement.replaced.extend(replaced.map(|tensor| (replacement.output, tensor)));
                }
                _ => {}
            }
            judgement.flags.push((rule.when, held));
        }
        judgement.outlier_scores = self.tells_scores.then(|| cells.outlier_scores().to_vec());
        judgement
    }

    fn holds(&self, rule: &Ruled, cells: &RowCells, outputs: &[Tensor], row: usize) -> bool {
        let any = |among: &[(usize, u8)]| {
            among.iter().any(|&(feature, cell)| cells.column(feature).get(row) == Some(&cell))
        };
        match rule.when {
            When::Outlier => cells.outlier_scores().get(row).is_some_and(|&s| s > self.outlier),
            When::NewCategory => any(&self.new),
            When::OutOfRange => any(&self.out_of_range),
            When::LowMargin => {
                let scores = self.score.and_then(|score| outputs.get(score));
                scores.and_then(|tensor| margin(tensor, row)).is_some_and(|m| m < rule.margin)
            }
        }
    }
}

fn words(when: When) -> &'static str {
    match when {
        When::Outlier => "it is an outlier to the baseline",
        When::NewCategory => "it has a category that the baseline does not know",
        When::LowMargin => "its likeliest class is hardly likelier than the next",
        When::OutOfRange => "it has a number outside of the baseline's range",
    }
}

fn ruled(rule: &Rule, signature: &Signature, plan: &FeaturePlan) -> Result<Ruled, String> {
    let replacement = match rule.then {
        Then::Override => Some(replacement(rule, signature, plan)?),
        Then::Flag | Then::Reject => None,
    };
    Ok(Ruled {
        when: rule.when,
        then: rule.then,
        margin: rule.margin.unwrap_or_default(),
        replacement,
    })
}

fn replacement(
    rule: &Rule,
    signature: &Signature,
    plan: &FeaturePlan,
) -> Result<Replacement, String> {
    let output = match &rule.output {
        Some(name) => signature
            .output(name)
            .ok_or_else(|| format!("monitor.rules: the model has no output '{name}'"))?,
        None => plan.prediction().or(plan.score().map(|score| score.output)).ok_or_else(|| {
            "monitor.rules: override needs output, since no output is found to be the prediction"
                .to_owned()
        })?,
    };
    let spec = &signature.outputs[output];
    let value = rule.value.as_ref();
    let element = value.and_then(|value| element(value, spec.datatype)).ok_or_else(|| {
        format!(
            "monitor.rules: value {} is none of output '{}', which is {}",
            value.map_or("(none)".to_owned(), ToString::to_string),
            spec.name,
            spec.datatype
        )
    })?;
    Ok(Replacement { output, element })
}

/// A value as one element of that datatype; nothing where it does not fit.
fn element(value: &toml::Value, datatype: Datatype) -> Option<Vec<u8>> {
    fn whole<T: TryFrom<i64>>(value: &toml::Value) -> Option<T> {
        T::try_from(value.as_integer()?).ok()
    }
    let float = || value.as_float().or(value.as_integer().map(|integer| integer as f64));
    Some(match datatype {
        Datatype::Bool => vec![u8::from(value.as_bool()?)],
        Datatype::Uint8 => whole::<u8>(value)?.to_le_bytes().into(),
        Datatype::Uint16 => whole::<u16>(value)?.to_le_bytes().into(),
        Datatype::Uint32 => whole::<u32>(value)?.to_le_bytes().into(),
        Datatype::Uint64 => whole::<u64>(value)?.to_le_bytes().into(),
        Datatype::Int8 => whole::<i8>(value)?.to_le_bytes().into(),
        Datatype::Int16 => whole::<i16>(value)?.to_le_bytes().into(),
        Datatype::Int32 => whole::<i32>(value)?.to_le_bytes().into(),
        Datatype::Int64 => whole::<i64>(value)?.to_le_bytes().into(),
        Datatype::Fp16 => half::f16::from_f64(float()?).to_le_bytes().into(),
        Datatype::Bf16 => half::bf16::from_f64(float()?).to_le_bytes().into(),
        Datatype::Fp32 => (float()? as f32).to_le_bytes().into(),
        Datatype::Fp64 => float()?.to_le_bytes().into(),
        Datatype::Bytes => value.as_str()?.as_bytes().into(),
    })
}

/// The tensor with every element of `rows` replaced.
fn replace(tensor: &Tensor, rows: &[usize], element: &[u8]) -> Option<Tensor> {
    let per_row = tensor.len().checked_div(tensor.rows())?;
    let mut data = Vec::with_capacity(tensor.data().len());
    match tensor.datatype().size() {
        Some(size) => {
            data.extend_from_slice(tensor.data());
            for row in rows {
                let start = row * per_row * size;
                let row = data.get_mut(start..start + per_row * size)?;
                row.chunks_exact_mut(size).for_each(|old| old.copy_from_slice(element));
            }
        }
        None => {
            for (index, old) in tensor.elements().enumerate() {
                let is_replaced = per_row > 0 && rows.contains(&(index / per_row));
                push_element(&mut data, if is_replaced { element } else { old });
            }
        }
    }
    Tensor::new(tensor.datatype(), tensor.shape(), Bytes::from(data)).ok()
}

/// How much likelier the likeliest class is than the next. One score is the probability of one of
/// two classes.
fn margin(scores: &Tensor, row: usize) -> Option<f64> {
    let per_row = scores.len().checked_div(scores.rows())?;
    let mut values = Vec::with_capacity(scores.len());
    rows::elements(scores, &mut values);
    match values.get(row * per_row..(row + 1) * per_row)? {
        [] => None,
        [probability] => Some((2.0 * f64::from(*probability) - 1.0).abs()),
        scores => Some(f64::from(Measures::of(scores).margin)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaced_rows_and_no_others() {
        let data: Vec<u8> = [1_i64, 2, 3].iter().flat_map(|x| x.to_le_bytes()).collect();
        let tensor = Tensor::new(Datatype::Int64, [3, 1].as_slice(), data.into()).unwrap();
        let element = element(&toml::Value::Integer(-1), Datatype::Int64).unwrap();
        let replaced = replace(&tensor, &[0, 2], &element).unwrap();
        let values: Vec<i64> = replaced
            .data()
            .chunks_exact(8)
            .map(|c| i64::from_le_bytes(c.try_into().unwrap()))
            .collect();
        assert_eq!(values, [-1, 2, -1]);
        let texts = Tensor::from_elements([3].as_slice(), ["a", "bb", "c"]).unwrap();
        let replaced = replace(&texts, &[1], b"unsure").unwrap();
        assert_eq!(replaced.elements().collect::<Vec<_>>(), [&b"a"[..], b"unsure", b"c"]);
    }

    #[test]
    fn values_must_be_of_the_outputs_datatype() {
        assert_eq!(element(&toml::Value::Integer(300), Datatype::Uint8), None);
        assert_eq!(element(&toml::Value::String("x".into()), Datatype::Fp32), None);
        let half = element(&toml::Value::Integer(1), Datatype::Fp32);
        assert_eq!(half, Some(1.0_f32.to_le_bytes().into()));
    }

    #[test]
    fn margins_of_one_score_and_of_several() {
        let tensor = |shape: &[usize], values: &[f32]| {
            let data: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            Tensor::new(Datatype::Fp32, shape, data.into()).unwrap()
        };
        let one = tensor(&[2, 1], &[0.55, 0.1]);
        assert!((margin(&one, 0).unwrap() - 0.1).abs() < 1e-6);
        assert!((margin(&one, 1).unwrap() - 0.8).abs() < 1e-6);
        let three = tensor(&[1, 3], &[0.5, 0.3, 0.2]);
        assert!((margin(&three, 0).unwrap() - 0.2).abs() < 1e-6);
    }
}
