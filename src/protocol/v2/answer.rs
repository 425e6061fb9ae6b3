//! Answers: tensors to bytes. Nothing here can fail.

use bytes::Bytes;
use half::{bf16, f16};

use super::request::Form;
use crate::shared_memory::Span;
use crate::tensor::{Datatype, Tensor};

/// An answer on its way out.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// The model's name.
    pub model_name: &'a str,
    /// The version's number.
    pub model_version: &'a str,
    /// The request's id, where it had one.
    pub id: Option<&'a str>,
    /// The outputs, in the order in which they are sent.
    pub outputs: &'a [AnswerOutput<'a>],
}

/// An output on its way out.
#[derive(Debug, Clone, Copy)]
pub struct AnswerOutput<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its elements.
    pub tensor: &'a Tensor,
    /// How it is sent.
    pub form: Form,
    /// Where in shared memory its elements are, which are not sent then.
    pub span: Option<&'a Span>,
}

impl AnswerOutput<'_> {
    /// The elements that are sent.
    pub(in crate::protocol) fn sent(&self) -> &Bytes {
        static NOTHING: Bytes = Bytes::new();
        if self.span.is_some() { &NOTHING } else { self.tensor.data() }
    }
}

/// Binary data from this size on is lent to the socket rather than copied.
pub const LEND_FROM: usize = 64 << 10;

/// Appends `answer` to `buffer`; what follows it are the pieces put into `lent`. Returns the length
/// of the JSON part where binary tensors follow it. BYTES that are not UTF-8 go as binary whatever
/// their form says.
pub fn encode_answer(
    answer: &Answer<'_>,
    buffer: &mut Vec<u8>,
    lent: &mut Vec<Bytes>,
) -> Option<usize> {
    let start = buffer.len();
    buffer.extend_from_slice(b"{\"model_name\":");
    string(answer.model_name, buffer);
    buffer.extend_from_slice(b",\"model_version\":");
    string(answer.model_version, buffer);
    if let Some(id) = answer.id {
        buffer.extend_from_slice(b",\"id\":");
        string(id, buffer);
    }
    tensors("outputs", answer.outputs.iter().copied(), start, buffer, lent)
}

/// Appends `,"<member>":[...]}` and the binary part, whose large pieces go into `lent`.
pub(super) fn tensors<'a>(
    member: &str,
    list: impl Iterator<Item = AnswerOutput<'a>> + Clone,
    start: usize,
    buffer: &mut Vec<u8>,
    lent: &mut Vec<Bytes>,
) -> Option<usize> {
    let list = list.map(|output| {
        let is_sent = output.span.is_none();
        (output, is_sent && (output.form == Form::Binary || !is_json(output.tensor)))
    });
    if buffer.last() != Some(&b'{') {
        buffer.push(b',');
    }
    string(member, buffer);
    buffer.extend_from_slice(b":[");
    for (position, (output, is_binary)) in list.clone().enumerate() {
        let AnswerOutput { name, tensor, span, .. } = output;
        if position > 0 {
            buffer.push(b',');
        }
        buffer.extend_from_slice(b"{\"name\":");
        string(name, buffer);
        buffer.extend_from_slice(b",\"datatype\":\"");
        buffer.extend_from_slice(tensor.datatype().name().as_bytes());
        buffer.extend_from_slice(b"\",\"shape\":[");
        comma_separated(tensor.shape(), buffer, |&dim, buffer| integer(dim, buffer));
        if span.is_some() {
            // No parameters: Triton's client in C++ takes any for binary data.
            buffer.extend_from_slice(b"]}");
        } else if is_binary {
            buffer.extend_from_slice(b"],\"parameters\":{\"binary_data_size\":");
            integer(tensor.data().len(), buffer);
            buffer.extend_from_slice(b"}}");
        } else {
            buffer.extend_from_slice(b"],\"data\":[");
            elements(tensor, buffer);
            buffer.extend_from_slice(b"]}");
        }
    }
    buffer.extend_from_slice(b"]}");
    let json_length = buffer.len() - start;
    let mut follows = false;
    for (AnswerOutput { tensor, .. }, is_binary) in list {
        if is_binary {
            follows |= !tensor.data().is_empty();
            // What comes after a piece that is lent is behind it.
            if lent.is_empty() && tensor.data().len() < LEND_FROM {
                buffer.extend_from_slice(tensor.data());
            } else {
                lent.push(tensor.data().clone());
            }
        }
    }
    follows.then_some(json_length)
}

/// Whether JSON can carry the tensor's elements.
fn is_json(tensor: &Tensor) -> bool {
    tensor.datatype() != Datatype::Bytes
        || tensor.elements().all(|element| std::str::from_utf8(element).is_ok())
}

fn elements(tensor: &Tensor, buffer: &mut Vec<u8>) {
    let data = tensor.data();
    macro_rules! numbers {
        ($type:ty, $write:expr) => {{
            let chunks = data.as_chunks::<{ size_of::<$type>() }>().0;
            comma_separated(chunks, buffer, |chunk, buffer| {
                let write: fn($type, &mut Vec<u8>) = $write;
                write(<$type>::from_le_bytes(*chunk), buffer);
            });
        }};
    }
    match tensor.datatype() {
        Datatype::Bool => comma_separated(data.iter(), buffer, |&byte, buffer| {
            buffer.extend_from_slice(if byte == 0 { b"false" } else { b"true" });
        }),
        Datatype::Uint8 => numbers!(u8, integer),
        Datatype::Uint16 => numbers!(u16, integer),
        Datatype::Uint32 => numbers!(u32, integer),
        Datatype::Uint64 => numbers!(u64, integer),
        Datatype::Int8 => numbers!(i8, integer),
        Datatype::Int16 => numbers!(i16, integer),
        Datatype::Int32 => numbers!(i32, integer),
        Datatype::Int64 => numbers!(i64, integer),
        Datatype::Fp16 => numbers!(f16, |value, buffer| float(value.to_f32(), buffer)),
        Datatype::Bf16 => numbers!(bf16, |value, buffer| float(value.to_f32(), buffer)),
        Datatype::Fp32 => numbers!(f32, float),
        Datatype::Fp64 => numbers!(f64, float),
        Datatype::Bytes => comma_separated(tensor.elements(), buffer, |element, buffer| {
            // `is_json` has seen that it is UTF-8.
            string(std::str::from_utf8(element).unwrap_or_default(), buffer);
        }),
    }
}

fn comma_separated<T>(
    items: impl IntoIterator<Item = T>,
    buffer: &mut Vec<u8>,
    mut write: impl FnMut(T, &mut Vec<u8>),
) {
    for (position, item) in items.into_iter().enumerate() {
        if position > 0 {
            buffer.push(b',');
        }
        write(item, buffer);
    }
}

pub(in crate::protocol) fn integer(value: impl itoa::Integer, buffer: &mut Vec<u8>) {
    buffer.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// The shortest decimal that reads back as the same number; or the string that stands for what
/// JSON cannot write.
pub(in crate::protocol) fn float<F: zmij::Float + Into<f64> + Copy>(
    value: F,
    buffer: &mut Vec<u8>,
) {
    let wide: f64 = value.into();
    if wide.is_finite() {
        buffer.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    } else {
        buffer.extend_from_slice(match wide {
            f64::INFINITY => b"\"Infinity\"".as_slice(),
            f64::NEG_INFINITY => b"\"-Infinity\"",
            _ => b"\"NaN\"",
        });
    }
}

pub(in crate::protocol) fn string(text: &str, buffer: &mut Vec<u8>) {
    // Writing a string to a Vec cannot fail.
    let _ = serde_json::to_writer(buffer, text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_binary_outputs_are_lent_and_what_follows_them_is_behind_them() {
        let bytes = |length: usize, byte: u8| {
            Tensor::new(Datatype::Uint8, [length].as_slice(), vec![byte; length].into()).unwrap()
        };
        let (small, large, last) = (bytes(10, 1), bytes(LEND_FROM, 2), bytes(5, 3));
        let output = |name, tensor| AnswerOutput { name, tensor, form: Form::Binary, span: None };
        let outputs = [output("a", &small), output("b", &large), output("c", &last)];
        let answer = Answer { model_name: "m", model_version: "1", id: None, outputs: &outputs };
        let (mut buffer, mut lent) = (Vec::new(), Vec::new());
        let json_length = encode_answer(&answer, &mut buffer, &mut lent).unwrap();
        assert_eq!(buffer[json_length..], [1; 10]);
        assert_eq!(lent, [large.data().clone(), last.data().clone()]);
        assert_eq!(lent[0].as_ptr(), large.data().as_ptr());
    }
}
