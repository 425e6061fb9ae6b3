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
            let reason =
                format!("parameter '{BYTE_SIZE}': the output has {needed} bytes, got {size}");
            return Err(ProtocolError::tensor(output.name, reason));
        }
        span.write(data).map_err(|error| {
            ProtocolError::tensor(output.name, format!("parameter '{REGION}': {error}"))
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;
    use crate::protocol::v2::{Answer, Form, InferRequest, decode_request_with, encode_answer};
    use crate::tensor::{Signature, TensorSpec};

    /// A region `r` of 40 bytes, in a file that goes with it.
    struct Registered(Regions, std::path::PathBuf);

    impl Registered {
        fn new(test: &str) -> Self {
            let key = format!("tidegate-protocol-{test}-{}", std::process::id());
            let path = std::path::PathBuf::from(format!("/dev/shm/{key}"));
            let bytes: Vec<u8> = (0..10).flat_map(|n: u8| f32::from(n).to_le_bytes()).collect();
            std::fs::write(&path, bytes).unwrap();
            let regions = Regions::new("", 1, 1000);
            regions.register("r", &key, 0, 40).unwrap();
            Self(regions, path)
        }
    }

    impl Drop for Registered {
        fn drop(&mut self) {
            std::fs::remove_file(&self.1).unwrap();
        }
    }

    fn signature() -> Signature {
        let spec = |name: &str, datatype| TensorSpec {
            name: name.to_owned(),
            datatype,
            shape: vec![None, Some(2)],
        };
        Signature {
            inputs: vec![spec("x", Datatype::Fp32), spec("w", Datatype::Bytes)],
            outputs: vec![spec("y", Datatype::Fp32)],
        }
    }

    fn decode(
        input: &Value,
        output: Option<&Value>,
        memory: Memory<'_>,
    ) -> Result<InferRequest, ProtocolError> {
        let mut request = json!({ "inputs": [
            { "name": "x", "datatype": "FP32", "shape": [2, 2], "parameters": input },
            { "name": "w", "datatype": "BYTES", "shape": [1, 2], "data": ["a", "b"] },
        ] });
        if let Some(parameters) = output {
            request["outputs"] = json!([{ "name": "y", "parameters": parameters }]);
        }
        let body = Bytes::from(request.to_string());
        decode_request_with(&body, None, &signature(), memory)
    }

    #[test]
    fn tensors_are_taken_from_regions_and_left_there() {
        let registered = Registered::new("there");
        let input = json!({ REGION: "r", OFFSET: 8, BYTE_SIZE: 16 });
        let output = json!({ REGION: "r", OFFSET: 24, BYTE_SIZE: 16 });
        let memory = Memory::of(Some(&registered.0), 16);
        let InferRequest { inputs, outputs, .. } = decode(&input, Some(&output), memory).unwrap();
        let expected: Vec<u8> = [2f32, 3., 4., 5.].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(*inputs[0].data(), expected);
        let span = outputs[0].span.as_ref();
        let tensor = &inputs[0];
        let sent = AnswerOutput { name: "y", tensor, form: Form::Binary, span };
        write_regions(&[sent]).unwrap();
        assert_eq!(std::fs::read(&registered.1).unwrap()[24..], expected);
        let answer = Answer { model_name: "m", model_version: "1", id: None, outputs: &[sent] };
        let (mut buffer, mut lent) = (Vec::new(), Vec::new());
        assert_eq!(encode_answer(&answer, &mut buffer, &mut lent), None);
        assert!(lent.is_empty());
        let written: Value = serde_json::from_slice(&buffer).unwrap();
        let expected = json!([{ "name": "y", "datatype": "FP32", "shape": [2, 2] }]);
        assert_eq!(written["outputs"], expected);
    }

    #[test]
    fn what_is_wrong_names_the_tensor_and_the_parameter() {
        let registered = Registered::new("wrong");
        let good = json!({ REGION: "r", BYTE_SIZE: 16 });
        let on = || Memory::of(Some(&registered.0), 100);
        for (parameters, words) in [
            (
                json!({ REGION: "q", BYTE_SIZE: 16 }),
                "'shared_memory_region': no region 'q' is registered",
            ),
            (json!({ REGION: "r" }), "'shared_memory_byte_size' is missing"),
            (json!({ BYTE_SIZE: 16 }), "'shared_memory_region' is missing"),
            (json!({ OFFSET: 16 }), "'shared_memory_region' is missing"),
            (json!({ REGION: "r", BYTE_SIZE: 15 }), "needs 16 bytes, got 15"),
            (
                json!({ REGION: "r", BYTE_SIZE: 16, OFFSET: 25 }),
                "16 bytes from 25 on are not within region 'r', which has 40",
            ),
            (json!({ REGION: "r", BYTE_SIZE: 16, OFFSET: u64::MAX }), "are not within region 'r'"),
            (
                json!({ REGION: 7, BYTE_SIZE: 16 }),
                "'shared_memory_region': expected a string, got 7",
            ),
            (
                json!({ REGION: "r", BYTE_SIZE: -1 }),
                "'shared_memory_byte_size': expected a whole number",
            ),
            (json!({ REGION: "r", BYTE_SIZE: 16, "binary_data_size": 16 }), "has both elements"),
        ] {
            let error = decode(&parameters, None, on()).unwrap_err().to_string();
            assert!(error.contains("'x'") && error.contains(words), "{error}");
        }
        for (memory, words) in [
            (Memory::of(None, 100), "turned off (server.shared_memory.enabled)"),
            (Memory::of(Some(&registered.0), 15), "limit of 15 bytes (limits.body)"),
        ] {
            let error = decode(&good, None, memory).unwrap_err().to_string();
            assert!(error.contains("'x'") && error.contains(words), "{error}");
        }
        let error = decode(&good, Some(&json!({ REGION: "q", BYTE_SIZE: 1 })), on()).unwrap_err();
        assert!(error.to_string().contains("tensor 'y': parameter 'shared_memory_region'"));
        // How long an output is shows only when it is there.
        let small = json!({ REGION: "r", BYTE_SIZE: 15 });
        let InferRequest { inputs, outputs, .. } = decode(&good, Some(&small), on()).unwrap();
        let span = outputs[0].span.as_ref();
        let sent = AnswerOutput { name: "y", tensor: &inputs[0], form: Form::Binary, span };
        let error = write_regions(&[sent]).unwrap_err().to_string();
        assert!(error.contains("tensor 'y'") && error.contains("16 bytes, got 15"), "{error}");
    }
}
