//! `ai.onnx.ml.OneHotEncoder` (1): a new last axis with a 1 at the value's category.

use std::collections::HashMap;

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::internal::{DatumType, TDim, TVec, Tensor, TractResult, bail};

use super::rows::{Labels, tensor, values, zeros};
use super::{DOMAIN, Form, Kernel, NUMBERS, Rejected, expect_type, only};

#[derive(Debug)]
pub(super) struct OneHotEncoder {
    categories: Categories,
    n_categories: usize,
    /// A value of no category gives zeros; without it, it is refused.
    zeros: bool,
}

#[derive(Debug)]
enum Categories {
    Ints(HashMap<i64, usize>),
    Strings(HashMap<String, usize>),
}

impl Kernel for OneHotEncoder {
    fn domain() -> &'static str {
        DOMAIN
    }

    fn parse(_: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Self> {
        let labels = Labels::parse(
            node.get_attr_opt_slice("cats_int64s")?,
            node.get_attr_opt_vec("cats_strings")?,
        )?;
        let n_categories = labels.len();
        let categories = match labels {
            Labels::Ints(ints) => Categories::Ints(ints.into_iter().zip(0..).collect()),
            Labels::Strings(strings) => Categories::Strings(strings.into_iter().zip(0..).collect()),
        };
        let zeros = node.get_attr_opt::<i64>("zeros")?.unwrap_or(1) != 0;
        Ok(Self { categories, n_categories, zeros })
    }

    fn outputs(&self, inputs: &[Form]) -> TractResult<Vec<Form>> {
        let (datum_type, shape) = only(inputs)?;
        match self.categories {
            Categories::Ints(_) => expect_type(*datum_type, &NUMBERS)?,
            Categories::Strings(_) => expect_type(*datum_type, &[DatumType::String])?,
        }
        let mut shape = shape.clone();
        shape.push(TDim::from(self.n_categories));
        Ok(vec![(DatumType::F32, shape)])
    }

    fn run(&self, inputs: &[&Tensor]) -> TractResult<Vec<Tensor>> {
        let input = inputs[0];
        let n_categories = self.n_categories;
        let mut output = zeros::<f32>(input.len(), n_categories)?;
        let mut set = |element: usize, category: Option<&usize>| match category {
            Some(category) => {
                output[element * n_categories + category] = 1.0;
                Ok(())
            }
            None if self.zeros => Ok(()),
            None => Err(Rejected(format!("element {element} is of none of the categories"))),
        };
        match &self.categories {
            Categories::Strings(categories) => {
                for (element, value) in values::<String>(input)?.iter().enumerate() {
                    set(element, categories.get(value))?;
                }
            }
            Categories::Ints(categories) => {
                for (element, value) in whole(input)?.iter().enumerate() {
                    set(element, categories.get(value))?;
                }
            }
        }
        let mut shape: TVec<usize> = input.shape().into();
        shape.push(n_categories);
        Ok(vec![tensor(&shape, output)?])
    }
}

/// Numbers without their fractions.
#[expect(clippy::cast_possible_truncation, reason = "what ONNX Runtime compares")]
fn whole(input: &Tensor) -> TractResult<Vec<i64>> {
    Ok(match input.datum_type() {
        DatumType::I64 => values::<i64>(input)?.to_vec(),
        DatumType::I32 => values::<i32>(input)?.iter().map(|&x| i64::from(x)).collect(),
        DatumType::F32 => values::<f32>(input)?.iter().map(|&x| x as i64).collect(),
        DatumType::F64 => values::<f64>(input)?.iter().map(|&x| x as i64).collect(),
        other => bail!("takes numbers, not {other:?}"),
    })
}
