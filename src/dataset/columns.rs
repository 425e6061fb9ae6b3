//! Which columns of a file fill which input.

use std::collections::BTreeMap;

use super::DatasetError;
use crate::tensor::{Dim, TensorSpec};

/// An input and the columns that fill it.
#[derive(Debug, Clone, PartialEq)]
pub struct InputColumns {
    /// The input.
    pub spec: TensorSpec,
    /// A column an element of a row; or one whose cells are lists of all elements.
    pub columns: Vec<String>,
    /// Elements of a row.
    pub width: usize,
    /// Whether there is a row a tensor, since the input's first dimension does not count rows.
    pub is_whole: bool,
}

impl InputColumns {
    /// Whether one column holds lists.
    #[must_use]
    pub fn is_list(&self) -> bool {
        self.columns.len() == 1 && self.width != 1
    }
}

/// Finds the columns of each input.
///
/// An input of one element a row is filled by the column of its name, or of its feature's. One of
/// several is filled by the columns of its features' names, by `INPUT_0`, `INPUT_1`, ..., by a
/// column of its name that holds lists, or, where it is the only input and the file has just as
/// many columns besides `reserved`, by those in their order. `names` are the features' names by
/// input.
pub fn match_columns(
    columns: &[String],
    inputs: &[TensorSpec],
    names: &BTreeMap<String, Vec<String>>,
    reserved: &[String],
) -> Result<Vec<InputColumns>, DatasetError> {
    let has = |name: &String| columns.contains(name);
    let is_whole = !inputs.iter().all(TensorSpec::is_batchable);
    let mut found = Vec::new();
    for spec in inputs {
        let dims = spec.shape.iter().skip(usize::from(!is_whole)).copied();
        let Some(width) = dims.product::<Dim>() else {
            return Err(DatasetError::AnySize { spec: spec.clone() });
        };
        let numbered = || (0..width).map(|column| format!("{}_{column}", spec.name)).collect();
        let named = names.get(&spec.name).filter(|names| names.len() == width).cloned();
        let rest = || {
            let rest = columns.iter().filter(|column| !reserved.contains(column)).cloned();
            let rest: Vec<String> = rest.collect();
            (inputs.len() == 1 && width > 1 && rest.len() == width).then_some(rest)
        };
        let all_there = |wanted: &Vec<String>| wanted.iter().all(has);
        let single = vec![spec.name.clone()];
        let chosen = match width {
            1 => [Some(single), named.clone(), Some(numbered())]
                .into_iter()
                .flatten()
                .find(all_there),
            _ => [named.clone(), Some(numbered()), Some(single)]
                .into_iter()
                .flatten()
                .find(all_there)
                .or_else(rest),
        };
        let chosen = chosen.ok_or_else(|| missing(spec, named.as_ref(), width, columns))?;
        found.push(InputColumns { spec: spec.clone(), columns: chosen, width, is_whole });
    }
    Ok(found)
}

/// Says which columns are wanted, and which of them are not there.
fn missing(
    spec: &TensorSpec,
    names: Option<&Vec<String>>,
    width: usize,
    columns: &[String],
) -> DatasetError {
    let numbered: Vec<String> =
        (0..width).map(|column| format!("{}_{column}", spec.name)).collect();
    let lacking = |wanted: &[String]| -> Vec<String> {
        wanted.iter().filter(|name| !columns.contains(name)).cloned().collect()
    };
    let wanted = match (width, names) {
        (1, _) => format!("a column '{}'", spec.name),
        (_, Some(names)) => format!("columns {}", list(names)),
        _ => format!("columns '{}_0' to '{}_{}'", spec.name, spec.name, width - 1),
    };
    let absent = match names {
        Some(names) if width > 1 => lacking(names),
        _ => lacking(&numbered),
    };
    let which = match width > 1 && absent.len() < width {
        true => format!(" ({} missing)", list(&absent)),
        false => String::new(),
    };
    let has = list(columns);
    DatasetError::Column(format!("input {spec} needs {wanted}{which}; there are {has}"))
}

/// Names with commas between them, the first dozen.
pub(super) fn list(names: &[String]) -> String {
    const MOST: usize = 12;
    let shown: Vec<String> = names.iter().take(MOST).map(|name| format!("'{name}'")).collect();
    let more = names.len().saturating_sub(MOST);
    match more {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
