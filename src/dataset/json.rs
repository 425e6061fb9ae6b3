//! JSON lines: an object a line, with a value or a list of values by column.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::{Map, Value};

use super::csv::quoted;
use super::elements;
use super::{Batch, DatasetError, Extra, ExtraValues, InputColumns, Place, times};
use crate::tensor::{ElementWriter, Unfit};

/// The longest line.
const LONGEST: u64 = 64 << 20;

/// Reads lines that hold something, with their numbers from 1.
struct Lines {
    reader: BufReader<File>,
    line: String,
    number: u64,
    position: u64,
}

impl Lines {
    fn open(path: &Path) -> Result<Self, DatasetError> {
        let reader = BufReader::with_capacity(1 << 16, File::open(path)?);
        Ok(Self { reader, line: String::new(), number: 0, position: 0 })
    }

    fn next(&mut self) -> Result<Option<Map<String, Value>>, DatasetError> {
        let invalid = |number: u64, reason: String| DatasetError::Invalid {
            form: "JSON lines",
            reason: format!("line {number}: {reason}"),
        };
        loop {
            self.line.clear();
            let limited = &mut std::io::Read::take(&mut self.reader, LONGEST);
            let read = limited.read_line(&mut self.line)?;
            if read == 0 {
                return Ok(None);
            }
            self.position += read as u64;
            self.number += 1;
            if read as u64 == LONGEST {
                return Err(invalid(self.number, format!("it is longer than {LONGEST} bytes")));
            }
            let line = self.line.trim_start_matches('\u{feff}').trim();
            if line.is_empty() {
                continue;
            }
            return match serde_json::from_str::<Value>(line) {
                Ok(Value::Object(object)) => Ok(Some(object)),
                Ok(_) => Err(invalid(self.number, "expected an object".to_owned())),
                Err(error) => Err(invalid(self.number, error.to_string())),
            };
        }
    }
}

/// The keys of the first object.
pub(super) fn header(path: &Path) -> Result<Vec<String>, DatasetError> {
    let first = Lines::open(path)?.next()?;
    Ok(first.map(|object| object.keys().cloned().collect()).unwrap_or_default())
}

/// The rows of a file.
pub(super) struct Rows {
    lines: Lines,
    inputs: Vec<(InputColumns, ElementWriter)>,
    extras: Vec<(String, ExtraValues)>,
    most: usize,
}

impl Rows {
    pub(super) fn open(
        path: &Path,
        inputs: Vec<InputColumns>,
        extras: Vec<Extra>,
        most: usize,
    ) -> Result<Self, DatasetError> {
        let inputs = inputs.into_iter().map(|input| {
            let elements = ElementWriter::new(input.spec.datatype);
            (input, elements)
        });
        let extras = extras.into_iter().map(|extra| {
            let values = ExtraValues::of(&extra);
            let (Extra::Time(name) | Extra::Text(name)) = extra;
            (name, values)
        });
        Ok(Self {
            lines: Lines::open(path)?,
            inputs: inputs.collect(),
            extras: extras.collect(),
            most,
        })
    }

    pub(super) fn batch(&mut self) -> Result<Option<Batch>, DatasetError> {
        let most = if self.inputs.iter().any(|(input, _)| input.is_whole) { 1 } else { self.most };
        let mut n_rows = 0;
        while n_rows < most {
            let Some(object) = self.lines.next()? else { break };
            self.row(&object)?;
            n_rows += 1;
        }
        if n_rows == 0 {
            return Ok(None);
        }
        let inputs =
            self.inputs.iter_mut().map(|(input, elements)| elements::take(elements, input, n_rows));
        let inputs = inputs.collect::<Result<_, _>>()?;
        let extras = self.extras.iter_mut().map(|(_, values)| values.take()).collect();
        Ok(Some(Batch { n_rows, inputs, extras, position: self.lines.position }))
    }

    fn row(&mut self, object: &Map<String, Value>) -> Result<(), DatasetError> {
        let place = Place::Line(self.lines.number);
        let failed = |column: &str, expected: Unfit, value: &Value| DatasetError::Cell {
            place,
            column: column.to_owned(),
            expected,
            actual: match value {
                Value::Null => "nothing".to_owned(),
                value => quoted(value.to_string().as_bytes()),
            },
        };
        for (input, elements) in &mut self.inputs {
            for name in &input.columns {
                let value = object.get(name).unwrap_or(&Value::Null);
                let pushed = match input.is_list() {
                    true => push_list(elements, value, input.width),
                    false => push(elements, value),
                };
                pushed.map_err(|expected| failed(name, expected, value))?;
            }
        }
        for (name, values) in &mut self.extras {
            let value = object.get(name.as_str()).unwrap_or(&Value::Null);
            let pushed = match (&mut *values, value) {
                (ExtraValues::Times(values), Value::Number(number)) => {
                    let time = number.as_f64().and_then(times::from_number);
                    time.map(|time| values.push(time)).ok_or_else(|| times::EXPECTED.to_owned())
                }
                (values, Value::String(text)) => values.push_text(text),
                (values, Value::Null) => values.push_text(""),
                (values, other) => values.push_text(&other.to_string()),
            };
            pushed.map_err(|expected| failed(name, expected, value))?;
        }
        Ok(())
    }
}

fn push(elements: &mut ElementWriter, value: &Value) -> Result<(), Unfit> {
    match value {
        Value::Null => elements.push_missing(),
        Value::Bool(value) => elements.push_bool(*value),
        Value::String(text) => elements.push_text(text),
        Value::Number(number) => match (number.as_i128(), number.as_f64()) {
            (Some(number), _) => elements.push_integer(number),
            (None, Some(number)) => elements.push_number(number),
            (None, None) => Err("a number".to_owned()),
        },
        Value::Array(_) | Value::Object(_) => Err("one value".to_owned()),
    }
}

/// A list of `width` values, in lists of any depth.
fn push_list(elements: &mut ElementWriter, value: &Value, width: usize) -> Result<(), Unfit> {
    fn flatten(
        elements: &mut ElementWriter,
        value: &Value,
        count: &mut usize,
    ) -> Result<(), Unfit> {
        if let Value::Array(values) = value {
            return values.iter().try_for_each(|value| flatten(elements, value, count));
        }
        *count += 1;
        push(elements, value)
    }
    let mut count = 0;
    flatten(elements, value, &mut count)?;
    if count == width { Ok(()) } else { Err(format!("a list of {width} values")) }
}
