//! `tidegate baseline`, as typed: what it writes, what it says of files that do not fit.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::harness::{Setup, shipped};

/// Runs the command with the repository of `setup` and `arguments`.
fn baseline(config: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["baseline", "--config"])
        .arg(config)
        .args(arguments)
        .env("SOURCE_DATE_EPOCH", "1785542400")
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{out}{err}")
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Writes a file beside the repository.
fn data(setup: &Setup, name: &str, content: &str) -> PathBuf {
    let path = setup.models().parent().unwrap().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

#[test]
fn a_baseline_is_written_beside_the_version_and_is_the_same_again() {
    let setup = Setup::with_models(&["car-loan"]);
    let config = setup.write_config();
    let samples = shipped("car-loan/samples.csv");
    let arguments = ["-m", "car-loan", "--version", "stable", "--data", path(&samples)];
    let arguments = [&arguments[..], &["--label", "repaid", "--segment", "salary_range"]].concat();
    let output = baseline(&config, &arguments);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for expected in ["car_value", "categorical", "outlier score", "400 rows, car-loan version 1"] {
        assert!(said.contains(expected), "{expected} is missing in\n{said}");
    }
    let file = setup.models().join("car-loan/1/baseline.json");
    let written = read(&file);
    assert_eq!(written["rows"], 400);
    assert_eq!(written["created_at"], 1_785_542_400_000_u64);
    assert_eq!(written["slices"].as_array().unwrap().len(), 4);
    assert!(written["score"]["classes"].is_array(), "{}", written["score"]);
    let features = written["features"].as_array().unwrap();
    for feature in features {
        let counts = feature["counts"].as_array().unwrap().iter();
        assert_eq!(counts.map(|count| count.as_u64().unwrap()).sum::<u64>(), 400, "{feature}");
    }
    let before = std::fs::read(&file).unwrap();
    assert_eq!(baseline(&config, &arguments).status.code(), Some(0));
    assert_eq!(std::fs::read(&file).unwrap(), before);
    // Nothing else is left in the folder.
    let names = std::fs::read_dir(file.parent().unwrap()).unwrap();
    assert!(names.flatten().all(|entry| !entry.file_name().to_string_lossy().contains("tmp")));
}

#[test]
fn what_does_not_fit_is_said_and_nothing_is_written() {
    let setup = Setup::with_models(&["car-loan", "digits"]);
    let config = setup.write_config();
    let samples = shipped("car-loan/samples.csv");
    let header = "car_value,debt_to_income_ratio,loan_length,driver_tenure,salary_range,repaid_loan_on_prev_car,size_of_downpayment";
    let good = "10000,0.5,12,3,20K - 40K €,True,10%";
    let bad =
        data(&setup, "bad.csv", &format!("{header}\n{good}\n{}\n", good.replace("0.5", "half")));
    let empty = data(&setup, "empty.csv", &format!("{header}\n"));
    let output = setup.models().parent().unwrap().join("none.json");
    let (samples, bad, empty) = (path(&samples), path(&bad), path(&empty));
    for (arguments, code, said) in [
        (vec!["-m", "loans", "--data", samples], 1, "there is no model 'loans'"),
        (
            vec!["-m", "car-loan", "--version", "9", "--data", samples],
            1,
            "it has '1', '2', 'candidate', 'stable'",
        ),
        (vec!["-m", "car-loan", "--data", "nowhere.csv"], 1, "nowhere.csv: cannot read it"),
        (
            vec!["-m", "car-loan", "--data", bad],
            1,
            "line 3, column 'debt_to_income_ratio': expected a number (FP32), got 'half'",
        ),
        (vec!["-m", "car-loan", "--data", empty], 1, "a baseline needs rows, got none"),
        (
            vec!["-m", "digits", "--data", samples],
            1,
            "needs columns 'image_0' to 'image_63'; there are 'car_value'",
        ),
        (
            vec!["-m", "car-loan", "--data", samples, "--label", "truth"],
            1,
            "there is no column 'truth'; the file has",
        ),
        (
            vec!["-m", "car-loan", "--data", samples, "--timestamp", "salary_range"],
            1,
            "line 2, column 'salary_range': expected a time",
        ),
        (vec!["-m", "car-loan"], 64, "--data <FILE>"),
    ] {
        let arguments = [&arguments[..], &["--output", path(&output)]].concat();
        let result = baseline(&config, &arguments);
        let text = text(&result);
        assert_eq!(result.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(said), "{said} is missing in\n{text}");
        assert!(!output.exists(), "{arguments:?}");
    }
}

#[test]
fn files_of_every_form_give_the_same_baseline() {
    let setup = Setup::with_models(&["digits"]);
    let config = setup.write_config();
    let samples = std::fs::read_to_string(shipped("digits/samples.csv")).unwrap();
    let lines = samples.lines().skip(1).map(|line| {
        let pixels = line.rsplit_once(',').unwrap().0;
        format!("{{\"image\": [{pixels}]}}")
    });
    let lines = data(&setup, "rows.jsonl", &lines.collect::<Vec<_>>().join("\n"));
    let table = data(&setup, "rows.csv", &samples.replace(',', ";"));
    let written: Vec<Value> = [&lines, &table]
        .into_iter()
        .map(|file| {
            let output = file.with_extension("json");
            let arguments = ["-m", "digits", "--version", "1", "--data", path(file)];
            let result = baseline(&config, &[&arguments[..], &["-o", path(&output)]].concat());
            assert_eq!(result.status.code(), Some(0), "{}", text(&result));
            read(&output)
        })
        .collect();
    assert_eq!(written[0], written[1]);
    assert_eq!(written[0]["rows"], 300);
}

#[cfg(target_os = "linux")]
#[test]
fn memory_does_not_grow_with_the_rows() {
    let setup = Setup::with_models(&["car-loan"]);
    let config = setup.write_config();
    let samples = std::fs::read_to_string(shipped("car-loan/samples.csv")).unwrap();
    let (header, rows) = samples.split_once('\n').unwrap();
    // More rows than are kept, and four times as many.
    let peaks: Vec<u64> = [25, 100]
        .into_iter()
        .map(|n_times| {
            let file = data(&setup, "many.csv", &format!("{header}\n{}", rows.repeat(n_times)));
            let output = file.with_extension("json");
            let arguments = ["-m", "car-loan", "--version", "1", "--data", path(&file)];
            let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
                .args(["baseline", "--config"])
                .arg(&config)
                .args(arguments)
                .args(["--keep", "2000", "--label", "repaid", "-o", path(&output)])
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let status = format!("/proc/{}/status", child.id());
            let mut peak = 0;
            while child.try_wait().unwrap().is_none() {
                let status = std::fs::read_to_string(&status).unwrap_or_default();
                let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
                let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
                peak = peak.max(kilobytes.unwrap_or(0));
                std::thread::park_timeout(std::time::Duration::from_millis(5));
            }
            assert_eq!(read(&output)["rows"], n_times * 400);
            peak
        })
        .collect();
    let grown = peaks[1].saturating_sub(peaks[0]);
    assert!(grown < 3 << 10, "the peak grew from {} to {} KiB", peaks[0], peaks[1]);
}
