//! The column form: whole tensors by input, or all values of a feature.

use std::borrow::Cow;
use std::fmt;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::protocol::rows::{InputRow, Key, RowSchema, Scratch, ValueSeed};
use crate::protocol::v2::ProtocolError;
use crate::tensor::{Shape, Tensor};

/// Columns as they come.
#[derive(Debug)]
pub(super) struct Columns<'s> {
    schema: &'s RowSchema,
    inputs: Vec<Input>,
    limit: usize,
    is_over: bool,
}

#[derive(Debug, Default)]
struct Input {
    /// The whole tensor.
    whole: Option<(Scratch, Shape)>,
    /// A column a feature, where single ones came.
    features: Vec<Option<(Scratch, usize)>>,
}

impl<'s> Columns<'s> {
    pub(super) fn new(schema: &'s RowSchema, limit: usize) -> Self {
        let inputs = schema.inputs.iter().map(|_| Input::default()).collect();
        Self { schema, inputs, limit, is_over: false }
    }

    /// Whether what came is more than the limit.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Reads one column.
    fn column<E: Error>(
        &mut self,
        name: &str,
        read: impl FnOnce(ValueSeed<'_>) -> Result<Shape, E>,
    ) -> Result<(), E> {
        let wrong = |reason: &dyn fmt::Display| E::custom(format_args!("'{name}': {reason}"));
        let Some(key) = self.schema.key(name) else {
            return Err(E::custom(self.schema.unknown(name)));
        };
        let (Key::Input(position) | Key::Element { input: position, .. }) = key;
        let row = &self.schema.inputs[position];
        let left = self.limit.saturating_sub(self.taken());
        let mut scratch = Scratch::new(row.spec.datatype, left);
        let read = read(ValueSeed { scratch: &mut scratch });
        self.is_over |= scratch.is_over;
        let shape = read.map_err(|error| wrong(&error))?;
        let input = &mut self.inputs[position];
        let is_twice = match key {
            Key::Input(_) => {
                let shape = fit(row, shape).map_err(|reason| wrong(&reason))?;
                input.whole.replace((scratch, shape)).is_some() || !input.features.is_empty()
            }
            Key::Element { element, .. } => {
                let n_rows = match shape.as_slice() {
                    [n_rows] | [n_rows, 1] => *n_rows,
                    _ => return Err(wrong(&"expected a list with a value a row")),
                };
                if input.features.is_empty() {
                    input.features.resize_with(row.may_be_missing.len(), || None);
                }
                let before = input.features[element].replace((scratch, n_rows));
                before.is_some() || input.whole.is_some()
            }
        };
        if is_twice { Err(wrong(&"stands twice")) } else { Ok(()) }
    }

    /// Bytes so far.
    fn taken(&self) -> usize {
        let all = self.inputs.iter().flat_map(|input| {
            let features = input.features.iter().flatten().map(|(scratch, _)| scratch);
            input.whole.iter().map(|(scratch, _)| scratch).chain(features)
        });
        all.map(|scratch| scratch.elements.data().len()).sum()
    }

    /// The tensors of all columns.
    pub(super) fn finish(self) -> Result<Vec<Tensor>, ProtocolError> {
        let listed = self.schema.listed();
        let pairs = self.inputs.into_iter().zip(&self.schema.inputs);
        let tensors: Vec<Tensor> =
            pairs.map(|(input, row)| input.tensor(row, &listed)).collect::<Result<_, _>>()?;
        if let (Some(first), false) = (tensors.first(), self.schema.is_whole) {
            let others = tensors.iter().zip(&self.schema.inputs);
            for (tensor, row) in others {
                if tensor.rows() != first.rows() {
                    let (rows, expected) = (tensor.rows(), first.rows());
                    let reason = format!("it has {rows} rows, and the inputs before it {expected}");
                    return Err(ProtocolError::tensor(&row.spec.name, reason));
                }
            }
        }
        Ok(tensors)
    }
}

impl Input {
    fn tensor(self, row: &InputRow, listed: &str) -> Result<Tensor, ProtocolError> {
        let name = &row.spec.name;
        let of_tensor = |error| ProtocolError::of_tensor(name, &error);
        if let Some((mut scratch, shape)) = self.whole {
            return scratch.elements.take(shape).map_err(of_tensor);
        }
        let n_rows = self.features.iter().flatten().map(|(_, n_rows)| *n_rows).next();
        let missing = |what: &str| {
            ProtocolError::Tensors(format!("'{what}' is missing; the model takes {listed}"))
        };
        let n_rows = n_rows.ok_or_else(|| missing(name))?;
        let mut tensors = Vec::with_capacity(self.features.len());
        for (element, feature) in self.features.into_iter().enumerate() {
            let feature_name = row.element_name(element);
            let column = match feature {
                Some((mut scratch, rows)) if rows == n_rows => {
                    scratch.elements.take([n_rows].as_slice())
                }
                Some((_, rows)) => {
                    let reason = format!("'{feature_name}' has {rows} values, others {n_rows}");
                    return Err(ProtocolError::tensor(name, reason));
                }
                None => return Err(missing(&feature_name)),
            };
            tensors.push(column.map_err(of_tensor)?);
        }
        let mut shape: Shape = row.dims.iter().map(|dim| dim.unwrap_or(1)).collect();
        if row.dims.len() < row.spec.shape.len() {
            shape.insert(0, n_rows);
        }
        Tensor::interleave(row.spec.datatype, shape, &tensors).map_err(of_tensor)
    }
}

/// The shape of an input whose values came nested like this.
fn fit(row: &InputRow, shape: Shape) -> Result<Shape, String> {
    if row.spec.accepts(&shape) {
        return Ok(shape);
    }
    // A list of values for an input of one value a row.
    if let ([n_rows], Some(1), true) =
        (shape.as_slice(), row.width, row.dims.len() < row.spec.shape.len())
    {
        let mut whole: Shape = [*n_rows].as_slice().into();
        whole.extend(row.dims.iter().map(|_| 1));
        return Ok(whole);
    }
    Err(format!("expected {} with all rows, got lists of {shape:?}", row.spec))
}

impl<'de> DeserializeSeed<'de> for &mut Columns<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Columns<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "an object by the names of inputs or features, or the only input's values, as 'inputs'",
        )
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            self.column(&name, |seed| map.next_value_seed(seed))?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<(), A::Error> {
        let [only] = self.schema.inputs.as_slice() else {
            let listed = self.schema.listed();
            return Err(A::Error::custom(format_args!(
                "the model has several inputs: expected an object by their names; it takes {listed}"
            )));
        };
        let name = &only.spec.name;
        self.column(name, |seed| seed.deserialize(SeqAccessDeserializer::new(list)))
    }
}
