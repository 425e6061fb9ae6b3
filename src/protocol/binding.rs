//! Tensors that a request lists, in whatever order, into the order of the signature.

use smallvec::SmallVec;

use super::v2::ProtocolError;
use crate::tensor::{Datatype, Specs, Tensor, TensorSpec};

/// Puts listed tensors into the order of their declarations, each checked against its own.
pub(super) struct Binding<'a> {
    specs: &'a [TensorSpec],
    /// What the tensors are, for messages: `input`.
    what: &'a str,
    bound: SmallVec<[Option<Tensor>; 4]>,
}

impl<'a> Binding<'a> {
    pub(super) fn new(specs: &'a [TensorSpec], what: &'a str) -> Self {
        Self { specs, what, bound: specs.iter().map(|_| None).collect() }
    }

    /// The place of a tensor of that name, datatype and shape, whose data are not looked at yet.
    pub(super) fn place(
        &self,
        name: &str,
        datatype: Datatype,
        shape: &[usize],
    ) -> Result<usize, ProtocolError> {
        let Self { specs, what, bound } = self;
        let Some(place) = specs.iter().position(|spec| spec.name == name) else {
            let message = format!("unknown {what} '{name}'; expected {}", Specs(specs));
            return Err(ProtocolError::Tensors(message));
        };
        if bound[place].is_some() {
            return Err(ProtocolError::Tensors(format!("{what} '{name}' stands twice")));
        }
        let spec = &specs[place];
        if spec.datatype != datatype || !spec.accepts(shape) {
            let reason = format!("expected {spec}, got {datatype} {shape:?}");
            return Err(ProtocolError::tensor(name, reason));
        }
        Ok(place)
    }

    /// Puts a tensor into a place that [`place`](Self::place) gave.
    pub(super) fn put(&mut self, place: usize, tensor: Tensor) {
        self.bound[place] = Some(tensor);
    }

    /// All tensors, where none is missing.
    pub(super) fn all(self) -> Result<Vec<Tensor>, ProtocolError> {
        let Self { specs, what, bound } = self;
        let all = specs.iter().zip(bound).map(|(spec, tensor)| {
            tensor.ok_or_else(|| {
                let message = format!("{what} '{}' is missing; expected {spec}", spec.name);
                ProtocolError::Tensors(message)
            })
        });
        all.collect()
    }
}
