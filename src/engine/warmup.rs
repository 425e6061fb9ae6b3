//! The first run of a plan: proof that it runs, and what it costs.

use std::time::{Duration, Instant};

use super::{LoadError, Plan};
use crate::tensor::{Datatype, Shape, Tensor, TensorSpec};

/// Sizes tried for free dimensions beyond the first. Convolutions and pools refuse sizes below
/// their kernel, so one row of one element is not enough for every model.
const FREE_SIZES: [usize; 6] = [1, 8, 32, 128, 224, 512];

/// Runs after the first, of which the fastest is the cost.
const REPEATS: usize = 3;

/// The largest tensor that a warm-up makes. A file can declare any shape; a request of that size
/// would have to pass the body limit first.
const LARGEST: usize = 1 << 30;

/// What the warm-up found.
#[derive(Debug, Clone, Copy)]
pub struct WarmUp {
    /// The size used for free dimensions beyond the first.
    pub free_size: usize,
    /// The duration of the first run, in which the engine still allocates.
    pub first: Duration,
    /// The shortest of the following ones.
    pub cost: Duration,
}

impl Plan {
    /// Runs the plan on zeros (empty strings) of one row until one shape runs; on ones where it
    /// runs on no zeros, as a model that divides by its input.
    ///
    /// Where the settings name shapes, these are run instead, each.
    pub fn warm_up(&self) -> Result<WarmUp, LoadError> {
        if !self.shapes().is_empty() {
            return self.warm_up_shapes();
        }
        let specs = &self.signature().inputs;
        let only_rows_free =
            specs.iter().all(|spec| spec.shape.iter().skip(1).all(Option::is_some));
        let sizes = if only_rows_free { &FREE_SIZES[..1] } else { &FREE_SIZES };
        let mut first_error = None;
        for (value, &free_size) in
            [Value::Zero, Value::One].into_iter().flat_map(|v| sizes.iter().map(move |s| (v, s)))
        {
            let Some(inputs) = self.rows_of(value, 1, free_size) else { break };
            match self.time(&inputs) {
                Ok((first, cost)) => return Ok(WarmUp { free_size, first, cost }),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        let error = first_error.map(|error| error.to_string());
        Err(LoadError::WarmUp(error.unwrap_or_else(|| {
            format!("the declared shapes need more than {LARGEST} bytes for one row")
        })))
    }

    fn warm_up_shapes(&self) -> Result<WarmUp, LoadError> {
        let mut found: Option<WarmUp> = None;
        for shapes in self.shapes() {
            let mut run = Err(LoadError::WarmUp(format!("shapes {shapes:?} are too large")));
            for value in [Value::Zero, Value::One] {
                let Some(inputs) = self.shapes_of(value, shapes) else { break };
                run = self.time(&inputs).map_err(|error| LoadError::WarmUp(error.to_string()));
                if run.is_ok() {
                    break;
                }
            }
            let (first, cost) = run?;
            let warm_up = found.get_or_insert(WarmUp { free_size: 1, first, cost });
            warm_up.cost = warm_up.cost.min(cost);
        }
        found.ok_or_else(|| LoadError::WarmUp("there are no shapes".to_owned()))
    }

    /// The duration of a run of `rows` rows; nothing where the model does not take several or
    /// fails on zeros.
    #[must_use]
    pub fn time_rows(&self, rows: usize, free_size: usize) -> Option<Duration> {
        if !self.signature().takes_rows() {
            return None;
        }
        let inputs = self.rows_of(Value::Zero, rows, free_size)?;
        self.time(&inputs).ok().map(|(_, cost)| cost)
    }

    /// Runs the plan again and again for `time`, on the shapes that the settings name first or on one
    /// row: how often, and how long that took.
    pub fn run_for(&self, time: Duration, free_size: usize) -> Result<(u64, Duration), LoadError> {
        let inputs = match self.shapes().first() {
            Some(shapes) => self.shapes_of(Value::Varied, shapes),
            None => self.rows_of(Value::Varied, 1, free_size),
        };
        let inputs = inputs.ok_or_else(|| LoadError::WarmUp("the shapes are too large".into()))?;
        let (start, mut runs) = (Instant::now(), 0);
        while start.elapsed() < time {
            self.run(&inputs).map_err(|error| LoadError::WarmUp(error.to_string()))?;
            runs += 1;
        }
        Ok((runs, start.elapsed()))
    }

    /// Whether each of `rows` rows has the same bits alone and among the others, for rows that
    /// differ. A kernel may add up in another order for more rows, and a model may look at all
    /// rows at once.
    #[must_use]
    pub fn gives_rows_their_bits(&self, rows: usize, free_size: usize) -> bool {
        if !self.signature().takes_rows() {
            return false;
        }
        let Some(inputs) = self.rows_of(Value::Varied, rows, free_size) else { return false };
        let Ok(together) = self.run(&inputs) else { return false };
        (0..rows).all(|row| {
            let alone = inputs.iter().map(|input| one_row(input, row)).collect::<Option<Vec<_>>>();
            let Some(Ok(alone)) = alone.map(|alone| self.run(&alone)) else { return false };
            let mut pairs = alone.iter().zip(&together);
            pairs.all(|(alone, batch)| Some(alone) == one_row(batch, row).as_ref())
        })
    }

    /// Inputs of `rows` rows, with `free_size` for the other free dimensions; nothing where they would
    /// not fit into memory.
    fn rows_of(&self, value: Value, rows: usize, free_size: usize) -> Option<Vec<Tensor>> {
        let input = |spec: &TensorSpec| {
            let mut shape = spec.shape_with(free_size);
            if let (Some(first), true) = (shape.first_mut(), spec.is_batchable()) {
                *first = rows;
            }
            filled(spec.datatype, shape, value)
        };
        self.signature().inputs.iter().map(input).collect()
    }

    /// Inputs of these shapes; nothing where they would not fit into memory.
    fn shapes_of(&self, value: Value, shapes: &[Shape]) -> Option<Vec<Tensor>> {
        let inputs = self.signature().inputs.iter().zip(shapes);
        inputs.map(|(spec, shape)| filled(spec.datatype, shape.clone(), value)).collect()
    }

    /// Runs `inputs` a few times: the duration of the first run and the shortest after it.
    fn time(&self, inputs: &[Tensor]) -> Result<(Duration, Duration), super::RunError> {
        let run = || {
            let start = Instant::now();
            self.run(inputs).map(|_| start.elapsed())
        };
        let first = run()?;
        let mut cost = first;
        for _ in 0..REPEATS {
            cost = cost.min(run()?);
        }
        Ok((first, cost))
    }
}

/// What a tensor is filled with.
#[derive(Debug, Clone, Copy)]
enum Value {
    Zero,
    One,
    /// Small numbers, no two the same for long.
    Varied,
}

impl Value {
    /// `count` elements of `size` bytes each.
    fn data(self, datatype: Datatype, size: usize, count: usize) -> Vec<u8> {
        match self {
            Self::Zero => vec![0; size * count],
            Self::One => one(datatype, size).repeat(count),
            Self::Varied => varied(datatype, size, count),
        }
    }
}

fn one(datatype: Datatype, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    match datatype {
        Datatype::Fp16 => bytes[1] = 0x3c,
        Datatype::Bf16 => bytes.copy_from_slice(&[0x80, 0x3f]),
        Datatype::Fp32 => bytes.copy_from_slice(&1_f32.to_le_bytes()),
        Datatype::Fp64 => bytes.copy_from_slice(&1_f64.to_le_bytes()),
        _ => bytes[0] = 1,
    }
    bytes
}

/// Numbers from -2 to 2 in steps of a quarter for floats, 0 and 1 for the others, which may be
/// positions of something: exact in every datatype, and without a period that rows share.
fn varied(datatype: Datatype, size: usize, count: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut data = Vec::with_capacity(count * size);
    for _ in 0..count {
        let number = f32::from(random.i8(-8..=8)) / 4.0;
        match datatype {
            Datatype::Fp16 => data.extend_from_slice(&half::f16::from_f32(number).to_le_bytes()),
            Datatype::Bf16 => data.extend_from_slice(&half::bf16::from_f32(number).to_le_bytes()),
            Datatype::Fp32 => data.extend_from_slice(&number.to_le_bytes()),
            Datatype::Fp64 => data.extend_from_slice(&f64::from(number).to_le_bytes()),
            _ => {
                data.push(u8::from(number > 0.0));
                data.resize(data.len() + size - 1, 0);
            }
        }
    }
    data
}

/// A tensor of this shape, where it fits into memory; of BYTES all elements are empty.
fn filled(datatype: Datatype, shape: Shape, value: Value) -> Option<Tensor> {
    let count = crate::tensor::volume(&shape).ok().filter(|&count| count <= LARGEST / 8)?;
    let Some(size) = datatype.size() else {
        return Tensor::from_elements(shape, std::iter::repeat_n("", count)).ok();
    };
    Tensor::new(datatype, shape, value.data(datatype, size, count).into()).ok()
}

/// One row of a tensor whose rows have the same size.
fn one_row(tensor: &Tensor, row: usize) -> Option<Tensor> {
    let size = tensor.data().len() / tensor.rows().max(1);
    tensor.datatype().size()?;
    // An output may have fewer rows than it was asked for.
    (row < tensor.rows()).then_some(())?;
    let mut shape = Shape::from_slice(tensor.shape());
    *shape.first_mut()? = 1;
    Tensor::new(tensor.datatype(), shape, tensor.data().slice(row * size..(row + 1) * size)).ok()
}
