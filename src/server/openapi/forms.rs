//! Schemas of what is read and written by hand.

use serde_json::{Value, json};

use super::Schemas;
use crate::tensor::Datatype;

/// What JSON carries of a tensor.
fn data() -> Value {
    json!({
        "type": "array",
        "description": "All elements, in one list or nested as the shape says. NaN and infinities are the strings \"NaN\", \"Infinity\" and \"-Infinity\".",
    })
}

fn datatype() -> Value {
    let names: Vec<&str> = Datatype::ALL.into_iter().map(Datatype::name).collect();
    json!({ "type": "string", "enum": names })
}

fn shape() -> Value {
    json!({ "type": "array", "items": { "type": "integer", "minimum": 0 } })
}

/// What `POST .../infer` takes.
pub(super) fn infer_request(schemas: &mut Schemas) -> Value {
    schemas.written_by_hand(
        "InferRequest",
        json!({
            "type": "object", "required": ["inputs"],
            "properties": {
                "id": { "type": "string" },
                "parameters": { "type": ["object", "null"] },
                "inputs": { "type": "array", "minItems": 1, "items": {
                    "type": "object", "required": ["name", "datatype", "shape"],
                    "properties": {
                        "name": { "type": "string" }, "datatype": datatype(), "shape": shape(),
                        "data": data(), "parameters": { "type": ["object", "null"] },
                    },
                } },
                "outputs": { "type": "array", "items": {
                    "type": "object", "required": ["name"],
                    "properties": { "name": { "type": "string" }, "parameters": { "type": ["object", "null"] } },
                } },
            },
        }),
    )
}

/// What it answers.
pub(super) fn infer_answer(schemas: &mut Schemas) -> Value {
    schemas.written_by_hand(
        "InferAnswer",
        json!({
            "type": "object", "required": ["model_name", "model_version", "outputs"],
            "properties": {
                "id": { "type": "string" },
                "model_name": { "type": "string" }, "model_version": { "type": "string" },
                "outputs": { "type": "array", "items": {
                    "type": "object", "required": ["name", "datatype", "shape"],
                    "properties": {
                        "name": { "type": "string" }, "datatype": datatype(), "shape": shape(),
                        "data": data(), "parameters": { "type": ["object", "null"] },
                    },
                } },
            },
        }),
    )
}

/// What `POST .../predict` takes.
pub(super) fn rows_request(schemas: &mut Schemas) -> Value {
    let row = schemas.written_by_hand(
        "Row",
        json!({
            "type": "object", "minProperties": 1,
            "description": "Values by the names of inputs or features; null is a missing value.",
            "additionalProperties": true,
        }),
    );
    schemas.written_by_hand(
        "RowsRequest",
        json!({ "oneOf": [row, { "type": "array", "items": row, "minItems": 1 }] }),
    )
}

/// What it answers.
pub(super) fn rows_answer(schemas: &mut Schemas) -> Value {
    let scores = json!({ "type": "object", "description": "By the classes' names." });
    let score = json!({ "type": ["number", "string"] });
    let row = json!({
        "prediction": { "description": "The class's name, or the value." },
        "probability": score, "probabilities": scores, "score": score, "scores": scores,
        "outputs": { "type": "object", "description": "All other outputs, by name." },
    });
    let row_schema = schemas.written_by_hand(
        "RowAnswer",
        json!({ "type": "object", "properties": row, "additionalProperties": false }),
    );
    let mut properties = row;
    properties["model_name"] = json!({ "type": "string" });
    properties["model_version"] = json!({ "type": "string" });
    properties["id"] = json!({ "type": "string", "description": "What feedback calls it." });
    properties["predictions"] = json!({ "type": "array", "items": row_schema });
    schemas.written_by_hand(
        "RowsAnswer",
        json!({
            "type": "object", "required": ["model_name", "model_version", "id"],
            "properties": properties, "additionalProperties": false,
            "description": "Of a list, `predictions`; of one row, its members themselves.",
        }),
    )
}

/// What `POST /v1/models/M:predict` takes.
pub(super) fn v1_request(schemas: &mut Schemas) -> Value {
    let signature = json!({ "enum": ["serving_default", "", null] });
    schemas.written_by_hand(
        "V1PredictRequest",
        json!({ "oneOf": [
            {
                "type": "object", "required": ["instances"], "additionalProperties": false,
                "properties": {
                    "signature_name": signature,
                    "instances": { "type": "array", "minItems": 1, "description": "A row an entry." },
                },
            },
            {
                "type": "object", "required": ["inputs"], "additionalProperties": false,
                "properties": {
                    "signature_name": signature,
                    "inputs": { "type": ["array", "object"], "description": "Whole tensors, by name where there are several." },
                },
            },
        ] }),
    )
}

/// What it answers.
pub(super) fn v1_answer(schemas: &mut Schemas) -> Value {
    schemas.written_by_hand(
        "V1PredictAnswer",
        json!({ "oneOf": [
            { "type": "object", "required": ["predictions"], "properties": { "predictions": { "type": "array" } } },
            { "type": "object", "required": ["outputs"], "properties": { "outputs": { "type": ["array", "object"] } } },
        ] }),
    )
}

/// What `POST .../feedback` takes.
pub(super) fn feedback_request(schemas: &mut Schemas) -> Value {
    schemas.written_by_hand(
        "FeedbackRequest",
        json!({
            "type": "object", "required": ["records"], "additionalProperties": false,
            "properties": { "records": { "type": "array", "items": {
                "type": "object", "required": ["id", "label"], "additionalProperties": false,
                "properties": {
                    "id": { "type": "string", "minLength": 1 },
                    "row": { "type": "integer", "minimum": 0, "maximum": u32::MAX },
                    "label": { "type": ["number", "boolean", "string"] },
                },
            } } },
        }),
    )
}

/// What load and unload take.
pub(super) fn repository_request(schemas: &mut Schemas) -> Value {
    schemas.written_by_hand(
        "RepositoryRequest",
        json!({ "type": "object", "properties": { "parameters": { "type": "object" } } }),
    )
}

/// What a command of the monitor takes: who gives it, and members of its own.
pub(super) fn order(schemas: &mut Schemas, name: &str, mut members: Value) -> Value {
    members["who"] = json!({ "type": ["string", "null"], "description": "Whom the log names." });
    let order = json!({ "type": "object", "properties": members, "additionalProperties": false });
    schemas.written_by_hand(name, order)
}

/// What registering a region of shared memory takes.
pub(super) fn region_request(schemas: &mut Schemas) -> Value {
    let bytes = |least: u64| json!({ "type": "integer", "minimum": least, "maximum": u64::MAX });
    schemas.written_by_hand(
        "RegionRequest",
        json!({
            "type": "object", "required": ["key", "byte_size"],
            "properties": {
                "key": {
                    "type": "string", "pattern": "^/?[A-Za-z0-9_-][A-Za-z0-9._-]{0,200}$",
                    "description": "The name of a file in /dev/shm, as shm_open takes it.",
                },
                "offset": bytes(0), "byte_size": bytes(1),
            },
        }),
    )
}
