//! Rows into files and back, without a server.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::block::Block;
use super::columns::Process;
use super::folder;
use super::offered::{Facts, Offered, Reason};
use super::read::{Recorded, Requests};
use super::stream::{Progress, Stream};
use super::subject::{About, Subject};
use crate::config::{self, Config};
use crate::error::Code;
use crate::tensor::{Datatype, Signature, Tensor, TensorSpec};

fn settings(lines: &str) -> config::Capture {
    let text = format!("[models.m.capture]\nenabled = true\n{lines}");
    Config::parse(&text, Path::new("."), []).unwrap().models["m"].capture.clone()
}

fn spec(name: &str, datatype: Datatype, width: usize) -> TensorSpec {
    TensorSpec { name: name.to_owned(), datatype, shape: vec![None, Some(width)] }
}

fn subject(lines: &str) -> Arc<Subject> {
    let signature = Signature {
        inputs: vec![spec("x", Datatype::Fp32, 3), spec("word", Datatype::Bytes, 1)],
        outputs: vec![spec("y", Datatype::Int64, 1)],
    };
    let about = About {
        model: "m".to_owned(),
        version: 7,
        digest: "sha256:00".to_owned(),
        engine: "engine 1".to_owned(),
        signature,
        inputs: vec![vec!["a".to_owned(), "b".to_owned(), "c".to_owned()], vec!["word".to_owned()]],
        outputs: vec![vec!["y".to_owned()]],
        folder: ".".into(),
        segment_header: None,
    };
    Arc::new(Subject::new(about, settings(lines), None, None).unwrap())
}

fn tensors(n: usize, seed: f32) -> (Vec<Tensor>, Vec<Tensor>) {
    let numbers: Vec<u8> = (0..n * 3).flat_map(|at| (seed + at as f32).to_le_bytes()).collect();
    let words: Vec<String> = (0..n).map(|row| "w".repeat(row)).collect();
    let labels: Vec<u8> = (0..n as i64).flat_map(i64::to_le_bytes).collect();
    let inputs = vec![
        Tensor::new(Datatype::Fp32, [n, 3].as_slice(), numbers.into()).unwrap(),
        Tensor::from_elements([n, 1].as_slice(), words).unwrap(),
    ];
    (inputs, vec![Tensor::new(Datatype::Int64, [n, 1].as_slice(), labels.into()).unwrap()])
}

struct Writer {
    stream: Stream,
    process: Process,
    progress: Progress,
}

impl Writer {
    fn new(subject: &Arc<Subject>, root: &Path) -> Self {
        let process = Process { cpu_features: "cpu".to_owned(), run_id: "0123456789".to_owned() };
        let stream = Stream::new(Arc::clone(subject), root.to_owned());
        Self { stream, process, progress: Progress::default() }
    }

    fn take(&mut self, id: &str, at: u64, (inputs, outputs): &(Vec<Tensor>, Vec<Tensor>)) {
        let mut facts = Facts::failed("v2_http", "primary", Code::Ok, Duration::from_micros(9));
        facts.batch_rows = inputs[0].rows();
        let subject = Arc::clone(&self.stream.subject);
        let mut block = Block::default();
        block.push(&Offered {
            subject: &subject,
            reason: Reason::Sample,
            id: id.as_bytes(),
            segment: None,
            at,
            facts,
            error: None,
            inputs,
            outputs,
        });
        block.each(|_, taken| {
            self.stream.take(taken, "sha256:config", &self.process, &mut self.progress);
        });
    }
}

fn requests(root: &Path) -> Vec<Recorded> {
    let files = folder::find(root, None, folder::is_whole).into_iter().map(|file| file.path);
    Requests::new(files.collect()).map(Result::unwrap).collect()
}

const NOON: u64 = 1_790_000_000_000;

#[test]
fn what_was_flushed_outlives_its_writer_and_nothing_else_does() {
    let folder = tempfile::tempdir().unwrap();
    let subject = subject("decoded = true");
    let mut writer = Writer::new(&subject, folder.path());
    for n in 1..=5 {
        writer.take(&format!("r{n}"), NOON, &tensors(n, n as f32));
    }
    writer.stream.flush(&writer.process, &mut writer.progress);
    assert_eq!(writer.progress.rows, 15);
    writer.take("unflushed", NOON, &tensors(1, 0.0));
    // While its writer lives, nobody takes the file away from it.
    assert!(folder::recover(folder.path()).0.is_empty());
    assert!(requests(folder.path()).is_empty());
    drop(writer);
    let (whole, errors) = folder::recover(folder.path());
    assert_eq!((whole.len(), errors.len()), (1, 0));
    let recorded = requests(folder.path());
    assert_eq!(recorded.len(), 5);
    for (n, recorded) in (1..=5).zip(&recorded) {
        let (inputs, outputs) = tensors(n, n as f32);
        let tensors = |named: &[(Arc<str>, Tensor)]| {
            named.iter().map(|(_, tensor)| tensor.clone()).collect::<Vec<_>>()
        };
        assert_eq!((recorded.rows, recorded.at, recorded.version), (n, NOON, 7));
        assert_eq!(tensors(&recorded.inputs), inputs);
        assert_eq!(tensors(&recorded.outputs), outputs);
        assert_eq!(&*recorded.config_digest, "sha256:config");
    }
}

#[test]
fn a_file_that_was_never_flushed_or_is_broken_off_leaves_no_half_file() {
    let folder = tempfile::tempdir().unwrap();
    let day = folder::of_day(folder.path(), "m", "2026-11-26");
    std::fs::create_dir_all(&day).unwrap();
    std::fs::write(day.join(".a.parquet.part"), b"PAR1 and then nothing").unwrap();
    std::fs::write(day.join(".b.parquet.part"), b"PAR1").unwrap();
    std::fs::write(day.join(".b.parquet.foot"), [200, 0, 0, 0, 0, 0, 0, 0, 1]).unwrap();
    std::fs::write(day.join(".c.parquet.foot"), [4; 20]).unwrap();
    let (whole, errors) = folder::recover(folder.path());
    assert!(whole.is_empty());
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(folder::find(folder.path(), None, folder::is_whole).is_empty());
    let left: Vec<_> = std::fs::read_dir(&day).unwrap().map(|e| e.unwrap().file_name()).collect();
    // What cannot be completed stays where somebody may look at it.
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn each_day_and_each_size_has_files_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let subject = subject("roll_size = \"1KiB\"");
    let mut writer = Writer::new(&subject, folder.path());
    for day in 0..3 {
        for n in 0..4 {
            writer.take(&format!("{day}-{n}"), NOON + day * 86_400_000, &tensors(2, n as f32));
            writer.stream.flush(&writer.process, &mut writer.progress);
        }
    }
    writer.stream.end(&writer.process, &mut writer.progress);
    let files = folder::find(folder.path(), None, folder::is_whole);
    assert_eq!(files.len(), 12);
    assert!(files[0].path.to_str().unwrap().contains("/model=m/date=2026-09-21/"));
    let days: std::collections::BTreeSet<_> =
        files.iter().map(|file| file.path.parent().unwrap().to_owned()).collect();
    assert_eq!(days.len(), 3);
    assert_eq!((writer.progress.rows, writer.progress.lost), (24, 0));
    assert_eq!(requests(folder.path()).len(), 12);
}

#[test]
fn settings_that_do_not_fit_the_model_are_refused_by_name() {
    let about = subject("").about().clone();
    for (lines, expected) in [
        ("redact = { nobody = \"drop\" }", "there is no feature 'nobody'; features: x, a, b, c"),
        ("redact = { word = { bucket = 3 } }", "a bucket needs numbers"),
        ("redact = { a = \"hash\" }", "a hash needs a key"),
    ] {
        let error = Subject::new(about.clone(), settings(lines), None, None).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let key = Some(&b"sixteen bytes or"[..]);
    assert!(Subject::new(about, settings("redact = { a = \"hash\" }"), key, None).is_ok());
}
