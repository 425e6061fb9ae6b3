//! Values to a tensor's elements.

use half::{bf16, f16};

use super::{Extra, ExtraValues, InputColumns, times};
use crate::tensor::{Datatype, Shape, Tensor, TensorError, push_element};

/// Words that stand for a missing value, whatever their case.
const MISSING: [&str; 6] = ["", "nan", "na", "n/a", "null", "none"];

/// Whether a text says that there is no value.
pub(super) fn is_missing(text: &str) -> bool {
    MISSING.iter().any(|word| text.trim().eq_ignore_ascii_case(word))
}

/// The elements of one input, row by row.
#[derive(Debug)]
pub(super) struct Elements {
    datatype: Datatype,
    data: Vec<u8>,
}

/// A value that is not what the datatype holds: what was expected.
pub(super) type Unfit = String;

impl Elements {
    pub(super) fn new(datatype: Datatype) -> Self {
        Self { datatype, data: Vec::new() }
    }

    /// The tensor of what was pushed since the last call.
    pub(super) fn take(
        &mut self,
        input: &InputColumns,
        n_rows: usize,
    ) -> Result<Tensor, TensorError> {
        let mut shape: Shape = input.spec.shape_with(1);
        if let (Some(first), false) = (shape.first_mut(), input.is_whole) {
            *first = n_rows;
        }
        Tensor::new(self.datatype, shape, std::mem::take(&mut self.data).into())
    }

    fn expected(&self, what: &str) -> Unfit {
        format!("{what} ({})", self.datatype)
    }

    /// A cell of a text.
    pub(super) fn push_text(&mut self, text: &str) -> Result<(), Unfit> {
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
                let number: f32 = text.trim().parse().map_err(|_| self.expected("a number"))?;
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

    pub(super) fn push_bytes(&mut self, bytes: &[u8]) -> Result<(), Unfit> {
        if self.datatype != Datatype::Bytes {
            return Err(self.expected("a value"));
        }
        push_element(&mut self.data, bytes);
        Ok(())
    }

    pub(super) fn push_bool(&mut self, value: bool) -> Result<(), Unfit> {
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

    pub(super) fn push_number(&mut self, number: f64) -> Result<(), Unfit> {
        match self.datatype {
            Datatype::Fp16 => self.data.extend_from_slice(&f16::from_f64(number).to_le_bytes()),
            Datatype::Bf16 => self.data.extend_from_slice(&bf16::from_f64(number).to_le_bytes()),
            Datatype::Fp32 => self.data.extend_from_slice(&(number as f32).to_le_bytes()),
            Datatype::Fp64 => self.data.extend_from_slice(&number.to_le_bytes()),
            Datatype::Bytes => return Err(self.expected("text")),
            _ if number.fract() == 0.0 && number.abs() < 1e30 => {
                return self.push_integer(number as i128);
            }
            _ => return Err(self.expected("a whole number")),
        }
        Ok(())
    }

    pub(super) fn push_integer(&mut self, number: i128) -> Result<(), Unfit> {
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

    pub(super) fn push_missing(&mut self) -> Result<(), Unfit> {
        match self.datatype {
            Datatype::Bytes => push_element(&mut self.data, b""),
            datatype if datatype.is_float() => self.push_number(f64::NAN)?,
            _ => return Err(self.expected("a value; this datatype has none that says 'missing'")),
        }
        Ok(())
    }
}

impl ExtraValues {
    pub(super) fn of(extra: &Extra) -> Self {
        match extra {
            Extra::Time(_) => Self::Times(Vec::new()),
            Extra::Text(_) => Self::Texts(Vec::new()),
        }
    }

    /// The values so far; none are left.
    pub(super) fn take(&mut self) -> Self {
        match self {
            Self::Times(times) => Self::Times(std::mem::take(times)),
            Self::Texts(texts) => Self::Texts(std::mem::take(texts)),
        }
    }

    pub(super) fn push_text(&mut self, text: &str) -> Result<(), Unfit> {
        match self {
            Self::Times(values) => values.push(times::parse(text).ok_or(times::EXPECTED)?),
            Self::Texts(values) => values.push(text.to_owned()),
        }
        Ok(())
    }
}
