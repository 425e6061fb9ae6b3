//! Requests as columns.

use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, Float32Builder, Float64Builder, Int32Builder, Int64Builder, StringBuilder,
    TimestampMillisecondBuilder,
};
use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef, TimeUnit};
use smallvec::SmallVec;

use super::names;
use super::offered::{Reason, Taken};
use super::subject::{Scores, Subject};
use super::tensors::{RowPart, TensorColumns, Words, rows_of, same, whole};
use crate::handoff::Copied;

/// What all rows of a process share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) cpu_features: String,
    pub(super) run_id: String,
}

/// Rows that are not in a file yet.
#[derive(Debug)]
pub(super) struct Columns {
    schema: SchemaRef,
    n_inputs: usize,
    bytes: usize,
    request_id: StringBuilder,
    time: TimestampMillisecondBuilder,
    protocol: Words,
    config: Words,
    slot: Words,
    batch: Int64Builder,
    batch_row: Int32Builder,
    batch_rows: Int32Builder,
    request_row: Int32Builder,
    request_rows: Int32Builder,
    sample: Float64Builder,
    reason: Words,
    code: Words,
    error: StringBuilder,
    outlier_score: Float32Builder,
    segment: Words,
    timings: [Int64Builder; 5],
    tensors: Vec<TensorColumns>,
}

impl Columns {
    pub(super) fn new(subject: &Subject) -> Self {
        Self {
            schema: schema(subject),
            n_inputs: subject.about.signature.inputs.len(),
            bytes: 0,
            request_id: StringBuilder::new(),
            time: TimestampMillisecondBuilder::new(),
            protocol: Words::default(),
            config: Words::default(),
            slot: Words::default(),
            batch: Int64Builder::new(),
            batch_row: Int32Builder::new(),
            batch_rows: Int32Builder::new(),
            request_row: Int32Builder::new(),
            request_rows: Int32Builder::new(),
            sample: Float64Builder::new(),
            reason: Words::default(),
            code: Words::default(),
            error: StringBuilder::new(),
            outlier_score: Float32Builder::new(),
            segment: Words::default(),
            timings: std::array::from_fn(|_| Int64Builder::new()),
            tensors: subject.plans.iter().map(TensorColumns::new).collect(),
        }
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(super) fn n_rows(&self) -> usize {
        use arrow_array::builder::ArrayBuilder;
        self.time.len()
    }

    /// Bytes of what is gathered, roughly.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends a request: a row for each of its rows where the version's rows are independent of each
    /// other, else one. Returns how many.
    pub(super) fn push(
        &mut self,
        subject: &Subject,
        taken: &Taken<'_>,
        scores: Option<&Scores>,
        config: &str,
    ) -> usize {
        let n_rows = taken.inputs.first().and_then(|tensor| tensor.shape.first()).copied();
        let tensors = || taken.inputs.iter().chain(&taken.outputs);
        let rows = n_rows.unwrap_or(usize::from(!taken.inputs.is_empty()));
        let has_one = |tensor: &Copied<'_>| tensor.shape.first() == Some(&1);
        let is_split = subject.splits() && n_rows.is_some();
        // Nearly all requests are of one row, which needs no taking apart.
        if is_split
            && rows > 1
            && let Some(parts) =
                tensors().map(|tensor| rows_of(tensor, rows)).collect::<Option<Vec<_>>>()
        {
            (0..rows).for_each(|row| {
                let score = scores.and_then(|scores| scores.rows.get(row)).copied();
                self.push_facts(subject, taken, config, (Some(row), rows), score);
                self.push_tensors(subject, taken, |tensor| parts[tensor][row]);
            });
            return rows;
        }
        let row = (is_split && tensors().all(has_one)).then_some(0);
        let score = scores.and_then(|scores| scores.rows.iter().copied().max_by(f32::total_cmp));
        self.push_facts(subject, taken, config, (row, rows), score);
        let parts: SmallVec<[RowPart<'_>; 8]> = tensors().map(whole).collect();
        self.push_tensors(subject, taken, |tensor| parts[tensor]);
        1
    }

    fn push_facts(
        &mut self,
        subject: &Subject,
        taken: &Taken<'_>,
        config: &str,
        (row, rows): (Option<usize>, usize),
        score: Option<f32>,
    ) {
        let small = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
        let facts = &taken.facts;
        self.request_id.append_value(String::from_utf8_lossy(taken.id));
        self.time.append_value(i64::try_from(taken.at).unwrap_or(i64::MAX));
        self.protocol.push(facts.protocol);
        self.config.push(config);
        self.slot.push(facts.slot);
        let batch = facts.batch.map(|batch| i64::try_from(batch.get()).unwrap_or(i64::MAX));
        self.batch.append_option(batch);
        self.batch_row.append_value(small(facts.first_row + row.unwrap_or(0)));
        self.batch_rows.append_value(small(facts.batch_rows));
        self.request_row.append_option(row.map(small));
        self.request_rows.append_value(small(rows));
        // What is always recorded stands for itself alone.
        let probability = match taken.reason {
            Reason::Sample => subject.settings.sample,
            _ => 1.0,
        };
        self.sample.append_value(probability);
        self.reason.push(taken.reason.label());
        self.code.push(facts.code.label());
        self.error.append_option(taken.error.map(String::from_utf8_lossy));
        self.outlier_score.append_option(score);
        match taken.segment {
            Some(segment) => self.segment.push(&String::from_utf8_lossy(segment)),
            None => self.segment.push_null(),
        }
        let durations = [facts.total, facts.queue, facts.decode, facts.compute, facts.encode];
        for (builder, duration) in self.timings.iter_mut().zip(durations) {
            builder.append_value(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX));
        }
        self.bytes += 128 + taken.id.len();
    }

    fn push_tensors<'a>(
        &mut self,
        subject: &Subject,
        taken: &Taken<'_>,
        part: impl Fn(usize) -> RowPart<'a>,
    ) {
        let (n_inputs, n_outputs) = (taken.inputs.len(), taken.outputs.len());
        for (position, columns) in self.tensors.iter_mut().enumerate() {
            let plan = &subject.plans[position];
            // Parts are those of the inputs that there are, then of the outputs.
            let at = match position.checked_sub(self.n_inputs) {
                None if n_inputs == self.n_inputs => Some(position),
                Some(output) if output < n_outputs => Some(n_inputs + output),
                _ => None,
            };
            match at {
                Some(at) => self.bytes += 16 + columns.push(plan, part(at)),
                None => columns.push_null(),
            }
        }
    }

    /// The rows so far; empty afterwards.
    pub(super) fn finish(
        &mut self,
        subject: &Subject,
        process: &Process,
    ) -> Result<RecordBatch, ArrowError> {
        let n = self.n_rows();
        let about = &subject.about;
        let version = i64::try_from(about.version).unwrap_or(i64::MAX);
        let mut redacted = BooleanBuilder::new();
        redacted.append_n(n, subject.is_redacted);
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(self.request_id.finish()),
            Arc::new(self.time.finish().with_timezone("UTC")),
            self.protocol.finish(),
            same(&about.model, n),
            Arc::new(Int64Array::from(vec![version; n])),
            same(&about.digest, n),
            self.config.finish(),
            same(&about.engine, n),
            same(&process.cpu_features, n),
            same(&process.run_id, n),
            self.slot.finish(),
            Arc::new(self.batch.finish()),
            Arc::new(self.batch_row.finish()),
            Arc::new(self.batch_rows.finish()),
            Arc::new(self.request_row.finish()),
            Arc::new(self.request_rows.finish()),
            Arc::new(self.sample.finish()),
            self.reason.finish(),
            self.code.finish(),
            Arc::new(self.error.finish()),
            Arc::new(self.outlier_score.finish()),
            self.segment.finish(),
            Arc::new(redacted.finish()),
        ];
        columns.extend(self.timings.iter_mut().map(|timing| Arc::new(timing.finish()) as ArrayRef));
        self.tensors.iter_mut().for_each(|tensor| tensor.finish(&mut columns));
        self.bytes = 0;
        debug_assert!(columns.iter().all(|column| column.len() == n));
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }
}

/// The schema of a version's files.
fn schema(subject: &Subject) -> SchemaRef {
    let words = || DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let time = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    let base = [
        (names::REQUEST_ID, DataType::Utf8, false),
        (names::TIME, time, false),
        (names::PROTOCOL, words(), false),
        (names::MODEL_NAME, words(), false),
        (names::MODEL_VERSION, DataType::Int64, false),
        (names::DIGEST, words(), false),
        (names::CONFIG_DIGEST, words(), false),
        (names::ENGINE, words(), false),
        (names::CPU_FEATURES, words(), false),
        (names::RUN_ID, words(), false),
        (names::SLOT, words(), false),
        (names::BATCH, DataType::Int64, true),
        (names::BATCH_ROW, DataType::Int32, false),
        (names::BATCH_ROWS, DataType::Int32, false),
        (names::REQUEST_ROW, DataType::Int32, true),
        (names::REQUEST_ROWS, DataType::Int32, false),
        (names::SAMPLE, DataType::Float64, false),
        (names::REASON, words(), false),
        (names::CODE, words(), false),
        (names::ERROR, DataType::Utf8, true),
        (names::OUTLIER_SCORE, DataType::Float32, true),
        (names::SEGMENT, words(), true),
        (names::REDACTED, DataType::Boolean, false),
    ];
    let mut fields: Vec<Field> =
        base.into_iter().map(|(name, kind, nullable)| Field::new(name, kind, nullable)).collect();
    let timings = names::Timing::ALL;
    fields.extend(timings.map(|timing| Field::new(timing.column(), DataType::Int64, false)));
    let n_inputs = subject.about.signature.inputs.len();
    for (position, plan) in subject.plans.iter().enumerate() {
        let side = if position < n_inputs { names::INPUT } else { names::OUTPUT };
        fields.push(Field::new(names::data(side, &plan.spec.name), DataType::Binary, true));
        fields.push(Field::new(names::shape(side, &plan.spec.name), words(), true));
        use crate::tensor::Datatype;
        let decoded = match plan.spec.datatype {
            Datatype::Bool => DataType::Boolean,
            Datatype::Uint64 => DataType::UInt64,
            Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 => DataType::Float32,
            Datatype::Fp64 => DataType::Float64,
            Datatype::Bytes => DataType::Utf8,
            _ => DataType::Int64,
        };
        fields.extend(plan.decoded.iter().map(|name| Field::new(name, decoded.clone(), true)));
    }
    Arc::new(Schema::new(fields))
}
