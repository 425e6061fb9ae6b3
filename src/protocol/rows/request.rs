//! Rows as they are sent, to tensors in the signature's order.

use std::fmt;
use std::ops::Range;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};

use super::{InputRow, Key, RowSchema, Scratch, ValueSeed};
use crate::protocol::v2::ProtocolError;
use crate::tensor::{Datatype, ElementWriter, Shape, Tensor};

/// A request for a prediction of rows.
#[derive(Debug)]
pub struct RowsRequest {
    /// The inputs, in the signature's order.
    pub inputs: Vec<Tensor>,
    /// The number of rows.
    pub n_rows: usize,
    /// Whether they came as a list, even of one.
    pub is_list: bool,
}

/// Decodes an object, or a list of objects, that name inputs or features. Tensors of more than
/// `limit` bytes altogether are refused.
pub fn decode_rows(
    body: &[u8],
    schema: &RowSchema,
    limit: usize,
) -> Result<RowsRequest, ProtocolError> {
    let mut rows = Row::new(schema, limit);
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = json.deserialize_any(Rows { rows: &mut rows });
    let read = read.and_then(|is_list| json.end().map(|()| is_list));
    let is_list = read.map_err(|error| failed(&error, rows.is_over(), limit))?;
    let n_rows = rows.n_rows;
    Ok(RowsRequest { inputs: rows.finish()?, n_rows, is_list })
}

/// What the reader's error says to the client.
pub(in crate::protocol) fn failed(
    error: &serde_json::Error,
    is_over: bool,
    limit: usize,
) -> ProtocolError {
    match is_over {
        true => ProtocolError::TooLarge { limit },
        false => ProtocolError::Json(error.to_string()),
    }
}

/// A list of rows, or one.
struct Rows<'r, 's> {
    rows: &'r mut Row<'s>,
}

impl<'de> Visitor<'de> for Rows<'_, '_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object by the names of inputs or features, or a list of such objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<bool, A::Error> {
        self.rows.object(map, false)?;
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
        while list
            .next_element_seed(RowSeed { rows: &mut *self.rows, takes_values: false })?
            .is_some()
        {}
        Ok(true)
    }
}

/// Reads the next row: an object, or, where that is allowed, the value of the only input.
pub(in crate::protocol) struct RowSeed<'r, 's> {
    pub(in crate::protocol) rows: &'r mut Row<'s>,
    pub(in crate::protocol) takes_values: bool,
}

impl<'de> DeserializeSeed<'de> for RowSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = if self.takes_values { ", or a list of values" } else { "" };
        let row = self.rows.n_rows;
        write!(f, "an object by the names of inputs or features{values} as row {row}")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.rows.object(map, self.takes_values)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<(), A::Error> {
        match self.takes_values {
            true => self.rows.values(list),
            false => Err(A::Error::invalid_type(serde::de::Unexpected::Seq, &self)),
        }
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.scalar(value.into_deserializer(), serde::de::Unexpected::Unsigned(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.scalar(value.into_deserializer(), serde::de::Unexpected::Signed(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.scalar(value.into_deserializer(), serde::de::Unexpected::Float(value))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.scalar(value.into_deserializer(), serde::de::Unexpected::Bool(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.scalar(value.into_deserializer(), serde::de::Unexpected::Str(value))
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.scalar(().into_deserializer(), serde::de::Unexpected::Unit)
    }
}

impl RowSeed<'_, '_> {
    fn scalar<'de, D: Deserializer<'de>>(
        self,
        value: D,
        unexpected: serde::de::Unexpected<'_>,
    ) -> Result<(), D::Error> {
        match self.takes_values {
            true => self.rows.value(value),
            false => Err(D::Error::invalid_type(unexpected, &self)),
        }
    }
}

/// The rows so far, and the one that is being read.
#[derive(Debug)]
pub(in crate::protocol) struct Row<'s> {
    schema: &'s RowSchema,
    inputs: Vec<Filling>,
    n_rows: usize,
    limit: usize,
    is_over: bool,
}

/// An input that is being filled.
#[derive(Debug)]
struct Filling {
    /// Values of the present row, in the order in which they came.
    scratch: Scratch,
    /// Where all values of the row are, and their shape.
    whole: Option<(Range<usize>, Shape)>,
    /// Where each element is.
    parts: Vec<Option<Range<usize>>>,
    /// Rows that are complete.
    rows: ElementWriter,
    /// The dimensions of the first row, which all others must have.
    dims: Option<Shape>,
}

impl<'s> Row<'s> {
    pub(in crate::protocol) fn new(schema: &'s RowSchema, limit: usize) -> Self {
        let fillings = schema.inputs.iter().map(|input| Filling {
            scratch: Scratch::new(input.spec.datatype, limit),
            whole: None,
            parts: vec![None; input.may_be_missing.len()],
            rows: ElementWriter::new(input.spec.datatype),
            dims: None,
        });
        Self { schema, inputs: fillings.collect(), n_rows: 0, limit, is_over: false }
    }

    /// Whether what came is more than the limit.
    pub(in crate::protocol) fn is_over(&self) -> bool {
        self.is_over || self.inputs.iter().any(|filling| filling.scratch.is_over)
    }

    /// Reads a row that names what it holds.
    fn object<'de, A: MapAccess<'de>>(
        &mut self,
        mut map: A,
        takes_values: bool,
    ) -> Result<(), A::Error> {
        let row = self.n_rows;
        while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            let schema = self.schema;
            let Some(key) = schema.key(&name) else {
                if name == "b64"
                    && let ([Filling { scratch, .. }], true) = (&self.inputs[..], takes_values)
                    && scratch.elements.datatype() == Datatype::Bytes
                {
                    return self.bytes(map);
                }
                let unknown = schema.unknown(&name);
                return Err(A::Error::custom(format_args!("row {row}: {unknown}")));
            };
            let wrong = |reason: &dyn fmt::Display| {
                A::Error::custom(format_args!("row {row}, '{name}': {reason}"))
            };
            let (Key::Input(input) | Key::Element { input, .. }) = key;
            let filling = &mut self.inputs[input];
            let start = filling.scratch.elements.data().len();
            let seed = ValueSeed { scratch: &mut filling.scratch };
            let shape = map.next_value_seed(seed).map_err(|error| wrong(&error))?;
            let range = start..filling.scratch.elements.data().len();
            match key {
                Key::Input(_) if filling.whole.is_some() => return Err(wrong(&"stands twice")),
                Key::Input(_) => {
                    let dims = schema.inputs[input].fit(shape).map_err(|e| wrong(&e))?;
                    filling.whole = Some((range, dims));
                }
                Key::Element { element, .. } => {
                    if !shape.is_empty() {
                        return Err(wrong(&"expected one value, got a list"));
                    }
                    if filling.parts[element].replace(range).is_some() {
                        return Err(wrong(&"stands twice"));
                    }
                }
            }
        }
        self.end().map_err(|reason| A::Error::custom(format_args!("row {row}: {reason}")))
    }

    /// Reads what is left of `{"b64": "..."}` as the value of the only input.
    fn bytes<'de, A: MapAccess<'de>>(&mut self, mut map: A) -> Result<(), A::Error> {
        let text: std::borrow::Cow<'de, str> = map.next_value()?;
        let pair = std::iter::once(("b64", &*text));
        self.value(serde::de::value::MapDeserializer::<_, A::Error>::new(pair))?;
        match map.next_key::<serde::de::IgnoredAny>()? {
            None => Ok(()),
            Some(_) => Err(A::Error::custom("expected {\"b64\": \"...\"} and nothing beside it")),
        }
    }

    /// Reads a list as a row: the values of the only input, or one of each where all take one.
    fn values<'de, A: SeqAccess<'de>>(&mut self, mut list: A) -> Result<(), A::Error> {
        let row = self.n_rows;
        if self.inputs.len() == 1 {
            return self.value(SeqAccessDeserializer::new(list));
        }
        let n_inputs = self.inputs.len();
        let count = |n: usize| {
            A::Error::custom(format_args!(
                "row {row}: expected {n_inputs} values, one an input, got {n}; or an object by name"
            ))
        };
        if self.schema.inputs.iter().any(|input| input.width != Some(1)) {
            return Err(A::Error::custom(format_args!(
                "row {row}: the model has several inputs: expected an object by their names; it takes {}",
                self.schema.listed()
            )));
        }
        for (input, filling) in self.inputs.iter_mut().enumerate() {
            let seed = ValueSeed { scratch: &mut filling.scratch };
            let shape = list.next_element_seed(seed)?.ok_or_else(|| count(input))?;
            let end = filling.scratch.elements.data().len();
            let dims = self.schema.inputs[input].fit(shape).map_err(|reason| {
                A::Error::custom(format_args!("row {row}, value {input}: {reason}"))
            })?;
            filling.whole = Some((0..end, dims));
        }
        if list.next_element::<serde::de::IgnoredAny>()?.is_some() {
            return Err(count(n_inputs + 1));
        }
        self.end().map_err(|reason| A::Error::custom(format_args!("row {row}: {reason}")))
    }

    /// Reads a row that is the value of the only input.
    fn value<'de, D: Deserializer<'de>>(&mut self, value: D) -> Result<(), D::Error> {
        let row = self.n_rows;
        let wrong =
            |reason: &dyn fmt::Display| D::Error::custom(format_args!("row {row}: {reason}"));
        let ([filling], [input]) = (&mut self.inputs[..], &self.schema.inputs[..]) else {
            let listed = self.schema.listed();
            return Err(wrong(&format_args!(
                "the model has several inputs: expected an object by their names; it takes {listed}"
            )));
        };
        let seed = ValueSeed { scratch: &mut filling.scratch };
        let shape = seed.deserialize(value).map_err(|error| wrong(&error))?;
        let dims = input.fit(shape).map_err(|reason| wrong(&reason))?;
        filling.whole = Some((0..filling.scratch.elements.data().len(), dims));
        self.end().map_err(|reason| wrong(&reason))
    }

    /// The present row is complete, or an error says what is missing.
    fn end(&mut self) -> Result<(), String> {
        let mut missing = Vec::new();
        for (filling, input) in self.inputs.iter_mut().zip(&self.schema.inputs) {
            filling.end(input, &mut missing)?;
        }
        if !missing.is_empty() {
            let are = if missing.len() == 1 { "is" } else { "are" };
            let (missing, listed) = (missing.join(", "), self.schema.listed());
            return Err(format!("{missing} {are} missing; the model takes {listed}"));
        }
        self.n_rows += 1;
        let filled: usize = self.inputs.iter().map(|filling| filling.rows.data().len()).sum();
        if filled > self.limit {
            self.is_over = true;
            return Err("too large".to_owned());
        }
        match self.schema.is_whole && self.n_rows > 1 {
            true => Err("the model takes one row a request".to_owned()),
            false => Ok(()),
        }
    }

    /// The tensors of all rows.
    pub(in crate::protocol) fn finish(self) -> Result<Vec<Tensor>, ProtocolError> {
        if self.n_rows == 0 {
            let listed = self.schema.listed();
            let message = format!("there are no rows; a row of the model takes {listed}");
            return Err(ProtocolError::Tensors(message));
        }
        let tensors = self.inputs.into_iter().zip(&self.schema.inputs).map(|(filling, input)| {
            let mut shape: Shape =
                if self.schema.is_whole { Shape::new() } else { [self.n_rows].as_slice().into() };
            shape.extend(filling.dims.unwrap_or_default());
            let mut rows = filling.rows;
            rows.take(shape).map_err(|error| ProtocolError::of_tensor(&input.spec.name, &error))
        });
        tensors.collect()
    }
}

impl Filling {
    fn end(&mut self, input: &InputRow, missing: &mut Vec<String>) -> Result<(), String> {
        let name = &input.spec.name;
        let dims = match self.whole.take() {
            Some((range, dims)) => {
                if self.parts.iter().any(Option::is_some) {
                    return Err(format!("'{name}' is there, and so are single features of it"));
                }
                self.rows.extend(&self.scratch.elements.data()[range]);
                dims
            }
            None => {
                let Some(dims) = input.fixed().filter(|_| !self.parts.is_empty()) else {
                    missing.push(format!("'{name}'"));
                    return Ok(());
                };
                let nothing = self.parts.iter().all(Option::is_none);
                if nothing && input.names.is_none() && !input.may_be_missing.iter().all(|&may| may)
                {
                    missing.push(format!("'{name}'"));
                    return Ok(());
                }
                for (element, part) in self.parts.iter_mut().enumerate() {
                    match part.take() {
                        Some(range) => self.rows.extend(&self.scratch.elements.data()[range]),
                        None if input.may_be_missing[element] => {
                            self.rows.push_missing()?;
                        }
                        None => missing.push(format!("'{}'", input.element_name(element))),
                    }
                }
                dims
            }
        };
        self.scratch.elements.clear();
        match &self.dims {
            Some(first) if *first != dims => Err(format!(
                "'{name}' has {dims:?} values, and the rows before it {first:?}; they must agree"
            )),
            Some(_) => Ok(()),
            None => {
                self.dims = Some(dims);
                Ok(())
            }
        }
    }
}

impl InputRow {
    /// The dimensions of a row, where none is free.
    fn fixed(&self) -> Option<Shape> {
        self.dims.iter().copied().collect()
    }

    /// The dimensions of a row that came nested like this.
    fn fit(&self, shape: Shape) -> Result<Shape, String> {
        let is_nested = self.dims.len() == shape.len()
            && self.dims.iter().zip(&shape).all(|(dim, &size)| dim.is_none_or(|dim| dim == size));
        if is_nested {
            return Ok(shape);
        }
        let is_flat = match (shape.as_slice(), self.width) {
            ([], Some(1)) => true,
            ([size], Some(width)) => *size == width,
            _ => false,
        };
        if let (true, Some(dims)) = (is_flat, self.fixed()) {
            return Ok(dims);
        }
        let expected = match (self.width, self.dims.len()) {
            (Some(1), _) => "one value".to_owned(),
            (Some(width), 0 | 1) => format!("a list of {width} values"),
            (Some(width), depth) => format!("{width} values, flat or nested {depth} deep"),
            (None, depth) => format!("values nested {depth} deep"),
        };
        let got = match shape.as_slice() {
            [] => "one value".to_owned(),
            [size] => format!("a list of {size}"),
            sizes => format!("lists of {sizes:?}"),
        };
        Err(format!("expected {expected} ({}), got {got}", self.spec))
    }
}
