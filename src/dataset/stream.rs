//! A look at an Arrow stream before it is decoded: what its messages say must be true of the bytes
//! that came, and what it decompresses to must be within the limit.
//!
//! The decoder takes memory as the stream announces it, and is written for streams of friends.

use std::collections::HashMap;

use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::{CompressionType, MessageHeader, RecordBatch, root_as_message};
use arrow_schema::{DataType, Field, Schema};

use super::DatasetError;

/// Begins the length of a message, since version 0.15 of the format.
const CONTINUATION: [u8; 4] = [0xff; 4];

pub(super) fn invalid(reason: impl ToString) -> DatasetError {
    DatasetError::Invalid { form: "Arrow stream", reason: reason.to_string() }
}

/// Where the stream's schema ends, if all its messages are what they say, and decompress to `limit`
/// bytes at most.
pub(super) fn check(stream: &[u8], limit: usize) -> Result<usize, DatasetError> {
    let mut schema_end = None;
    let mut layout = Layout::default();
    let mut budget = Budget { limit, left: limit };
    let mut rest = stream;
    while let Some((length, after)) = length(rest)? {
        let cut = |what: &str| invalid(format_args!("it ends within {what}"));
        let (head, after) = after.split_at_checked(length).ok_or_else(|| cut("a message"))?;
        let message = root_as_message(head)
            .map_err(|error| invalid(format_args!("a message of it cannot be read: {error}")))?;
        let size = usize::try_from(message.bodyLength()).map_err(|_| cut("a message's body"))?;
        let (body, after) = after.split_at_checked(size).ok_or_else(|| cut("a message's body"))?;
        rest = after;
        match message.header_type() {
            MessageHeader::Schema if schema_end.is_some() => {
                return Err(invalid("it has a second schema"));
            }
            MessageHeader::Schema => {
                let schema =
                    message.header_as_schema().ok_or_else(|| invalid("it has no schema"))?;
                let schema = try_fb_to_schema(schema).map_err(invalid)?;
                check_types(&schema)?;
                layout = Layout::of(&schema);
                schema_end = Some(stream.len() - rest.len());
            }
            _ if schema_end.is_none() => return Err(invalid("it does not begin with a schema")),
            MessageHeader::RecordBatch => {
                let batch = message.header_as_record_batch();
                let batch = batch.ok_or_else(|| invalid("a batch has no head"))?;
                batch_fits(batch, body, &layout.columns, &mut budget)?;
            }
            MessageHeader::DictionaryBatch => {
                let dictionary = message.header_as_dictionary_batch();
                let dictionary = dictionary.ok_or_else(|| invalid("a dictionary has no head"))?;
                if dictionary.isDelta() {
                    return Err(invalid("it has a dictionary in parts (delta); send it whole"));
                }
                let values = layout.dictionaries.get(&dictionary.id());
                let (values, batch) = values
                    .zip(dictionary.data())
                    .ok_or_else(|| invalid("a dictionary is empty, or of no column"))?;
                batch_fits(batch, body, values, &mut budget)?;
            }
            other => return Err(invalid(format_args!("it has a message of type {other:?}"))),
        }
    }
    schema_end.ok_or_else(|| invalid("it has no schema"))
}

/// The length of the next message, and what follows. Nothing at the end of the stream.
fn length(rest: &[u8]) -> Result<Option<(usize, &[u8])>, DatasetError> {
    if rest.is_empty() {
        return Ok(None);
    }
    let four = |rest: &'_ [u8]| rest.split_first_chunk::<4>().map(|(first, _)| *first);
    let cut = || invalid("it ends within the length of a message");
    let first = four(rest).ok_or_else(cut)?;
    let rest = if first == CONTINUATION { &rest[4..] } else { rest };
    let length = u32::from_le_bytes(four(rest).ok_or_else(cut)?) as usize;
    // A length of 0 ends the stream.
    Ok((length > 0).then_some((length, &rest[4..])))
}

/// Bytes that buffers may decompress to.
struct Budget {
    limit: usize,
    left: usize,
}

impl Budget {
    fn take(&mut self, bytes: usize) -> Result<(), DatasetError> {
        let left = self.left.checked_sub(bytes);
        self.left = left.ok_or(DatasetError::TooLarge { limit: self.limit })?;
        Ok(())
    }
}

fn batch_fits(
    batch: RecordBatch<'_>,
    body: &[u8],
    parts: &[Part],
    budget: &mut Budget,
) -> Result<(), DatasetError> {
    if batch.length() < 0 {
        return Err(invalid("a batch has fewer than no rows"));
    }
    for node in batch.nodes().into_iter().flatten() {
        if node.length() < 0 || node.null_count() < 0 || node.null_count() > node.length() {
            let (length, nulls) = (node.length(), node.null_count());
            return Err(invalid(format_args!("a column has {length} values and {nulls} missing")));
        }
    }
    let compression = batch.compression();
    if let Some(compression) = &compression
        && ![CompressionType::LZ4_FRAME, CompressionType::ZSTD].contains(&compression.codec())
    {
        return Err(invalid("its buffers are compressed by neither LZ4 nor Zstandard"));
    }
    let mut variadic = batch.variadicBufferCounts().into_iter().flatten();
    let mut parts = parts.iter();
    let mut more = 0;
    for buffer in batch.buffers().into_iter().flatten() {
        let range =
            usize::try_from(buffer.offset()).ok().zip(usize::try_from(buffer.length()).ok());
        let bytes = range.and_then(|(start, length)| body.get(start..start.checked_add(length)?));
        let bytes = bytes.ok_or_else(|| invalid("a buffer reaches beyond its message"))?;
        let size = match compression.is_some() && !bytes.is_empty() {
            true => decompressed(bytes, budget)?,
            false => bytes.len(),
        };
        if more > 0 {
            more -= 1;
            continue;
        }
        // Buffers that no column asks for are passed over by the decoder.
        let Some(part) = parts.next() else { break };
        if !size.is_multiple_of(part.unit) {
            let unit = part.unit;
            return Err(invalid(format_args!(
                "a buffer of {size} bytes has values of {unit} each"
            )));
        }
        if part.has_more {
            more = variadic.next().unwrap_or(0);
        }
    }
    Ok(())
}

/// The bytes that a compressed buffer takes, which its first eight say.
fn decompressed(bytes: &[u8], budget: &mut Budget) -> Result<usize, DatasetError> {
    let Some((size, compressed)) = bytes.split_first_chunk::<8>() else {
        return Err(invalid("a compressed buffer has no length"));
    };
    let size = match i64::from_le_bytes(*size) {
        -1 => compressed.len(),
        size => usize::try_from(size).map_err(|_| invalid("a buffer has fewer than no bytes"))?,
    };
    budget.take(size)?;
    Ok(size)
}

/// What a buffer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    /// Bytes of a value.
    unit: usize,
    /// Whether further buffers follow, as many as the batch says.
    has_more: bool,
}

/// The buffers of the columns and of their dictionaries, in order.
#[derive(Debug, Default)]
struct Layout {
    columns: Vec<Part>,
    dictionaries: HashMap<i64, Vec<Part>>,
}

impl Layout {
    fn of(schema: &Schema) -> Self {
        let mut layout = Self::default();
        let mut columns = Vec::new();
        schema.fields().iter().for_each(|field| layout.field(field, &mut columns));
        Self { columns, ..layout }
    }

    fn field(&mut self, field: &Field, parts: &mut Vec<Part>) {
        if let DataType::Dictionary(_, values) = field.data_type() {
            let mut of_values = Vec::new();
            self.datatype(values, &mut of_values);
            #[expect(
                deprecated,
                reason = "streams name dictionaries by it, and nothing else has it"
            )]
            let id = field.dict_id();
            self.dictionaries.insert(id.unwrap_or_default(), of_values);
        }
        self.datatype(field.data_type(), parts);
    }

    fn datatype(&mut self, datatype: &DataType, parts: &mut Vec<Part>) {
        let mut units = |units: &[usize]| {
            parts.extend(units.iter().map(|&unit| Part { unit, has_more: false }));
        };
        match datatype {
            DataType::Null => {}
            DataType::Utf8 | DataType::Binary => units(&[1, 4, 1]),
            DataType::LargeUtf8 | DataType::LargeBinary => units(&[1, 8, 1]),
            DataType::Utf8View | DataType::BinaryView => {
                units(&[1]);
                parts.push(Part { unit: 16, has_more: true });
            }
            DataType::List(field) => {
                units(&[1, 4]);
                self.field(field, parts);
            }
            DataType::LargeList(field) => {
                units(&[1, 8]);
                self.field(field, parts);
            }
            DataType::FixedSizeList(field, _) => {
                units(&[1]);
                self.field(field, parts);
            }
            DataType::Struct(fields) => {
                units(&[1]);
                fields.iter().for_each(|field| self.field(field, parts));
            }
            DataType::Dictionary(keys, _) => units(&[1, keys.primitive_width().unwrap_or(1)]),
            other => units(&[1, other.primitive_width().unwrap_or(1)]),
        }
    }
}

/// Whether all columns are of types whose decoding is known to end well.
fn check_types(schema: &Schema) -> Result<(), DatasetError> {
    let mut types: Vec<(&str, &DataType)> =
        schema.fields().iter().map(|field| (field.name().as_str(), field.data_type())).collect();
    while let Some((name, datatype)) = types.pop() {
        match datatype {
            DataType::Union(..)
            | DataType::RunEndEncoded(..)
            | DataType::Map(..)
            | DataType::ListView(_)
            | DataType::LargeListView(_) => {
                return Err(DatasetError::Column(format!(
                    "column '{name}' cannot be used: its type is {datatype}"
                )));
            }
            DataType::List(field) | DataType::LargeList(field) => {
                types.push((name, field.data_type()));
            }
            DataType::FixedSizeList(field, size) if *size > 0 => {
                types.push((name, field.data_type()));
            }
            DataType::FixedSizeList(..) => {
                return Err(DatasetError::Column(format!("column '{name}' has lists of nothing")));
            }
            DataType::Struct(fields) => {
                types.extend(fields.iter().map(|field| (name, field.data_type())));
            }
            DataType::Dictionary(keys, values) if keys.is_dictionary_key_type() => {
                types.push((name, values));
            }
            DataType::Dictionary(keys, _) => {
                return Err(DatasetError::Column(format!(
                    "column '{name}' is a dictionary with keys of type {keys}"
                )));
            }
            _ => {}
        }
    }
    Ok(())
}
