//! JSON elements to bytes: straight into the tensor's buffer, without a tree of values between.
//!
//! The buffer grows with the elements that come, never ahead of them: a shape that announces a
//! gigabyte costs nothing until a gigabyte of JSON has been read.

use std::fmt;

use half::{bf16, f16};
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Unexpected, Visitor};

use crate::tensor::{Datatype, push_element};

/// Elements for which room is made at once.
pub(super) const RESERVE_AT_MOST: usize = 4096;

/// Integers that a binary64 holds exactly reach to here.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Reads the member `data` of a tensor with this datatype and shape, as binary data.
///
/// The shape decides how deep nested data is; flat data is a list of all elements. Both are
/// checked against it while they are read, so errors say where.
pub(super) struct DataSeed<'a> {
    pub(super) datatype: Datatype,
    pub(super) shape: &'a [usize],
    /// The number of elements of the shape.
    pub(super) count: usize,
}

impl<'de> DeserializeSeed<'de> for DataSeed<'_> {
    type Value = Vec<u8>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<u8>, D::Error> {
        let size = self.datatype.size().unwrap_or(8);
        let mut reader = Reader {
            datatype: self.datatype,
            shape: self.shape,
            count: self.count,
            data: Vec::with_capacity(self.count.min(RESERVE_AT_MOST) * size),
            elements: 0,
            nesting: Nesting::Unknown,
            path: Vec::new(),
        };
        deserializer.deserialize_seq(Level { reader: &mut reader, depth: 0 })?;
        if reader.elements != reader.count {
            let (expected, actual) = (reader.count, reader.elements);
            let shape = reader.shape;
            return Err(D::Error::custom(format_args!(
                "shape {shape:?} needs {expected} elements, data has {actual}"
            )));
        }
        Ok(reader.data)
    }
}

#[derive(PartialEq, Eq, Clone, Copy)]
enum Nesting {
    /// The first element decides.
    Unknown,
    Flat,
    Nested,
}

struct Reader<'a> {
    datatype: Datatype,
    shape: &'a [usize],
    count: usize,
    data: Vec<u8>,
    elements: usize,
    nesting: Nesting,
    /// Positions on the way to the present list, for messages.
    path: Vec<usize>,
}

impl Reader<'_> {
    /// `data[0][3]`
    fn place(&self, index: usize) -> String {
        let path = self.path.iter().chain([&index]);
        path.fold("data".to_owned(), |text, index| format!("{text}[{index}]"))
    }

    /// `data[0]`, the list that is being read.
    fn list(&self) -> String {
        self.path.iter().fold("data".to_owned(), |text, index| format!("{text}[{index}]"))
    }
}

/// One list of the nesting; `depth` 0 is the outermost.
struct Level<'r, 'a> {
    reader: &'r mut Reader<'a>,
    depth: usize,
}

impl<'de> Visitor<'de> for Level<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { reader, depth } = self;
        let mut index = 0;
        while list.next_element_seed(Element { reader: &mut *reader, depth, index })?.is_some() {
            index += 1;
        }
        // Of flat data the number of all elements counts, which is checked at the end.
        if reader.nesting == Nesting::Nested || depth > 0 {
            let expected = reader.shape.get(depth).copied().unwrap_or(1);
            if index != expected {
                let (list, shape) = (reader.list(), reader.shape);
                return Err(A::Error::custom(format_args!(
                    "{list} has {index} elements, shape {shape:?} needs {expected}"
                )));
            }
        }
        Ok(())
    }
}

/// What stands at `index` of the list at `depth`: a list or a scalar.
struct Element<'r, 'a> {
    reader: &'r mut Reader<'a>,
    depth: usize,
    index: usize,
}

impl<'de> DeserializeSeed<'de> for Element<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Element<'_, '_> {
    /// Checks that a scalar may stand here and that there is room for it.
    fn scalar<E: Error>(&mut self) -> Result<(), E> {
        let rank = self.reader.shape.len();
        let innermost = self.depth + 1 >= rank.max(1);
        match self.reader.nesting {
            // A list of scalars is flat, and for one dimension it is nested as well.
            Nesting::Unknown if self.depth == 0 => self.reader.nesting = Nesting::Flat,
            Nesting::Flat if self.depth == 0 => {}
            Nesting::Unknown | Nesting::Nested if innermost && self.depth > 0 => {
                self.reader.nesting = Nesting::Nested;
            }
            _ => {
                let (place, shape) = (self.reader.place(self.index), self.reader.shape);
                return Err(E::custom(format_args!(
                    "{place} is a scalar; data of shape {shape:?} is either one flat list or nested {rank} deep"
                )));
            }
        }
        if self.reader.elements == self.reader.count {
            let (shape, count) = (self.reader.shape, self.reader.count);
            return Err(E::custom(format_args!(
                "shape {shape:?} needs {count} elements, data has more"
            )));
        }
        self.reader.elements += 1;
        Ok(())
    }

    fn wrong<E: Error>(&self, what: &Unexpected<'_>, expected: &str) -> E {
        let place = self.reader.place(self.index);
        let datatype = self.reader.datatype;
        E::custom(format_args!("{place}: expected {expected} of {datatype}, got {what}"))
    }

    fn out_of_range<E: Error>(&self, value: impl fmt::Display) -> E {
        let place = self.reader.place(self.index);
        let datatype = self.reader.datatype;
        let range = range(datatype);
        E::custom(format_args!("{place}: {value} is out of range for {datatype} ({range})"))
    }

    fn integer<E: Error>(mut self, value: i128) -> Result<(), E> {
        self.scalar()?;
        macro_rules! push {
            ($type:ty) => {
                match <$type>::try_from(value) {
                    Ok(value) => self.reader.data.extend_from_slice(&value.to_le_bytes()),
                    Err(_) => return Err(self.out_of_range(value)),
                }
            };
        }
        match self.reader.datatype {
            Datatype::Uint8 => push!(u8),
            Datatype::Uint16 => push!(u16),
            Datatype::Uint32 => push!(u32),
            Datatype::Uint64 => push!(u64),
            Datatype::Int8 => push!(i8),
            Datatype::Int16 => push!(i16),
            Datatype::Int32 => push!(i32),
            Datatype::Int64 => push!(i64),
            Datatype::Bool if value == 0 || value == 1 => {
                self.reader.data.push(u8::from(value == 1))
            }
            Datatype::Bool => {
                return Err(self.wrong(&Unexpected::Other(&value.to_string()), "true or false"));
            }
            Datatype::Bytes => {
                return Err(self.wrong(&Unexpected::Other(&value.to_string()), "a string"));
            }
            Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 | Datatype::Fp64 => {
                return self.push_float(value as f64);
            }
        }
        Ok(())
    }

    fn float<E: Error>(mut self, value: f64) -> Result<(), E> {
        let is_integer = value.fract() == 0.0 && value.abs() <= EXACT;
        match self.reader.datatype {
            Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 | Datatype::Fp64 => {
                self.scalar()?;
                self.push_float(value)
            }
            Datatype::Bytes | Datatype::Bool => {
                Err(self.wrong(&Unexpected::Float(value), "a value"))
            }
            _ if is_integer => self.integer(value as i128),
            _ if value.fract() == 0.0 => Err(self.out_of_range(value)),
            _ => Err(self.wrong(&Unexpected::Float(value), "an integer")),
        }
    }

    /// A finite number, or what stands for NaN and the infinities.
    fn push_float<E: Error>(self, value: f64) -> Result<(), E> {
        let data = &mut self.reader.data;
        let overflows = match self.reader.datatype {
            Datatype::Fp16 => {
                let narrow = f16::from_f64(value);
                data.extend_from_slice(&narrow.to_le_bytes());
                narrow.is_infinite()
            }
            Datatype::Bf16 => {
                let narrow = bf16::from_f64(value);
                data.extend_from_slice(&narrow.to_le_bytes());
                narrow.is_infinite()
            }
            Datatype::Fp32 => {
                let narrow = value as f32;
                data.extend_from_slice(&narrow.to_le_bytes());
                narrow.is_infinite()
            }
            _ => {
                data.extend_from_slice(&value.to_le_bytes());
                false
            }
        };
        if overflows && value.is_finite() {
            return Err(self.out_of_range(value));
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Element<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an element of {}", self.reader.datatype)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<(), A::Error> {
        let Self { reader, depth, index } = self;
        let rank = reader.shape.len();
        if reader.nesting == Nesting::Flat || depth + 1 >= rank {
            let (place, shape) = (reader.place(index), reader.shape);
            return Err(A::Error::custom(format_args!(
                "{place} is a list; data of shape {shape:?} is either one flat list or nested {rank} deep"
            )));
        }
        reader.nesting = Nesting::Nested;
        reader.path.push(index);
        Level { reader: &mut *reader, depth: depth + 1 }.visit_seq(list)?;
        reader.path.pop();
        Ok(())
    }

    // To a float directly: the way through 128 bits shows in profiles.
    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        if self.reader.datatype.is_float() {
            return self.float(value as f64);
        }
        self.integer(i128::from(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        if self.reader.datatype.is_float() {
            return self.float(value as f64);
        }
        self.integer(i128::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.float(value)
    }

    fn visit_bool<E: Error>(mut self, value: bool) -> Result<(), E> {
        if self.reader.datatype != Datatype::Bool {
            return Err(self.wrong(&Unexpected::Bool(value), "a value"));
        }
        self.scalar()?;
        self.reader.data.push(u8::from(value));
        Ok(())
    }

    fn visit_str<E: Error>(mut self, value: &str) -> Result<(), E> {
        if self.reader.datatype == Datatype::Bytes {
            self.scalar()?;
            push_element(&mut self.reader.data, value.as_bytes());
            return Ok(());
        }
        let special = match value {
            "NaN" => f64::NAN,
            "Infinity" => f64::INFINITY,
            "-Infinity" => f64::NEG_INFINITY,
            _ => return Err(self.wrong(&Unexpected::Str(value), "a value")),
        };
        if !self.reader.datatype.is_float() {
            return Err(self.wrong(&Unexpected::Str(value), "a value"));
        }
        self.scalar()?;
        self.push_float(special)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Err(self.wrong(&Unexpected::Other("null"), "a value"))
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(self.wrong(&Unexpected::Map, "a value"))
    }
}

fn range(datatype: Datatype) -> String {
    match datatype {
        Datatype::Uint8 => format!("0 to {}", u8::MAX),
        Datatype::Uint16 => format!("0 to {}", u16::MAX),
        Datatype::Uint32 => format!("0 to {}", u32::MAX),
        Datatype::Uint64 => format!("0 to {}", u64::MAX),
        Datatype::Int8 => format!("{} to {}", i8::MIN, i8::MAX),
        Datatype::Int16 => format!("{} to {}", i16::MIN, i16::MAX),
        Datatype::Int32 => format!("{} to {}", i32::MIN, i32::MAX),
        Datatype::Int64 => format!("{} to {}", i64::MIN, i64::MAX),
        Datatype::Fp16 => format!("{} to {}", f16::MIN, f16::MAX),
        Datatype::Bf16 => format!("{:e} to {:e}", bf16::MIN.to_f32(), bf16::MAX.to_f32()),
        Datatype::Fp32 => format!("{:e} to {:e}", f32::MIN, f32::MAX),
        Datatype::Bool | Datatype::Fp64 | Datatype::Bytes => "any".to_owned(),
    }
}
