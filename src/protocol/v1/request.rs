//! Requests of the V1 protocol to tensors in the signature's order.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::columns::Columns;
use crate::error::nearest;
use crate::protocol::rows::{Row, RowSchema, RowSeed, failed};
use crate::protocol::v2::ProtocolError;
use crate::tensor::Tensor;

/// Members of a request.
const MEMBERS: [&str; 3] = ["instances", "inputs", "signature_name"];

/// The only signature.
const SIGNATURE: &str = "serving_default";

/// A request for a prediction.
#[derive(Debug)]
pub struct V1Request {
    /// The inputs, in the signature's order.
    pub inputs: Vec<Tensor>,
    /// How the answer is written.
    pub form: V1Form,
}

/// How values are arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum V1Form {
    /// `instances`, answered by `predictions`.
    Rows,
    /// `inputs`, answered by `outputs`.
    Columns,
}

/// Decodes a request. Tensors of more than `limit` bytes altogether are refused.
pub fn decode_instances(
    body: &[u8],
    schema: &RowSchema,
    limit: usize,
) -> Result<V1Request, ProtocolError> {
    let mut reading =
        Reading { rows: Row::new(schema, limit), columns: Columns::new(schema, limit) };
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = json.deserialize_any(Request { reading: &mut reading });
    let read = read.and_then(|form| json.end().map(|()| form));
    let Reading { rows, columns } = reading;
    let form = read.map_err(|error| failed(&error, rows.is_over() || columns.is_over(), limit))?;
    let inputs = match form {
        Some(V1Form::Rows) => rows.finish()?,
        Some(V1Form::Columns) => columns.finish()?,
        None => {
            let message = "the request has neither 'instances' (rows) nor 'inputs' (columns)";
            return Err(ProtocolError::Json(message.to_owned()));
        }
    };
    Ok(V1Request { inputs, form: form.unwrap_or(V1Form::Rows) })
}

struct Reading<'s> {
    rows: Row<'s>,
    columns: Columns<'s>,
}

struct Request<'r, 's> {
    reading: &'r mut Reading<'s>,
}

impl<'de> Visitor<'de> for Request<'_, '_> {
    type Value = Option<V1Form>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with 'instances' or 'inputs'")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut form = None;
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            let found = match &*name {
                "instances" => {
                    map.next_value_seed(Instances { rows: &mut self.reading.rows })?;
                    V1Form::Rows
                }
                "inputs" => {
                    map.next_value_seed(&mut self.reading.columns)?;
                    V1Form::Columns
                }
                "signature_name" => {
                    let signature: Option<String> = map.next_value()?;
                    match signature.as_deref() {
                        None | Some("" | SIGNATURE) => continue,
                        Some(other) => {
                            return Err(A::Error::custom(format_args!(
                                "there is no signature '{other}': the model has one, '{SIGNATURE}'"
                            )));
                        }
                    }
                }
                other => {
                    let near = nearest(other, MEMBERS);
                    let near = near.unwrap_or("instances' or 'inputs");
                    return Err(A::Error::custom(format_args!(
                        "'{other}' is no member of a request; expected '{near}'"
                    )));
                }
            };
            if form.replace(found).is_some() {
                return Err(A::Error::custom(
                    "'instances' and 'inputs' are two forms of one thing: expected one of them, once",
                ));
            }
        }
        Ok(form)
    }
}

struct Instances<'r, 's> {
    rows: &'r mut Row<'s>,
}

impl<'de> DeserializeSeed<'de> for Instances<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Instances<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of rows as 'instances'")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list
            .next_element_seed(RowSeed { rows: &mut *self.rows, takes_values: true })?
            .is_some()
        {}
        Ok(())
    }
}
