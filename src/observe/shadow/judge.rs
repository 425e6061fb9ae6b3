//! What became of copies: compared with what the primary answered, counted, watched.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::comparisons::{NewPair, Running};
use super::copy::{Answer, Origin};
use super::lane::{Ended, Entry, Times, To};
use super::{Disagreed, Inner};
use crate::error::Code;
use crate::observe::{Monitors, Offered};
use crate::registry::{Copies, Protocol, Version};
use crate::telemetry::Counter;
use crate::traffic::comparison::{Compared, Side};

/// A candidate's last pair, which nearly always is the next one's as well.
#[derive(Debug, Default)]
pub(super) struct LastPair(Mutex<Option<Last>>);

#[derive(Debug)]
struct Last {
    primary: Weak<Version>,
    copies: Weak<Copies>,
    running: Arc<Running>,
}

/// Judges copies, on the thread where they came to their end.
pub(super) struct Judge {
    inner: Arc<Inner>,
    monitors: Monitors,
    panics: Counter,
}

impl Judge {
    pub(super) fn new(inner: Arc<Inner>, monitors: Monitors, panics: Counter) -> Self {
        Self { inner, monitors, panics }
    }

    /// How a copy ends whose run panicked, which is counted.
    pub(super) fn panicked(&self) -> Ended {
        self.panics.increment(1);
        Ended::Failed(Code::Internal, "it panicked".to_owned())
    }

    /// Takes what became of a copy into account. A panic loses this comparison and nothing else.
    pub(super) fn judge(&self, last: &LastPair, entry: &Entry, ended: &Ended) {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.compare(last, entry, ended)));
        if outcome.is_err() {
            self.panics.increment(1);
            last.forget();
        }
    }

    fn compare(&self, last: &LastPair, entry: &Entry, ended: &Ended) {
        let copy = &entry.copy;
        let metrics = &copy.origin.copies.metrics;
        match ended {
            Ended::Answered(..) => metrics.compared.increment(1),
            Ended::Failed(..) => metrics.failed.increment(1),
            Ended::TimedOut => metrics.timed_out.increment(1),
            Ended::Unrun => return dropped(entry),
        }
        let times = match ended {
            Ended::Answered(_, times, _) => *times,
            _ => Times::default(),
        };
        let primary = match &copy.answer {
            Ok(Answer { outputs, .. }) => Side::Answered(outputs, times.primary),
            Err(reason) => Side::Failed(reason),
        };
        let candidate = match ended {
            Ended::Answered(outputs, ..) => Side::Answered(outputs, times.candidate),
            Ended::Failed(_, reason) => Side::Failed(reason),
            Ended::TimedOut | Ended::Unrun => Side::TimedOut,
        };
        let running = self.running(last, entry);
        let outcome = running.take(&Compared {
            id: &copy.id,
            segment: copy.segment.as_deref(),
            at: copy.at,
            inputs: &copy.inputs,
            primary,
            candidate,
        });
        if outcome.disagrees {
            self.tell(entry, ended);
        }
        self.count(entry, ended);
    }

    /// The comparison that a copy belongs to.
    fn running(&self, last_pair: &LastPair, entry: &Entry) -> Arc<Running> {
        let Origin { copies, primary } = &*entry.copy.origin;
        let mut last_pair = last_pair.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = &*last_pair
            && std::ptr::eq(last.primary.as_ptr(), Arc::as_ptr(primary))
            && std::ptr::eq(last.copies.as_ptr(), Arc::as_ptr(copies))
        {
            return Arc::clone(&last.running);
        }
        let name = name(entry);
        let (candidate_digest, measure, dropped) = match entry.to {
            To::Shadow(at) => {
                let shadow = &copies.shadows[at];
                (shadow.version.loaded.digest.as_str(), "engine", &shadow.dropped)
            }
            To::Remote(at) => ("", "request", &copies.remotes[at].dropped),
        };
        let running = self.inner.comparisons.running(&NewPair {
            primary,
            candidate: &name,
            candidate_digest,
            settings: &copies.comparison,
            score: copies.score.as_deref(),
            measure,
            dropped,
        });
        *last_pair = Some(Last {
            primary: Arc::downgrade(primary),
            copies: Arc::downgrade(copies),
            running: Arc::clone(&running),
        });
        running
    }

    fn tell(&self, entry: &Entry, ended: &Ended) {
        let Some(told) = self.inner.told.get() else { return };
        let copy = &entry.copy;
        told(&Disagreed {
            primary: &copy.origin.primary,
            candidate: &name(entry),
            candidate_version: entry.shadow().map(|shadow| &shadow.version),
            id: &copy.id,
            segment: copy.segment.as_deref(),
            at: copy.at,
            inputs: &copy.inputs,
            primary_outputs: copy.answer.as_ref().ok().map(|answer| answer.outputs.as_slice()),
            candidate_outputs: match ended {
                Ended::Answered(outputs, ..) => Some(outputs),
                _ => None,
            },
        });
    }

    /// Has a shadow's run counted and watched as its own.
    fn count(&self, entry: &Entry, ended: &Ended) {
        let Some(shadow) = entry.shadow() else { return };
        let (copy, version) = (&entry.copy, &shadow.version);
        let (outputs, timings) = match ended {
            Ended::Answered(outputs, _, timings) => (outputs, timings),
            Ended::Failed(code, _) => return shadow.metrics.ended(Protocol::Copy, *code),
            Ended::TimedOut => {
                return shadow.metrics.ended(Protocol::Copy, Code::DeadlineExceeded);
            }
            Ended::Unrun => return,
        };
        let rows = copy.rows();
        shadow.metrics.ended(Protocol::Copy, Code::Ok);
        shadow.metrics.answered(rows, timings);
        version.statistics.answered(rows, timings);
        if let Some(recorder) = version.recorder.as_ref().filter(|r| r.takes(&copy.id)) {
            self.monitors.offer(Offered {
                recorder,
                id: &copy.id,
                segment: copy.segment.as_deref(),
                at: copy.at,
                inputs: copy.inputs.clone(),
                outputs: outputs.clone(),
            });
        }
    }
}

impl LastPair {
    fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Counts a copy that did not run.
pub(super) fn dropped(entry: &Entry) {
    let copies = &entry.copy.origin.copies;
    copies.metrics.dropped.increment(1);
    let of_pair = match entry.to {
        To::Shadow(at) => copies.shadows.get(at).map(|shadow| &shadow.dropped),
        To::Remote(at) => copies.remotes.get(at).map(|remote| &remote.dropped),
    };
    if let Some(of_pair) = of_pair {
        of_pair.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the candidate is called.
fn name(entry: &Entry) -> String {
    let copies = &entry.copy.origin.copies;
    match entry.to {
        To::Shadow(at) => {
            copies.shadows.get(at).map(|s| s.version.number_text.clone()).unwrap_or_default()
        }
        To::Remote(at) => {
            let model = &entry.copy.origin.primary.model;
            copies.remotes.get(at).map(|remote| remote.name(model)).unwrap_or_default()
        }
    }
}
