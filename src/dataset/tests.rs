use std::collections::BTreeMap;
use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use arrow_array::{
    ArrayRef, BooleanArray, FixedSizeListArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, types::Float32Type,
};

use super::*;
use crate::tensor::{Datatype, TensorSpec};

fn spec(name: &str, datatype: Datatype, shape: &[i64]) -> TensorSpec {
    let shape = shape.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    TensorSpec { name: name.to_owned(), datatype, shape }
}

fn specs() -> Vec<TensorSpec> {
    vec![
        spec("x", Datatype::Fp32, &[-1, 2]),
        spec("n", Datatype::Int32, &[-1, 1]),
        spec("is_new", Datatype::Bool, &[-1]),
        spec("colour", Datatype::Bytes, &[-1, 1]),
    ]
}

fn file(name: &str, content: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    (folder, path)
}

/// All rows, in batches of two.
fn read(path: &Path, extras: &[Extra]) -> Result<Vec<Batch>, DatasetError> {
    let dataset = Dataset::open(path)?;
    let inputs = match_columns(dataset.columns(), &specs(), &BTreeMap::new(), &[])?;
    dataset.read(&inputs, extras, 2)?.collect()
}

fn check(batches: &[Batch]) {
    assert_eq!(batches.iter().map(|batch| batch.n_rows).collect::<Vec<_>>(), [2, 1]);
    let singles = |tensor: &Tensor| -> Vec<f32> {
        tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    };
    let x: Vec<f32> = batches.iter().flat_map(|batch| singles(&batch.inputs[0])).collect();
    assert_eq!(x[..3], [1.5, -2.0, 0.25]);
    assert!(x[3].is_nan());
    assert_eq!(x[4..], [3e9, f32::INFINITY]);
    assert_eq!(batches[0].inputs[0].shape(), [2, 2]);
    let n: Vec<u8> = batches.iter().flat_map(|batch| batch.inputs[1].data().to_vec()).collect();
    assert_eq!(n, [7_i32, -1, 2_147_483_647].map(i32::to_le_bytes).concat());
    let is_new: Vec<u8> =
        batches.iter().flat_map(|batch| batch.inputs[2].data().to_vec()).collect();
    assert_eq!(is_new, [1, 0, 1]);
    let colours: Vec<&[u8]> = batches.iter().flat_map(|batch| batch.inputs[3].elements()).collect();
    assert_eq!(colours, [b"red".as_slice(), b"", "grün, hell".as_bytes()]);
    let times = batches.iter().flat_map(|batch| match &batch.extras[0] {
        ExtraValues::Times(times) => times.clone(),
        ExtraValues::Texts(_) => Vec::new(),
    });
    let first = 1_767_225_600_000;
    assert_eq!(times.collect::<Vec<_>>(), [first, first + 1500, first + 86_400_000]);
}

const CSV: &str = "colour,at,x_1,x_0,n,is_new,unused\n\
    red,2026-01-01T00:00:00Z,-2,1.5,7,True,a\n\
    ,2026-01-01 00:00:01.5,,0.25,-1.0,0,b\n\
    \"grün, hell\",1767312000,inf,3e9,2147483647,true,c\n";

#[test]
fn csv_fills_tensors() {
    let extras = [Extra::Time("at".to_owned())];
    for content in [
        CSV.to_owned(),
        format!("\u{feff}{}", CSV.replace('\n', "\r\n")),
        CSV.replace("grün, hell", "@").replace(',', ";").replace('@', "grün, hell"),
    ] {
        let (_folder, path) = file("rows.csv", content.as_bytes());
        check(&read(&path, &extras).unwrap());
    }
}

#[test]
fn json_lines_fill_tensors() {
    let lines = [
        r#"{"x": [1.5, -2], "n": 7, "is_new": true, "colour": "red", "at": "2026-01-01T00:00:00Z"}"#,
        "",
        r#"{"x": [[0.25], [null]], "n": -1.0, "is_new": 0, "colour": null, "at": 1767225601500}"#,
        r#"{"x": [3e9, "inf"], "n": "2147483647", "is_new": "true", "colour": "grün, hell", "at": 1767312000}"#,
    ];
    let (_folder, path) = file("rows.jsonl", lines.join("\n").as_bytes());
    check(&read(&path, &[Extra::Time("at".to_owned())]).unwrap());
}

#[test]
fn parquet_fills_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.parquet");
    let first = 1_767_225_600_000_000;
    let x = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(
        [
            Some(vec![Some(1.5), Some(-2.0)]),
            Some(vec![Some(0.25), None]),
            Some(vec![Some(3e9), Some(f32::INFINITY)]),
        ],
        2,
    );
    let columns: [(&str, ArrayRef); 5] = [
        ("x", Arc::new(x)),
        ("n", Arc::new(Int64Array::from(vec![7, -1, 2_147_483_647]))),
        ("is_new", Arc::new(BooleanArray::from(vec![true, false, true]))),
        ("colour", Arc::new(StringArray::from(vec![Some("red"), None, Some("grün, hell")]))),
        (
            "at",
            Arc::new(TimestampMicrosecondArray::from(vec![
                first,
                first + 1_500_000,
                first + 86_400_000_000,
            ])),
        ),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer =
        ArrowWriter::try_new(std::fs::File::create(&path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    check(&read(&path, &[Extra::Time("at".to_owned())]).unwrap());
    // A number that is too large, and a gap where there must be none.
    for (column, said) in [
        (
            Float64Array::from(vec![Some(3e9), None]),
            "row 1, column 'n': expected a whole number from -2147483648 to 2147483647 (INT32), got '3000000000'",
        ),
        (
            Float64Array::from(vec![Some(1.0), None]),
            "row 2, column 'n': expected a value; this datatype has none that says 'missing' (INT32), got nothing",
        ),
    ] {
        let batch = RecordBatch::try_from_iter([("n", Arc::new(column) as ArrayRef)]).unwrap();
        let file = std::fs::File::create(&path).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let dataset = Dataset::open(&path).unwrap();
        let specs = [spec("n", Datatype::Int32, &[-1])];
        let inputs = match_columns(dataset.columns(), &specs, &BTreeMap::new(), &[]).unwrap();
        let result: Result<Vec<Batch>, _> = dataset.read(&inputs, &[], 10).unwrap().collect();
        assert_eq!(result.unwrap_err().to_string(), said);
    }
}

#[test]
fn a_cell_that_does_not_fit_is_named() {
    let row = "x_0,x_1,n,is_new,colour,at\n1,2,3,true,red,0\n";
    for (line, said) in [
        ("1,abc,3,true,red,0", "line 3, column 'x_1': expected a number (FP32), got 'abc'"),
        ("1,2,2.5,true,red,0", "line 3, column 'n': expected a whole number (INT32), got '2.5'"),
        (
            "1,2,3000000000,true,red,0",
            "line 3, column 'n': expected a whole number from -2147483648 to 2147483647 (INT32), got '3000000000'",
        ),
        (
            "1,2,,true,red,0",
            "line 3, column 'n': expected a value; this datatype has none that says 'missing' (INT32), got nothing",
        ),
        (
            "1,2,3,maybe,red,0",
            "line 3, column 'is_new': expected true or false (BOOL), got 'maybe'",
        ),
        (
            "1,2,3,true,red,soon",
            "line 3, column 'at': expected a time such as 2026-01-31T12:00:00Z",
        ),
        ("1,2,3,true", "it is not valid CSV"),
    ] {
        let (_folder, path) = file("rows.csv", format!("{row}{line}\n").as_bytes());
        let error = read(&path, &[Extra::Time("at".to_owned())]).unwrap_err().to_string();
        assert!(error.starts_with(said), "{error}");
    }
    for (line, said) in [
        ("{\"x\": [1], \"n\": 1}", "line 1, column 'x': expected a list of 2 values, got '[1]'"),
        ("{\"x\": [1, 2], \"n\": {}}", "line 1, column 'n': expected one value, got '{}'"),
        (
            "{\"x\": [1, 2], \"n\": 1, \"t\": true}",
            "line 1, column 't': expected text as the model takes it, no boolean (BYTES), got 'true'",
        ),
        (
            "{\"x\": [1, 2], \"n\": 1, \"t\": 5}",
            "line 1, column 't': expected text (BYTES), got '5'",
        ),
        ("[1]", "it is not valid JSON lines: line 1: expected an object"),
        ("{\"x\": ", "it is not valid JSON lines: line 1: EOF"),
    ] {
        let (_folder, path) = file("rows.jsonl", line.as_bytes());
        let mut specs =
            vec![spec("x", Datatype::Fp32, &[-1, 2]), spec("n", Datatype::Int32, &[-1])];
        if line.contains("\"t\"") {
            specs.push(spec("t", Datatype::Bytes, &[-1]));
        }
        let result = Dataset::open(&path).and_then(|dataset| {
            let inputs = match_columns(dataset.columns(), &specs, &BTreeMap::new(), &[])?;
            dataset.read(&inputs, &[], 10)?.collect::<Result<Vec<Batch>, _>>()
        });
        let error = result.unwrap_err().to_string();
        assert!(error.starts_with(said), "{error}");
    }
}

#[test]
fn columns_are_found_by_name_or_said_to_be_missing() {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let find = |columns: &[&str], spec: &TensorSpec, names: &[&str]| {
        let names = BTreeMap::from([(spec.name.clone(), owned(names))]);
        match_columns(&owned(columns), std::slice::from_ref(spec), &names, &owned(&["label"]))
    };
    let pair = spec("x", Datatype::Fp32, &[-1, 2]);
    for (columns, names, expected) in [
        (&["x_1", "x_0", "label"][..], &[][..], ["x_0", "x_1"]),
        (&["age", "income", "label"], &["income", "age"], ["income", "age"]),
        // Just as many as are needed, in their order.
        (&["label", "b", "a"], &[], ["b", "a"]),
    ] {
        assert_eq!(find(columns, &pair, names).unwrap()[0].columns, owned(&expected));
    }
    assert!(find(&["x"], &pair, &[]).unwrap()[0].is_list());
    let single = spec("x", Datatype::Fp32, &[-1, 1]);
    for columns in [&["x"][..], &["x_0"], &["age", "other"]] {
        assert_eq!(find(columns, &single, &["age"]).unwrap()[0].columns, owned(&columns[..1]));
    }
    for (columns, spec, said) in [
        (&["y"][..], &single, "input x FP32 [-1,1] needs a column 'x'; there are 'y'"),
        (
            &["x_0", "y"],
            &pair,
            "input x FP32 [-1,2] needs columns 'x_0' to 'x_1' ('x_1' missing); there are 'x_0', 'y'",
        ),
    ] {
        // A third column, so that the rest are not taken as they come.
        let columns = [columns, &["z"]].concat();
        let error = find(&columns, spec, &[]).unwrap_err().to_string();
        assert_eq!(error, format!("{said}, 'z'"));
    }
    let free = self::spec("x", Datatype::Fp32, &[-1, -1]);
    let error = find(&["x"], &free, &[]).unwrap_err().to_string();
    assert!(error.contains("rows of any size"), "{error}");
}

#[test]
fn files_that_are_none_say_so() {
    for (name, content, said) in [
        ("rows.xlsx", b"x".as_slice(), "expected a file that ends in .csv"),
        ("rows.parquet", b"x,y\n1,2\n", "it is not valid Parquet"),
        ("rows.csv", b"", "it is not valid CSV: it has no header line"),
        ("rows.csv", b"x,x\n1,2\n", "two columns are called 'x'"),
    ] {
        let (_folder, path) = file(name, content);
        let error = Dataset::open(&path).unwrap_err().to_string();
        assert!(error.starts_with(said), "{error}");
    }
    let error = Dataset::open(Path::new("/nowhere.csv")).unwrap_err().to_string();
    assert!(error.starts_with("cannot read it: No such file"), "{error}");
}

#[test]
fn the_first_rows_of_a_batch_are_all_of_it_but_the_rest() {
    let (_folder, path) = file("rows.csv", CSV.as_bytes());
    let extras = [Extra::Text("unused".to_owned())];
    let batch = read(&path, &extras).unwrap().remove(0).first(1).unwrap();
    assert_eq!(batch.n_rows, 1);
    assert_eq!(batch.extras, [ExtraValues::Texts(vec!["a".to_owned()])]);
    assert_eq!(batch.inputs[0].shape(), [1, 2]);
    assert_eq!(batch.inputs[3].elements().collect::<Vec<_>>(), [b"red"]);
}
