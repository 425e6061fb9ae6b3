//! Candidates that panic and hang, beside one that does not, on one thread.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::*;
use crate::config::Config;
use crate::engine::RunError;
use crate::observe;
use crate::protocol::rows::{Naming, RowSchema};
use crate::registry::{CopyMetrics, Recording, Shadow};
use crate::scheduler::{Cost, Execute, Executor, Limits, Metrics, Pool};
use crate::telemetry::{Telemetry, names};
use crate::tensor::Datatype;

/// How long a test waits for what has to come.
const SOON: Duration = Duration::from_secs(20);

/// How long candidates that hang are waited for.
const SHORT: Duration = Duration::from_secs(1);

/// What a candidate does.
enum Candidate {
    Panics,
    /// Until somebody says that it may end.
    Hangs(Mutex<Receiver<()>>),
    Answers,
}

impl Execute for Candidate {
    fn execute(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, RunError> {
        match self {
            Self::Panics => panic!("a broken kernel"),
            Self::Hangs(leave) => drop(leave.lock().unwrap().recv_timeout(SOON)),
            Self::Answers => {}
        }
        Ok(inputs.to_vec())
    }

    fn is_batchable(&self) -> bool {
        true
    }
}

/// The shadows of a server that serves `car-loan`.
struct Bench {
    shadows: Shadows,
    thread: Option<ShadowThread>,
    pool: Pool,
    primary: Arc<Version>,
    copies: Arc<Copies>,
}

impl Bench {
    fn start(timeout: Duration) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
        let text = "[models.car-loan]\nversions = [1]\nprimary = 1\n\
                    [models.car-loan.traffic]\nshadows = { 2 = 1.0 }";
        let config = Arc::new(Config::parse(text, &folder, []).unwrap());
        let telemetry = Arc::new(Telemetry::default());
        let busy = telemetry.gauge(names::COMPUTE_BUSY, &[]);
        let (pool, _) = Pool::start(1, busy, || {}).unwrap();
        let (registry, _) =
            Registry::start(Arc::clone(&config), &telemetry, pool.clone(), BTreeMap::new())
                .unwrap();
        let (monitors, _) =
            observe::start(registry.clone(), &telemetry, &config.observe, || {}, |_| {}).unwrap();
        let mut limits = config.shadowing;
        limits.timeout = timeout;
        let (shadows, thread) = start(&registry, monitors, &telemetry, limits, 1, || {}).unwrap();
        let live = registry.live();
        let model = &live.models["car-loan"];
        let primary = Arc::clone(&model.versions[&1].version);
        let copies = Arc::clone(model.copies.as_ref().unwrap());
        Self { shadows, thread: Some(thread), pool, primary, copies }
    }

    /// Who gets copies where `candidate` is the version `number`, and the only one.
    fn copies(&self, number: u64, candidate: Candidate) -> Arc<Copies> {
        let (like, of) = (&self.copies.shadows[0], &self.primary);
        let limits = Limits {
            max_in_flight: 8,
            max_batch: 1,
            max_delay: Duration::ZERO,
            preferred: Vec::new(),
            always_batches: false,
        };
        let cost = Cost::constant(Duration::from_micros(10));
        let metrics = Metrics::unseen();
        let version = Version {
            model: Arc::clone(&of.model),
            number,
            number_text: number.to_string(),
            number_bytes: of.number_bytes.clone(),
            digest: of.digest.clone(),
            loaded: Arc::clone(&of.loaded),
            executor: Executor::new(Arc::new(candidate), cost, limits, metrics, self.pool.clone()),
            statistics: Arc::clone(&like.version.statistics),
            labels: of.labels.clone(),
            rows: RowSchema::new(of.signature(), Naming::default()),
            recorder: None,
            capture: Recording::default(),
            unwatched: None,
            deadline: of.deadline,
            max_batch: 0,
        };
        let shadow = Shadow {
            version: Arc::new(version),
            below: None,
            metrics: Arc::clone(&like.metrics),
            dropped: Arc::default(),
        };
        let counter = || Telemetry::default().counter(names::PANICS, &[]);
        Arc::new(Copies {
            shadows: vec![shadow],
            remotes: Vec::new(),
            comparison: self.copies.comparison.clone(),
            score: self.copies.score.clone(),
            metrics: CopyMetrics {
                compared: counter(),
                failed: counter(),
                timed_out: counter(),
                dropped: counter(),
            },
        })
    }

    /// Offers copies of so many requests, small ones and large ones.
    fn offer(&self, copies: &Arc<Copies>, n: usize) {
        for request in 0..n {
            let columns = if request % 2 == 0 { 2 } else { 2000 };
            let data = vec![0; 4 * columns].into();
            let row = [Tensor::new(Datatype::Fp32, [1, columns].as_slice(), data).unwrap()];
            let total = Duration::from_micros(10);
            self.shadows.offer(&OfferedCopy {
                copies,
                primary: &self.primary,
                id: format!("id-{request}").as_bytes(),
                segment: None,
                at: 1,
                trace: None,
                inputs: &row,
                answer: Ok(OfferedAnswer { outputs: &row, total }),
            });
        }
    }

    /// The comparison with a candidate, once so many requests are in it.
    fn compared(&self, number: u64, requests: u64) -> Arc<crate::traffic::Report> {
        eventually(|| {
            let report = self.shadows.comparisons().report("car-loan", 1, number)?;
            (report.counts.requests >= requests).then_some(report)
        })
    }
}

fn eventually<T>(look: impl Fn() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < SOON, "it does not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_candidate_that_panics_fails_alone() {
    let bench = Bench::start(SOON);
    let (broken, sound) = (bench.copies(7, Candidate::Panics), bench.copies(8, Candidate::Answers));
    for _ in 0..3 {
        bench.offer(&broken, 20);
        bench.offer(&sound, 20);
    }
    let of_broken = bench.compared(7, 60);
    assert_eq!((of_broken.counts.candidate_errors, of_broken.counts.compared), (60, 0));
    assert_eq!(of_broken.last_error.as_deref(), Some("it panicked"));
    let of_sound = bench.compared(8, 60);
    assert_eq!((of_sound.counts.candidate_errors, of_sound.counts.compared), (0, 60));
    // All room is free again.
    eventually(|| (bench.shadows.0.room.taken() == 0).then_some(()));
}

#[test]
fn a_candidate_that_hangs_holds_up_no_other() {
    let mut bench = Bench::start(SHORT);
    let (leave, held): (Sender<()>, _) = channel();
    let hanging = bench.copies(7, Candidate::Hangs(Mutex::new(held)));
    let sound = bench.copies(8, Candidate::Answers);
    bench.offer(&hanging, 1);
    let report = bench.compared(7, 1);
    assert_eq!((report.counts.timed_out, report.counts.compared), (1, 0));
    // The only thread hangs, and another one is in its place.
    bench.offer(&sound, 10);
    assert_eq!(bench.compared(8, 10).counts.compared, 10);
    // It has its one place for as long as it hangs.
    bench.offer(&hanging, 1);
    bench.offer(&sound, 10);
    assert_eq!(bench.compared(8, 20).counts.compared, 20);
    assert_eq!(bench.compared(7, 1).counts.requests, 1);
    (0..2).for_each(|_| leave.send(()).unwrap());
    assert_eq!(bench.compared(7, 2).counts.compared, 1);
    let ended = bench.thread.take().unwrap().end();
    eventually(|| ended.is_finished().then_some(()));
}

#[test]
fn what_there_is_no_room_for_is_dropped_and_counted_once() {
    let bench = Bench::start(SOON);
    let sound = bench.copies(8, Candidate::Answers);
    let n = bench.shadows.0.room.most() + 2000;
    bench.offer(&sound, n);
    eventually(|| {
        let report = bench.shadows.comparisons().report("car-loan", 1, 8)?;
        let dropped = sound.shadows[0].dropped.load(Ordering::Relaxed);
        (report.counts.requests + dropped == n as u64).then_some(())
    });
    eventually(|| (bench.shadows.0.room.taken() == 0).then_some(()));
}
