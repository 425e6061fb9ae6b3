//! Versions come, go and change while requests are answered: none fails because of it.

use tract_onnx::pb::tensor_proto::DataType;

use super::harness::{Load, Setup, digit, eventually, shipped_file};
use super::onnx;

const INFER: &str = "/v2/models/digits/infer";

#[test]
fn versions_swap_under_load_without_a_failed_request() {
    let server = Setup::with_models(&["digits"]).start();
    let load = Load::start(server.http, 8, INFER, &digit());
    for round in 0..30 {
        let version = round % 2 + 1;
        server.file("digits/model.toml", format!("versions = [{version}]").as_bytes());
        let answer = server.post("/v2/repository/models/digits/load", "{}");
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(server.versions("digits"), [version.to_string()]);
    }
    let report = load.stop();
    report.assert_all_ok();
    let mut versions: Vec<_> = report.versions.keys().cloned().collect();
    versions.sort();
    assert_eq!(versions, ["1", "2"], "{report:?}");
    eventually("retired versions to be dropped", || {
        (server.metric("tidegate_versions_retiring", &[]) == 0.0).then_some(())
    });
    server.stop();
}

#[test]
fn a_new_version_in_the_folder_goes_live_by_itself() {
    let server = Setup::with_models(&["digits"]).file("digits/model.toml", b"").start();
    assert_eq!(server.versions("digits"), ["2"]);
    let load = Load::start(server.http, 4, INFER, &digit());
    server.file("digits/3/model.onnx", &shipped_file("digits/1/model.onnx"));
    eventually("version 3", || (server.versions("digits") == ["3"]).then_some(()));
    let report = load.stop();
    report.assert_all_ok();
    assert!(report.versions.keys().all(|version| version == "2" || version == "3"), "{report:?}");
}

#[test]
fn a_version_that_does_not_load_leaves_what_serves_and_says_why() {
    let server = Setup::with_models(&["digits"]).file("digits/model.toml", b"").start();
    let load = Load::start(server.http, 4, INFER, &digit());
    let mut truncated = shipped_file("digits/1/model.onnx");
    truncated.truncate(truncated.len() / 2);
    server.file("digits/3/model.onnx", &truncated);
    let reason = eventually("version 3 to be refused", || {
        let entry = server.index("digits").into_iter().find(|(version, ..)| version == "3")?;
        (entry.1 == "UNAVAILABLE").then_some(entry.2)
    });
    assert!(reason.starts_with("not an ONNX model"), "{reason}");
    let answer = server.post("/v2/repository/models/digits/load", "{}");
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("version 3: not an ONNX model"), "{}", answer.error());
    assert!(server.metric("tidegate_model_loads_total", &["outcome=\"failed\""]) >= 1.0);
    assert!(!server.log_lines("version does not load").is_empty());
    assert_eq!(server.versions("digits"), ["2"]);
    // Whole, it is taken.
    server.file("digits/3/model.onnx", &shipped_file("digits/1/model.onnx"));
    eventually("version 3", || (server.versions("digits") == ["3"]).then_some(()));
    load.stop().assert_all_ok();
}

#[test]
fn half_written_versions_are_not_looked_at() {
    let server = Setup::with_models(&["digits"]).file("digits/model.toml", b"").start();
    server.file("digits/3/model.onnx.part", &shipped_file("digits/1/model.onnx"));
    server.file("digits/.4/model.onnx", &shipped_file("digits/1/model.onnx"));
    server.file("digits/5.tmp/model.onnx", &shipped_file("digits/1/model.onnx"));
    let missing = eventually("version 3 to be seen", || {
        server.index("digits").into_iter().find(|(version, ..)| version == "3")
    });
    assert!(missing.2.starts_with("model.onnx is missing"), "{missing:?}");
    assert_eq!(server.versions("digits"), ["2"]);
    assert_eq!(server.index("digits").len(), 3);
}

#[test]
fn a_growing_file_is_loaded_when_it_is_left_alone() {
    let repository = "[repository]\npath = \"models\"\nsettle = \"1500ms\"\npoll = \"50ms\"";
    let server =
        Setup::with_models(&["digits"]).file("digits/model.toml", b"").config(repository).start();
    let whole = shipped_file("digits/1/model.onnx");
    let mut written = 0;
    let mut seen_loading = false;
    // It grows by a piece whenever it has been seen as growing, and is whole at last.
    while written < whole.len() {
        written = (written + whole.len() / 4 + 1).min(whole.len());
        std::fs::create_dir_all(server.models().join("digits/3")).unwrap();
        std::fs::write(server.models().join("digits/3/model.onnx"), &whole[..written]).unwrap();
        let state = eventually("version 3 to be seen", || {
            server.index("digits").into_iter().find(|(version, ..)| version == "3")
        });
        assert_ne!(state.1, "UNAVAILABLE", "{state:?}");
        seen_loading |= state.1 == "LOADING";
    }
    assert!(seen_loading);
    eventually("version 3", || (server.versions("digits") == ["3"]).then_some(()));
    assert_eq!(server.metric("tidegate_model_loads_total", &["outcome=\"failed\""]), 0.0);
}

#[test]
fn replaced_files_of_a_version_replace_it() {
    let server = Setup::with_models(&["digits"]).start();
    let digest = |server: &super::harness::Server| {
        server.post(INFER, &digit()).header("tidegate-model-digest").to_owned()
    };
    let before = digest(&server);
    let load = Load::start(server.http, 4, INFER, &digit());
    std::fs::remove_file(server.models().join("digits/1/golden.json")).unwrap();
    server.file("digits/1/model.onnx", &shipped_file("digits/2/model.onnx"));
    let after = eventually("the other digest", || Some(digest(&server)).filter(|d| *d != before));
    assert!(before.starts_with("sha256:") && after.starts_with("sha256:"));
    load.stop().assert_all_ok();
}

#[test]
fn golden_requests_keep_a_wrong_version_from_going_live() {
    let server = Setup::with_models(&["digits"]).file("digits/model.toml", b"").start();
    server.file("digits/3/golden.json", &shipped_file("digits/2/golden.json"));
    server.file("digits/3/model.onnx", &shipped_file("digits/1/model.onnx"));
    let reason = eventually("version 3 to be refused", || {
        let entry = server.index("digits").into_iter().find(|(version, ..)| version == "3")?;
        (entry.1 == "UNAVAILABLE" && entry.2.contains("golden")).then_some(entry.2)
    });
    assert!(
        reason.starts_with("golden.json: case 0 'one image': output 'probabilities': element "),
        "{reason}"
    );
    assert_eq!(server.versions("digits"), ["2"]);
}

#[test]
fn an_alias_moves_at_once_and_only_to_what_serves() {
    let server = Setup::with_models(&["digits"]).start();
    let stable = "/v2/models/digits/versions/stable/infer";
    let served = |server: &super::harness::Server| {
        server.post(stable, &digit()).header("tidegate-model-version").to_owned()
    };
    assert_eq!(served(&server), "1");
    let load = Load::start(server.http, 4, stable, &digit());
    let toml = |alias: u32| {
        format!("versions = \"all\"\nprimary = \"stable\"\naliases = {{ stable = {alias} }}")
    };
    server.file("digits/model.toml", toml(2).as_bytes());
    eventually("the alias to move", || (served(&server) == "2").then_some(()));
    server.file("digits/model.toml", toml(9).as_bytes());
    let answer = server.post("/v2/repository/models/digits/load", "{}");
    assert_eq!(answer.status, 400);
    assert!(
        answer.error().contains("alias 'stable': version 9 does not serve; it stays at version 2"),
        "{}",
        answer.error()
    );
    assert_eq!(served(&server), "2");
    load.stop().assert_all_ok();
}

#[test]
fn settings_that_leave_no_version_to_answer_leave_what_serves() {
    let server = Setup::with_models(&["digits"]).start();
    let load = Load::start(server.http, 4, INFER, &digit());
    for (settings, problem) in [
        (
            "versions = [2]\nprimary = \"stable\"\naliases = { stable = 1 }",
            "primary 'stable' does not serve",
        ),
        ("versions = [7]", "version 7: listed, but the repository has no folder of that number"),
        ("verions = [1]", "did you mean `versions`?"),
    ] {
        server.file("digits/model.toml", settings.as_bytes());
        let answer = server.post("/v2/repository/models/digits/load", "{}");
        assert_eq!(answer.status, 400, "{settings}");
        assert!(answer.error().contains(problem), "{settings}: {}", answer.error());
        assert_eq!(server.versions("digits"), ["1", "2"], "{settings}");
    }
    load.stop().assert_all_ok();
    std::fs::remove_dir_all(server.models().join("digits")).unwrap();
    eventually("the model to be gone with its folder", || {
        (server.get("/v2/models/digits").status == 404).then_some(())
    });
}

#[test]
fn pinned_digests_and_declared_signatures_are_held() {
    let digest = "0".repeat(64);
    let pinned = format!("digests = {{ 2 = \"sha256:{digest}\" }}");
    let server =
        Setup::with_models(&["digits"]).file("digits/model.toml", pinned.as_bytes()).start();
    let entry = |number: &str| {
        server.index("digits").into_iter().find(|(version, ..)| version == number).unwrap()
    };
    assert!(entry("2").2.contains("but sha256:000"), "{:?}", entry("2"));
    assert_eq!(server.versions("digits"), ["1"]);
    let declared = "[signature]\ninputs = [{ name = \"image\", datatype = \"FP32\", shape = [-1, 9, 9] }]\noutputs = []";
    server.file("digits/model.toml", declared.as_bytes());
    let reason = eventually("the signature to be refused", || {
        Some(entry("2").2).filter(|reason| reason.contains("declared inputs"))
    });
    assert_eq!(
        reason,
        "the declared inputs are image FP32 [-1,9,9], the model's are image FP32 [-1,8,8]"
    );
}

#[test]
fn unload_lets_accepted_requests_finish_and_load_brings_the_model_back() {
    let heavy = onnx::heavy(256, 40);
    let server = Setup::with_models(&[]).file("heavy/1/model.onnx", &heavy).start();
    let body = format!(
        "{{\"inputs\":[{{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[2000,256],\"data\":[{}1]}}]}}",
        "1,".repeat(2000 * 256 - 1)
    );
    let (http, sent) = (server.http, body.clone());
    let slow = std::thread::spawn(move || {
        let head = super::harness::head("POST", "/v2/models/heavy/infer", &[], Some(sent.len()));
        super::harness::exchange(http, &head, sent.as_bytes())
    });
    eventually("the request to be run", || {
        (server.metric("tidegate_compute_threads_busy", &[]) > 0.0).then_some(())
    });
    assert_eq!(server.post("/v2/repository/models/heavy/unload", "{}").status, 200);
    let answer = server.post("/v2/models/heavy/infer", &body);
    assert_eq!(answer.status, 503);
    assert!(answer.error().contains("unloaded by request"), "{}", answer.error());
    assert_eq!(slow.join().unwrap().status, 200);
    assert_eq!(server.post("/v2/repository/models/heavy/load", "{}").status, 200);
    assert_eq!(server.versions("heavy"), ["1"]);
    assert_eq!(server.post("/v2/repository/models/nobody/load", "{}").status, 404);
}

#[test]
fn a_faulty_model_takes_no_other_out_of_service() {
    let unknown = onnx::unary("NoSuchOperator", DataType::Float, &["N", "4"]);
    let server = Setup::with_models(&["digits"]).file("faulty/1/model.onnx", &unknown).start();
    assert_eq!(server.get("/v2/health/ready").status, 200);
    assert_eq!(server.post(INFER, &digit()).status, 200);
    let answer = server.post("/v2/models/faulty/infer", "{}");
    assert_eq!(answer.status, 503);
    assert!(
        answer.error().contains("ai.onnx.NoSuchOperator (opset 17, node 'NoSuchOperator_y')"),
        "{}",
        answer.error()
    );
}
