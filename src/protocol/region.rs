//! Tensors that a request leaves in shared memory, on both protocols of V2: the parameters that name
//! them, and what may be taken.

use crate::protocol::v2::{AnswerOutput, ProtocolError};
use crate::shared_memory::{Regions, Span};
use crate::tensor::{Datatype, Tensor, volume};

/// The parameter that names the region.
pub(super) const REGION: &str = "shared_memory_region";
/// The parameter that says where in it a tensor begins.
pub(super) const OFFSET: &str = "shared_memory_offset";
/// The parameter that says how many bytes are the tensor's.
pub(super) const BYTE_SIZE: &str = "shared_memory_byte_size";

/// What the parameters of a tensor say of shared memory.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) region: Option<String>,
    pub(super) offset: Option<u64>,
    pub(super) byte_size: Option<u64>,
}

/// The shared memory that a request may name.
#[derive(Debug)]
pub struct Memory<'a> {
    regions: Option<&'a Regions>,
    /// Bytes that all inputs of the request may have there.
    limit: u64,
    left: u64,
}

impl<'a> Memory<'a> {
    /// Tensors of at most `limit` bytes in all in `regions`; without them none.
    #[must_use]
    pub fn of(regions: Option<&'a Regions>, limit: u64) -> Self {
        Self { regions, limit, left: limit }
    }

    /// Where an output is to be written.
    pub(super) fn span(&self, place: &Place, tensor: &str) -> Result<Span, ProtocolError> {
        let refused = |reason: String| ProtocolError::tensor(tensor, reason);
        let missing = |name: &str| {
            refused(format!(
                "parameter '{name}' is missing: {REGION} and {BYTE_SIZE} are given together"
            ))
        };
        let Some(regions) = self.regions else {
            return Err(refused(
                "shared memory is turned off (server.shared_memory.enabled); send the elements in the message".to_owned(),
            ));
        };
        let region = place.region.as_deref().ok_or_else(|| missing(REGION))?;
        let size = place.byte_size.ok_or_else(|| missing(BYTE_SIZE))?;
        let span = regions.span(region, place.offset.unwrap_or(0), size);
        span.map_err(|error| refused(format!("parameter '{REGION}': {error}")))
    }

    /// A copy of an input's elements. Their size is checked before anything is read.
    pub(super) fn tensor(
        &mut self,
        place: &Place,
        name: &str,
        datatype: Datatype,
        shape: &[usize],
    ) -> Result<Tensor, ProtocolError> {
        let span = self.span(place, name)?;
        let refused = |reason: String| ProtocolError::tensor(name, reason);
        let n_elements = volume(shape).map_err(|error| ProtocolError::of_tensor(name, &error))?;
        let expected = datatype.size().and_then(|size| size.checked_mul(n_elements));
        if let Some(expected) = expected.filter(|&expected| expected != span.size()) {
            return Err(refused(format!(
                "parameter '{BYTE_SIZE}': shape {shape:?} of {datatype} needs {expected} bytes, got {}",
                span.size()
            )));
        }
        let left = self.left.checked_sub(span.size() as u64);
        self.left = left.ok_or_else(|| {
            refused(format!(
                "parameter '{BYTE_SIZE}': the inputs in shared memory take more than the limit of {} bytes (limits.body)",
                self.limit
            ))
        })?;
        let data = span.read();
        let data = data.map_err(|error| refused(format!("parameter '{REGION}': {error}")))?;
        Tensor::new(datatype, shape, data).map_err(|error| ProtocolError::of_tensor(name, &error))
    }
}

/// Writes the outputs that are asked for in shared memory, which are answered without their elements.
pub fn write_regions(outputs: &[AnswerOutput<'_>]) -> Result<(), ProtocolError> {
    for output in outputs {
        let Some(span) = output.span else { continue };
        let (data, size) = (output.tensor.data(), span.size());
        if data.len() > size {
            let needed = data.len();
            let reason = format!("parameter '{BYTE_SIZE}': the output has {needed} bytes, got {size}");
            return Err(ProtocolError::tensor(output.name, reason));
        }
        span.write(data).map_err(|error| {
            ProtocolError::tensor(output.name, format!("parameter '{REGION}': {error}"))
        })?;
    }
    Ok(())
}
