//! The commands, as typed: what they print and how they end.

use std::path::Path;
use std::process::{Command, Output};

use super::harness::{Setup, shipped};
use super::onnx;

fn tidegate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(arguments);
    command
}

fn text(output: &Output) -> String {
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{out}{err}")
}

/// Runs the command, checks its exit code and that it says each of `expected`.
fn check(command: &mut Command, code: i32, expected: &[&str]) -> String {
    let output = command.output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for expected in expected {
        assert!(said.contains(expected), "{expected} is missing in\n{said}");
    }
    said
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn check_says_what_serves_or_what_is_wrong_where() {
    let setup = Setup::with_models(&["digits", "car-loan"]);
    let config = setup.write_config();
    check(
        &mut tidegate(&["check", "--config", path(&config)]),
        0,
        &["valid, sha256:", "image FP32 [-1,8,8]", "4 golden requests pass", "standby"],
    );
    check(
        tidegate(&["check", "--config", path(&config)]).env("TIDEGATE_LIMITS__BODY", "bad"),
        64,
        &["environment variable TIDEGATE_LIMITS__BODY: limits.body: invalid value: string \"bad\""],
    );
    let broken = Setup::with_models(&["digits"])
        .file("digits/3/model.onnx", b"junk")
        .file("slow/model.toml", b"verions = \"all\"")
        .file("slow/1/model.onnx", &onnx::heavy(4, 1));
    let config = broken.write_config();
    check(
        &mut tidegate(&["check", "--config", path(&config)]),
        64,
        &[
            "not an ONNX model",
            "did you mean `versions`?",
            "of the entries above are not as wished",
        ],
    );
    check(&mut tidegate(&["check", "--no-models", "--config", path(&config)]), 0, &["valid"]);
    let wrong = Setup::with_models(&[]).config("[limits]\nbodi = 1");
    let config = wrong.write_config();
    let said = check(
        &mut tidegate(&["check", "--config", path(&config)]),
        64,
        &["limits.bodi: unknown field `bodi`, expected one of `body`", "did you mean `body`?"],
    );
    assert!(said.contains("line "), "{said}");
    check(&mut tidegate(&["serve", "--config", path(&config)]), 64, &["did you mean `body`?"]);
    check(
        &mut tidegate(&["check", "--config", "nowhere.toml"]),
        64,
        &["cannot read the configuration nowhere.toml"],
    );
}

#[test]
fn inspect_shows_what_a_file_declares_and_whether_it_can_serve() {
    let digits = shipped("digits/2/model.onnx");
    check(
        &mut tidegate(&["inspect", path(&digits)]),
        0,
        &[
            "digest      sha256:",
            "inputs      image FP32 [-1,8,8]",
            "outputs     probabilities FP32 [-1,10], label INT64 [-1]",
            "0 of them unsupported",
            "plan        symbolic",
            "µs for one row",
        ],
    );
    check(&mut tidegate(&["inspect", path(&digits), "--operators"]), 0, &["MaxPool", "yes"]);
    let folder = tempfile::tempdir().unwrap();
    let junk = folder.path().join("junk.onnx");
    std::fs::write(&junk, b"junk").unwrap();
    check(&mut tidegate(&["inspect", path(&junk)]), 1, &["not an ONNX model"]);
    let unknown = folder.path().join("unknown.onnx");
    let element = tract_onnx::pb::tensor_proto::DataType::Float;
    std::fs::write(&unknown, onnx::unary("NoSuchOperator", element, &["N"])).unwrap();
    check(
        &mut tidegate(&["inspect", path(&unknown)]),
        1,
        &["1 of them unsupported", "NoSuchOperator", "operators that the engine cannot run"],
    );
}

#[test]
fn predict_reads_csv_json_and_npy_and_prints_a_table_or_csv() {
    let server = Setup::with_models(&["digits", "car-loan"]).start();
    let url = format!("http://{}", server.http);
    let samples = shipped("digits/samples.csv");
    let said = check(
        &mut tidegate(&[
            "predict",
            path(&samples),
            "-m",
            "digits",
            "--url",
            &url,
            "--limit",
            "20",
            "--batch",
            "7",
        ]),
        0,
        &["probabilities_0", "label", "20 rows by digits version 1, sha256:"],
    );
    assert!(said.lines().count() > 20, "{said}");
    let loans = shipped("car-loan/samples.csv");
    let output =
        tidegate(&["predict", path(&loans), "-m", "car-loan", "--url", &url, "--output", "csv"])
            .output()
            .unwrap();
    let rows: Vec<_> = csv::Reader::from_reader(output.stdout.as_slice()).records().collect();
    assert_eq!(rows.len(), 400, "{}", text(&output));
    let request = shipped("digits/request.json");
    check(
        &mut tidegate(&[
            "predict",
            path(&request),
            "-m",
            "digits",
            "--version",
            "candidate",
            "--url",
            &url,
        ]),
        0,
        &["1 rows by digits version 2"],
    );
    let folder = tempfile::tempdir().unwrap();
    let npy = folder.path().join("images.npy");
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 8, 8), }";
    let header = format!("{header:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend((0..192).flat_map(|index| ((index % 17) as f32).to_le_bytes()));
    std::fs::write(&npy, bytes).unwrap();
    check(
        &mut tidegate(&["predict", path(&npy), "-m", "digits", "--url", &url]),
        0,
        &["3 rows by digits"],
    );
    let rows = folder.path().join("rows.json");
    std::fs::write(&rows, format!("[{{\"image\": {:?}}}]", [[1; 8]; 8])).unwrap();
    check(
        &mut tidegate(&["predict", path(&rows), "-m", "digits", "--url", &url]),
        0,
        &["1 rows by digits"],
    );
    check(
        &mut tidegate(&["predict", path(&loans), "-m", "digits", "--url", &url]),
        1,
        &["needs columns 'image_0' to 'image_63'"],
    );
    check(
        &mut tidegate(&["predict", path(&loans), "-m", "nobody", "--url", &url]),
        1,
        &["404: model 'nobody' is not known"],
    );
    check(
        &mut tidegate(&["predict", path(&loans), "-m", "digits", "--url", "http://127.0.0.1:1"]),
        1,
        &["cannot reach http://127.0.0.1:1", "is the server running?"],
    );
}

#[test]
fn plan_compares_with_the_running_server_or_with_a_file() {
    let server = Setup::with_models(&["digits"]).start();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("new.toml");
    let running = std::fs::read_to_string(server.config_path()).unwrap();
    std::fs::write(&config, format!("{running}\n[models.digits]\nprimary = 2")).unwrap();
    let admin = format!("http://{}", server.admin);
    check(
        &mut tidegate(&["plan", "--config", path(&config), "--admin", &admin]),
        0,
        &["models.digits.primary: not set -> 2 (applies at once)", "digits: primary 1 -> 2"],
    );
    check(
        &mut tidegate(&[
            "plan",
            "--config",
            path(&config),
            "--against",
            path(&server.config_path()),
        ]),
        0,
        &["models.digits.primary: not set -> 2"],
    );
    check(
        &mut tidegate(&["plan", "--config", path(&server.config_path()), "--admin", &admin]),
        0,
        &["nothing would change"],
    );
    std::fs::write(&config, format!("{running}\n[models.ghost]")).unwrap();
    check(
        &mut tidegate(&["plan", "--config", path(&config), "--admin", &admin]),
        1,
        &["ghost: configured, but the repository has no folder of that name"],
    );
}

#[test]
fn help_version_and_completions() {
    check(
        &mut tidegate(&["--help"]),
        0,
        &["serve", "check", "plan", "inspect", "predict", "completions"],
    );
    check(&mut tidegate(&["--version"]), 0, &["commit", "target", "rustc", "engine  tract 0.23"]);
    for shell in ["bash", "zsh", "fish"] {
        check(&mut tidegate(&["completions", shell]), 0, &["inspect"]);
    }
    check(&mut tidegate(&["serve", "--no-such-flag"]), 64, &["--no-such-flag"]);
}
