//! One request as it is offered, and as the thread takes it.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use super::subject::Subject;
use crate::error::Code;
use crate::handoff::{Copied, bytes_of};
use crate::tensor::Tensor;

/// Why a request is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It is in the sample.
    Sample,
    /// It has no answer.
    Error,
    /// One of its rows is an outlier.
    Outlier,
    /// A shadow answers otherwise.
    Disagreement,
    /// It is recorded only if one of its rows is an outlier, which the thread finds out.
    IfOutlier,
}

impl Reason {
    /// As the column `reason` has it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Sample => "sample",
            Self::Error => "error",
            Self::Outlier | Self::IfOutlier => "outlier",
            Self::Disagreement => "disagreement",
        }
    }
}

/// What is known of a request beside its tensors.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// The protocol's metric label.
    pub protocol: &'static str,
    /// What the version is to its model.
    pub slot: &'static str,
    /// How it ended.
    pub code: Code,
    /// From head read to answer ready.
    pub total: Duration,
    /// Waiting for a compute thread.
    pub queue: Duration,
    /// Reading the request.
    pub decode: Duration,
    /// Inside the engine.
    pub compute: Duration,
    /// Writing the answer.
    pub encode: Duration,
    /// The batch that it ran in, where it ran with others.
    pub batch: Option<NonZeroU64>,
    /// The place of its first row there.
    pub first_row: usize,
    /// Rows of the batch.
    pub batch_rows: usize,
}

impl Facts {
    /// Of a request that did not run.
    #[must_use]
    pub fn failed(protocol: &'static str, slot: &'static str, code: Code, total: Duration) -> Self {
        let none = Duration::ZERO;
        Self {
            protocol,
            slot,
            code,
            total,
            queue: none,
            decode: none,
            compute: none,
            encode: none,
            batch: None,
            first_row: 0,
            batch_rows: 0,
        }
    }
}

/// One request, as it is offered.
#[derive(Debug)]
pub struct Offered<'a> {
    /// What it is recorded for.
    pub subject: &'a Arc<Subject>,
    /// Why.
    pub reason: Reason,
    /// Its id.
    pub id: &'a [u8],
    /// Its part of the traffic, where a header splits it.
    pub segment: Option<&'a [u8]>,
    /// When it was answered, in milliseconds since 1970.
    pub at: u64,
    /// What is known of it.
    pub facts: Facts,
    /// Why it has no answer.
    pub error: Option<&'a str>,
    /// In the signature's order; none where they could not be read.
    pub inputs: &'a [Tensor],
    /// In the signature's order; none where there is no answer.
    pub outputs: &'a [Tensor],
}

impl Offered<'_> {
    pub(super) fn tensor_bytes(&self) -> usize {
        bytes_of(self.inputs) + bytes_of(self.outputs)
    }

    pub(super) fn text_bytes(&self) -> usize {
        self.id.len() + self.segment.map_or(0, <[u8]>::len) + self.error.map_or(0, str::len)
    }

    /// Rows that it will be.
    pub(super) fn rows(&self) -> u64 {
        if !self.subject.splits() {
            return 1;
        }
        self.inputs.first().map_or(1, |tensor| tensor.rows().max(1) as u64)
    }
}

/// A large request on its way, whose tensors are shared.
#[derive(Debug)]
pub(super) struct Large {
    pub(super) subject: Arc<Subject>,
    reason: Reason,
    id: Bytes,
    segment: Option<Bytes>,
    at: u64,
    facts: Facts,
    error: Option<Bytes>,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
}

impl Large {
    pub(super) fn new(offered: &Offered<'_>) -> Self {
        Self {
            subject: Arc::clone(offered.subject),
            reason: offered.reason,
            id: Bytes::copy_from_slice(offered.id),
            segment: offered.segment.map(Bytes::copy_from_slice),
            at: offered.at,
            facts: offered.facts,
            error: offered.error.map(|error| Bytes::copy_from_slice(error.as_bytes())),
            inputs: offered.inputs.to_vec(),
            outputs: offered.outputs.to_vec(),
        }
    }

    pub(super) fn taken(&self) -> Taken<'_> {
        Taken {
            reason: self.reason,
            at: self.at,
            facts: self.facts,
            id: &self.id,
            segment: self.segment.as_deref(),
            error: self.error.as_deref(),
            inputs: self.inputs.iter().map(Copied::from).collect(),
            outputs: self.outputs.iter().map(Copied::from).collect(),
        }
    }
}

/// One request, as the thread takes it.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    pub(super) reason: Reason,
    pub(super) at: u64,
    pub(super) facts: Facts,
    pub(super) id: &'a [u8],
    pub(super) segment: Option<&'a [u8]>,
    pub(super) error: Option<&'a [u8]>,
    pub(super) inputs: SmallVec<[Copied<'a>; 4]>,
    pub(super) outputs: SmallVec<[Copied<'a>; 4]>,
}
