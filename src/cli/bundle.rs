//! `tidegate bundle`

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::Failure;
use crate::capture::Timing;
use crate::capture::read::{self, Recorded, Requests};
use crate::monitor::times::rfc3339;
use crate::protocol::v2::{Answer, AnswerOutput, Form, encode_answer, encode_request};
use crate::tensor::Tensor;

/// Make a folder with everything about one recorded prediction, and the command that runs it again.
///
/// The folder has the exact request and answer, as the protocol's binary form and as JSON; facts.json
/// with the digests of model and configuration, engine and machine; capture/ with the recorded rows,
/// of the other requests of its batch too; and reproduce.sh, which runs it again and says whether
/// every bit is the same.
#[derive(Debug, Args)]
pub(super) struct Bundle {
    /// The request's id: its own in the body, or else its x-request-id
    request_id: String,
    /// The folder of captured files
    #[arg(long, value_name = "DIR")]
    capture: PathBuf,
    /// The model, where several have requests of that id
    #[arg(long, short)]
    model: Option<String>,
    /// Where the folder is made; by default in the present one, with the id as its name
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Bundle {
    pub(super) fn run(self) -> Result<(), Failure> {
        let files = read::files(&self.capture, self.model.as_deref())?;
        let recorded = self.find(&files)?;
        let out = self.out.clone().unwrap_or_else(|| PathBuf::from(folder_name(&self.request_id)));
        let failed = |error: std::io::Error| Failure {
            code: 1,
            message: format!("cannot write to {}: {error}", out.display()),
        };
        std::fs::create_dir_all(&out).map_err(failed)?;
        let write = |name: &str, content: &[u8]| std::fs::write(out.join(name), content);
        let request = request(&recorded, Form::Binary);
        write("request.bin", &request.0).map_err(failed)?;
        // Texts that are not UTF-8 have no JSON.
        if let (json, None) = self::request(&recorded, Form::Json) {
            write("request.json", &json).map_err(failed)?;
        }
        let answer = answer(&recorded, Form::Binary);
        if let Some((body, _)) = &answer {
            write("answer.bin", body).map_err(failed)?;
        }
        if let Some((json, None)) = self::answer(&recorded, Form::Json) {
            write("answer.json", &json).map_err(failed)?;
        }
        let batch = recorded.batch.map(|batch| (&*recorded.run_id, batch));
        let rows = out.join("capture").join(format!("model={}", recorded.model));
        read::extract(&files, &recorded.id, batch, &rows)?;
        let facts = facts(&recorded, request.1, answer.and_then(|(_, length)| length));
        let facts = serde_json::to_string_pretty(&facts)?;
        write("facts.json", format!("{facts}\n").as_bytes()).map_err(failed)?;
        let script = script(&recorded, request.1);
        write("reproduce.sh", script.as_bytes()).map_err(failed)?;
        make_executable(&out.join("reproduce.sh")).map_err(failed)?;
        println!(
            "{}: {} version {}, {}, {}\nto run it again: TIDEGATE_CONFIG=FILE {}/reproduce.sh",
            recorded.id,
            recorded.model,
            recorded.version,
            rfc3339(recorded.at),
            recorded.code,
            out.display()
        );
        Ok(())
    }

    /// The request: of several of that id, the primary's, and of these the last.
    fn find(&self, files: &[PathBuf]) -> Result<Recorded, Failure> {
        let mut found: Option<Recorded> = None;
        for recorded in Requests::new(files.to_vec()) {
            let recorded = recorded?;
            let is_better = |old: &Recorded| {
                (&*recorded.slot != "shadow", recorded.at) >= (&*old.slot != "shadow", old.at)
            };
            if recorded.id == self.request_id
                && self.model.as_ref().is_none_or(|model| **model == *recorded.model)
                && found.as_ref().is_none_or(is_better)
            {
                found = Some(recorded);
            }
        }
        found.ok_or_else(|| Failure {
            code: 1,
            message: format!(
                "{}: there is no request '{}'; it was not in the sample, or its file is not closed yet",
                self.capture.display(),
                self.request_id
            ),
        })
    }
}

/// The id as the name of a folder.
fn folder_name(id: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
    let name: String = id.chars().map(plain).take(64).collect();
    format!("bundle-{name}")
}

fn named(tensors: &[(std::sync::Arc<str>, Tensor)]) -> Vec<(&str, &Tensor)> {
    tensors.iter().map(|(name, tensor)| (&**name, tensor)).collect()
}

fn request(recorded: &Recorded, form: Form) -> (Vec<u8>, Option<usize>) {
    let mut body = Vec::new();
    let length = encode_request(Some(&recorded.id), &named(&recorded.inputs), form, &mut body);
    (body, length)
}

/// Nothing where there is none.
fn answer(recorded: &Recorded, form: Form) -> Option<(Vec<u8>, Option<usize>)> {
    if recorded.outputs.is_empty() {
        return None;
    }
    let outputs: Vec<AnswerOutput<'_>> = named(&recorded.outputs)
        .into_iter()
        .map(|(name, tensor)| AnswerOutput { name, tensor, form, span: None })
        .collect();
    let answer = Answer {
        model_name: &recorded.model,
        model_version: &recorded.version.to_string(),
        id: Some(&recorded.id),
        outputs: &outputs,
    };
    let (mut body, mut lent) = (Vec::new(), Vec::new());
    let length = encode_answer(&answer, &mut body, &mut lent);
    lent.iter().for_each(|piece| body.extend_from_slice(piece));
    Some((body, length))
}

fn facts(
    recorded: &Recorded,
    request_json_length: Option<usize>,
    answer_json_length: Option<usize>,
) -> serde_json::Value {
    let forms = |tensors: &[(std::sync::Arc<str>, Tensor)]| {
        let form = |(name, tensor): &(std::sync::Arc<str>, Tensor)| json!({ "name": &**name, "datatype": tensor.datatype().name(), "shape": tensor.shape() });
        tensors.iter().map(form).collect::<Vec<_>>()
    };
    let timings: serde_json::Map<String, serde_json::Value> = Timing::ALL
        .iter()
        .zip(recorded.timings)
        .map(|(timing, ns)| (timing.column().to_owned(), json!(ns)))
        .collect();
    json!({
        "request_id": recorded.id,
        "time": rfc3339(recorded.at),
        "protocol": &*recorded.protocol,
        "model": &*recorded.model,
        "version": recorded.version,
        "slot": &*recorded.slot,
        "digest": &*recorded.digest,
        "config_digest": &*recorded.config_digest,
        "engine": &*recorded.engine,
        "cpu_features": &*recorded.cpu_features,
        "run_id": &*recorded.run_id,
        "batch": recorded.batch,
        "first_row": recorded.first_row,
        "batch_rows": recorded.batch_rows,
        "rows": recorded.rows,
        "code": &*recorded.code,
        "error": recorded.error,
        "reason": &*recorded.reason,
        "sample": recorded.sample,
        "outlier_score": recorded.outlier_score,
        "segment": recorded.segment,
        "redacted": recorded.redacted,
        "timings": timings,
        "inputs": forms(&recorded.inputs),
        "outputs": forms(&recorded.outputs),
        "request_json_length": request_json_length,
        "answer_json_length": answer_json_length,
        "bundled_by": { "program": "tidegate", "version": env!("CARGO_PKG_VERSION"),
            "os": std::env::consts::OS, "arch": std::env::consts::ARCH },
    })
}

/// A text as one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn script(recorded: &Recorded, json_length: Option<usize>) -> String {
    let Recorded { model, version, id, digest, .. } = recorded;
    let (id, name) = (quoted(id), quoted(model));
    let length = json_length.unwrap_or_default();
    format!(
        "#!/bin/sh\n\
         # Runs the recorded prediction again, with the requests that it was run together with, and\n\
         # compares every bit. The model's file must have the digest\n\
         # {digest}\n\
         # in the repository of the configuration that TIDEGATE_CONFIG names.\n\
         #\n\
         # The same request to a running server:\n\
         # curl -H 'content-type: application/octet-stream' -H 'inference-header-content-length: {length}' \\\n\
         #   --data-binary @request.bin http://127.0.0.1:8000/v2/models/{model}/versions/{version}/infer\n\
         cd \"$(dirname \"$0\")\" && exec tidegate replay capture --model {name} --version {version} \\\n\
         \x20 --from {version} --mode exact --request-id {id} \"$@\"\n"
    )
}

fn make_executable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}
