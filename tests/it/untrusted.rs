//! A model file is untrusted: whatever is in it, loading and running it ends, within bounds, in a
//! plan or in an error.
//!
//! Small models (`tests/corpus`) are damaged in ways that keep much of them readable, then
//! parsed, compiled and run as the gateway does before a version may serve. The file under way is
//! kept in `target/tmp/untrusted.onnx`, so that one that ends the process can be looked at.
//! `TIDEGATE_MUTATIONS` is how many files are tried, `TIDEGATE_SEED` where they begin.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tidegate::engine::{OnnxModel, Plan, RunError};
use tidegate::tensor::{Datatype, Tensor};

/// The longest that one damaged file may take in a debug build.
const LONGEST: Duration = Duration::from_secs(20);

/// Parse, compile, run: an error is an answer, and so is a plan.
fn load(file: &[u8]) -> bool {
    OnnxModel::parse(file)
        .and_then(|model| Plan::compile(Arc::new(model), &[]))
        .and_then(|plan| plan.warm_up().map(|_| ()))
        .is_ok()
}

/// The models of a folder.
fn models(folder: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let files = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "onnx"));
    let mut files: Vec<_> =
        files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    files.sort();
    files
}

/// Damages `file`.
fn damage(file: &mut Vec<u8>, random: &mut Rng) {
    for _ in 0..random.usize(1..4) {
        if file.is_empty() {
            return;
        }
        let at = random.usize(..file.len());
        match random.u8(..8) {
            0 => file[at] ^= 1 << random.u8(..8),
            1 => file[at] = random.u8(..),
            // The largest numbers, and the longest varints.
            2 => file[at] = 0xff,
            3 => {
                let end = (at + random.usize(1..10)).min(file.len());
                file[at..end].fill(0xff);
            }
            4 => file.truncate(at),
            // A piece twice, or not at all.
            5 => {
                let end = (at + random.usize(1..64)).min(file.len());
                let piece = file[at..end].to_vec();
                let to = random.usize(..file.len());
                file.splice(to..to, piece);
            }
            6 => {
                let end = (at + random.usize(1..64)).min(file.len());
                file.drain(at..end);
            }
            // One byte more or less keeps lengths nearly right.
            _ => file[at] = file[at].wrapping_add(random.u8(1..4)).wrapping_sub(2),
        }
    }
}

#[test]
fn damaged_files_end_in_a_plan_or_an_error() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().unwrap())
    };
    let (n_files, seed) = (number("TIDEGATE_MUTATIONS", 3000), number("TIDEGATE_SEED", 1));
    let corpus = models("tests/corpus");
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("untrusted.onnx");
    let mut n_loaded = 0;
    for number in seed..seed + n_files {
        let mut random = Rng::with_seed(number);
        let (path, bytes) = &corpus[random.usize(..corpus.len())];
        let mut file = bytes.clone();
        damage(&mut file, &mut random);
        std::fs::write(&kept, &file).unwrap();
        let start = Instant::now();
        n_loaded += u64::from(load(&file));
        let took = start.elapsed();
        assert!(took < LONGEST, "seed {number}, of {}: took {took:?}", path.display());
    }
    println!("{n_files} damaged files, of which {n_loaded} load");
    // Damage that leaves nothing or everything readable would test nothing.
    assert!((n_files / 20..n_files * 19 / 20).contains(&n_loaded), "{n_loaded} of {n_files} load");
}

#[test]
fn the_corpus_itself_loads() {
    for (path, file) in models("tests/corpus") {
        assert!(load(&file), "{}", path.display());
    }
}

/// Circles, sizes beyond all memory, data outside of the file, loops without an end.
#[test]
fn what_is_made_to_harm_is_refused() {
    let files = models("tests/corpus/refused");
    assert!(files.len() >= 15);
    for (path, file) in files {
        let start = Instant::now();
        assert!(!load(&file), "{} is loaded", path.display());
        assert!(start.elapsed() < LONGEST, "{} takes long", path.display());
    }
}

/// A request whose numbers, or whose rows, ask for more memory than a value may have is refused
/// before it is made.
#[test]
fn what_expands_beyond_bounds_is_the_request_s_error() {
    let plan = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name);
        let model = OnnxModel::parse(&std::fs::read(path).unwrap()).unwrap();
        Plan::compile(Arc::new(model), &[]).unwrap()
    };
    let refused = |plan: &Plan, input: Tensor| {
        let error = plan.run(&[input]).unwrap_err();
        assert!(matches!(error, RunError::Rejected(_)), "{error}");
        assert!(error.to_string().contains("would make a tensor of"), "{error}");
    };
    // Range(0, n): as many values as the request says.
    let range = plan("expands_range.onnx");
    let number = |n: i64| {
        Tensor::new(Datatype::Int64, [].as_slice(), n.to_le_bytes().to_vec().into()).unwrap()
    };
    let sum = range.run(&[number(5)]).unwrap();
    assert_eq!(sum[0].data()[..], 10_i64.to_le_bytes());
    for n in [1 << 40, i64::MAX] {
        refused(&range, number(n));
    }
    // Each row's difference to each: the square of the rows.
    let rows = plan("expands_rows.onnx");
    let zeros =
        |n: usize| Tensor::new(Datatype::Fp32, [n].as_slice(), vec![0; 4 * n].into()).unwrap();
    assert_eq!(rows.run(&[zeros(100)]).unwrap()[0].shape(), [100]);
    refused(&rows, zeros(100_000));
    assert_eq!(rows.run(&[zeros(10)]).unwrap()[0].shape(), [10]);
}
