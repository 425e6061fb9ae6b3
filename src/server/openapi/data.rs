//! The data plane's calls.

use serde_json::{Value, json};

use super::forms;
use super::{Operation, Schemas, document as written};
use crate::error::Code;
use crate::protocol::{v1, v2};
use crate::shared_memory::RegionStatus;
use v2::documents::{
    IndexEntry, ModelConfig, ModelMetadata, ModelReady, ServerMetadata, StatisticsDocument,
};

/// What a prediction may be refused with.
const PREDICTION: &[Code] = &[
    Code::NotFound,
    Code::RateLimited,
    Code::Overloaded,
    Code::DeadlineExceeded,
    Code::Unimplemented,
];

const ARROW: &str = "application/vnd.apache.arrow.stream";

pub(super) fn document() -> Value {
    let mut schemas = Schemas::default();
    let mut operations = metadata(&mut schemas);
    operations.extend(predictions(&mut schemas));
    operations.extend(repository(&mut schemas));
    operations.extend(settings());
    operations.extend(shared_memory(&mut schemas));
    written(
        "Tidegate: data plane",
        "Predictions: the Open Inference Protocol V2 with Triton's extensions, KServe V1, and rows by name.",
        &operations,
        schemas,
    )
}

fn metadata(schemas: &mut Schemas) -> Vec<Operation> {
    let live = json!({ "type": "object", "required": ["live"], "properties": { "live": { "type": "boolean" } } });
    let ready = json!({
        "type": "object", "required": ["ready"],
        "properties": { "ready": { "type": "boolean" }, "error": { "type": "string" } },
    });
    let alive = json!({ "type": "object", "required": ["status"], "properties": { "status": { "type": "string" } } });
    let object = json!({ "type": "object" });
    let list = schemas.of::<v1::ModelList<'static>>();
    vec![
        Operation::get(
            "/v2",
            "v2",
            "The server, and the extensions that work.",
            schemas.of::<ServerMetadata<'static>>(),
        ),
        Operation::get("/v2/health/live", "v2", "Whether the process answers.", live),
        Operation::get("/v2/health/ready", "v2", "Whether all configured models serve.", ready),
        Operation::get("/v2/models", "v2", "The models that serve.", list.clone()),
        Operation::get(
            "/v2/models/stats",
            "v2",
            "Statistics of all versions.",
            schemas.of::<StatisticsDocument<'static>>(),
        ),
        Operation::get(
            "/v2/models/{model}[/versions/{version}]",
            "v2",
            "Inputs, outputs and versions of a model.",
            schemas.of::<ModelMetadata<'static>>(),
        )
        .refuses(&[Code::NotFound]),
        Operation::get(
            "/v2/models/{model}[/versions/{version}]/ready",
            "v2",
            "Whether a model answers.",
            schemas.of::<ModelReady<'static>>(),
        )
        .refuses(&[Code::NotFound]),
        Operation::get(
            "/v2/models/{model}[/versions/{version}]/config",
            "v2",
            "What of Triton's model configuration has a meaning here.",
            schemas.of::<ModelConfig<'static>>(),
        )
        .refuses(&[Code::NotFound]),
        Operation::get(
            "/v2/models/{model}[/versions/{version}]/stats",
            "v2",
            "Statistics of a model.",
            schemas.of::<StatisticsDocument<'static>>(),
        )
        .refuses(&[Code::NotFound]),
        Operation::get("/", "v1", "Whether the process answers.", alive),
        Operation::get("/v1/models", "v1", "The models that serve.", list),
        Operation::get(
            "/v1/models/{model}[/versions/{version}]",
            "v1",
            "Whether a model answers, and its versions.",
            schemas.of::<v1::ModelStatus<'static>>(),
        )
        .refuses(&[Code::NotFound]),
        Operation::get(
            "/v1/models/{model}/labels/{label}",
            "v1",
            "Whether a model answers, and the version of that alias.",
            schemas.of::<v1::ModelStatus<'static>>(),
        )
        .refuses(&[Code::NotFound]),
        Operation::get("/openapi.json", "about", "This document.", object),
    ]
}

fn predictions(schemas: &mut Schemas) -> Vec<Operation> {
    let octets = json!({ "type": "string", "format": "binary" });
    let infer = forms::infer_request(schemas);
    let infer_answer = forms::infer_answer(schemas);
    let rows = forms::rows_request(schemas);
    let rows_answer = forms::rows_answer(schemas);
    let v1_request = forms::v1_request(schemas);
    let v1_answer = forms::v1_answer(schemas);
    let text = json!({ "type": "string" });
    let predict = |path, summary| {
        Operation::post(path, "v1", summary, v1_answer.clone())
            .takes(
                true,
                &[(
                    "application/json",
                    v1_request.clone(),
                    Some(json!({ "instances": [car_loan()] })),
                )],
            )
            .refuses(PREDICTION)
    };
    vec![
        Operation::post("/v2/models/{model}[/versions/{version}]/infer", "v2", "A prediction; behind the JSON may be binary tensors.", infer_answer)
            .takes(true, &[("application/json", infer, Some(infer_example()))])
            .answers("application/octet-stream", octets.clone())
            .refuses(PREDICTION),
        Operation::post("/v2/models/{model}[/versions/{version}]/predict", "rows", "Predictions by name: an object a row, CSV, or an Arrow stream; answered in kind, or as Accept says.", rows_answer)
            .takes(true, &[
                ("application/json", rows, Some(car_loan())),
                ("text/csv", text.clone(), None),
                (ARROW, octets.clone(), None),
            ])
            .answers("text/csv", text)
            .answers(ARROW, octets)
            .refuses(PREDICTION),
        predict("/v1/models/{model}[/versions/{version}]:predict", "Predictions, row by row or column by column."),
        predict("/v1/models/{model}/labels/{label}:predict", "Predictions of the version of that alias."),
        Operation::post("/v2/models/{model}[/versions/{version}]/feedback", "v2", "Labels that come after their predictions.", schemas.of::<v2::FeedbackCounts>())
            .takes(true, &[("application/json", forms::feedback_request(schemas), None)])
            .refuses(&[Code::NotFound, Code::Conflict]),
    ]
}

fn repository(schemas: &mut Schemas) -> Vec<Operation> {
    let entries = json!({ "type": "array", "items": schemas.of::<IndexEntry<'static>>() });
    let index = json!({ "type": "object", "properties": { "ready": { "type": "boolean" } } });
    let request = forms::repository_request(schemas);
    let nothing = json!({ "type": "object" });
    let change = |path, summary| {
        Operation::post(path, "repository", summary, nothing.clone())
            .may_take(request.clone())
            .refuses(&[Code::NotFound, Code::Conflict, Code::Unimplemented])
    };
    vec![
        Operation::post(
            "/v2/repository[/{repository}]/index",
            "repository",
            "All versions and what became of them.",
            entries,
        )
        .may_take(index),
        change(
            "/v2/repository[/{repository}]/models/{model}/load",
            "Loads a model, or loads it anew.",
        ),
        change(
            "/v2/repository[/{repository}]/models/{model}/unload",
            "Takes a model out of service.",
        ),
    ]
}

/// Triton's settings: told, and set by a call to what they are alone.
fn settings() -> impl Iterator<Item = Operation> {
    let calls = [
        ("/v2/logging", "Settings of the log, in Triton's words."),
        ("/v2/trace/setting", "Settings of tracing, in Triton's words."),
        ("/v2/models/{model}/trace/setting", "Settings of tracing of a model."),
    ];
    calls.into_iter().flat_map(|(path, summary)| {
        let object = json!({ "type": "object" });
        let nothing = json!({ "type": "object", "maxProperties": 0 });
        let told = Operation::get(path, "v2", summary, object.clone());
        let set = Operation::post(path, "v2", summary, object).may_take(nothing);
        [told.refuses(&[Code::NotFound]), set.refuses(&[Code::NotFound, Code::Unimplemented])]
    })
}

/// Regions of clients on the same machine.
fn shared_memory(schemas: &mut Schemas) -> [Operation; 3] {
    const REFUSED: &[Code] = &[Code::NotFound, Code::Unimplemented];
    let regions = json!({ "type": "array", "items": schemas.of::<RegionStatus>() });
    let nothing = json!({ "type": "object" });
    let region = forms::region_request(schemas);
    [
        Operation::get(
            "/v2/systemsharedmemory[/region/{region}]/status",
            "v2",
            "The regions of shared memory that are registered.",
            regions,
        )
        .refuses(REFUSED),
        Operation::post(
            "/v2/systemsharedmemory/region/{region}/register",
            "v2",
            "Registers a region: a part of a file in /dev/shm.",
            nothing.clone(),
        )
        .takes(true, &[("application/json", region, None)])
        .refuses(REFUSED)
        .refuses(&[Code::Conflict]),
        Operation::post(
            "/v2/systemsharedmemory[/region/{region}]/unregister",
            "v2",
            "Forgets regions; one that is not there is no error.",
            nothing,
        )
        .refuses(REFUSED),
    ]
}

/// A row of the model that the examples name.
fn car_loan() -> Value {
    json!({
        "car_value": 12638, "debt_to_income_ratio": 0.49, "loan_length": 21, "driver_tenure": 4.2,
        "salary_range": "0 - 20K €", "repaid_loan_on_prev_car": "False", "size_of_downpayment": "10%",
    })
}

/// The same as a request of the protocol.
fn infer_example() -> Value {
    let row = car_loan();
    let members = row.as_object().into_iter().flatten();
    let inputs = members.map(|(name, value)| {
        let datatype = if value.is_string() { "BYTES" } else { "FP32" };
        json!({ "name": name, "datatype": datatype, "shape": [1, 1], "data": [value] })
    });
    json!({ "inputs": inputs.collect::<Vec<_>>() })
}
