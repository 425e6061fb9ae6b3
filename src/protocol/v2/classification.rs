//! The classification extension: the best classes instead of all scores.

use std::cmp::Ordering;
use std::num::NonZeroUsize;

use half::{bf16, f16};

use super::ProtocolError;
use crate::tensor::{Datatype, Shape, Tensor};

/// The `k` best classes of each row of `tensor`, best first, as BYTES elements
/// `value:index` or `value:index:label`. The last dimension holds the classes and becomes `k`, or
/// their number where that is less. Of equal scores the lower index is first; NaN comes last.
/// O(elements · log classes).
pub fn classify(
    tensor: &Tensor,
    k: NonZeroUsize,
    labels: Option<&[String]>,
    name: &str,
) -> Result<Tensor, ProtocolError> {
    let scores = scores(tensor).ok_or_else(|| {
        let datatype = tensor.datatype();
        ProtocolError::tensor(
            name,
            format!("classification needs a numeric output, this one is {datatype}"),
        )
    })?;
    let mut shape = Shape::from_slice(tensor.shape());
    let Some(classes) = shape.last_mut() else {
        return Err(ProtocolError::tensor(
            name,
            "classification needs an output with at least one dimension",
        ));
    };
    let n_classes = *classes;
    let k = k.get().min(n_classes);
    *classes = k;
    let mut elements = Vec::new();
    let mut order: Vec<usize> = Vec::with_capacity(n_classes);
    for row in scores.chunks_exact(n_classes.max(1)) {
        order.clear();
        order.extend(0..n_classes);
        order.sort_by(|&a, &b| best_first(row[a].value, row[b].value));
        for &index in order.iter().take(k) {
            let score = &row[index].text;
            elements.push(match labels.and_then(|labels| labels.get(index)) {
                Some(label) => format!("{score}:{index}:{label}"),
                None => format!("{score}:{index}"),
            });
        }
    }
    Tensor::from_elements(shape, elements).map_err(|error| ProtocolError::of_tensor(name, &error))
}

/// Descending, NaN last. The sort is stable, which keeps equal scores in order of their index.
fn best_first(a: f64, b: f64) -> Ordering {
    b.partial_cmp(&a).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

struct Score {
    value: f64,
    /// As the datatype writes it: a binary32 is not shown with a binary64's digits.
    text: String,
}

fn scores(tensor: &Tensor) -> Option<Vec<Score>> {
    let data = tensor.data();
    macro_rules! scores {
        ($type:ty) => {{
            let chunks = data.as_chunks::<{ size_of::<$type>() }>().0.iter();
            let values = chunks.map(|chunk| <$type>::from_le_bytes(*chunk));
            values.map(|value| Score { value: value as f64, text: value.to_string() }).collect()
        }};
        ($type:ty, half) => {{
            let chunks = data.as_chunks::<2>().0.iter();
            let values = chunks.map(|chunk| <$type>::from_le_bytes(*chunk));
            values.map(|value| Score { value: value.to_f64(), text: value.to_string() }).collect()
        }};
    }
    Some(match tensor.datatype() {
        Datatype::Uint8 => scores!(u8),
        Datatype::Uint16 => scores!(u16),
        Datatype::Uint32 => scores!(u32),
        Datatype::Uint64 => scores!(u64),
        Datatype::Int8 => scores!(i8),
        Datatype::Int16 => scores!(i16),
        Datatype::Int32 => scores!(i32),
        Datatype::Int64 => scores!(i64),
        Datatype::Fp16 => scores!(f16, half),
        Datatype::Bf16 => scores!(bf16, half),
        Datatype::Fp32 => scores!(f32),
        Datatype::Fp64 => scores!(f64),
        Datatype::Bool | Datatype::Bytes => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fp32(shape: &[usize], values: &[f32]) -> Tensor {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor::new(Datatype::Fp32, shape, data.into()).unwrap()
    }

    fn check(
        tensor: &Tensor,
        k: usize,
        labels: Option<&[String]>,
        shape: &[usize],
        expected: &[&str],
    ) {
        let classes = classify(tensor, NonZeroUsize::new(k).unwrap(), labels, "y").unwrap();
        let elements: Vec<_> =
            classes.elements().map(|e| std::str::from_utf8(e).unwrap()).collect();
        assert_eq!((classes.shape(), elements.as_slice()), (shape, expected));
    }

    #[test]
    fn best_classes() {
        let two_rows = fp32(&[2, 3], &[0.1, 0.7, 0.2, 0.5, f32::NAN, 0.5]);
        check(&two_rows, 2, None, &[2, 2], &["0.7:1", "0.2:2", "0.5:0", "0.5:2"]);
        check(&two_rows, 9, None, &[2, 3], &["0.7:1", "0.2:2", "0.1:0", "0.5:0", "0.5:2", "NaN:1"]);
        let labels = ["a".to_owned(), "b".to_owned()];
        // A class without a label is shown without one.
        check(&fp32(&[3], &[1.0, 2.0, 3.0]), 2, Some(&labels), &[2], &["3:2", "2:1:b"]);
    }

    #[test]
    fn only_numbers_have_an_order() {
        let words = Tensor::from_elements([1].as_slice(), ["a"]).unwrap();
        let error = classify(&words, NonZeroUsize::MIN, None, "y").unwrap_err();
        assert_eq!(
            error.to_string(),
            "tensor 'y': classification needs a numeric output, this one is BYTES"
        );
    }
}
