//! What waits to be observed.

use std::sync::Arc;

use bytes::Bytes;

use super::block::Block;
use crate::handoff::{self, Waiting, bytes_of};
use crate::monitor::Recorder;
use crate::tensor::Tensor;

/// One answered prediction, as it is offered: what was asked, what was answered, by whom.
#[derive(Debug)]
pub struct Offered<'a> {
    /// Who watches the version that answered.
    pub recorder: &'a Arc<Recorder>,
    /// The request's id.
    pub id: &'a [u8],
    /// Its part of the traffic, where a header splits it.
    pub segment: Option<&'a [u8]>,
    /// When it was answered, in milliseconds since 1970.
    pub at: u64,
    /// In the signature's order.
    pub inputs: Vec<Tensor>,
    /// In the signature's order.
    pub outputs: Vec<Tensor>,
}

/// One answered prediction, as it is taken.
#[derive(Debug)]
pub(super) struct Observation {
    pub(super) id: Bytes,
    pub(super) segment: Option<Bytes>,
    pub(super) at: u64,
    pub(super) inputs: Vec<Tensor>,
    pub(super) outputs: Vec<Tensor>,
}

#[derive(Debug)]
pub(super) struct Queues(handoff::Queues<Block, (Arc<Recorder>, Observation)>);

impl Queues {
    /// Queues for `most` observations and `most_bytes` bytes of tensors that are not copied.
    pub(super) fn new(most: usize, most_bytes: usize) -> Self {
        Self(handoff::Queues::new(most, most_bytes))
    }

    /// Whether there was room.
    pub(super) fn offer(&self, offered: Offered<'_>) -> bool {
        let bytes = bytes_of(&offered.inputs) + bytes_of(&offered.outputs);
        let copied = bytes + offered.id.len() + offered.segment.map_or(0, <[u8]>::len);
        self.0.offer(offered, (copied, bytes), Block::push, |offered| {
            let Offered { recorder, id, segment, at, inputs, outputs } = offered;
            let id = Bytes::copy_from_slice(id);
            let segment = segment.map(Bytes::copy_from_slice);
            (Arc::clone(recorder), Observation { id, segment, at, inputs, outputs })
        })
    }

    /// Hands what waits to `take`. Returns how many there were.
    pub(super) fn drain(&self, mut take: impl FnMut(&Arc<Recorder>, Observation)) -> usize {
        self.0.drain(|waiting| match waiting {
            Waiting::Block(block) => block.each(&mut take),
            Waiting::Large((recorder, observation)) => take(&recorder, observation),
        })
    }

    /// Observations that wait, without those of a block that is not full.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
