//! The configuration changes whole or not at all, by file, by signal and by request.

use super::harness::{Load, Server, Setup, digit, eventually};

fn digest(server: &Server) -> String {
    let status = server.admin_get("/api/v1/status").json();
    status["configuration"]["digest"].as_str().unwrap().to_owned()
}

fn primary(server: &Server) -> String {
    let answer = server.post("/v2/models/digits/infer", &digit());
    answer.header("tidegate-model-version").to_owned()
}

#[test]
fn a_saved_file_is_applied_under_load() {
    let server = Setup::with_models(&["digits"]).start();
    assert_eq!(primary(&server), "1");
    let before = digest(&server);
    let load = Load::start(server.http, 4, "/v2/models/digits/infer", &digit());
    server.write_config("[models.digits]\nprimary = \"candidate\"");
    eventually("the new primary", || (primary(&server) == "2").then_some(()));
    load.stop().assert_all_ok();
    eventually("the outcome to be shown", || {
        (server.metric("tidegate_config_reloads_total", &["applied"]) == 1.0).then_some(())
    });
    assert_ne!(digest(&server), before);
    let info = format!("digest=\"{}\"", digest(&server));
    assert_eq!(server.metric("tidegate_config_info", &[&info]), 1.0);
    assert_eq!(server.metric("tidegate_config_last_reload_successful", &[]), 1.0);
}

#[test]
fn a_faulty_file_is_refused_with_key_and_line_and_the_running_one_goes_on() {
    let server = Setup::with_models(&["digits"]).start();
    let before = digest(&server);
    for (lines, expected) in [
        (
            "[limits]\nbody = \"64 miles\"",
            "limits.body: invalid value: string \"64 miles\", expected a size",
        ),
        ("[limits]\nbodi = \"64MiB\"", "did you mean `body`?"),
        ("[limits\n", "line "),
        ("[models.digits]\nprimary = \"nobody\"", "there is no alias 'nobody'"),
        (
            "[models.digits]\nversions = [7]",
            "digits version 7: listed, but the repository has no folder of that number",
        ),
        ("[models.ghost]", "ghost: configured, but the repository has no folder of that name"),
        (
            "[models.digits]\ndigests = { 2 = \"sha256:beef\" }",
            "expected \"sha256:\" and 64 hexadecimal digits",
        ),
    ] {
        let refused = server.metric("tidegate_config_reloads_total", &["refused"]);
        server.write_config(&format!("[reload]\nwatch = false\n{lines}"));
        let answer = server.admin_post("/api/v1/config/reload", "");
        assert_eq!(answer.status, 400, "{lines}: {}", answer.text());
        assert!(answer.error().contains(expected), "{lines}: {}", answer.error());
        assert!(server.metric("tidegate_config_reloads_total", &["refused"]) > refused);
        assert_eq!(digest(&server), before);
        assert_eq!(primary(&server), "1");
    }
    let status = server.admin_get("/api/v1/status").json();
    assert_eq!(status["configuration"]["outcome"], "refused");
    assert_eq!(server.metric("tidegate_config_last_reload_successful", &[]), 0.0);
    assert!(!server.log_lines("the configuration is refused; the running one goes on").is_empty());
}

#[test]
fn sighup_reloads_and_what_needs_a_restart_is_reported() {
    let server = Setup::with_models(&["digits"]).config("[reload]\nwatch = false").start();
    server.write_config(
        "[reload]\nwatch = false\n[server]\nhttp = \"127.0.0.1:1\"\nadmin = \"127.0.0.1:0\"\n[limits]\nbody = \"1KiB\"",
    );
    assert_eq!(server.metric("tidegate_config_reloads_total", &[]), 0.0);
    server.signal("HUP");
    eventually("the reload", || {
        (server.metric("tidegate_config_reloads_total", &["applied"]) == 1.0).then_some(())
    });
    let status = server.admin_get("/api/v1/status").json();
    assert_eq!(status["configuration"]["needs_restart"], serde_json::json!(["server.http"]));
    let answer = server.post("/v2/models/digits/infer", &"x".repeat(2000));
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert!(answer.error().contains("limit of 1024"), "{}", answer.error());
}

#[test]
fn the_plan_names_every_change_and_changes_nothing() {
    let server = Setup::with_models(&["digits"]).start();
    let before = digest(&server);
    let text = std::fs::read_to_string(server.config_path()).unwrap();
    let text = format!(
        "{text}\n[limits]\nin_flight = 7\n[models.digits]\nversions = [2]\nprimary = 2\naliases = {{}}"
    );
    let answer = server.admin_post("/api/v1/config/plan", &text);
    let changes = answer.json()["changes"].as_array().unwrap().clone();
    let changes: Vec<&str> = changes.iter().map(|change| change.as_str().unwrap()).collect();
    for expected in [
        "limits.in_flight: 1024 -> 7 (applies at once)",
        "models.digits.primary: not set -> 2 (applies at once)",
        "digits: version 1 is retired",
        "digits: primary 1 -> 2, alias 'candidate' 2 -> none, alias 'stable' 1 -> none",
    ] {
        assert!(changes.contains(&expected), "{expected} is missing in {changes:?}");
    }
    assert_eq!(digest(&server), before);
    assert_eq!(server.versions("digits"), ["1", "2"]);
}

#[test]
fn readiness_is_that_of_the_configured_models() {
    let server =
        Setup::with_models(&["digits"]).config("[models.digits]\n[models.car-loan]").start();
    let answer = server.get("/v2/health/ready");
    assert_eq!(answer.status, 503);
    assert!(answer.error().contains("car-loan: configured, but"), "{}", answer.error());
    assert_eq!(server.get("/v2/health/live").status, 200);
    assert_eq!(server.post("/v2/models/digits/infer", &digit()).status, 200);
    let file = |name: &str| {
        server.file(
            &format!("car-loan/{name}"),
            &super::harness::shipped_file(&format!("car-loan/{name}")),
        )
    };
    file("model.toml");
    file("1/golden.json");
    file("1/model.onnx");
    eventually("readiness", || (server.get("/v2/health/ready").status == 200).then_some(()));
}

/// A log in the configuration's folder once had each of its own lines followed by another.
#[test]
fn other_files_beside_the_configuration_are_not_it() {
    let server = Setup::with_models(&["digits"]).start();
    let beside = server.config_path().with_file_name("server.log");
    for line in 0..5 {
        std::fs::write(&beside, format!("line {line}")).unwrap();
        std::thread::park_timeout(std::time::Duration::from_millis(120));
    }
    // What the file's own change does is seen, so events do come.
    server.write_config("[models.digits]\nprimary = \"candidate\"");
    eventually("the new primary", || (primary(&server) == "2").then_some(()));
    assert_eq!(server.metric("tidegate_config_reloads_total", &["unchanged"]), 0.0);
}
