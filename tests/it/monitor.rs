//! Versions are watched, and whatever happens to the watching, predictions go on.

use serde_json::{Value, json};

use super::harness::{Server, Setup, eventually, shipped_file};

/// Requests of one row each: 200 from before the change of the data, 200 from after it.
fn car_loan_requests() -> Vec<String> {
    let file = String::from_utf8(shipped_file("car-loan/requests.jsonl")).unwrap();
    file.lines().map(str::to_owned).collect()
}

/// A car-loan whose first version has no baseline.
fn unwatched() -> Setup {
    Setup::with_models(&["car-loan"]).without("car-loan/1/baseline.json")
}

fn send(server: &Server, requests: &[String]) {
    for request in requests {
        let answer = server.post("/v2/models/car-loan/infer", request);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

fn verdict(server: &Server, model: &str, version: u64) -> Value {
    let answer = server.admin_get(&format!("/api/v1/drift/{model}/{version}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn wait_for(server: &Server, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
    eventually(what, || Some(verdict(server, "car-loan", 1)).filter(|v| condition(v)))
}

const LEARN: &str = "[models.car-loan]\n[models.car-loan.monitor]\nbaseline = { learn = 10000 }\n\
                     false_alarms = \"1 per 10000000 rows\"\n";

/// Made-up rows, 200 a request, in which car values are `factor` times what they should be.
struct Rows(fastrand::Rng);

impl Rows {
    fn request(&mut self, factor: f32) -> String {
        const N: usize = 200;
        let random = &mut self.0;
        let mut numbers = |name: &str, from: f32, to: f32| {
            let data: Vec<f32> = (0..N).map(|_| from + (to - from) * random.f32()).collect();
            json!({ "name": name, "shape": [N, 1], "datatype": "FP32", "data": data })
        };
        let mut inputs = vec![
            numbers("car_value", 10_000.0 * factor, 60_000.0 * factor),
            numbers("debt_to_income_ratio", 0.2, 0.8),
            numbers("loan_length", 6.0, 22.0),
            numbers("driver_tenure", 0.0, 7.0),
        ];
        for (name, among) in [
            ("salary_range", &["0 - 20K €", "20K - 40K €"][..]),
            ("repaid_loan_on_prev_car", &["False", "True"]),
            ("size_of_downpayment", &["10%", "20%", "40%"]),
        ] {
            let data: Vec<&str> = (0..N).map(|_| among[random.usize(..among.len())]).collect();
            inputs
                .push(json!({ "name": name, "shape": [N, 1], "datatype": "BYTES", "data": data }));
        }
        json!({ "inputs": inputs }).to_string()
    }
}

#[test]
fn a_change_of_the_data_is_found_named_explained_and_can_be_acknowledged() {
    let server = unwatched().config(LEARN).start();
    let mut rows = Rows(fastrand::Rng::with_seed(3));
    let mut requests =
        |n: usize, factor| (0..n).map(|_| rows.request(factor)).collect::<Vec<String>>();
    assert_eq!(verdict(&server, "car-loan", 1)["state"], "learning");
    send(&server, &requests(50, 1.0));
    wait_for(&server, "the baseline", |v| v["state"] != "learning");
    // What was learned can be kept: beside the model it is a baseline like any other.
    let learned = server.admin_get("/api/v1/drift/car-loan/1/baseline").json();
    assert_eq!((&learned["origin"], &learned["rows"]), (&json!("live"), &json!(10_000)));
    send(&server, &requests(10, 1.0));
    let calm = wait_for(&server, "the rows to be counted", |v| v["rows"] == 2_000);
    assert_eq!(calm["state"], "ok", "{calm:#}");
    send(&server, &requests(10, 1.5));
    let drifted = wait_for(&server, "the drift", |v| v["state"] == "drifted" && v["rows"] == 4_000);
    let features = drifted["features"].as_array().unwrap();
    let state = |name: &str| {
        features.iter().find(|feature| feature["name"] == name).unwrap()["state"].clone()
    };
    assert_eq!(state("car_value"), "drifted", "{drifted:#}");
    assert_eq!(state("size_of_downpayment"), "ok", "{drifted:#}");
    let text = drifted["text"].to_string();
    assert!(text.contains("car_value drifted since about"), "{text}");
    let events = server.admin_get("/api/v1/events").json();
    let of_feature = events["events"]
        .as_array()
        .unwrap()
        .iter()
        .find(|event| event["feature"] == "car_value" && event["to"] == "drifted");
    let event = of_feature.unwrap();
    let row = event["rows"].as_u64().unwrap();
    assert!((2_000..2_400).contains(&row), "{event}");
    assert!(!event["request_ids"].as_array().unwrap().is_empty());
    let labels = ["model=\"car-loan\"", "version=\"1\""];
    assert_eq!(server.metric("tidegate_drift_state", &labels), 3.0);
    let path = "/api/v1/drift/car-loan/1/acknowledge";
    let answer = server.admin_post(path, "{}");
    assert_eq!(answer.status, 200, "{}", answer.text());
    wait_for(&server, "the acknowledgement", |v| v["acknowledged"] == true);
    assert!(!server.log_lines("traffic drifted").is_empty());
}

#[test]
fn what_is_offered_is_observed_or_dropped_and_predictions_do_not_notice() {
    let config = format!("[observe]\nqueue = 1\n{LEARN}");
    let server = unwatched().config(&config).start();
    let requests = car_loan_requests();
    send(&server, &requests[..200]);
    let count = |outcome: &str| {
        let label = format!("outcome=\"{outcome}\"");
        server.metric("tidegate_monitor_observations_total", &[&label])
    };
    eventually("all to be counted", || {
        (count("observed") + count("dropped") == 200.0).then_some(())
    });
    assert!(count("dropped") > 0.0);
}

#[test]
fn a_baseline_of_another_model_is_refused_and_the_version_serves() {
    let baseline = json!({
        "schema": 1, "model": "car-loan", "version": 1, "digest": format!("sha256:{:064}", 0),
        "created_at": 0, "origin": "file", "rows": 0, "features": [],
    });
    for (content, expected) in [
        (baseline.to_string(), "the model file is sha256:3368"),
        ("{\"schema\": 1".to_owned(), "baseline.json"),
        (baseline.to_string().replace("\"schema\":1", "\"schema\":99"), "99"),
    ] {
        let server = Setup::with_models(&["car-loan"])
            .file("car-loan/1/baseline.json", content.as_bytes())
            .config("[models.car-loan]")
            .start();
        send(&server, &car_loan_requests()[..1]);
        let status = server.admin_get("/api/v1/status").json();
        let version = &status["models"][0]["versions"][0];
        assert_eq!(version["watched"], false);
        let reason = version["unwatched_because"].as_str().unwrap();
        assert!(reason.contains(expected), "{reason}");
        let feedback = "{\"records\":[{\"id\":\"a\",\"label\":1}]}";
        let answer = server.post("/v2/models/car-loan/feedback", feedback);
        assert_eq!(answer.status, 409);
        assert!(answer.error().contains(expected), "{}", answer.error());
    }
}

#[test]
fn rules_flag_replace_and_refuse_rows_that_are_unlike_the_baseline() {
    let config = "[models.car-loan]\n[models.car-loan.monitor]\nbaseline = { learn = 200 }\n\
        outlier_header = true\n\
        rules = [{ when = \"new_category\", then = \"override\", value = -1 }, \
                 { when = \"low_margin\", then = \"flag\", margin = 0.999 }, \
                 { when = \"out_of_range\", then = \"reject\" }]\n";
    let server = unwatched().config(config).start();
    send(&server, &car_loan_requests()[..200]);
    wait_for(&server, "the baseline", |v| v["state"] != "learning");
    let ask = |change: &dyn Fn(&mut Value)| {
        let mut request: Value = serde_json::from_str(&car_loan_requests()[0]).unwrap();
        change(&mut request);
        server.post("/v2/models/car-loan/infer", &request.to_string())
    };
    let set = |name: &'static str, value: Value| {
        move |request: &mut Value| {
            let inputs = request["inputs"].as_array_mut().unwrap();
            let input = inputs.iter_mut().find(|input| input["name"] == name).unwrap();
            input["data"][0] = value.clone();
        }
    };
    let label = |answer: &Value| {
        let outputs = answer["outputs"].as_array().unwrap();
        outputs.iter().find(|output| output["name"] == "label").unwrap()["data"][0].clone()
    };
    let plain = ask(&|_| {});
    assert!(plain.header("tidegate-outlier-score").parse::<f64>().is_ok());
    assert_ne!(label(&plain.json()), -1);
    let unknown = ask(&set("salary_range", json!("a range that nobody has seen")));
    assert_eq!(unknown.status, 200, "{}", unknown.text());
    assert!(unknown.header("tidegate-flags").contains("new_category=0"));
    assert_eq!(label(&unknown.json()), -1);
    let beyond = ask(&set("car_value", json!(1e9)));
    assert_eq!(beyond.status, 400);
    let expected =
        "row 0: it has a number outside of the baseline's range, which monitor.rules rejects";
    assert!(beyond.error().contains(expected), "{}", beyond.error());
    let held = server.metric(
        "tidegate_monitor_rules_held_total",
        &["model=\"car-loan\"", "slot=\"primary\"", "rule=\"out_of_range\""],
    );
    assert_eq!(held, 1.0);
}

#[test]
fn labels_find_their_predictions() {
    let config = "[models.car-loan]\n[models.car-loan.monitor]\nbaseline = { learn = 200 }\n";
    let server = unwatched().config(config).start();
    let requests = car_loan_requests();
    send(&server, &requests[..200]);
    wait_for(&server, "the baseline", |v| v["state"] != "learning");
    let mut records = Vec::new();
    for (number, request) in requests[..50].iter().enumerate() {
        let mut request: Value = serde_json::from_str(request).unwrap();
        request["id"] = json!(format!("r{number}"));
        let answer = server.post("/v2/models/car-loan/infer", &request.to_string());
        assert_eq!(answer.status, 200);
        records.push(json!({ "id": format!("r{number}"), "label": number % 2 }));
    }
    let send = |records: &[Value]| {
        let body = json!({ "records": records }).to_string();
        let answer = server.post("/v2/models/car-loan/feedback", &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    assert_eq!(send(&records)["joined"], 50);
    assert_eq!(send(&records[..1])["duplicate"], 1);
    let performance = verdict(&server, "car-loan", 1)["performance"].clone();
    let all = performance["realised"].as_array().unwrap();
    let all = all.iter().find(|window| window["window"] == "all").unwrap();
    assert_eq!(all["rows"], 50);
    assert!(all["accuracy"].as_f64().is_some(), "{all}");
    let wrong = server.post("/v2/models/car-loan/feedback", "{\"records\":[{\"id\":\"a\"}]}");
    assert_eq!(wrong.status, 400);
    assert!(wrong.error().contains("record 0: 'label' is missing"), "{}", wrong.error());
}

#[test]
fn a_baseline_that_is_written_while_the_version_serves_is_taken() {
    let server = unwatched().config("[models.car-loan]").start();
    let samples = shipped_file("car-loan/samples.csv");
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("reference.csv");
    std::fs::write(&data, samples).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["baseline", "--model", "car-loan", "--version", "1", "--label", "repaid", "--data"])
        .arg(&data)
        .arg("--config")
        .arg(server.config_path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    eventually("the version to be watched", || {
        let status = server.admin_get("/api/v1/status").json();
        (status["models"][0]["versions"][0]["watched"] == true).then_some(())
    });
    assert_eq!(verdict(&server, "car-loan", 1)["baseline"]["rows"], 400);
    assert_eq!(server.post("/v2/models/car-loan/infer", &car_loan_requests()[0]).status, 200);
}
