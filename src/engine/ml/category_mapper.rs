//! `ai.onnx.ml.CategoryMapper` (1): strings to whole numbers, or back.

use std::collections::HashMap;

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::internal::{DatumType, Tensor, TractResult, ensure};

use super::rows::{tensor, values};
use super::{DOMAIN, Form, Kernel, expect_type, only};

#[derive(Debug)]
pub(super) struct CategoryMapper {
    numbers: HashMap<String, i64>,
    strings: HashMap<i64, String>,
    default_number: i64,
    default_string: String,
}

impl Kernel for CategoryMapper {
    fn domain() -> &'static str {
        DOMAIN
    }

    fn parse(_: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Self> {
        let strings: Vec<String> = node.get_attr_opt_vec("cats_strings")?.unwrap_or_default();
        let numbers: &[i64] = node.get_attr_opt_slice("cats_int64s")?.unwrap_or_default();
        ensure!(strings.len() == numbers.len(), "cats_strings and cats_int64s differ in length");
        let pairs = || strings.iter().cloned().zip(numbers.iter().copied());
        Ok(Self {
            numbers: pairs().collect(),
            strings: pairs().map(|(string, number)| (number, string)).collect(),
            default_number: node.get_attr_opt("default_int64")?.unwrap_or(-1),
            default_string: node.get_attr_opt("default_string")?.unwrap_or("_Unused".to_owned()),
        })
    }

    fn outputs(&self, inputs: &[Form]) -> TractResult<Vec<Form>> {
        let (datum_type, shape) = only(inputs)?;
        expect_type(*datum_type, &[DatumType::String, DatumType::I64])?;
        let mapped = if *datum_type == DatumType::I64 { DatumType::String } else { DatumType::I64 };
        Ok(vec![(mapped, shape.clone())])
    }

    fn run(&self, inputs: &[&Tensor]) -> TractResult<Vec<Tensor>> {
        let input = inputs[0];
        let output = if input.datum_type() == DatumType::String {
            let number =
                |string: &String| self.numbers.get(string).copied().unwrap_or(self.default_number);
            tensor(input.shape(), values::<String>(input)?.iter().map(number).collect())
        } else {
            let string =
                |number: &i64| self.strings.get(number).unwrap_or(&self.default_string).clone();
            tensor(input.shape(), values::<i64>(input)?.iter().map(string).collect())
        };
        Ok(vec![output?])
    }
}
