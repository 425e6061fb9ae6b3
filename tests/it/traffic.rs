//! Versions share the traffic as they are told to; shadows see it and harm nobody.

use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::net::TcpListener;

use serde_json::{Value, json};
use tidegate::stats::hash::{hash, sampled_below};
use tract_onnx::pb::tensor_proto::DataType;

use super::harness::{Answer, Server, Setup, connect, eventually, head, read_answer, shipped_file};
use super::onnx;

const LOAN: &str = "/v2/models/car-loan/infer";

/// `car-loan` with its two versions, of which 1 is the primary.
fn car_loan(traffic: &str) -> Setup {
    let toml = String::from_utf8(shipped_file("car-loan/model.toml")).unwrap();
    let lines = toml.lines().take_while(|line| !line.starts_with('['));
    let kept = lines.filter(|line| !line.starts_with("versions") && !line.starts_with("primary"));
    let kept: Vec<&str> = kept.collect();
    let settings =
        format!("{}\nversions = [1]\nprimary = 1\n[traffic]\n{traffic}", kept.join("\n"));
    Setup::with_models(&["car-loan"]).file("car-loan/model.toml", settings.as_bytes())
}

fn request() -> Value {
    serde_json::from_slice(&shipped_file("car-loan/request.json")).unwrap()
}

/// Sends requests on one connection; `with` gives each its headers and body.
fn send(
    server: &Server,
    path: &str,
    n: usize,
    with: impl Fn(usize) -> (Vec<(&'static str, String)>, String),
) -> Vec<Answer> {
    let mut stream = BufReader::new(connect(server.http));
    let answers = (0..n).map(|index| {
        let (headers, body) = with(index);
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let request = head("POST", path, &headers, Some(body.len())) + &body;
        stream.get_mut().write_all(request.as_bytes()).unwrap();
        read_answer(&mut stream).unwrap()
    });
    answers.collect()
}

/// Requests with these ids in their heads; the versions that answered.
fn by_id(server: &Server, n: usize) -> Vec<String> {
    let body = request().to_string();
    let with = |index: usize| (vec![("x-request-id", format!("id-{index}"))], body.clone());
    versions(&send(server, LOAN, n, with))
}

fn versions(answers: &[Answer]) -> Vec<String> {
    let version = |answer: &Answer| {
        assert_eq!(answer.status, 200, "{}", answer.text());
        let version = answer.header("tidegate-model-version").to_owned();
        assert_eq!(answer.json()["model_version"], version);
        version
    };
    answers.iter().map(version).collect()
}

fn share(versions: &[String], of: &str) -> f64 {
    versions.iter().filter(|version| *version == of).count() as f64 / versions.len() as f64
}

/// The comparison of a model's only pair, once so many requests are in it.
fn compared(server: &Server, model: &str, requests: u64) -> Value {
    eventually("the copies to be compared", || {
        let document = server.admin_get(&format!("/api/v1/compare/{model}")).json();
        let report = document["comparisons"].get(0)?.clone();
        (report["counts"]["requests"].as_u64()? >= requests).then_some(report)
    })
}

#[test]
fn a_canary_answers_its_share_and_always_the_same_requests() {
    let server = car_loan("canaries = { 2 = 0.2 }").start();
    let first = by_id(&server, 1000);
    assert!((share(&first, "2") - 0.2).abs() < 0.06, "{}", share(&first, "2"));
    assert_eq!(by_id(&server, 1000), first);
    let metric = |slot: &str| {
        let slot = format!("slot=\"{slot}\"");
        server.metric("tidegate_predictions_total", &["model=\"car-loan\"", &slot, "code=\"ok\""])
    };
    let canary = first.iter().filter(|version| *version == "2").count() as f64;
    assert_eq!((metric("canary"), metric("primary")), (2.0 * canary, 2000.0 - 2.0 * canary));
    // A version that is named in the path answers, whatever the shares.
    for version in ["1", "2"] {
        let path = format!("/v2/models/car-loan/versions/{version}/infer");
        let body = request().to_string();
        let pinned = send(&server, &path, 20, |_| (vec![], body.clone()));
        assert_eq!(share(&versions(&pinned), version), 1.0);
    }
    let share_of = |version: &str, slot: &str| {
        let labels = [format!("version=\"{version}\""), format!("slot=\"{slot}\"")];
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        server.metric("tidegate_traffic_share", &labels)
    };
    assert!((share_of("1", "primary") - 0.8).abs() < 1e-9);
    assert!((share_of("2", "canary") - 0.2).abs() < 1e-9);
    server.stop();
}

#[test]
fn a_new_share_moves_only_the_requests_that_it_must() {
    let config = |share: &str| {
        format!("[models.car-loan.traffic]\ncanaries = {{ 2 = {share} }}\n[reload]\nwatch = false")
    };
    let server = car_loan("").config(&config("0.1")).start();
    let before = by_id(&server, 800);
    server.write_config(&config("0.4"));
    let plan = server.admin_post("/api/v1/config/plan", "").json();
    assert!(plan["changes"].to_string().contains("canary 2: 10 % -> 40 %"), "{plan}");
    assert_eq!(server.admin_post("/api/v1/config/reload", "").status, 200);
    let after = by_id(&server, 800);
    let moved: Vec<_> = before.iter().zip(&after).filter(|(old, new)| old != new).collect();
    assert!(moved.iter().all(|(old, new)| (old.as_str(), new.as_str()) == ("1", "2")));
    let share = moved.len() as f64 / 800.0;
    assert!((share - 0.3).abs() < 0.08, "{share}");
    server.stop();
}

#[test]
fn users_and_values_stick_to_a_version() {
    let server = car_loan("canaries = { 2 = 0.5 }\nsticky = { header = \"x-user\" }").start();
    let body = request().to_string();
    let with = |index: usize| (vec![("x-user", format!("user-{}", index % 20))], body.clone());
    let answers = versions(&send(&server, LOAN, 400, with));
    let mut of_user: BTreeMap<usize, String> = BTreeMap::new();
    for (index, version) in answers.iter().enumerate() {
        assert_eq!(of_user.entry(index % 20).or_insert_with(|| version.clone()), version);
    }
    let n_canary = of_user.values().filter(|version| *version == "2").count();
    assert!((3..=17).contains(&n_canary), "{n_canary}");
    server.stop();
    let identity = onnx::identity(DataType::Int64, &["N"]);
    let settings = b"versions = [1]\n[traffic]\ncanaries = { 2 = 0.5 }\nsticky = { input = \"x\" }";
    let server = Setup::with_models(&[])
        .file("m/1/model.onnx", &identity)
        .file("m/2/model.onnx", &identity)
        .file("m/model.toml", settings)
        .start();
    let with = |index: usize| {
        let x = json!({ "name": "x", "datatype": "INT64", "shape": [1], "data": [index % 20] });
        (vec![], json!({ "inputs": [x] }).to_string())
    };
    let answers = versions(&send(&server, "/v2/models/m/infer", 200, with));
    assert!((0..180).all(|index| answers[index] == answers[index + 20]));
    assert!((0.1..0.9).contains(&share(&answers, "2")));
    server.stop();
}

#[test]
fn a_candidate_that_takes_other_requests_gets_none_and_says_why() {
    let settings =
        b"versions = [1]\n[traffic]\ncanaries = { 2 = 0.5 }\nshadows = { 3 = 1.0, 9 = 1.0 }";
    let server = Setup::with_models(&[])
        .file("m/1/model.onnx", &onnx::identity(DataType::Float, &["N", "4"]))
        .file("m/2/model.onnx", &onnx::identity(DataType::Float, &["N", "5"]))
        .file("m/3/model.onnx", &onnx::identity(DataType::Int64, &["N", "4"]))
        .file("m/model.toml", settings)
        .start();
    let index = server.index("m");
    let reason = |version: &str| {
        let (_, _, reason) = index.iter().find(|(number, ..)| number == version).unwrap();
        reason.clone()
    };
    assert_eq!(reason("1"), "");
    assert!(
        reason("2").contains("named as a canary of version 1, but its inputs are x FP32 [-1,5]")
    );
    assert!(reason("3").contains("named as a shadow of version 1, but its inputs are x INT64"));
    assert!(reason("9").contains("the repository has no folder of that number"));
    let x = json!({ "name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4] });
    let body = json!({ "inputs": [x] }).to_string();
    let answers = send(&server, "/v2/models/m/infer", 50, |_| (vec![], body.clone()));
    assert_eq!(share(&versions(&answers), "1"), 1.0);
    server.stop();
}

#[test]
fn shadows_are_compared_with_the_primary_and_answer_nobody() {
    let server = car_loan("shadows = { 2 = 1.0 }").start();
    assert_eq!(share(&by_id(&server, 300), "1"), 1.0);
    let report = compared(&server, "car-loan", 300);
    let counts = &report["counts"];
    assert_eq!((report["primary"].as_u64(), report["candidate"].as_str()), (Some(1), Some("2")));
    assert_eq!(counts["compared"], 300, "{report}");
    assert_eq!((&counts["candidate_errors"], &report["dropped"]), (&json!(0), &json!(0)));
    assert!(report["latency"]["mean_ratio"].as_f64().unwrap() > 0.0, "{report}");
    // One in four is run by both; of many that came while the machine was busy, one in sixteen.
    let timed = counts["timed"].as_u64().unwrap();
    assert!((5..=120).contains(&timed), "{report}");
    assert!(report["outputs"].as_array().is_some_and(|outputs| !outputs.is_empty()));
    // What the shadow says of a request is what it says to whoever asks it.
    let body = request().to_string();
    let pinned = server.post("/v2/models/car-loan/versions/2/infer", &body).json();
    let primary = server.post("/v2/models/car-loan/versions/1/infer", &body).json();
    let differs = pinned["outputs"] != primary["outputs"];
    let worst = report["worst"].as_array().unwrap();
    assert!(worst.is_empty() || differs, "{report}");
    let slot = ["slot=\"shadow\"", "protocol=\"copy\"", "code=\"ok\""];
    assert_eq!(server.metric("tidegate_predictions_total", &slot), 300.0);
    let outcome = ["outcome=\"compared\""];
    assert_eq!(server.metric("tidegate_shadow_copies_total", &outcome), 300.0);
    assert_eq!(server.metric("tidegate_comparison_requests_total", &["candidate=\"2\""]), 300.0);
    let overview = server.admin_get("/api/v1/compare").json();
    assert_eq!(overview["comparisons"][0]["counts"]["requests"], 300);
    assert_eq!(server.admin_get("/api/v1/compare/none").status, 404);
    assert_eq!(server.admin_get("/api/v1/compare/car-loan?by=1").status, 400);
    server.stop();
}

#[test]
fn a_share_of_the_requests_is_copied_always_the_same_ones() {
    let server = car_loan("shadows = { 2 = 0.25 }").start();
    by_id(&server, 400);
    let copied = || server.metric("tidegate_shadow_copies_total", &["outcome=\"compared\""]);
    // By the hash of the ids, as for every sample: which ones is known beforehand.
    let below = sampled_below(0.25).unwrap();
    let is_taken = |id: &usize| hash(format!("id-{id}").as_bytes()) < below;
    let first = (0..400).filter(is_taken).count() as f64;
    eventually("the copies to be compared", || (copied() == first).then_some(()));
    assert!((60.0..=140.0).contains(&first), "{first}");
    by_id(&server, 400);
    eventually("the same copies again", || (copied() == 2.0 * first).then_some(()));
    server.stop();
}

/// A model of `N` whole numbers whose version 2 fails on the number 7.
fn fails_on_seven(traffic: &str) -> Setup {
    let settings = format!("versions = [1]\n[traffic]\nshadows = {{ 2 = 1.0 }}\n{traffic}");
    Setup::with_models(&[])
        .file("m/1/model.onnx", &onnx::identity(DataType::Int32, &["N"]))
        .file("m/2/model.onnx", &onnx::divides_by(7, DataType::Int32, &["N"]))
        .file("m/model.toml", settings.as_bytes())
}

fn whole_number(number: i64) -> String {
    let x = json!({ "name": "x", "datatype": "INT32", "shape": [1], "data": [number] });
    json!({ "inputs": [x] }).to_string()
}

#[test]
fn a_shadow_that_fails_on_every_request_fails_none() {
    let server = fails_on_seven("").start();
    let path = "/v2/models/m/infer";
    let answers = send(&server, path, 100, |_| (vec![], whole_number(7)));
    assert_eq!(share(&versions(&answers), "1"), 1.0);
    let report = compared(&server, "m", 100);
    assert_eq!(report["counts"]["candidate_errors"], 100, "{report}");
    assert!(report["last_error"].is_string(), "{report}");
    let outcome = ["outcome=\"failed\""];
    assert_eq!(server.metric("tidegate_shadow_copies_total", &outcome), 100.0);
    server.stop();
}

/// `m` with a light version 1 and a version 2 that takes a hundred times as long.
fn slow_shadow(shadowing: &str) -> Server {
    let settings = b"versions = [1]\n[traffic]\nshadows = { 2 = 1.0 }";
    Setup::with_models(&[])
        .file("m/1/model.onnx", &onnx::heavy(256, 1))
        .file("m/2/model.onnx", &onnx::heavy(256, 100))
        .file("m/model.toml", settings)
        .config(&format!("[shadowing]\n{shadowing}"))
        .start()
}

fn rows(n: usize) -> String {
    let data: Vec<usize> = (0..n * 256).map(|index| index % 11).collect();
    let x = json!({ "name": "x", "datatype": "FP32", "shape": [n, 256], "data": data });
    json!({ "inputs": [x] }).to_string()
}

#[test]
fn a_shadow_that_hangs_is_given_up_and_holds_up_nobody() {
    let server = slow_shadow("timeout = \"50ms\"\nqueue = 2");
    let body = rows(300);
    let path = "/v2/models/m/infer";
    let answers = send(&server, path, 60, |_| (vec![], body.clone()));
    assert_eq!(share(&versions(&answers), "1"), 1.0);
    let outcome = |outcome: &str| {
        let outcome = format!("outcome=\"{outcome}\"");
        server.metric("tidegate_shadow_copies_total", &[&outcome])
    };
    eventually("the shadow to be given up", || (outcome("timed_out") >= 1.0).then_some(()));
    // While it has the shadow's one place others wait, or are dropped: each comes to one end.
    eventually("each copy to come to its end", || {
        let known = outcome("timed_out") + outcome("dropped") + outcome("compared");
        (known == 60.0).then_some(())
    });
    assert!(outcome("dropped") >= 1.0);
    let report = compared(&server, "m", 1);
    assert!(report["dropped"].as_f64().unwrap() >= 1.0, "{report}");
    assert!(report["counts"]["timed_out"].as_u64().unwrap() >= 1, "{report}");
    assert!(report["last_error"].as_str().unwrap().contains("no answer in time"), "{report}");
}

#[test]
fn copies_beyond_the_queue_are_dropped_and_counted() {
    let server = slow_shadow("timeout = \"60s\"\nqueue = 4");
    let body = rows(20);
    let answers = send(&server, "/v2/models/m/infer", 200, |_| (vec![], body.clone()));
    assert_eq!(share(&versions(&answers), "1"), 1.0);
    let count = |outcome: &str| {
        let outcome = format!("outcome=\"{outcome}\"");
        server.metric("tidegate_shadow_copies_total", &[&outcome])
    };
    eventually("every copy to be compared or dropped", || {
        (count("compared") + count("dropped") == 200.0).then_some(())
    });
    assert!(count("dropped") > 100.0 && count("compared") >= 1.0);
    assert!(server.metric("tidegate_shadow_copies_waiting", &[]) <= 4.0);
    server.stop();
}

#[test]
fn another_server_shadows_and_may_be_away() {
    let other = Setup::with_models(&["car-loan"]).start();
    let remote = |address: &str, more: &str| {
        format!("remote_shadows = [{{ url = \"http://{address}\", timeout = \"2s\"{more} }}]")
    };
    for format in ["binary", "json"] {
        let more = format!(", version = \"1\", format = \"{format}\"");
        let server = car_loan(&remote(&other.http.to_string(), &more)).start();
        assert_eq!(share(&by_id(&server, 40), "1"), 1.0);
        let report = compared(&server, "car-loan", 40);
        // The same version there: the same answers.
        assert_eq!(report["counts"]["compared"], 40, "{report}");
        assert_eq!(report["agreement"], 1.0, "{report}");
        assert_eq!(report["beyond"], 0.0, "{report}");
        assert!(report["candidate"].as_str().unwrap().ends_with("/v2/models/car-loan/versions/1"));
        server.stop();
    }
    other.stop();
    // A port that nobody listens on.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = car_loan(&remote(&free.to_string(), "")).start();
    assert_eq!(share(&by_id(&server, 40), "1"), 1.0);
    let report = compared(&server, "car-loan", 40);
    assert_eq!(report["counts"]["candidate_errors"], 40, "{report}");
    server.stop();
    // One that takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let remote = format!("remote_shadows = [{{ url = \"http://{address}\", timeout = \"50ms\" }}]");
    let server = car_loan(&remote).start();
    assert_eq!(share(&by_id(&server, 20), "1"), 1.0);
    let report = compared(&server, "car-loan", 20);
    assert_eq!(report["counts"]["timed_out"], 20, "{report}");
    server.stop();
}

#[test]
fn labels_reach_the_candidates_as_well() {
    let server = car_loan("shadows = { 2 = 1.0 }").start();
    by_id(&server, 30);
    compared(&server, "car-loan", 30);
    let of_both = |figure: fn(&Value) -> u64| {
        let verdicts = server.admin_get("/api/v1/drift/car-loan").json();
        let all = verdicts["verdicts"].as_array().cloned().unwrap_or_default();
        all.iter().map(figure).collect::<Vec<u64>>()
    };
    eventually("both recorders to have seen the requests", || {
        let rows = of_both(|verdict| verdict["rows"].as_u64().unwrap_or(0));
        (rows.len() == 2 && rows.iter().all(|rows| *rows >= 30)).then_some(())
    });
    let record = |index: usize| json!({ "id": format!("id-{index}"), "row": 0, "label": 1 });
    let records: Vec<Value> = (0..30).map(record).collect();
    let body = json!({ "records": records }).to_string();
    // The first labels only open the table for those that follow.
    eventually("labels to be joined on both sides", || {
        assert_eq!(server.post("/v2/models/car-loan/feedback", &body).status, 200);
        by_id(&server, 30);
        let joined =
            of_both(|verdict| verdict["performance"]["labels"]["joined"].as_u64().unwrap_or(0));
        (joined.len() == 2 && joined.iter().all(|joined| *joined > 0)).then_some(())
    });
    server.stop();
}

#[test]
fn a_wrong_share_is_a_problem_with_its_line() {
    for (traffic, expected) in [
        ("canaries = { 2 = 1.5 }", "expected a share from 0 to 1, such as 0.05, got 1.5"),
        ("canaries = { 2 = 0.6, 3 = 0.6 }", "the shares of all canaries must be at most 1"),
        ("shadows = { 0 = 1.0 }", "version numbers begin with 1"),
        ("sticky = { cookie = \"a\" }", "unknown variant `cookie`"),
        ("remote_shadows = [{ url = \"ftp://x\" }]", "expected a URL without a user"),
        ("comparison = { latency_ratio = -1.0 }", "expected a number above 0, got -1"),
    ] {
        let setup = Setup::with_models(&["car-loan"])
            .config(&format!("[models.car-loan.traffic]\n{traffic}"));
        let config = setup.write_config();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["check", "--config"])
            .arg(&config)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success());
        assert!(text.contains(expected), "{expected} is missing in {text}");
    }
}
