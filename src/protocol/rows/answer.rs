//! What a model says of rows, as JSON.

use half::{bf16, f16};

use super::{RowSchema, ScoreKind, Scores};
use crate::protocol::base64;
use crate::protocol::v2::{float, integer, string};
use crate::tensor::{Datatype, Tensor, TensorSpec};

/// An answer on its way out.
#[derive(Debug, Clone, Copy)]
pub struct RowsAnswer<'a> {
    /// The model's name.
    pub model_name: &'a str,
    /// The version's number.
    pub model_version: &'a str,
    /// What the request is called, for feedback.
    pub id: &'a str,
    /// The signature's outputs.
    pub specs: &'a [TensorSpec],
    /// A tensor for each of them.
    pub outputs: &'a [Tensor],
    /// The number of rows.
    pub n_rows: usize,
    /// Whether the answer is a list of rows rather than one.
    pub is_list: bool,
}

/// The elements of a tensor, one by one.
pub(in crate::protocol) struct Cells<'a> {
    tensor: &'a Tensor,
    /// The elements of BYTES, which cannot be found without looking at all before them.
    texts: Vec<&'a [u8]>,
}

impl<'a> Cells<'a> {
    pub(in crate::protocol) fn new(tensor: &'a Tensor) -> Self {
        Self { tensor, texts: tensor.elements().collect() }
    }

    /// An element as a number; nothing of a text, or where there is none.
    fn number(&self, index: usize) -> Option<f64> {
        let data = self.tensor.data();
        macro_rules! number {
            ($type:ty) => {
                <$type>::from_le_bytes(*data.as_chunks::<{ size_of::<$type>() }>().0.get(index)?)
            };
        }
        Some(match self.tensor.datatype() {
            Datatype::Bool | Datatype::Uint8 => number!(u8).into(),
            Datatype::Uint16 => number!(u16).into(),
            Datatype::Uint32 => number!(u32).into(),
            Datatype::Uint64 => number!(u64) as f64,
            Datatype::Int8 => number!(i8).into(),
            Datatype::Int16 => number!(i16).into(),
            Datatype::Int32 => number!(i32).into(),
            Datatype::Int64 => number!(i64) as f64,
            Datatype::Fp16 => number!(f16).into(),
            Datatype::Bf16 => number!(bf16).into(),
            Datatype::Fp32 => number!(f32).into(),
            Datatype::Fp64 => number!(f64),
            Datatype::Bytes => return None,
        })
    }

    /// Appends an element.
    pub(in crate::protocol) fn write(&self, index: usize, buffer: &mut Vec<u8>) {
        let data = self.tensor.data();
        macro_rules! write {
            ($type:ty, $write:expr) => {
                if let Some(bytes) = data.as_chunks::<{ size_of::<$type>() }>().0.get(index) {
                    let write: fn($type, &mut Vec<u8>) = $write;
                    write(<$type>::from_le_bytes(*bytes), buffer);
                }
            };
        }
        match self.tensor.datatype() {
            Datatype::Bool => write!(u8, |value, buffer| {
                buffer.extend_from_slice(if value == 0 { b"false" } else { b"true" });
            }),
            Datatype::Uint8 => write!(u8, integer),
            Datatype::Uint16 => write!(u16, integer),
            Datatype::Uint32 => write!(u32, integer),
            Datatype::Uint64 => write!(u64, integer),
            Datatype::Int8 => write!(i8, integer),
            Datatype::Int16 => write!(i16, integer),
            Datatype::Int32 => write!(i32, integer),
            Datatype::Int64 => write!(i64, integer),
            Datatype::Fp16 => write!(f16, |value, buffer| float(value.to_f32(), buffer)),
            Datatype::Bf16 => write!(bf16, |value, buffer| float(value.to_f32(), buffer)),
            Datatype::Fp32 => write!(f32, float),
            Datatype::Fp64 => write!(f64, float),
            Datatype::Bytes => {
                let element = self.texts.get(index).copied().unwrap_or_default();
                match std::str::from_utf8(element) {
                    Ok(text) => string(text, buffer),
                    Err(_) => {
                        buffer.extend_from_slice(b"{\"b64\":\"");
                        base64::encode(element, buffer);
                        buffer.extend_from_slice(b"\"}");
                    }
                }
            }
        }
    }
}

/// Appends the elements from `first` on, nested as `dims` say.
pub(in crate::protocol) fn nested(
    cells: &Cells<'_>,
    dims: &[usize],
    first: usize,
    buffer: &mut Vec<u8>,
) {
    let Some((&size, inner)) = dims.split_first() else { return cells.write(first, buffer) };
    let stride: usize = inner.iter().product();
    buffer.push(b'[');
    for index in 0..size {
        if index > 0 {
            buffer.push(b',');
        }
        nested(cells, inner, first + index * stride, buffer);
    }
    buffer.push(b']');
}

/// An output, and how a row of it is found.
struct Output<'a> {
    name: &'a str,
    cells: Cells<'a>,
    /// The dimensions of a row.
    dims: &'a [usize],
    width: usize,
    /// Whether it has the rows of the request.
    has_rows: bool,
}

impl Output<'_> {
    fn write(&self, row: usize, buffer: &mut Vec<u8>) {
        // One value is a value, however it is wrapped.
        let dims = if self.width == 1 { &[] } else { self.dims };
        nested(&self.cells, dims, row * self.width, buffer);
    }
}

/// Appends an answer. Nothing here can fail.
pub fn encode_rows(answer: &RowsAnswer<'_>, schema: &RowSchema, buffer: &mut Vec<u8>) {
    let pairs = answer.specs.iter().zip(answer.outputs);
    let outputs: Vec<Output<'_>> = pairs
        .map(|(spec, tensor)| {
            let has_rows = !schema.is_whole && tensor.shape().first() == Some(&answer.n_rows);
            let dims = tensor.shape().get(usize::from(has_rows)..).unwrap_or_default();
            let (cells, width) = (Cells::new(tensor), dims.iter().product());
            Output { name: &spec.name, cells, dims, width, has_rows }
        })
        .collect();
    let plan = Plan::new(schema, &outputs, answer.is_list);
    buffer.extend_from_slice(b"{\"model_name\":");
    string(answer.model_name, buffer);
    buffer.extend_from_slice(b",\"model_version\":");
    string(answer.model_version, buffer);
    buffer.extend_from_slice(b",\"id\":");
    string(answer.id, buffer);
    if !answer.is_list {
        plan.row(0, false, buffer);
        buffer.push(b'}');
        return;
    }
    buffer.extend_from_slice(b",\"predictions\":[");
    for row in 0..answer.n_rows {
        buffer.extend_from_slice(if row > 0 { b",{" } else { b"{" });
        plan.row(row, true, buffer);
        buffer.push(b'}');
    }
    buffer.push(b']');
    if !plan.beside.is_empty() {
        others(&plan.beside, 0, buffer);
    }
    buffer.push(b'}');
}

/// Which output is written as what.
struct Plan<'a> {
    prediction: Option<&'a Output<'a>>,
    scores: Option<(&'a Output<'a>, &'a Scores)>,
    others: Vec<&'a Output<'a>>,
    /// Outputs that are the same for all rows of a list.
    beside: Vec<&'a Output<'a>>,
}

impl<'a> Plan<'a> {
    fn new(schema: &'a RowSchema, outputs: &'a [Output<'a>], is_list: bool) -> Self {
        let of_row = |output: &&Output<'_>| output.has_rows || !is_list;
        let scores = schema.naming().scores.as_ref().and_then(|scores| {
            let output = outputs.get(scores.output).filter(of_row)?;
            (output.width == scores.n_columns && output.width > 0).then_some((output, scores))
        });
        let prediction = schema.naming().prediction.and_then(|position| outputs.get(position));
        let prediction = prediction.filter(of_row).filter(|output| output.width == 1);
        let is_told = |output: &Output<'_>| {
            let same = |other: Option<&Output<'_>>| other.is_some_and(|o| std::ptr::eq(o, output));
            same(prediction) || same(scores.map(|(output, _)| output))
        };
        let rest = outputs.iter().filter(|output| !is_told(output));
        let (others, beside) = rest.partition(of_row);
        Self { prediction, scores, others, beside }
    }

    /// Appends the members of a row.
    fn row(&self, row: usize, is_first: bool, buffer: &mut Vec<u8>) {
        let start = buffer.len();
        self.prediction(row, buffer);
        if let Some((output, scores)) = self.scores {
            let first = row * output.width;
            let (one, many): (&[u8], &[u8]) = match scores.kind {
                ScoreKind::Probabilities => (b",\"probability\":", b",\"probabilities\":{"),
                ScoreKind::Scores => (b",\"score\":", b",\"scores\":{"),
            };
            if scores.n_columns == 1 {
                buffer.extend_from_slice(one);
                output.cells.write(first, buffer);
            } else {
                buffer.extend_from_slice(many);
                for column in 0..scores.n_columns {
                    if column > 0 {
                        buffer.push(b',');
                    }
                    string(&scores.class(column), buffer);
                    buffer.push(b':');
                    output.cells.write(first + column, buffer);
                }
                buffer.push(b'}');
            }
        }
        if !self.others.is_empty() {
            others(&self.others, row, buffer);
        }
        if is_first && buffer.get(start) == Some(&b',') {
            buffer.remove(start);
        }
    }

    fn prediction(&self, row: usize, buffer: &mut Vec<u8>) {
        const MEMBER: &[u8] = b",\"prediction\":";
        match (self.prediction, self.scores) {
            (Some(output), scores) => {
                buffer.extend_from_slice(MEMBER);
                let named = scores.and_then(|(_, scores)| scores.name_of(&output.cells, row));
                match named {
                    Some(name) => string(name, buffer),
                    None => output.write(row, buffer),
                }
            }
            (None, Some((output, scores))) if scores.n_columns > 1 => {
                buffer.extend_from_slice(MEMBER);
                let first = row * output.width;
                let values = (0..scores.n_columns).map(|column| {
                    let value = output.cells.number(first + column).unwrap_or(f64::NAN);
                    (column, value)
                });
                // The first of the largest; NaN is none.
                let values = values.filter(|(_, value)| !value.is_nan());
                let best = values.reduce(|best, next| if next.1 > best.1 { next } else { best });
                match best {
                    Some((column, _)) => string(&scores.class(column), buffer),
                    None => buffer.extend_from_slice(b"null"),
                }
            }
            _ => {}
        }
    }
}

/// Appends `,"outputs":{...}`.
fn others(outputs: &[&Output<'_>], row: usize, buffer: &mut Vec<u8>) {
    buffer.extend_from_slice(b",\"outputs\":{");
    for (position, output) in outputs.iter().enumerate() {
        if position > 0 {
            buffer.push(b',');
        }
        string(output.name, buffer);
        buffer.push(b':');
        output.write(row, buffer);
    }
    buffer.push(b'}');
}

impl Scores {
    /// What the class of a column is called.
    #[must_use]
    pub fn class(&self, column: usize) -> std::borrow::Cow<'_, str> {
        match self.classes.as_ref().and_then(|classes| classes.get(column)) {
            Some(name) => name.into(),
            None => column.to_string().into(),
        }
    }

    /// The name of the class that a prediction's element stands for; nothing where the element says
    /// it best itself.
    fn name_of(&self, cells: &Cells<'_>, index: usize) -> Option<&str> {
        let classes = self.classes.as_ref()?;
        let text = match cells.number(index) {
            Some(number) => number.to_string(),
            None => std::str::from_utf8(cells.texts.get(index)?).ok()?.to_owned(),
        };
        let column = match &self.codes {
            Some(codes) => codes.iter().position(|code| *code == text)?,
            None => text.parse().ok()?,
        };
        classes.get(column).map(String::as_str)
    }
}
