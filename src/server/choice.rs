//! Which version answers a request that names none, and who gets a copy of it.

use std::sync::{Arc, OnceLock};

use http::HeaderValue;

use super::beside::Observed;
use super::predict::{Asked, Question};
use crate::config::Sticky;
use crate::monitor::times::now_ms;
use crate::observe::shadow::{OfferedAnswer, OfferedCopy, Shadows};
use crate::registry::{Copies, Route, Serving, Split, Timings, Version};
use crate::scheduler::ExecuteError;
use crate::telemetry::trace::Trace;
use crate::tensor::Tensor;

/// What a model does with a request beside having its primary answer it. There is none for most
/// models, which have neither canaries nor shadows.
pub(super) struct Choice {
    split: Option<Arc<Split>>,
    copies: Option<Arc<Copies>>,
    /// The value of the header that decides, where one does and the request has it.
    header: Option<HeaderValue>,
    /// The `x-request-id`.
    id: HeaderValue,
    /// Set where a canary answers.
    chosen: OnceLock<Serving>,
    /// Set where the primary failed on the request.
    failed: OnceLock<Failed>,
}

/// A request that the primary failed on.
struct Failed {
    id: Option<Box<str>>,
    inputs: Vec<Tensor>,
    reason: String,
}

impl Choice {
    pub(super) fn of(route: &Route<'_>, question: &Question<'_>) -> Option<Arc<Self>> {
        let Route { split, copies, .. } = route;
        if split.is_none() && copies.is_none() {
            return None;
        }
        let header = split.and_then(|split| match &split.policy.sticky {
            Sticky::Header(name) => question.head.get(name).cloned(),
            Sticky::RequestId | Sticky::Input(_) => None,
        });
        Some(Arc::new(Self {
            split: split.cloned(),
            copies: copies.cloned(),
            header,
            id: question.id.clone(),
            chosen: OnceLock::new(),
            failed: OnceLock::new(),
        }))
    }

    /// The canary that answers `asked`, whose inputs are in the order of `primary`; nothing where
    /// the primary does.
    pub(super) fn choose<F>(&self, asked: &Asked<F>, primary: &Version) -> Option<&Serving> {
        let split = self.split.as_ref()?;
        let id = asked.id.as_ref().map_or(self.id.as_bytes(), |id| id.as_bytes());
        let key = match &split.policy.sticky {
            Sticky::RequestId => None,
            Sticky::Header(_) => self.header.as_ref().map(HeaderValue::as_bytes),
            Sticky::Input(name) => {
                let input = primary.signature().input(name);
                input.and_then(|input| asked.inputs.get(input)).map(first_row)
            }
        };
        let serving = split.choose(key.unwrap_or(id))?;
        Some(self.chosen.get_or_init(|| serving.clone()))
    }

    /// The canary that was chosen.
    pub(super) fn chosen(&self) -> Option<&Serving> {
        self.chosen.get()
    }

    /// Whether somebody may get a copy, for which the inputs are to be kept.
    pub(super) fn copies(&self) -> Option<&Arc<Copies>> {
        self.copies.as_ref().filter(|_| self.chosen.get().is_none())
    }

    /// Notes that the primary failed on a request which somebody may get a copy of.
    pub(super) fn failed(&self, id: Option<&str>, inputs: &[Tensor], error: &ExecuteError) {
        // What the server is too busy for says nothing of the version.
        if self.copies().is_none() || !matches!(error, ExecuteError::Run(_)) {
            return;
        }
        let (id, inputs, reason) = (id.map(Box::from), inputs.to_vec(), error.to_string());
        // A request fails once.
        let _ = self.failed.set(Failed { id, inputs, reason });
    }

    /// Offers copies of a request that the primary has answered.
    pub(super) fn copy(
        &self,
        shadows: &Shadows,
        primary: &Arc<Version>,
        question: &Question<'_>,
        observed: &Observed,
        timings: &Timings,
    ) {
        let Some(copies) = self.copies() else { return };
        let Observed { id, inputs, outputs, .. } = observed;
        let total = timings.total;
        shadows.offer(&OfferedCopy {
            copies,
            primary,
            id: id.as_ref().map_or(question.id.as_bytes(), |id| id.as_bytes()),
            segment: segment(copies, primary, question),
            at: now_ms(),
            trace: question.trace.map(Trace::carried),
            inputs,
            answer: Ok(OfferedAnswer { outputs, total }),
        });
    }

    /// Offers copies of a request that the primary failed on, if it did.
    pub(super) fn copy_failed(
        &self,
        shadows: &Shadows,
        primary: &Arc<Version>,
        question: &Question<'_>,
    ) {
        let (Some(copies), Some(failed)) = (self.copies(), self.failed.get()) else { return };
        shadows.offer(&OfferedCopy {
            copies,
            primary,
            id: failed.id.as_ref().map_or(question.id.as_bytes(), |id| id.as_bytes()),
            segment: segment(copies, primary, question),
            at: now_ms(),
            trace: question.trace.map(Trace::carried),
            inputs: &failed.inputs,
            answer: Err(failed.reason.clone()),
        });
    }
}

/// The request's part of the traffic, where a header splits it for one of those who watch.
fn segment<'a>(copies: &Copies, primary: &Version, question: &Question<'a>) -> Option<&'a [u8]> {
    let of_shadows = copies.shadows.iter().map(|shadow| &*shadow.version);
    let versions = [primary].into_iter().chain(of_shadows);
    let mut recorders = versions.filter_map(|version| version.recorder.as_ref());
    let name = recorders.find_map(|recorder| recorder.segment_header())?;
    question.head.get(name).map(HeaderValue::as_bytes)
}

/// The bytes of a tensor's first row.
fn first_row(tensor: &Tensor) -> &[u8] {
    let data = tensor.data();
    let columns = tensor.len().checked_div(tensor.rows()).unwrap_or_default();
    let length = match tensor.datatype().size() {
        Some(size) => columns * size,
        // Behind a length of four bytes each.
        None => tensor.elements().take(columns).map(|element| element.len() + 4).sum(),
    };
    data.get(..length).unwrap_or(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Datatype;

    #[test]
    fn the_first_row_is_what_a_client_says_of_itself() {
        let texts = Tensor::from_elements([2, 1].as_slice(), ["ann", "bob"]).unwrap();
        assert_eq!(first_row(&texts), b"\x03\0\0\0ann");
        let bytes = bytes::Bytes::from_static(&[1, 0, 2, 0, 3, 0, 4, 0]);
        let numbers = Tensor::new(Datatype::Int16, [2, 2].as_slice(), bytes).unwrap();
        assert_eq!(first_row(&numbers), [1, 0, 2, 0]);
        let nothing = Tensor::new(Datatype::Int16, [0, 2].as_slice(), bytes::Bytes::new()).unwrap();
        assert_eq!(first_row(&nothing), b"");
    }
}
