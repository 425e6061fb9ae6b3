//! Values, one by one, to a tensor's elements.

use bytes::Bytes;
use half::{bf16, f16};

use super::{Datatype, Shape, Tensor, TensorError, push_element};

/// Words that stand for a missing value, whatever their case.
const MISSING: [&str; 6] = ["", "nan", "na", "n/a", "null", "none"];

/// Whether a text says that there is no value.
#[must_use]
pub fn is_missing(text: &str) -> bool {
    MISSING.iter().any(|word| text.trim().eq_ignore_ascii_case(word))
}

/// A value that is not what the datatype holds: what was expected.
pub type Unfit = String;

/// Elements of one datatype in the binary form, as they come. What does not fit is refused, never
/// wrapped, rounded to a whole number or made infinite.
#[derive(Debug)]
pub struct ElementWriter {
    datatype: Datatype,
    data: Vec<u8>,
}

impl ElementWriter {
    /// Nothing yet.
    #[must_use]
    pub fn new(datatype: Datatype) -> Self {
        Self { datatype, data: Vec::new() }
    }

    /// What its elements are.
    #[must_use]
    pub fn datatype(&self) -> Datatype {
        self.datatype
    }

    /// The bytes so far.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Forgets the elements and keeps the memory.
    pub fn clear(&mut self) {
        self.data.clear();
    }

    /// Appends bytes that a writer of the same datatype wrote.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.data.extend_from_slice(bytes);
    }

    /// What was pushed.
    #[must_use]
    pub fn into_data(self) -> Bytes {
        self.data.into()
    }

    /// The tensor of what was pushed since the last call.
    pub fn take(&mut self, shape: impl Into<Shape>) -> Result<Tensor, TensorError> {
        Tensor::new(self.datatype, shape, std::mem::take(&mut self.data).into())
    }

    fn expected(&self, what: &str) -> Unfit {
        format!("{what} ({})", self.datatype)
    }

    /// A cell of a text: numbers are parsed.
    pub fn push_text(&mut self, text: &str) -> Result<(), Unfit> {
        match self.datatype {
            Datatype::Bytes => push_element(&mut self.data, text.as_bytes()),
            _ if is_missing(text) => return self.push_missing(),
            Datatype::Bool => {
                let text = text.trim();
                let is = |words: [&str; 3]| words.iter().any(|w| text.eq_ignore_ascii_case(w));
                if !is(["true", "1", "1.0"]) && !is(["false", "0", "0.0"]) {
                    return Err(self.expected("true or false"));
                }
                self.data.push(u8::from(is(["true", "1", "1.0"])));
            }
            // Rounded once: by way of binary64 would be twice.
            Datatype::Fp32 => {
                let text = text.trim();
                let number: f32 = text.parse().map_err(|_| self.expected("a number"))?;
                if number.is_infinite() && text.bytes().any(|byte| byte.is_ascii_digit()) {
                    return Err(self.beyond());
                }
                self.data.extend_from_slice(&number.to_le_bytes());
            }
            datatype if datatype.is_float() => {
                let number: f64 = text.trim().parse().map_err(|_| self.expected("a number"))?;
                self.push_number(number)?;
            }
            _ => match text.trim().parse::<i128>() {
                Ok(number) => self.push_integer(number)?,
                // `3.0` is what an integer becomes in a column that once had gaps.
                Err(_) => {
                    let number = text.trim().parse::<f64>().ok();
                    let number = number.ok_or_else(|| self.expected("a whole number"))?;
                    self.push_number(number)?;
                }
            },
        }
        Ok(())
    }

    /// Bytes, which only BYTES takes.
    pub fn push_bytes(&mut self, bytes: &[u8]) -> Result<(), Unfit> {
        if self.datatype != Datatype::Bytes {
            return Err(self.expected("a value"));
        }
        push_element(&mut self.data, bytes);
        Ok(())
    }

    /// A boolean: 0 or 1 where numbers are asked for.
    pub fn push_bool(&mut self, value: bool) -> Result<(), Unfit> {
        match self.datatype {
            Datatype::Bool => self.data.push(u8::from(value)),
            // `True`, `true` or `1`: a model knows one of them, and nothing says which.
            Datatype::Bytes => {
                return Err(self.expected("text as the model takes it, no boolean"));
            }
            _ => return self.push_integer(i128::from(value)),
        }
        Ok(())
    }

    fn beyond(&self) -> Unfit {
        self.expected("a number that the datatype can hold")
    }

    /// A number, which may be NaN or infinite where the datatype has that.
    pub fn push_number(&mut self, number: f64) -> Result<(), Unfit> {
        let mut is_infinite = false;
        match self.datatype {
            Datatype::Fp16 => {
                let narrow = f16::from_f64(number);
                is_infinite = narrow.is_infinite();
                self.data.extend_from_slice(&narrow.to_le_bytes());
            }
            Datatype::Bf16 => {
                let narrow = bf16::from_f64(number);
                is_infinite = narrow.is_infinite();
                self.data.extend_from_slice(&narrow.to_le_bytes());
            }
            Datatype::Fp32 => {
                let narrow = number as f32;
                is_infinite = narrow.is_infinite();
                self.data.extend_from_slice(&narrow.to_le_bytes());
            }
            Datatype::Fp64 => self.data.extend_from_slice(&number.to_le_bytes()),
            Datatype::Bytes => return Err(self.expected("text")),
            _ if number.fract() == 0.0 && number.abs() < 1e30 => {
                return self.push_integer(number as i128);
            }
            _ => return Err(self.expected("a whole number")),
        }
        if is_infinite && number.is_finite() { Err(self.beyond()) } else { Ok(()) }
    }

    /// A whole number.
    pub fn push_integer(&mut self, number: i128) -> Result<(), Unfit> {
        macro_rules! integer {
            ($type:ty) => {{
                let number = <$type>::try_from(number).map_err(|_| {
                    self.expected(&format!(
                        "a whole number from {} to {}",
                        <$type>::MIN,
                        <$type>::MAX
                    ))
                })?;
                self.data.extend_from_slice(&number.to_le_bytes());
            }};
        }
        match self.datatype {
            Datatype::Uint8 => integer!(u8),
            Datatype::Uint16 => integer!(u16),
            Datatype::Uint32 => integer!(u32),
            Datatype::Uint64 => integer!(u64),
            Datatype::Int8 => integer!(i8),
            Datatype::Int16 => integer!(i16),
            Datatype::Int32 => integer!(i32),
            Datatype::Int64 => integer!(i64),
            Datatype::Bool if number == 0 || number == 1 => self.data.push(number as u8),
            Datatype::Bool => return Err(self.expected("true or false")),
            Datatype::Bytes => return Err(self.expected("text")),
            _ => return self.push_number(number as f64),
        }
        Ok(())
    }

    /// No value: NaN in floating point, empty in BYTES; nothing else has a sign for it.
    pub fn push_missing(&mut self) -> Result<(), Unfit> {
        match self.datatype {
            Datatype::Bytes => push_element(&mut self.data, b""),
            datatype if datatype.is_float() => self.push_number(f64::NAN)?,
            _ => return Err(self.expected("a value; this datatype has none that says 'missing'")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_and_says_what_would() {
        let mut fp32 = ElementWriter::new(Datatype::Fp32);
        assert_eq!(
            fp32.push_number(1e39).unwrap_err(),
            "a number that the datatype can hold (FP32)"
        );
        assert!(fp32.push_text("-4e38").is_err());
        fp32.clear();
        fp32.push_text(" inf ").unwrap();
        fp32.push_text("n/a").unwrap();
        let values: Vec<f32> =
            fp32.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        assert!(values[0].is_infinite() && values[1].is_nan());
        let mut int8 = ElementWriter::new(Datatype::Int8);
        int8.push_text("3.0").unwrap();
        for text in ["128", "1.5", "", "x"] {
            assert!(int8.push_text(text).is_err(), "{text}");
        }
        assert_eq!(int8.take([1].as_slice()).unwrap().data()[..], [3]);
        let mut bytes = ElementWriter::new(Datatype::Bytes);
        assert!(bytes.push_integer(1).is_err() && bytes.push_bool(true).is_err());
    }
}
