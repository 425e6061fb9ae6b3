//! What there is over HTTP, as OpenAPI 3.1: `GET /openapi.json` on each listener describes that
//! listener's calls.
//!
//! Answers that are documents are described by their types. What codecs read and write by hand (the
//! protocols' requests and answers) is described in [`forms`]. Statuses come from the codes that a
//! call is refused with, through the one place that knows statuses.

mod admin;
mod data;
mod forms;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::reply::{JSON, Reply, status};
use crate::error::Code;

/// The data plane's description.
pub(super) fn data() -> Reply {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| written(&data::document()));
    Reply::ok(JSON, DOCUMENT.clone())
}

/// The admin plane's description.
pub(super) fn admin() -> Reply {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| written(&admin::document()));
    Reply::ok(JSON, DOCUMENT.clone())
}

fn written(document: &Value) -> Bytes {
    document.to_string().into()
}

/// What every call may be refused with.
const ALWAYS: &[Code] = &[Code::Internal, Code::Unavailable];

/// What a call with a body may be refused with.
const BODY: &[Code] =
    &[Code::InvalidArgument, Code::SlowClient, Code::TooLarge, Code::UnsupportedMedia];

/// One call.
struct Operation {
    method: &'static str,
    /// As it stands in the document; `[...]` may be left out, which makes two calls of one.
    path: &'static str,
    tag: &'static str,
    summary: &'static str,
    query: &'static [(&'static str, Needed, &'static str)],
    body: Option<Value>,
    /// Media types of a good answer, with their schemas.
    answer: Vec<(&'static str, Value)>,
    /// Codes of other answers.
    refusals: Vec<Code>,
}

/// Whether a parameter must be there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needed {
    Always,
    Optional,
}

impl Operation {
    fn get(path: &'static str, tag: &'static str, summary: &'static str, answer: Value) -> Self {
        let answer = vec![("application/json", answer)];
        let refusals = ALWAYS.to_vec();
        Self { method: "get", path, tag, summary, query: &[], body: None, answer, refusals }
    }

    fn post(path: &'static str, tag: &'static str, summary: &'static str, answer: Value) -> Self {
        Self { method: "post", ..Self::get(path, tag, summary, answer) }.refuses(BODY)
    }

    /// A body as JSON that need not be there.
    fn may_take(self, schema: Value) -> Self {
        self.takes(false, &[("application/json", schema, None)])
    }

    fn takes(mut self, needed: bool, bodies: &[(&str, Value, Option<Value>)]) -> Self {
        let mut content = Map::new();
        for (media, schema, example) in bodies {
            let mut entry = json!({ "schema": schema });
            if let Some(example) = example {
                entry["example"] = example.clone();
            }
            content.insert((*media).to_owned(), entry);
        }
        self.body = Some(json!({ "required": needed, "content": content }));
        self
    }

    fn answers(mut self, media: &'static str, schema: Value) -> Self {
        self.answer.push((media, schema));
        self
    }

    fn refuses(mut self, codes: &[Code]) -> Self {
        self.refusals.extend_from_slice(codes);
        self
    }

    fn query(mut self, query: &'static [(&'static str, Needed, &'static str)]) -> Self {
        self.query = query;
        self
    }

    /// The paths that it is: the whole one, and the one without what may be left out.
    fn paths(&self) -> Vec<String> {
        match self.path.split_once('[').and_then(|(start, rest)| {
            rest.split_once(']').map(|(optional, end)| (start, optional, end))
        }) {
            Some((start, optional, end)) => {
                vec![format!("{start}{end}"), format!("{start}{optional}{end}")]
            }
            None => vec![self.path.to_owned()],
        }
    }

    fn document(&self, path: &str) -> Value {
        let names = path.split('{').skip(1).filter_map(|rest| rest.split_once('}'));
        let mut parameters: Vec<Value> = names.map(|(name, _)| path_parameter(name)).collect();
        parameters.extend(self.query.iter().map(|(name, needed, description)| {
            let schema = match *name {
                "most" => json!({ "type": "integer", "minimum": 1, "maximum": 10_000 }),
                "primary" | "after" => {
                    json!({ "type": "integer", "minimum": 0, "maximum": u64::MAX })
                }
                // An empty name is one that no model has.
                "model" => json!({ "type": "string" }),
                _ => json!({ "type": "string", "minLength": 1 }),
            };
            json!({
                "name": name, "in": "query", "required": *needed == Needed::Always,
                "description": description, "schema": schema,
            })
        }));
        let mut responses = BTreeMap::new();
        let content: Map<String, Value> = self
            .answer
            .iter()
            .map(|(media, schema)| ((*media).to_owned(), json!({ "schema": schema })))
            .collect();
        responses.insert("200".to_owned(), json!({ "description": "Done.", "content": content }));
        for &code in &self.refusals {
            let of_status = responses
                .entry(status(code).as_str().to_owned())
                .or_insert_with(|| json!({ "description": "", "content": { "application/json": { "schema": reference("Error") } } }));
            let before = of_status["description"].as_str().unwrap_or_default().to_owned();
            if !before.contains(meaning(code)) {
                let or = if before.is_empty() { "" } else { " Or: " };
                of_status["description"] = format!("{before}{or}{}", meaning(code)).into();
            }
        }
        let id = operation_id(self.method, path);
        let mut operation = json!({
            "operationId": id, "tags": [self.tag], "summary": self.summary,
            "parameters": parameters, "responses": responses,
        });
        if let Some(body) = &self.body {
            operation["requestBody"] = body.clone();
        }
        operation
    }
}

fn operation_id(method: &str, path: &str) -> String {
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.fold(method.to_owned(), |id, word| format!("{id}_{word}"))
}

fn path_parameter(name: &str) -> Value {
    let (description, example) = match name {
        "model" => ("The model's name.", "car-loan"),
        "version" => ("The version's number, or an alias.", "1"),
        "label" => ("An alias of a version.", "stable"),
        "region" => ("A region's name.", "images"),
        _ => ("The repository's name, which means nothing: there is one.", "main"),
    };
    json!({
        "name": name, "in": "path", "required": true, "description": description,
        "schema": { "type": "string", "minLength": 1 }, "example": example,
    })
}

/// What a code means to the client.
fn meaning(code: Code) -> &'static str {
    match code {
        Code::Ok => "Done.",
        Code::InvalidArgument => "The request is wrong; the message says where.",
        Code::NotFound => "No such model, version, alias or part of it.",
        Code::MethodNotAllowed => "The path takes another method.",
        Code::Conflict => "It clashes with the present state.",
        Code::TooLarge => "The body, or what it decompresses to, is larger than the limit.",
        Code::UnsupportedMedia => "The content encoding is not supported.",
        Code::SlowClient => "The body did not arrive in time.",
        Code::RateLimited => "The model's limit of predictions in flight is reached.",
        Code::Overloaded => "There is no room now.",
        Code::Unavailable => "Not ready, or shutting down.",
        Code::DeadlineExceeded => "The deadline passed.",
        Code::Cancelled => "The client went away.",
        Code::Unimplemented => "The protocol knows it, this server does not do it.",
        Code::Internal => "The server failed.",
    }
}

/// A reference to a schema of the document.
fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// The schemas of a document by their names.
#[derive(Default)]
struct Schemas(BTreeMap<String, Value>);

impl Schemas {
    /// Adds a type and all that it is made of.
    fn of<T: ToSchema>(&mut self) -> Value {
        let mut schemas = vec![(T::name().into_owned(), T::schema())];
        T::schemas(&mut schemas);
        for (name, schema) in schemas {
            // Writing a schema of our own types as a document cannot fail.
            self.0.insert(name, serde_json::to_value(schema).unwrap_or_default());
        }
        reference(&T::name())
    }

    fn written_by_hand(&mut self, name: &str, schema: Value) -> Value {
        self.0.insert(name.to_owned(), schema);
        reference(name)
    }
}

fn document(title: &str, description: &str, operations: &[Operation], schemas: Schemas) -> Value {
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for operation in operations {
        for path in operation.paths() {
            let document = operation.document(&path);
            paths.entry(path).or_default().insert(operation.method.to_owned(), document);
        }
    }
    let mut schemas = schemas;
    schemas.written_by_hand(
        "Error",
        json!({
            "type": "object", "required": ["error"],
            "properties": { "error": { "type": "string", "description": "What is wrong, and what was expected." } },
        }),
    );
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": title, "version": env!("CARGO_PKG_VERSION"), "description": description,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": { "schemas": schemas.0 },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// All references of a document.
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(name)) = members.get("$ref") {
                    found.insert(name.clone());
                }
                members.values().for_each(|value| references(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn what_is_referred_to_is_there_and_ids_are_distinct() {
        for document in [data::document(), admin::document()] {
            let mut found = BTreeSet::new();
            references(&document, &mut found);
            assert!(found.len() > 5);
            for reference in found {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{reference}");
            }
            let mut ids = BTreeSet::new();
            let paths = document["paths"].as_object().unwrap();
            for operation in paths.values().flat_map(|path| path.as_object().unwrap().values()) {
                assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()));
            }
        }
    }

    #[test]
    fn every_path_leads_to_its_call() {
        for (path, methods) in data::document()["paths"].as_object().unwrap() {
            let path = path.replace(['{', '}'], "");
            let route = super::super::route::Route::of(&path);
            let taken = route.methods().main().to_lowercase();
            assert_ne!(route, super::super::route::Route::Unknown, "{path}");
            let documented: Vec<&str> =
                methods.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(documented, taken.split(", ").collect::<Vec<_>>(), "{path}");
        }
    }
}
