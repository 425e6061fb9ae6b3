//! The JSON objects of the protocol as they are read: names borrowed, data straight into bytes.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::data::DataSeed;
use super::{ProtocolError, numbers, short};
use crate::protocol::region::{self, Place};
use crate::tensor::{Datatype, Shape, volume};

/// A tensor as listed.
#[derive(Debug)]
pub(super) struct WireTensor<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) datatype: Datatype,
    pub(super) shape: Shape,
    pub(super) data: WireData,
}

/// All that are listed; as many as most models have need no memory of their own.
pub(super) type WireTensors<'a> = SmallVec<[WireTensor<'a>; 2]>;

/// Where a listed tensor's elements are.
#[derive(Debug)]
pub(super) enum WireData {
    /// They stood in the JSON.
    Here(Vec<u8>),
    /// They are this many bytes of the binary part.
    Binary(u64),
    /// They are in shared memory.
    Region(Box<Place>),
}

/// An output as asked for.
#[derive(Debug)]
pub(super) struct WireOutput<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) parameters: Parameters,
}

/// A request, or an answer, as written.
#[derive(Debug, Default)]
pub(super) struct WireMessage<'a> {
    pub(super) id: Option<Cow<'a, str>>,
    pub(super) model_name: Option<Cow<'a, str>>,
    pub(super) model_version: Option<Cow<'a, str>>,
    pub(super) parameters: Parameters,
    /// `inputs` of a request, `outputs` of an answer.
    pub(super) tensors: Option<WireTensors<'a>>,
    /// `outputs` of a request.
    pub(super) requested: Option<Vec<WireOutput<'a>>>,
}

/// The parameters that mean something here; all others are passed over.
#[derive(Debug, Default, Clone)]
pub(super) struct Parameters {
    pub(super) binary_data_size: Option<u64>,
    pub(super) binary_data: Option<bool>,
    pub(super) binary_data_output: Option<bool>,
    pub(super) classification: Option<u64>,
    pub(super) timeout: Option<u64>,
    pub(super) priority: Option<u64>,
    /// What they say of shared memory.
    pub(super) place: Option<Box<Place>>,
}

/// Whose message is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Request,
    Answer,
}

/// Reads the JSON part of a message.
pub(super) fn read(json: &[u8], side: Side) -> Result<WireMessage<'_>, ProtocolError> {
    let short = if side == Side::Request { short::read(json) } else { None };
    short.map_or_else(|| read_long(json, side), Ok)
}

/// Reads whatever the protocol allows, and says what is wrong with the rest.
pub(super) fn read_long(json: &[u8], side: Side) -> Result<WireMessage<'_>, ProtocolError> {
    let reading = RefCell::new(None);
    with(json, &reading, MessageSeed { side, reading: &reading })
}

/// Reads a list of tensors.
pub(super) fn read_tensors(json: &[u8]) -> Result<WireTensors<'_>, ProtocolError> {
    let reading = RefCell::new(None);
    with(json, &reading, TensorsSeed { reading: &reading })
}

/// The name of the tensor whose data are being read, for messages.
type Reading = RefCell<Option<String>>;

fn with<'de, S: DeserializeSeed<'de>>(
    json: &'de [u8],
    reading: &Reading,
    seed: S,
) -> Result<S::Value, ProtocolError> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let read = seed.deserialize(&mut deserializer).and_then(|value| {
        deserializer.end()?;
        Ok(value)
    });
    read.map_err(|error| match (ProtocolError::json(&error, json), reading.take()) {
        (ProtocolError::Json(reason), Some(tensor)) => {
            let reason = reason.strip_prefix(NOT_A_REQUEST).unwrap_or(&reason).to_owned();
            ProtocolError::Tensor { tensor, reason }
        }
        (error, _) => error,
    })
}

/// How messages about the JSON as a whole begin.
pub(super) const NOT_A_REQUEST: &str = "the JSON is not a message of the protocol: ";

struct MessageSeed<'r> {
    side: Side,
    reading: &'r Reading,
}

impl<'de> DeserializeSeed<'de> for MessageSeed<'_> {
    type Value = WireMessage<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MessageSeed<'_> {
    type Value = WireMessage<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the members of the protocol")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut message = WireMessage::default();
        let mut has_parameters = false;
        while let Some(Name(name)) = members.next_key()? {
            match (&*name, self.side) {
                ("id", _) => once("id", &mut message.id, members.next_value::<Name<'_>>()?.0)?,
                ("parameters", _) => {
                    if std::mem::replace(&mut has_parameters, true) {
                        return Err(twice("parameters"));
                    }
                    message.parameters = members.next_value()?;
                }
                ("model_name", Side::Answer) => {
                    once(
                        "model_name",
                        &mut message.model_name,
                        members.next_value::<Name<'_>>()?.0,
                    )?;
                }
                ("model_version", Side::Answer) => {
                    let version = members.next_value::<Name<'_>>()?.0;
                    once("model_version", &mut message.model_version, version)?;
                }
                ("inputs", Side::Request) | ("outputs", Side::Answer) => {
                    let tensors = members.next_value_seed(TensorsSeed { reading: self.reading })?;
                    once(&name, &mut message.tensors, tensors)?;
                }
                ("outputs", Side::Request) => {
                    once("outputs", &mut message.requested, members.next_value()?)?;
                }
                _ => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        Ok(message)
    }
}

fn once<T, E: Error>(name: &str, place: &mut Option<T>, value: T) -> Result<(), E> {
    if place.is_some() {
        return Err(twice(name));
    }
    *place = Some(value);
    Ok(())
}

fn twice<E: Error>(name: &str) -> E {
    E::custom(format_args!("member `{name}` stands twice"))
}

/// A string that is borrowed where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

struct TensorsSeed<'r> {
    reading: &'r Reading,
}

impl<'de> DeserializeSeed<'de> for TensorsSeed<'_> {
    type Value = WireTensors<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for TensorsSeed<'_> {
    type Value = WireTensors<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of tensors")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut tensors = WireTensors::new();
        while let Some(tensor) = list.next_element_seed(TensorSeed { reading: self.reading })? {
            tensors.push(tensor);
        }
        Ok(tensors)
    }
}

struct TensorSeed<'r> {
    reading: &'r Reading,
}

impl<'de> DeserializeSeed<'de> for TensorSeed<'_> {
    type Value = WireTensor<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for TensorSeed<'_> {
    type Value = WireTensor<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tensor: an object with name, datatype, shape and data")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut name: Option<Cow<'de, str>> = None;
        let mut datatype: Option<Datatype> = None;
        let mut shape: Option<(Shape, usize)> = None;
        let mut parameters: Option<Parameters> = None;
        let mut data: Option<&RawValue> = None;
        while let Some(Name(member)) = members.next_key()? {
            match &*member {
                "name" => {
                    let value = members.next_value::<Name<'_>>()?.0;
                    self.reading.replace(Some(value.to_string()));
                    once("name", &mut name, value)?;
                }
                "datatype" => {
                    once("datatype", &mut datatype, members.next_value::<WireDatatype>()?.0)?
                }
                "shape" => {
                    let WireShape(dims) = members.next_value()?;
                    let count = volume(&dims).map_err(A::Error::custom)?;
                    once("shape", &mut shape, (dims, count))?;
                }
                "parameters" => once("parameters", &mut parameters, members.next_value()?)?,
                // It may stand before datatype and shape.
                "data" => once("data", &mut data, members.next_value()?)?,
                _ => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        let missing = |member: &str| A::Error::custom(format_args!("the tensor has no `{member}`"));
        let name = name.ok_or_else(|| missing("name"))?;
        let datatype = datatype.ok_or_else(|| missing("datatype"))?;
        let (shape, count) = shape.ok_or_else(|| missing("shape"))?;
        let Parameters { binary_data_size: size, place, .. } = parameters.unwrap_or_default();
        let data = match (data, size, place) {
            (Some(_), Some(_), _) => {
                return Err(A::Error::custom("has both `data` and `binary_data_size`"));
            }
            (Some(_), None, Some(_)) | (None, Some(_), Some(_)) => {
                return Err(A::Error::custom(
                    "has both elements in the message and parameters of shared memory",
                ));
            }
            (None, None, None) => {
                return Err(A::Error::custom(
                    "has neither `data` nor the parameter `binary_data_size`",
                ));
            }
            (None, None, Some(place)) => WireData::Region(place),
            (None, Some(size), None) => WireData::Binary(size),
            (Some(raw), None, None) => {
                let short = numbers::read(raw.get(), datatype, &shape, count);
                WireData::Here(match short {
                    Some(bytes) => bytes,
                    None => {
                        let mut deserializer = serde_json::Deserializer::from_str(raw.get());
                        let seed = DataSeed { datatype, shape: &shape, count };
                        seed.deserialize(&mut deserializer).map_err(A::Error::custom)?
                    }
                })
            }
        };
        self.reading.replace(None);
        Ok(WireTensor { name, datatype, shape, data })
    }
}

struct WireDatatype(Datatype);

impl<'de> Deserialize<'de> for WireDatatype {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Name(name) = Name::deserialize(deserializer)?;
        Datatype::from_name(&name).map(Self).ok_or_else(|| {
            let known = Datatype::ALL.map(Datatype::name).join(", ");
            D::Error::custom(format_args!("datatype '{name}' is not one of {known}"))
        })
    }
}

struct WireShape(Shape);

impl<'de> Deserialize<'de> for WireShape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Dims;
        impl<'de> Visitor<'de> for Dims {
            type Value = WireShape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a shape: a list of dimensions, each a whole number from 0 on")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<WireShape, A::Error> {
                let mut shape = Shape::new();
                while let Some(dim) = list.next_element::<usize>()? {
                    shape.push(dim);
                }
                Ok(WireShape(shape))
            }
        }
        deserializer.deserialize_seq(Dims)
    }
}

impl<'de> Deserialize<'de> for WireOutput<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Output<'a> {
            #[serde(borrow)]
            name: Cow<'a, str>,
            #[serde(default)]
            parameters: Parameters,
        }
        let Output { name, parameters } = Output::deserialize(deserializer)?;
        Ok(Self { name, parameters })
    }
}

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Parameters;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of parameters")
            }

            fn visit_unit<E: Error>(self) -> Result<Parameters, E> {
                Ok(Parameters::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Parameters, A::Error> {
                let mut parameters = Parameters::default();
                while let Some(Name(name)) = members.next_key()? {
                    match &*name {
                        "binary_data_size" => {
                            parameters.binary_data_size = Some(number(&name, &mut members)?)
                        }
                        "classification" => {
                            parameters.classification = Some(number(&name, &mut members)?)
                        }
                        "timeout" => parameters.timeout = Some(number(&name, &mut members)?),
                        "priority" => parameters.priority = Some(number(&name, &mut members)?),
                        "binary_data" => parameters.binary_data = Some(truth(&name, &mut members)?),
                        "binary_data_output" => {
                            parameters.binary_data_output = Some(truth(&name, &mut members)?);
                        }
                        region::REGION => {
                            let region = text(&name, &mut members)?;
                            parameters.place.get_or_insert_default().region = Some(region);
                        }
                        region::OFFSET => {
                            let offset = number(&name, &mut members)?;
                            parameters.place.get_or_insert_default().offset = Some(offset);
                        }
                        region::BYTE_SIZE => {
                            let size = number(&name, &mut members)?;
                            parameters.place.get_or_insert_default().byte_size = Some(size);
                        }
                        _ => drop(members.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(parameters)
            }
        }
        deserializer.deserialize_any(Members)
    }
}

fn number<'de, A: MapAccess<'de>>(name: &str, members: &mut A) -> Result<u64, A::Error> {
    let value: Value = members.next_value()?;
    value.as_u64().ok_or_else(|| {
        A::Error::custom(format_args!(
            "parameter '{name}': expected a whole number from 0 on, got {value}"
        ))
    })
}

fn text<'de, A: MapAccess<'de>>(name: &str, members: &mut A) -> Result<String, A::Error> {
    match members.next_value()? {
        Value::String(text) => Ok(text),
        value => Err(A::Error::custom(format_args!(
            "parameter '{name}': expected a string, got {value}"
        ))),
    }
}

fn truth<'de, A: MapAccess<'de>>(name: &str, members: &mut A) -> Result<bool, A::Error> {
    let value: Value = members.next_value()?;
    value.as_bool().ok_or_else(|| {
        A::Error::custom(format_args!("parameter '{name}': expected true or false, got {value}"))
    })
}
