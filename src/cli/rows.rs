//! Rows to predict, read from CSV, JSON or NPY, as tensors of a model's inputs.
//!
//! - CSV: a header line, then a row a line. A column named like an input fills it; columns named
//!   `INPUT_0`, `INPUT_1`, ... fill an input of several elements a row, in that order. Columns
//!   that no input asks for are passed over.
//! - JSON: a whole request of the protocol (an object with `inputs`), or a list of objects that
//!   hold a value, or a list of values, by input name.
//! - NPY: one array for a model with one input; its first dimension counts the rows.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use npyz::{DType, NpyFile, Order, TypeChar};
use serde_json::{Map, Value, json};

use crate::protocol::v2::{ProtocolError, decode_tensors};
use crate::tensor::{Datatype, Specs, Tensor, TensorError, TensorSpec};

/// Why a file does not give rows.
#[derive(Debug, thiserror::Error)]
pub(super) enum RowsError {
    #[error("cannot read the file: {0}")]
    Io(#[from] std::io::Error),
    #[error("the CSV is not valid: {0}")]
    Csv(#[from] csv::Error),
    #[error("the JSON is not valid: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Protocol(#[from] ProtocolError),
    #[error("{0}")]
    Tensor(#[from] TensorError),
    #[error("{0}")]
    Other(String),
}

/// Reads the rows in `path` as tensors of `specs`, in their order.
pub(super) fn read(path: &Path, specs: &[TensorSpec]) -> Result<Vec<Tensor>, RowsError> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_lowercase().as_str() {
        "csv" => from_csv(path, specs),
        "json" => from_json(path, specs),
        "npy" => from_npy(path, specs),
        other => {
            Err(RowsError::Other(format!("expected a .csv, .json or .npy file, got '.{other}'")))
        }
    }
}

/// The columns of an input, by their positions.
fn columns(header: &csv::StringRecord, spec: &TensorSpec) -> Result<Vec<usize>, RowsError> {
    let position = |name: &str| header.iter().position(|column| column.trim() == name);
    let per_row: usize = spec.shape.iter().skip(1).map(|dim| dim.unwrap_or(1)).product();
    if per_row == 1
        && let Some(column) = position(&spec.name)
    {
        return Ok(vec![column]);
    }
    let columns = (0..per_row).map(|index| position(&format!("{}_{index}", spec.name)));
    columns.collect::<Option<Vec<_>>>().ok_or_else(|| {
        let name = &spec.name;
        let wanted = match per_row {
            1 => format!("a column '{name}'"),
            _ => format!("columns '{name}_0' to '{name}_{}'", per_row - 1),
        };
        RowsError::Other(format!(
            "input {spec} needs {wanted}; the file has {}",
            header.iter().collect::<Vec<_>>().join(", ")
        ))
    })
}

fn from_csv(path: &Path, specs: &[TensorSpec]) -> Result<Vec<Tensor>, RowsError> {
    let mut reader = csv::Reader::from_path(path)?;
    let header = reader.headers()?.clone();
    let columns: Vec<Vec<usize>> =
        specs.iter().map(|spec| columns(&header, spec)).collect::<Result<_, _>>()?;
    let mut data: Vec<Vec<Value>> = specs.iter().map(|_| Vec::new()).collect();
    let mut n_rows = 0;
    for record in reader.records() {
        let record = record?;
        for ((spec, columns), data) in specs.iter().zip(&columns).zip(&mut data) {
            for &column in columns {
                let cell = record.get(column).unwrap_or_default().trim();
                data.push(cell_value(cell, spec.datatype));
            }
        }
        n_rows += 1;
    }
    tensors(specs, data, n_rows)
}

/// A cell as the JSON that the protocol takes for its datatype. What does not fit goes on as
/// text, for the decoder to name.
fn cell_value(cell: &str, datatype: Datatype) -> Value {
    let parsed = match datatype {
        Datatype::Bytes => None,
        Datatype::Bool => match cell.to_lowercase().as_str() {
            "true" | "1" => Some(Value::Bool(true)),
            "false" | "0" => Some(Value::Bool(false)),
            _ => None,
        },
        _ if datatype.is_float() && (cell.is_empty() || cell.eq_ignore_ascii_case("nan")) => {
            Some(Value::from("NaN"))
        }
        _ => serde_json::from_str::<serde_json::Number>(cell).ok().map(Value::Number),
    };
    parsed.unwrap_or_else(|| Value::from(cell))
}

fn from_json(path: &Path, specs: &[TensorSpec]) -> Result<Vec<Tensor>, RowsError> {
    let mut text = String::new();
    File::open(path)?.read_to_string(&mut text)?;
    let rows: Vec<Map<String, Value>> = match serde_json::from_str(&text)? {
        Value::Object(mut request) => {
            let inputs = request.remove("inputs").ok_or_else(|| {
                RowsError::Other("expected a list of rows, or an object with 'inputs'".to_owned())
            })?;
            return Ok(decode_tensors(inputs.to_string().as_bytes(), specs)?);
        }
        rows => serde_json::from_value(rows)?,
    };
    let mut data: Vec<Vec<Value>> = specs.iter().map(|_| Vec::new()).collect();
    for (index, row) in rows.iter().enumerate() {
        for (spec, data) in specs.iter().zip(&mut data) {
            let value = row.get(&spec.name).ok_or_else(|| {
                RowsError::Other(format!(
                    "row {index} has no '{}'; the model takes {}",
                    spec.name,
                    Specs(specs)
                ))
            })?;
            flatten(value, data);
        }
    }
    tensors(specs, data, rows.len())
}

fn flatten(value: &Value, out: &mut Vec<Value>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| flatten(value, out)),
        other => out.push(other.clone()),
    }
}

/// Flat data of all rows, by input, through the protocol's decoder: one place knows what fits a
/// datatype.
fn tensors(
    specs: &[TensorSpec],
    data: Vec<Vec<Value>>,
    n_rows: usize,
) -> Result<Vec<Tensor>, RowsError> {
    let listed = specs.iter().zip(data).map(|(spec, data)| {
        let mut shape = spec.shape_with(1);
        if let (Some(first), true) = (shape.first_mut(), spec.is_batchable()) {
            *first = n_rows;
        }
        json!({"name": spec.name, "datatype": spec.datatype.name(), "shape": shape.as_slice(), "data": data})
    });
    let listed = Value::Array(listed.collect());
    Ok(decode_tensors(listed.to_string().as_bytes(), specs)?)
}

fn from_npy(path: &Path, specs: &[TensorSpec]) -> Result<Vec<Tensor>, RowsError> {
    let [spec] = specs else {
        return Err(RowsError::Other(format!(
            "an NPY file holds one array, the model takes {}",
            Specs(specs)
        )));
    };
    let file = NpyFile::new(BufReader::new(File::open(path)?))?;
    if file.order() != Order::C {
        return Err(RowsError::Other(
            "the array is in Fortran order; save it in C order".to_owned(),
        ));
    }
    let datatype = datatype(&file.dtype()).ok_or_else(|| {
        RowsError::Other(format!(
            "the array's type {} is none of the protocol's",
            file.dtype().descr()
        ))
    })?;
    let shape: Vec<usize> =
        file.shape().iter().map(|&dim| usize::try_from(dim).unwrap_or(usize::MAX)).collect();
    if datatype != spec.datatype || !spec.accepts(&shape) {
        return Err(RowsError::Other(format!(
            "the model takes {spec}, the array is {datatype} {shape:?}"
        )));
    }
    // The elements follow the header as the protocol has them: little-endian, row by row.
    let expected = shape.iter().product::<usize>() * datatype.size().unwrap_or(1);
    let bytes = std::fs::read(path)?;
    let data = bytes.len().checked_sub(expected).map(|start| bytes[start..].to_vec());
    let data =
        data.ok_or_else(|| RowsError::Other("the array's elements are cut off".to_owned()))?;
    Ok(vec![Tensor::new(datatype, shape.as_slice(), data.into())?])
}

fn datatype(dtype: &DType) -> Option<Datatype> {
    let DType::Plain(plain) = dtype else { return None };
    let size = plain.num_bytes()?;
    if size > 1 && plain.endianness() != npyz::Endianness::Little {
        return None;
    }
    Some(match (plain.type_char(), size) {
        (TypeChar::Bool, 1) => Datatype::Bool,
        (TypeChar::Uint, 1) => Datatype::Uint8,
        (TypeChar::Uint, 2) => Datatype::Uint16,
        (TypeChar::Uint, 4) => Datatype::Uint32,
        (TypeChar::Uint, 8) => Datatype::Uint64,
        (TypeChar::Int, 1) => Datatype::Int8,
        (TypeChar::Int, 2) => Datatype::Int16,
        (TypeChar::Int, 4) => Datatype::Int32,
        (TypeChar::Int, 8) => Datatype::Int64,
        (TypeChar::Float, 2) => Datatype::Fp16,
        (TypeChar::Float, 4) => Datatype::Fp32,
        (TypeChar::Float, 8) => Datatype::Fp64,
        _ => return None,
    })
}
