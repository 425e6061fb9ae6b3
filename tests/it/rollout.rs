//! Candidates get to answer by evidence, or are taken back; and a crash at any moment leaves a state
//! that is taken up again.

use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use prost::Message;
use serde_json::Value;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tract_onnx::pb::ModelProto;

use super::harness::{Load, Server, Setup, eventually, head, read_answer, shipped_file};

const INFER: &str = "/v2/models/car-loan/infer";

/// Gates that need little, of times none: a test's machine is busy with others.
const PLAN: &str = r#"
[store]
path = "state/tidegate.db"
[models.car-loan]
versions = "all"
primary = 1
[models.car-loan.rollout]
requests = 100
time = "0s"
stages = [{ shadow = 1.0 }, { canary = 0.3 }, { full = true }]
gates = { agreement = 0.9, errors = 0.05, p50 = "off", p99 = "off", drift = false }
"#;

fn body() -> String {
    String::from_utf8(shipped_file("car-loan/request.json")).unwrap()
}

/// car-loan 1 as another file, `broken` or as good as it is.
fn derived(is_broken: bool) -> Vec<u8> {
    let model = shipped_file("car-loan/1/model.onnx");
    let mut model = ModelProto::decode(model.as_slice()).unwrap();
    model.doc_string = "a candidate".to_owned();
    let graph = model.graph.as_mut().unwrap();
    if is_broken {
        // Every number that it has learned, turned round.
        for tensor in &mut graph.initializer {
            for value in &mut tensor.float_data {
                *value = -*value;
            }
            if tensor.data_type == tract_onnx::pb::tensor_proto::DataType::Float as i32 {
                for number in tensor.raw_data.chunks_exact_mut(4) {
                    number[3] ^= 0x80;
                }
            }
        }
    }
    model.encode_to_vec()
}

/// car-loan 1, and 2 as said.
fn setup(is_broken: bool) -> Setup {
    Setup::with_models(&["car-loan"])
        .without("car-loan/2/golden.json")
        .without("car-loan/2/baseline.json")
        .file("car-loan/2/model.onnx", &derived(is_broken))
        .file("car-loan/model.toml", b"")
        .config(PLAN)
}

fn ask(server: &Server, verb: &str, body: &str) -> Value {
    let answer = server.admin_post(&format!("/api/v1/rollouts/car-loan/{verb}"), body);
    assert_eq!(answer.status, 200, "{verb}: {}", answer.text());
    answer.json()
}

fn rollout(server: &Server) -> Value {
    server.admin_get("/api/v1/rollouts/car-loan").json()["rollout"].clone()
}

fn primary(server: &Server) -> u64 {
    let status = server.admin_get("/api/v1/status").json();
    let models = status["models"].as_array().unwrap();
    models.iter().find(|model| model["name"] == "car-loan").unwrap()["primary"].as_u64().unwrap()
}

/// What history says, oldest first.
fn history(server: &Server) -> Vec<String> {
    let lines = server.admin_get("/api/v1/history?model=car-loan").json();
    let lines = lines["history"].as_array().unwrap().iter().rev();
    lines.map(|line| line["what"].as_str().unwrap().to_owned()).collect()
}

fn wait_for(server: &Server, state: &str) -> Value {
    eventually(state, || {
        let rollout = rollout(server);
        (rollout["state"] == state).then_some(rollout)
    })
}

#[test]
fn a_good_candidate_is_promoted_by_its_gates_alone_and_stays_so() {
    let mut server = setup(false).start();
    let load = Load::start(server.http, 1, INFER, &body());
    ask(&server, "start", r#"{"reason": "a try"}"#);
    let ended = wait_for(&server, "promoted");
    assert_eq!(primary(&server), 2);
    let report = load.stop();
    report.assert_all_ok();
    assert!(report.versions["1"] > 0 && report.versions["2"] > 0, "{report:?}");
    assert!(ended["reason"].as_str().unwrap().contains("errors: 0 of"), "{ended}");
    let said = history(&server);
    assert_eq!(said, ["started", "stage: canary 30 %", "stage: full", "promoted"], "{said:?}");
    assert_eq!(server.metric("tidegate_promotions_total", &["by=\"gates\""]), 1.0);
    let events = server.admin_get("/api/v1/events").json()["events"].clone();
    let texts: Vec<&str> =
        events.as_array().unwrap().iter().filter_map(|event| event["text"].as_str()).collect();
    assert!(texts.iter().any(|text| text.contains("is promoted")), "{texts:?}");
    // The file still wishes version 1: what was promoted holds until the file changes.
    server.crash_and_restart();
    assert_eq!(primary(&server), 2);
    let plan = server.admin_post("/api/v1/config/plan", "").text();
    assert!(plan.contains("the store holds primary 2, 1 kept warm"), "{plan}");
    assert!(plan.contains("primary 1, as it did then"), "{plan}");
    server.write_config(
        &PLAN.replace("primary = 1", "primary = \"highest\"\naliases = { highest = 1 }"),
    );
    eventually("the file to count again", || (primary(&server) == 1).then_some(()));
    assert_eq!(history(&server).last().unwrap(), "overruled by the file");
}

#[test]
fn a_worse_candidate_is_taken_back_by_itself_with_the_reason() {
    let server = setup(true).start();
    let load = Load::start(server.http, 1, INFER, &body());
    ask(&server, "start", "");
    let ended = wait_for(&server, "rolled_back");
    let report = load.stop();
    report.assert_all_ok();
    // It never answered.
    assert_eq!(report.versions.keys().collect::<Vec<_>>(), ["1"], "{report:?}");
    assert_eq!(primary(&server), 1);
    let reason = ended["reason"].as_str().unwrap();
    assert!(reason.starts_with("shadow 100 %: agreement: "), "{reason}");
    assert!(reason.contains("rows get another class"), "{reason}");
    assert_eq!(history(&server), ["started", "rolled back"]);
    assert_eq!(server.metric("tidegate_rollbacks_total", &["by=\"gates\""]), 1.0);
    let events = server.admin_get("/api/v1/events").json()["events"].clone();
    let events = events.as_array().unwrap().clone();
    let told = events.iter().find(|event| event["detector"] == "rollout").unwrap();
    assert!(told["text"].as_str().unwrap().contains("version 2 is taken back: shadow"), "{told}");
    assert_eq!(told["to"], "drifted");
    server.stop();
}

#[test]
fn promotion_and_rollback_are_one_swap_each() {
    let server = setup(false).start();
    let load = Load::start(server.http, 1, INFER, &body());
    for round in 0..5 {
        let done =
            ask(&server, "promote", r#"{"version": 2, "who": "ada", "reason": "it is Tuesday"}"#);
        assert_eq!((done["primary"].as_u64(), primary(&server)), (Some(2), 2));
        // Some milliseconds; a busy machine may take its time.
        assert!(done["ms"].as_f64().unwrap() < 2_000.0, "{round}: {done}");
        let done = ask(&server, "rollback", "");
        assert_eq!((done["primary"].as_u64(), primary(&server)), (Some(1), 1));
    }
    let answer = server.admin_post("/api/v1/rollouts/car-loan/rollback", "");
    assert_eq!(answer.status, 409);
    assert!(answer.error().contains("there is nothing to go back to"), "{}", answer.error());
    load.stop().assert_all_ok();
    assert_eq!(server.metric("tidegate_promotions_total", &["by=\"hand\""]), 5.0);
    assert_eq!(server.metric("tidegate_rollbacks_total", &["by=\"hand\""]), 5.0);
    let lines = server.admin_get("/api/v1/history?model=car-loan&most=1000").json();
    let lines = lines["history"].as_array().unwrap().clone();
    assert_eq!(lines.len(), 10);
    assert_eq!(lines[1]["who"], "ada");
    assert_eq!(lines[1]["reason"], "it is Tuesday");
    assert!(lines[1]["digest_to"].as_str().unwrap().starts_with("sha256:"));
    ask(&server, "release", "");
    assert_eq!(server.metric("tidegate_model_steered", &[]), 0.0);
    server.stop();
}

/// Sends requests until the connection breaks. Each answer is whole.
fn send_until_it_breaks(address: SocketAddr) {
    let body = body();
    let request = head("POST", INFER, &[], Some(body.len())) + &body;
    let Ok(stream) = TcpStream::connect(address) else { return };
    let mut stream = BufReader::new(stream);
    while stream.get_mut().write_all(request.as_bytes()).is_ok() {
        // A head that is cut off is no answer.
        let mut first = [0];
        if !matches!(stream.get_mut().peek(&mut first), Ok(1)) {
            return;
        }
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| read_answer(&mut stream))) {
            Ok(Some(answer)) => assert_eq!(answer.status, 200),
            Ok(None) | Err(_) => return,
        }
    }
}

#[test]
fn crashes_at_random_moments_leave_a_state_that_is_taken_up_again() {
    let mut server = setup(false).start();
    ask(&server, "start", "");
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..6 {
        let address = server.http;
        let sender = std::thread::spawn(move || send_until_it_breaks(address));
        std::thread::park_timeout(Duration::from_millis(random.u64(0..700)));
        server.crash_and_restart();
        sender.join().unwrap();
        // What serves is what the store says.
        let document = server.admin_get("/api/v1/rollouts/car-loan").json();
        let steering = &document["steered"]["steering"];
        assert_eq!(steering["primary"].as_u64(), Some(primary(&server)), "{document}");
        if document["rollout"]["state"] == "running" {
            let stage = document["rollout"]["stage"].as_u64().unwrap();
            let has = |list: &str| steering[list].as_array().is_some_and(|list| !list.is_empty());
            assert_eq!((has("shadows"), has("canaries")), (stage == 0, stage == 1), "{document}");
        }
    }
    let load = Load::start(server.http, 1, INFER, &body());
    eventually("the promotion", || {
        (history(&server).last().is_some_and(|what| what == "promoted")).then_some(())
    });
    // Where the promotion came before the load, there may have been no time for an answer.
    let load = load.stop();
    assert_eq!(load.broken, 0, "{load:?}");
    assert!(load.statuses.keys().all(|status| *status == 200), "{load:?}");
    assert_eq!(primary(&server), 2);
    assert_eq!(history(&server), ["started", "stage: canary 30 %", "stage: full", "promoted"]);
}

#[test]
fn a_new_version_begins_as_a_shadow_by_itself() {
    let settings = PLAN.replace("primary = 1\n", "").replace("\"all\"", "\"latest\"");
    let settings = settings.replace("time = \"0s\"", "time = \"0s\"\nauto = true");
    let server = Setup::with_models(&["car-loan"])
        .without("car-loan/2/golden.json")
        .without("car-loan/2/baseline.json")
        .without("car-loan/2/model.onnx")
        .file("car-loan/model.toml", b"")
        .config(&settings)
        .start();
    eventually("the model to be held", || {
        (server.metric("tidegate_model_steered", &[]) == 1.0).then_some(())
    });
    server.file("car-loan/3/model.onnx", &derived(true));
    let begun = wait_for(&server, "running");
    assert_eq!(begun["candidate"], 3);
    assert_eq!(primary(&server), 1);
    let load = Load::start(server.http, 1, INFER, &body());
    wait_for(&server, "rolled_back");
    load.stop().assert_all_ok();
    // It is not tried again, a repaired one is.
    std::thread::park_timeout(Duration::from_millis(800));
    assert_eq!(rollout(&server)["state"], "rolled_back");
    server.file("car-loan/4/model.onnx", &derived(false));
    assert_eq!(wait_for(&server, "running")["candidate"], 4);
    // Another file under the same number: it is not what was looked at.
    server.file("car-loan/4/model.onnx", &shipped_file("car-loan/1/model.onnx"));
    // The rollout of what it was ends, and one of what it is begins.
    eventually("the other file to be noticed", || {
        history(&server).ends_with(&["aborted".to_owned(), "started".to_owned()]).then_some(())
    });
    let lines = server.admin_get("/api/v1/history?model=car-loan").text();
    assert!(lines.contains("is another file now"), "{lines}");
    assert_eq!(primary(&server), 1);
}

#[test]
fn a_store_that_is_stuck_holds_up_neither_predictions_nor_a_way_back() {
    let server = setup(false).start();
    ask(&server, "promote", r#"{"version": 2}"#);
    let store = server.models().parent().unwrap().join("state/tidegate.db");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let locked = runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(&store);
        let mut connection = options.connect().await.unwrap();
        sqlx::query("BEGIN EXCLUSIVE").execute(&mut connection).await.unwrap();
        connection
    });
    let load = Load::start(server.http, 1, INFER, &body());
    let done = ask(&server, "rollback", "");
    assert_eq!((done["primary"].as_u64(), primary(&server)), (Some(1), 1));
    assert!(done["ms"].as_f64().unwrap() < 1_500.0, "{done}");
    let answer = server.admin_post("/api/v1/rollouts/car-loan/promote", r#"{"version": 2}"#);
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.error().contains("nothing has changed"), "{}", answer.error());
    assert_eq!(primary(&server), 1);
    load.stop().assert_all_ok();
    // Once it answers, it is told what was done meanwhile.
    runtime.block_on(async { drop(locked.close().await) });
    eventually("the store to be told", || {
        history(&server).iter().any(|what| what == "kept later").then_some(())
    });
    assert_eq!(primary(&server), 1);
    let mut server = server;
    server.crash_and_restart();
    assert_eq!(primary(&server), 1);
}

#[test]
fn a_rollout_obeys_and_says_why_it_does_not() {
    let server = setup(false).start();
    ask(&server, "start", "");
    let refused = |verb: &str, body: &str, status: u16, text: &str| {
        let answer = server.admin_post(&format!("/api/v1/rollouts/car-loan/{verb}"), body);
        assert_eq!(answer.status, status, "{verb}: {}", answer.text());
        assert!(answer.error().contains(text), "{verb}: {}", answer.error());
    };
    refused("start", "", 409, "version 2 is running: promote it, or abort it first");
    refused("resume", "", 409, "is running");
    refused("pause", "{\"version\": 1}", 400, "only start and promote take one");
    refused("pause", "{\"whoever\": 1}", 400, "unknown field `whoever`");
    refused("promote", "{\"version\": 9}", 409, "abort it first");
    ask(&server, "pause", r#"{"reason": "lunch"}"#);
    assert_eq!(rollout(&server)["reason"], "lunch");
    ask(&server, "resume", "");
    ask(&server, "promote", "");
    assert_eq!((primary(&server), rollout(&server)["state"].clone()), (2, "promoted".into()));
    ask(&server, "rollback", "");
    refused("promote", "{\"version\": 9}", 400, "version 9");
    refused("abort", "", 409, "no rollout of car-loan is under way");
    let answer = server.admin_post("/api/v1/rollouts/nothing/start", "");
    assert_eq!(answer.status, 404);
    // A version that vanishes ends it.
    ask(&server, "start", "{\"version\": 2}");
    std::fs::remove_dir_all(server.models().join("car-loan/2")).unwrap();
    let ended = wait_for(&server, "aborted");
    assert!(ended["reason"].as_str().unwrap().contains("does not serve any more"), "{ended}");
    server.stop();
    let without = Setup::with_models(&["car-loan"]).start();
    let answer = without.admin_post("/api/v1/rollouts/car-loan/start", "");
    assert_eq!(answer.status, 503);
    assert!(answer.error().contains("set path under [store]"), "{}", answer.error());
}
