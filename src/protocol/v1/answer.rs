//! Answers of the V1 protocol.

use super::V1Form;
use crate::protocol::rows::{Cells, nested};
use crate::protocol::v2::{ProtocolError, string};
use crate::tensor::{Tensor, TensorSpec};

/// Appends an answer: `predictions` with an entry a row, or `outputs` with whole tensors. A model
/// with several outputs answers objects by their names. Fails where rows are asked for and an
/// output has none.
pub fn encode_predictions(
    form: V1Form,
    specs: &[TensorSpec],
    outputs: &[Tensor],
    n_rows: usize,
    buffer: &mut Vec<u8>,
) -> Result<(), ProtocolError> {
    let cells: Vec<Cells<'_>> = outputs.iter().map(Cells::new).collect();
    let pairs = || specs.iter().zip(outputs).zip(&cells);
    if form == V1Form::Columns {
        buffer.extend_from_slice(b"{\"outputs\":");
        members(
            pairs().map(|((spec, tensor), cells)| (&*spec.name, cells, tensor.shape(), 0)),
            buffer,
        );
        buffer.push(b'}');
        return Ok(());
    }
    // A model that takes one row a request may answer without a dimension for it.
    let is_row = |tensor: &Tensor| tensor.shape().first() != Some(&n_rows) && n_rows == 1;
    for ((spec, tensor), _) in pairs() {
        if tensor.shape().first() != Some(&n_rows) && n_rows != 1 {
            let shape = tensor.shape();
            return Err(ProtocolError::tensor(
                &spec.name,
                format!(
                    "the output {shape:?} has no {n_rows} rows; send the inputs as columns: {{\"inputs\": ...}}"
                ),
            ));
        }
    }
    buffer.extend_from_slice(b"{\"predictions\":[");
    for row in 0..n_rows {
        if row > 0 {
            buffer.push(b',');
        }
        let of_row = pairs().map(|((spec, tensor), cells)| {
            let dims = tensor.shape().get(usize::from(!is_row(tensor))..).unwrap_or_default();
            let width: usize = dims.iter().product();
            (&*spec.name, cells, dims, row * width)
        });
        members(of_row, buffer);
    }
    buffer.extend_from_slice(b"]}");
    Ok(())
}

/// One value, or an object of several by name.
fn members<'a>(
    values: impl ExactSizeIterator<Item = (&'a str, &'a Cells<'a>, &'a [usize], usize)>,
    buffer: &mut Vec<u8>,
) {
    let is_object = values.len() != 1;
    if is_object {
        buffer.push(b'{');
    }
    for (position, (name, cells, dims, first)) in values.enumerate() {
        if is_object {
            if position > 0 {
                buffer.push(b',');
            }
            string(name, buffer);
            buffer.push(b':');
        }
        nested(cells, dims, first, buffer);
    }
    if is_object {
        buffer.push(b'}');
    }
}
