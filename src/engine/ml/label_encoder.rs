//! `ai.onnx.ml.LabelEncoder` (1, 2, 4): one value for another, from strings, whole numbers and
//! floating point numbers to any of them.
//!
//! Floating point keys are equal as numbers are, and NaN equals NaN (version 4). Where a key
//! stands twice, its first value counts.

use std::collections::HashMap;
use std::hash::Hash;

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::{NodeProto, TensorProto};
use tract_onnx::tract_core::internal::{
    Datum, DatumType, Tensor, TractResult, bail, ensure, tensor0, tensor1,
};

use super::rows::{tensor, values};
use super::{DOMAIN, Form, Kernel, expect_type, only, opset};

#[derive(Debug)]
pub(super) struct LabelEncoder {
    /// Position in `values` by key.
    keys: Keys,
    key_type: DatumType,
    values: Tensor,
    default: Tensor,
    /// Version 1 also goes back, from positions to strings.
    back: Option<(Vec<String>, String)>,
}

#[derive(Debug)]
enum Keys {
    Strings(HashMap<String, usize>),
    Ints(HashMap<i64, usize>),
    /// By the bits of the number as binary64, zeros and NaNs made one.
    Floats(HashMap<u64, usize>),
}

impl Kernel for LabelEncoder {
    fn domain() -> &'static str {
        DOMAIN
    }

    fn parse(context: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Self> {
        if opset(context) < 2 {
            Self::parse_classes(node)
        } else {
            Self::parse_pairs(context, node)
        }
    }

    fn outputs(&self, inputs: &[Form]) -> TractResult<Vec<Form>> {
        let (datum_type, shape) = only(inputs)?;
        if self.back.is_some() && *datum_type == DatumType::I64 {
            return Ok(vec![(DatumType::String, shape.clone())]);
        }
        expect_type(*datum_type, &[self.key_type])?;
        Ok(vec![(self.values.datum_type(), shape.clone())])
    }

    fn run(&self, inputs: &[&Tensor]) -> TractResult<Vec<Tensor>> {
        let input = inputs[0];
        if let (Some((classes, default)), DatumType::I64) = (&self.back, input.datum_type()) {
            let string = |&index: &i64| {
                let class = usize::try_from(index).ok().and_then(|index| classes.get(index));
                class.unwrap_or(default).clone()
            };
            let strings = values::<i64>(input)?.iter().map(string).collect();
            return Ok(vec![tensor(input.shape(), strings)?]);
        }
        let found = self.find(input)?;
        let shape = input.shape();
        let output = match self.values.datum_type() {
            DatumType::String => self.take::<String>(shape, &found),
            DatumType::I64 => self.take::<i64>(shape, &found),
            DatumType::F32 => self.take::<f32>(shape, &found),
            DatumType::F64 => self.take::<f64>(shape, &found),
            DatumType::I16 => self.take::<i16>(shape, &found),
            other => bail!("cannot give {other:?}"),
        };
        Ok(vec![output?])
    }
}

impl LabelEncoder {
    /// Version 1: the strings' positions.
    fn parse_classes(node: &NodeProto) -> TractResult<Self> {
        let classes: Vec<String> = node.get_attr_vec("classes_strings")?;
        let default_string: Option<String> = node.get_attr_opt("default_string")?;
        let positions: Vec<i64> = (0_i64..).take(classes.len()).collect();
        Ok(Self {
            keys: Keys::Strings(first_positions(classes.iter().cloned())),
            key_type: DatumType::String,
            values: tensor1(&positions),
            default: tensor0(node.get_attr_opt::<i64>("default_int64")?.unwrap_or(-1)),
            back: Some((classes, default_string.unwrap_or_else(unused))),
        })
    }

    /// Versions 2 to 4: keys and values.
    fn parse_pairs(context: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Self> {
        let keys = list(context, node, "keys")?;
        let values = list(context, node, "values")?;
        ensure!(keys.len() == values.len(), "keys and values differ in length");
        let default = match node.get_attr_opt::<&TensorProto>("default_tensor")? {
            Some(default) => {
                let default = context.load_tensor(default)?;
                ensure!(default.len() == 1, "default_tensor must hold one value");
                default.into_shape(&[])?
            }
            None => match values.datum_type() {
                DatumType::String => {
                    tensor0(node.get_attr_opt::<String>("default_string")?.unwrap_or_else(unused))
                }
                DatumType::I64 => tensor0(node.get_attr_opt("default_int64")?.unwrap_or(-1_i64)),
                DatumType::F32 => tensor0(node.get_attr_opt("default_float")?.unwrap_or(-0.0_f32)),
                DatumType::F64 => tensor0(-0.0_f64),
                DatumType::I16 => tensor0(-1_i16),
                other => bail!("values of type {other:?} are unknown"),
            },
        };
        let (expected, got) = (values.datum_type(), default.datum_type());
        ensure!(expected == got, "the default is {got:?} where values are {expected:?}");
        let key_type = keys.datum_type();
        let keys = match key_type {
            DatumType::String => Keys::Strings(first_positions(
                super::rows::values::<String>(&keys)?.iter().cloned(),
            )),
            DatumType::F32 | DatumType::F64 => {
                let keys = keys.cast_to::<f64>()?;
                let keys = super::rows::values::<f64>(&keys)?;
                Keys::Floats(first_positions(keys.iter().map(|&key| bits(key))))
            }
            DatumType::I64 | DatumType::I32 | DatumType::I16 => {
                let keys = keys.cast_to::<i64>()?;
                Keys::Ints(first_positions(super::rows::values::<i64>(&keys)?.iter().copied()))
            }
            other => bail!("keys of type {other:?} are unknown"),
        };
        Ok(Self { keys, key_type, values, default, back: None })
    }

    /// The position of each element's value.
    fn find(&self, input: &Tensor) -> TractResult<Vec<Option<usize>>> {
        Ok(match &self.keys {
            Keys::Strings(keys) => {
                values::<String>(input)?.iter().map(|key| keys.get(key).copied()).collect()
            }
            Keys::Ints(keys) => {
                let input = input.cast_to::<i64>()?;
                values::<i64>(&input)?.iter().map(|key| keys.get(key).copied()).collect()
            }
            Keys::Floats(keys) => {
                let input = input.cast_to::<f64>()?;
                let input = values::<f64>(&input)?;
                input.iter().map(|&key| keys.get(&bits(key)).copied()).collect()
            }
        })
    }

    fn take<T: Datum>(&self, shape: &[usize], found: &[Option<usize>]) -> TractResult<Tensor> {
        let values = values::<T>(&self.values)?;
        let default = &self::values::<T>(&self.default)?[0];
        let value = |position: &Option<usize>| position.map_or(default, |at| &values[at]).clone();
        tensor(shape, found.iter().map(value).collect())
    }
}

fn unused() -> String {
    "_Unused".to_owned()
}

fn first_positions<K: Eq + Hash>(keys: impl Iterator<Item = K>) -> HashMap<K, usize> {
    let mut positions = HashMap::new();
    for (position, key) in keys.enumerate() {
        positions.entry(key).or_insert(position);
    }
    positions
}

/// Equal for equal numbers and for all NaNs. Every binary32 number has its own.
fn bits(key: f64) -> u64 {
    if key.is_nan() {
        f64::NAN.to_bits()
    } else if key == 0.0 {
        0
    } else {
        key.to_bits()
    }
}

/// The attribute `{what}_strings`, `_int64s`, `_floats` or `_tensor`, whichever is there.
fn list(context: &ParsingContext<'_>, node: &NodeProto, what: &str) -> TractResult<Tensor> {
    if let Some(proto) = node.get_attr_opt::<&TensorProto>(&format!("{what}_tensor"))? {
        let loaded = context.load_tensor(proto)?;
        let n_values = loaded.len();
        return loaded.into_shape(&[n_values]);
    }
    if let Some(strings) = node.get_attr_opt_vec::<String>(&format!("{what}_strings"))? {
        return Ok(tensor1(&strings));
    }
    if let Some(ints) = node.get_attr_opt_slice::<i64>(&format!("{what}_int64s"))? {
        return Ok(tensor1(ints));
    }
    if let Some(floats) = node.get_attr_opt_slice::<f32>(&format!("{what}_floats"))? {
        return Ok(tensor1(floats));
    }
    bail!("no {what} are given, neither strings nor numbers")
}
