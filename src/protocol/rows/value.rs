//! One value of a row: a scalar, or a list nested to any depth, straight into bytes.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Unexpected, Visitor};
use smallvec::SmallVec;

use crate::protocol::base64;
use crate::tensor::{Datatype, ElementWriter, Shape, Unfit};

/// Lists within lists, at most: no model has tensors of more dimensions.
const DEEPEST: usize = 16;

/// The elements of values, one behind the other.
#[derive(Debug)]
pub(in crate::protocol) struct Scratch {
    pub(in crate::protocol) elements: ElementWriter,
    /// Bytes that there may be.
    limit: usize,
    /// Whether there were more.
    pub(in crate::protocol) is_over: bool,
}

impl Scratch {
    pub(in crate::protocol) fn new(datatype: Datatype, limit: usize) -> Self {
        Self { elements: ElementWriter::new(datatype), limit, is_over: false }
    }
}

/// Reads a value; its shape is how it is nested, which must be the same everywhere.
pub(in crate::protocol) struct ValueSeed<'a> {
    pub(in crate::protocol) scratch: &'a mut Scratch,
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = Shape;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Shape, D::Error> {
        let mut reader =
            Reader { scratch: self.scratch, sizes: SmallVec::new(), depth: None, path: Vec::new() };
        deserializer.deserialize_any(Level { reader: &mut reader, depth: 0 })?;
        Ok(reader.sizes.into_iter().map(Option::unwrap_or_default).collect())
    }
}

struct Reader<'a> {
    scratch: &'a mut Scratch,
    /// Elements of the lists at each depth, once one has ended.
    sizes: SmallVec<[Option<usize>; 4]>,
    /// How deep scalars are, once there was one.
    depth: Option<usize>,
    path: Vec<usize>,
}

impl Reader<'_> {
    /// ` at [0][3]`; nothing for a value that is no list.
    fn place(&self) -> String {
        if self.path.is_empty() {
            return String::new();
        }
        self.path.iter().fold(" at ".to_owned(), |text, index| format!("{text}[{index}]"))
    }

    fn scalar<E: Error>(
        &mut self,
        depth: usize,
        got: &dyn fmt::Display,
        push: impl FnOnce(&mut ElementWriter) -> Result<(), Unfit>,
    ) -> Result<(), E> {
        if *self.depth.get_or_insert(depth) != depth || self.sizes.len() > depth {
            return Err(E::custom(format_args!("the lists are not nested evenly{}", self.place())));
        }
        push(&mut self.scratch.elements).map_err(|expected| {
            E::custom(format_args!("expected {expected}, got {got}{}", self.place()))
        })?;
        if self.scratch.elements.data().len() > self.scratch.limit {
            self.scratch.is_over = true;
            return Err(E::custom("too large"));
        }
        Ok(())
    }
}

struct Level<'r, 'a> {
    reader: &'r mut Reader<'a>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Level<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or a list of values")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { reader, depth } = self;
        let uneven = |reader: &Reader<'_>| {
            A::Error::custom(format_args!("the lists are not nested evenly{}", reader.place()))
        };
        if reader.depth.is_some_and(|scalars| depth >= scalars) || depth >= DEEPEST {
            return Err(uneven(reader));
        }
        while reader.sizes.len() <= depth {
            reader.sizes.push(None);
        }
        let mut n = 0;
        loop {
            reader.path.push(n);
            let level = Level { reader: &mut *reader, depth: depth + 1 };
            let next = list.next_element_seed(level)?;
            reader.path.pop();
            if next.is_none() {
                break;
            }
            n += 1;
        }
        if *reader.sizes[depth].get_or_insert(n) != n {
            return Err(uneven(reader));
        }
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.reader.scalar(self.depth, &value, |elements| elements.push_integer(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.reader.scalar(self.depth, &value, |elements| elements.push_integer(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.reader.scalar(self.depth, &value, |elements| elements.push_number(value))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.reader.scalar(self.depth, &value, |elements| match elements.datatype() {
            Datatype::Bool | Datatype::Bytes => elements.push_bool(value),
            datatype => Err(format!("a number ({datatype})")),
        })
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        let got = Unexpected::Str(value);
        self.reader.scalar(self.depth, &got, |elements| match elements.datatype() {
            Datatype::Bytes => elements.push_text(value),
            datatype if datatype.is_float() => match value {
                "NaN" => elements.push_missing(),
                "Infinity" => elements.push_number(f64::INFINITY),
                "-Infinity" => elements.push_number(f64::NEG_INFINITY),
                _ => Err(format!("a number ({datatype})")),
            },
            Datatype::Bool => Err("true or false (BOOL)".to_owned()),
            datatype => Err(format!("a whole number ({datatype})")),
        })
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.reader.scalar(self.depth, &"null", ElementWriter::push_missing)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { reader, depth } = self;
        let place = reader.place();
        let wrong = || {
            A::Error::custom(format_args!(
                "expected a value, a list of values or {{\"b64\": \"...\"}}, got another object{place}"
            ))
        };
        let key: Option<String> = map.next_key()?;
        if key.as_deref() != Some("b64") {
            return Err(wrong());
        }
        let text: String = map.next_value()?;
        if map.next_key::<String>()?.is_some() {
            return Err(wrong());
        }
        let bytes = base64::decode(&text)
            .ok_or_else(|| A::Error::custom(format_args!("\"b64\" is not base64{place}")))?;
        reader.scalar(depth, &"bytes", |elements| elements.push_bytes(&bytes))
    }
}
