//! What is asked and answered is recorded, whatever happens to the disk or the process, and can be run
//! again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tidegate::capture::read::{self, Recorded, Requests};

use super::harness::{Load, Server, Setup, digit, eventually, shipped_file};

const INFER: &str = "/v2/models/digits/infer";
const KEY: &str = "a key of more than sixteen bytes";

/// A folder for files, and the settings that have them written there.
struct Captures(tempfile::TempDir);

impl Captures {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Settings of all models, flushed soon.
    fn settings(&self, more: &str) -> String {
        settings(self.path(), more)
    }

    fn files(&self, model: &str) -> Vec<PathBuf> {
        read::files(self.path(), Some(model)).unwrap_or_default()
    }

    /// Every request of the files that can be seen, all of which must be whole.
    fn requests(&self, model: &str) -> Vec<Recorded> {
        Requests::new(self.files(model)).map(Result::unwrap).collect()
    }
}

fn settings(to: &Path, more: &str) -> String {
    format!(
        "[defaults.capture]\nenabled = true\nto = {:?}\nflush = \"20ms\"\n{more}\n",
        to.to_str().unwrap()
    )
}

fn infer_with(server: &Server, id: &str, body: &str) -> Value {
    let answer = server.post_with(INFER, &[("x-request-id", id)], body.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn dropped(server: &Server) -> f64 {
    server.metric("tidegate_capture_dropped_total", &[])
}

/// A request of the example's row, `n` times.
fn digits(n: usize) -> String {
    let mut request: Value = serde_json::from_str(&digit()).unwrap();
    let input = &mut request["inputs"][0];
    let pixels = flat(&input["data"]);
    input["shape"] = json!([n, 8, 8]);
    input["data"] = (0..n).flat_map(|_| pixels.clone()).collect();
    request.to_string()
}

fn flat(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items.iter().flat_map(flat).collect(),
        other => vec![other.clone()],
    }
}

fn tidegate(config: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(arguments)
        .env("TIDEGATE_CONFIG", config)
        .output()
        .unwrap()
}

fn report(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}\n{error}"))
}

#[test]
fn every_answer_and_every_error_is_recorded_with_its_bits() {
    let captures = Captures::new();
    let server =
        Setup::with_models(&["digits"]).config(&captures.settings("decoded = true")).start();
    let mut answers = Vec::new();
    for n in 1..=4 {
        answers.push(infer_with(&server, &format!("request-{n}"), &digits(n)));
    }
    let wrong = [("x-request-id", "wrong")];
    assert_eq!(server.post_with(INFER, &wrong, b"{\"inputs\":[]}").status, 400);
    eventually("the rows to be on the disk", || {
        (server.metric("tidegate_capture_rows_total", &[]) == 11.0).then_some(())
    });
    assert_eq!(dropped(&server), 0.0);
    assert!(captures.files("digits").is_empty(), "a file that is open can be seen");
    let index = server.get("/v2/models/digits").json();
    let digest = server.post(INFER, &digit()).header("tidegate-model-digest").to_owned();
    server.stop();
    let recorded = captures.requests("digits");
    assert_eq!(recorded.len(), 6);
    for (n, answer) in answers.iter().enumerate() {
        let found = &recorded[n];
        assert_eq!((found.id.as_str(), found.rows), (format!("request-{}", n + 1).as_str(), n + 1));
        assert_eq!((&*found.code, &*found.reason, found.sample), ("ok", "sample", 1.0));
        assert_eq!((&*found.digest, &*found.slot), (digest.as_str(), "primary"));
        assert_eq!(found.version.to_string(), index["versions"][0].as_str().unwrap());
        assert_eq!((found.batch, found.batch_rows), (None, n + 1));
        assert_eq!(found.inputs[0].1.shape(), [n + 1, 8, 8]);
        let told = answer["outputs"].as_array().unwrap();
        assert_eq!(found.outputs.len(), told.len());
        let (name, scores) = &found.outputs[0];
        assert_eq!(**name, *told[0]["name"].as_str().unwrap());
        let told: Vec<f32> =
            flat(&told[0]["data"]).iter().map(|number| number.as_f64().unwrap() as f32).collect();
        let kept: Vec<f32> = scores
            .data()
            .as_chunks::<4>()
            .0
            .iter()
            .map(|chunk| f32::from_le_bytes(*chunk))
            .collect();
        assert_eq!(kept, told);
        assert!(found.timings[0] >= found.timings[3], "{:?}", found.timings);
    }
    let wrong = recorded.iter().find(|recorded| recorded.id == "wrong").unwrap();
    assert_eq!((&*wrong.code, &*wrong.reason), ("invalid_argument", "error"));
    assert!(wrong.error.as_ref().unwrap().contains("input 'image' is missing"));
    assert!(wrong.inputs.is_empty() && wrong.outputs.is_empty());
}

#[test]
fn a_sample_is_by_the_requests_ids_and_errors_are_recorded_in_any_case() {
    let captures = Captures::new();
    let settings = captures.settings("sample = 0.25\nalways = [\"errors\"]");
    let server = Setup::with_models(&["digits"]).config(&settings).start();
    for n in 0..400 {
        infer_with(&server, &format!("request-{n}"), &digit());
    }
    for n in 0..5 {
        let id = format!("wrong-{n}");
        assert_eq!(server.post_with(INFER, &[("x-request-id", &id)], b"{}").status, 400);
    }
    server.stop();
    let recorded = captures.requests("digits");
    let (sampled, errors): (Vec<_>, Vec<_>) = recorded.iter().partition(|r| &*r.code == "ok");
    assert!((60..140).contains(&sampled.len()), "{} of 400", sampled.len());
    assert!(sampled.iter().all(|recorded| recorded.sample == 0.25));
    assert_eq!(errors.len(), 5);
    assert!(errors.iter().all(|recorded| recorded.sample == 1.0));
    let below = tidegate::stats::hash::sampled_below(0.25).unwrap();
    let is_in = |id: &str| tidegate::stats::hash::hash(id.as_bytes()) < below;
    assert!(sampled.iter().all(|recorded| is_in(&recorded.id)));
}

#[test]
fn outliers_are_recorded_in_any_case() {
    let captures = Captures::new();
    let settings = captures.settings("sample = 0.0");
    let server = Setup::with_models(&["car-loan"]).config(&settings).start();
    let file = String::from_utf8(shipped_file("car-loan/requests.jsonl")).unwrap();
    for (n, line) in file.lines().take(30).enumerate() {
        let mut request: Value = serde_json::from_str(line).unwrap();
        let is_odd = n == 17;
        if is_odd {
            for input in request["inputs"].as_array_mut().unwrap() {
                if input["datatype"] == "FP32" {
                    input["data"] = json!([-9e9]);
                }
            }
        }
        request["id"] = json!(if is_odd { "odd".to_owned() } else { format!("even-{n}") });
        let answer = server.post("/v2/models/car-loan/infer", &request.to_string());
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    server.stop();
    let recorded = captures.requests("car-loan");
    let odd = recorded.iter().find(|recorded| recorded.id == "odd").unwrap();
    assert_eq!((&*odd.reason, odd.sample), ("outlier", 1.0));
    assert!(odd.outlier_score.is_some());
    assert!(recorded.len() <= 3, "{} of 30 ordinary rows are outliers", recorded.len());
}

#[test]
fn what_a_shadow_disagrees_on_is_recorded_of_both() {
    let captures = Captures::new();
    let settings = captures.settings("sample = 0.0\nalways = [\"disagreements\"]");
    let traffic = "[models.car-loan]\n[models.car-loan.traffic]\nshadows = { 2 = 1.0 }\n";
    let server = Setup::with_models(&["car-loan"]).config(&format!("{traffic}{settings}")).start();
    let file = String::from_utf8(shipped_file("car-loan/requests.jsonl")).unwrap();
    for (n, line) in file.lines().enumerate() {
        let id = format!("request-{n}");
        let headers = [("x-request-id", id.as_str())];
        let path = "/v2/models/car-loan/infer";
        assert_eq!(server.post_with(path, &headers, line.as_bytes()).status, 200);
    }
    eventually("disagreements on the disk", || {
        (server.metric("tidegate_capture_rows_total", &[]) >= 2.0).then_some(())
    });
    server.stop();
    let recorded = captures.requests("car-loan");
    let of = |slot: &str| {
        let rows = recorded.iter().filter(|recorded| *recorded.slot == *slot);
        rows.map(|recorded| (recorded.id.clone(), recorded)).collect::<BTreeMap<_, _>>()
    };
    let (primary, shadow) = (of("primary"), of("shadow"));
    assert!(!primary.is_empty());
    assert_eq!(primary.keys().collect::<Vec<_>>(), shadow.keys().collect::<Vec<_>>());
    for (id, one) in &primary {
        let other = shadow[id];
        assert_eq!((&*one.reason, one.version, other.version), ("disagreement", 1, 2));
        assert_eq!(one.inputs, other.inputs);
        assert_ne!(one.outputs, other.outputs);
    }
}

#[test]
fn redacted_features_are_nowhere_in_the_files() {
    let captures = Captures::new();
    let settings = format!(
        "[capture]\nhash_key_env = \"TEST_CAPTURE_KEY\"\n{}",
        captures.settings(
            "decoded = true\nredact = { salary_range = \"hash\", size_of_downpayment = \"drop\", \
             car_value = { bucket = 10000 }, driver_tenure = \"drop\" }"
        )
    );
    let server =
        Setup::with_models(&["car-loan"]).config(&settings).env("TEST_CAPTURE_KEY", KEY).start();
    let request = String::from_utf8(shipped_file("car-loan/request.json")).unwrap();
    let answer = server.post("/v2/models/car-loan/infer", &request);
    assert_eq!(answer.status, 200, "{}", answer.text());
    server.stop();
    let recorded = &captures.requests("car-loan")[0];
    assert!(recorded.redacted);
    let input = |name: &str| &recorded.inputs.iter().find(|(n, _)| **n == *name).unwrap().1;
    let floats = |name: &str| {
        let chunks = input(name).data().as_chunks::<4>().0.iter();
        chunks.map(|chunk| f32::from_le_bytes(*chunk)).collect::<Vec<_>>()
    };
    assert_eq!(floats("car_value"), [10_000.0, 50_000.0]);
    assert_eq!(floats("loan_length"), [21.0, 20.0]);
    assert!(floats("driver_tenure").iter().all(|value| value.is_nan()));
    assert!(input("size_of_downpayment").elements().all(<[u8]>::is_empty));
    let hashes: Vec<&[u8]> = input("salary_range").elements().collect();
    assert!(hashes.iter().all(|hash| hash.len() == 32) && hashes[0] != hashes[1]);
    // A key that is not there is no reason to write what should be hidden.
    let other = Captures::new();
    let settings = other.settings("redact = { salary_range = \"hash\" }");
    let server = Setup::with_models(&["car-loan"]).config(&settings).start();
    assert_eq!(server.post("/v2/models/car-loan/infer", &request).status, 200);
    assert!(!server.log_lines("a hash needs a key").is_empty());
    server.stop();
    assert!(other.files("car-loan").is_empty());
}

#[test]
fn files_roll_and_the_oldest_go() {
    let captures = Captures::new();
    let settings = captures.settings("roll_size = \"1KiB\"\nkeep_size = \"60KiB\"");
    let server = Setup::with_models(&["digits"]).config(&settings).start();
    let removed = || server.metric("tidegate_capture_files_removed_total", &[]);
    let mut n = 0;
    eventually("files to be removed", || {
        infer_with(&server, &format!("request-{n}"), &digits(8));
        n += 1;
        (removed() >= 2.0).then_some(())
    });
    let made = server.metric("tidegate_capture_files_total", &[]);
    server.stop();
    let files = captures.files("digits");
    assert!(made > files.len() as f64 && files.len() >= 2, "{made} made, {} left", files.len());
    let bytes: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(bytes <= 60 << 10, "{bytes} bytes are left");
    let left = captures.requests("digits");
    assert_eq!(left.last().unwrap().id, format!("request-{}", n - 1));
}

#[test]
fn a_process_that_is_killed_leaves_whole_files_and_the_next_completes_them() {
    let captures = Captures::new();
    let settings = captures.settings("roll_time = \"1s\"");
    for round in 0..4 {
        let mut server = Setup::with_models(&["digits"]).config(&settings).start();
        let load = hammer(server.http, digit());
        let wanted = 20.0 * f64::from(round + 1);
        eventually("rows on the disk", || {
            (server.metric("tidegate_capture_rows_total", &[]) >= wanted).then_some(())
        });
        let flushed = server.metric("tidegate_capture_rows_total", &[]);
        let before = captures.requests("digits").len();
        server.signal("KILL");
        server.wait();
        // It ends with the server.
        load.join().unwrap();
        // Whatever can be seen is whole, and what the last process left is completed by this one.
        let server = Setup::with_models(&["digits"]).config(&settings).start();
        infer_with(&server, "first", &digit());
        eventually("what was left behind", || {
            let now = captures.requests("digits").len();
            (now as f64 >= flushed.max(before as f64)).then_some(())
        });
        server.stop();
    }
    let hidden = walk(captures.path())
        .into_iter()
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with('.'));
    assert_eq!(hidden.collect::<Vec<_>>(), Vec::<PathBuf>::new());
}

/// Sends requests until nobody answers.
fn hammer(address: std::net::SocketAddr, body: String) -> std::thread::JoinHandle<()> {
    use std::io::{BufReader, Write};
    std::thread::spawn(move || {
        let Ok(stream) = std::net::TcpStream::connect(address) else { return };
        let mut stream = BufReader::new(stream);
        let request = super::harness::head("POST", INFER, &[], Some(body.len())) + &body;
        while stream.get_mut().write_all(request.as_bytes()).is_ok() {
            let mut line = String::new();
            match std::io::BufRead::read_line(&mut stream, &mut line) {
                Ok(n) if n > 0 => {}
                _ => return,
            }
            if !skip_answer(&mut stream) {
                return;
            }
        }
    })
}

/// Reads the rest of an answer; false where there is none.
fn skip_answer(stream: &mut impl std::io::BufRead) -> bool {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if !stream.read_line(&mut line).is_ok_and(|n| n > 0) {
            return false;
        }
        if line.trim_end().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    stream.read_exact(&mut vec![0; length]).is_ok()
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn a_folder_that_cannot_be_written_costs_no_answer_and_no_row_once_it_can() {
    let captures = Captures::new();
    let to = captures.path().join("gone");
    std::fs::write(&to, "a file where the folder should be").unwrap();
    let server = Setup::with_models(&["digits"]).config(&settings(&to, "")).start();
    for n in 0..20 {
        infer_with(&server, &format!("early-{n}"), &digit());
    }
    eventually("the trouble to be counted", || {
        (server.metric("tidegate_capture_errors_total", &[]) > 0.0).then_some(())
    });
    assert!(!server.log_lines("predictions cannot be recorded").is_empty());
    std::fs::remove_file(&to).unwrap();
    infer_with(&server, "late", &digit());
    eventually("the rows to be on the disk", || {
        (server.metric("tidegate_capture_rows_total", &[]) == 21.0).then_some(())
    });
    assert_eq!(dropped(&server), 0.0);
    server.stop();
    let recorded: Vec<_> =
        Requests::new(read::files(&to, None).unwrap()).map(Result::unwrap).collect();
    assert_eq!(recorded.len(), 21);
}

/// A file system of 256 KiB; nothing where this user may not mount one.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
            .arg(folder.path())
            .output();
        mount.is_ok_and(|output| output.status.success()).then_some(Self(folder))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(self.0.path()).status());
    }
}

#[test]
fn a_full_disk_costs_no_answer_and_it_goes_on_when_there_is_room() {
    let Some(disk) = Small::mount() else {
        println!("NOT CHECKED: mounting a small file system is not allowed here");
        return;
    };
    let filler = disk.0.path().join("filler");
    std::fs::write(&filler, vec![0; 200 << 10]).unwrap();
    let to = disk.0.path().join("captures");
    let server = Setup::with_models(&["digits"]).config(&settings(&to, "")).start();
    let body = digits(64);
    let mut sent = 0;
    eventually("the disk to be full", || {
        // Rows that differ, so that they take room.
        let id = format!("{:032x}{:032x}", fastrand::u128(..), fastrand::u128(..));
        infer_with(&server, &id, &body);
        sent += 1;
        (server.metric("tidegate_capture_errors_total", &[]) > 0.0).then_some(())
    });
    infer_with(&server, "while-full", &digit());
    std::fs::remove_file(&filler).unwrap();
    infer_with(&server, "after", &digit());
    let rows = 64.0 * f64::from(sent) + 2.0;
    eventually("what waited to be written", || {
        let written = server.metric("tidegate_capture_rows_total", &[]);
        (written + dropped(&server) >= rows).then_some(())
    });
    server.stop();
    let recorded: Vec<_> =
        Requests::new(read::files(&to, None).unwrap()).map(Result::unwrap).collect();
    for id in ["while-full", "after"] {
        assert!(recorded.iter().any(|recorded| recorded.id == id), "{id}");
    }
}

#[test]
fn batches_are_run_again_to_the_bit() {
    let captures = Captures::new();
    let batching =
        "[models.digits]\n[models.digits.batching]\nmax_batch = 8\nmax_delay = \"3ms\"\n";
    let server = Setup::with_models(&["digits"])
        .config(&format!("{batching}{}", captures.settings("")))
        .start();
    let loads = [1, 2, 3].map(|rows| Load::start(server.http, 3, INFER, &digits(rows)));
    eventually("rows on the disk", || {
        (server.metric("tidegate_capture_rows_total", &[]) >= 2000.0).then_some(())
    });
    let reports = loads.map(Load::stop);
    let answered: usize = reports.iter().map(|report| report.statuses[&200]).sum();
    let (rows, folder) =
        (server.metric("tidegate_prediction_rows_total", &[]), server.take_folder());
    let config = folder.path().join("tidegate.toml");
    let recorded = captures.requests("digits");
    assert_eq!(recorded.len(), answered);
    assert!(recorded.iter().filter(|recorded| recorded.batch.is_some()).count() > answered / 2);
    let capture = captures.path().to_str().unwrap();
    let exact = ["replay", capture, "--model", "digits", "--json"];
    let output = tidegate(&config, &exact);
    let told = report(&output);
    assert!(output.status.success(), "{told:#}");
    assert_eq!(told["rows"].as_f64().unwrap(), rows);
    for key in ["bit_equal", "promised"] {
        assert_eq!(told[key], told["rows"], "{key}: {told:#}");
    }
    assert!(told["batches_reformed"].as_u64().unwrap() > 100, "{told:#}");
    assert_eq!(told["rows_not_reformed"], 0);
    // Without one of its files, some batches lack members: that is said, and is no failure.
    let table = tidegate(&config, &["replay", capture, "--model", "digits", "--mode", "numeric"]);
    let text = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.status.success() && text.contains("bit-equality is not promised"), "{text}");
    // Another version's answers are others.
    let other =
        tidegate(&config, &["replay", capture, "--model", "digits", "--version", "2", "--json"]);
    let told = report(&other);
    assert!(other.status.success(), "{told:#}");
    assert_eq!(told["promised"], 0);
    assert!(told["bit_equal"].as_u64() < told["rows"].as_u64());
    assert!(!told["worst"].as_array().unwrap().is_empty());
    bundle(&config, &captures, &recorded);
}

/// One of the requests as a folder, and its command.
fn bundle(config: &Path, captures: &Captures, recorded: &[Recorded]) {
    let one = recorded.iter().find(|recorded| recorded.batch.is_some()).unwrap();
    let out = tempfile::tempdir().unwrap();
    let folder = out.path().join("bundle");
    let (capture, folder_text) = (captures.path().to_str().unwrap(), folder.to_str().unwrap());
    let output = tidegate(config, &["bundle", &one.id, "--capture", capture, "--out", folder_text]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let facts: Value =
        serde_json::from_slice(&std::fs::read(folder.join("facts.json")).unwrap()).unwrap();
    assert_eq!(facts["digest"], *one.digest);
    assert!(facts["config_digest"].as_str().unwrap().starts_with("sha256:"));
    assert!(!facts["cpu_features"].as_str().unwrap().is_empty());
    let request: Value =
        serde_json::from_slice(&std::fs::read(folder.join("request.json")).unwrap()).unwrap();
    assert_eq!(request["id"], one.id);
    let program = Path::new(env!("CARGO_BIN_EXE_tidegate")).parent().unwrap().to_str().unwrap();
    let path = format!("{program}:{}", std::env::var("PATH").unwrap());
    let run = Command::new(folder.join("reproduce.sh"))
        .arg("--json")
        .env("PATH", path)
        .env("TIDEGATE_CONFIG", config)
        .output()
        .unwrap();
    let told = report(&run);
    assert!(run.status.success(), "{told:#}");
    let rows = one.rows as u64;
    assert_eq!(told["rows"], rows, "{told:#}");
    assert_eq!(told["bit_equal"], rows);
    assert_eq!(told["promised"], rows);
    let unknown = tidegate(config, &["bundle", "nobody", "--capture", capture]);
    assert_eq!(unknown.status.code(), Some(1));
}

#[test]
fn a_server_and_the_monitor_are_fed_again() {
    let captures = Captures::new();
    let monitor = "[models.car-loan]\n[models.car-loan.monitor]\ncell_metrics = true\n\
                   false_alarms = \"1 per 1000000 rows\"\ntick_rows = 20\n";
    let settings = format!("{monitor}{}", captures.settings(""));
    // What several I/O threads offer has no order that the monitor and the capture would both see.
    let setup = Setup::with_models(&["car-loan"]).env("TIDEGATE_SERVER__IO_THREADS", "1");
    let server = setup.config(&settings).start();
    let file = String::from_utf8(shipped_file("car-loan/requests.jsonl")).unwrap();
    for line in file.lines().chain(file.lines().skip(200)) {
        let answer = server.post("/v2/models/car-loan/infer", line);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let live = eventually("the rows to be counted", || {
        let verdict = server.admin_get("/api/v1/drift/car-loan/1").json();
        (verdict["rows"] == 600).then_some(verdict)
    });
    let events = server.admin_get("/api/v1/events").json();
    let metrics = server.admin_get("/metrics").text();
    let url = format!("http://{}", server.http);
    let config = server.config_path();
    // What is open is completed when the settings change, and then serving goes on.
    server.write_config(&settings.replace("20ms", "30ms"));
    eventually("the file", || (!captures.files("car-loan").is_empty()).then_some(()));
    let capture = captures.path().to_str().unwrap();
    let output = tidegate(
        &config,
        &["replay", capture, "--model", "car-loan", "--against", &url, "--json", "--rate", "5000"],
    );
    let told = report(&output);
    assert!(output.status.success(), "{told:#}");
    assert_eq!((&told["rows"], &told["bit_equal"]), (&json!(600), &json!(600)), "{told:#}");
    assert_eq!(told["promised"], 0);
    let monitored = tidegate(
        &config,
        &[
            "replay",
            capture,
            "--model",
            "car-loan",
            "--version",
            "1",
            "--mode",
            "monitor",
            "--json",
        ],
    );
    let told = report(&monitored);
    assert!(monitored.status.success(), "{told:#}");
    assert_eq!((&told["rows"], &told["is_complete"]), (&json!(600), &json!(true)));
    let alarms = |events: &Value| {
        let events = events.as_array().unwrap().iter();
        let alarms = events.filter(|event| event["to"] == "drifted");
        let mut alarms: Vec<(String, u64)> = alarms
            .map(|event| {
                let name = event["feature"].as_str().unwrap_or("all").to_owned();
                (name, event["rows"].as_u64().unwrap())
            })
            .collect();
        alarms.sort();
        alarms
    };
    assert_eq!(alarms(&told["events"]), alarms(&events["events"]));
    assert!(!alarms(&told["events"]).is_empty(), "{events:#}");
    let replayed = &told["verdicts"][0];
    assert_eq!((&replayed["state"], &replayed["ticks"]), (&live["state"], &live["ticks"]));
    assert_eq!(replayed["outliers"], live["outliers"]);
    for (feature, counts) in told["cells"].as_object().unwrap() {
        let labels = [format!("feature=\"{feature}\""), "version=\"1\"".to_owned()];
        let of_feature = metrics.lines().filter(|line| {
            line.starts_with("tidegate_drift_cell_values_total{")
                && labels.iter().all(|label| line.contains(label))
        });
        let live: Vec<f64> =
            of_feature.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
        let counts: Vec<f64> =
            counts.as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect();
        assert_eq!(live, counts, "{feature}");
    }
}
