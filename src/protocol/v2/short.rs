//! Requests as most clients write them, read in one pass: tensors of numbers, names without escapes,
//! data behind its datatype and shape.
//!
//! All else, and all that is wrong, is read again the long way ([`super::wire`]), which knows the whole
//! protocol and says what it does not like. What is taken here is what the long way takes.

use std::borrow::Cow;

use super::numbers::Cursor;
use super::wire::{WireData, WireMessage, WireTensor, WireTensors};
use crate::tensor::{Datatype, Shape, volume};

/// The message; nothing where the long way has to be gone. O(length).
pub(super) fn read(json: &[u8]) -> Option<WireMessage<'_>> {
    let mut cursor = Cursor::new(json);
    let mut message = WireMessage::default();
    members(&mut cursor, |name, cursor| match name {
        "id" => once(&mut message.id, Cow::Borrowed(cursor.plain_string()?)),
        "inputs" => once(&mut message.tensors, tensors(cursor)?),
        _ => None,
    })?;
    cursor.next().is_none().then_some(message)
}

/// An object, each of whose members `read` takes.
fn members<'a>(
    cursor: &mut Cursor<'a>,
    mut read: impl FnMut(&'a str, &mut Cursor<'a>) -> Option<()>,
) -> Option<()> {
    cursor.expect(b'{')?;
    loop {
        let name = cursor.plain_string()?;
        cursor.expect(b':')?;
        read(name, cursor)?;
        if cursor.next()? == b'}' {
            return cursor.expect(b'}');
        }
        cursor.expect(b',')?;
    }
}

/// A list, each of whose elements `read` takes.
fn list<'a>(
    cursor: &mut Cursor<'a>,
    mut read: impl FnMut(&mut Cursor<'a>) -> Option<()>,
) -> Option<()> {
    cursor.expect(b'[')?;
    loop {
        read(cursor)?;
        if cursor.next()? == b']' {
            return cursor.expect(b']');
        }
        cursor.expect(b',')?;
    }
}

fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

fn tensors<'a>(cursor: &mut Cursor<'a>) -> Option<WireTensors<'a>> {
    let mut tensors = WireTensors::new();
    list(cursor, |cursor| {
        tensors.push(tensor(cursor)?);
        Some(())
    })?;
    Some(tensors)
}

fn tensor<'a>(cursor: &mut Cursor<'a>) -> Option<WireTensor<'a>> {
    let (mut name, mut datatype, mut shape, mut data) = (None, None, None, None);
    members(cursor, |member, cursor| match member {
        "name" => once(&mut name, cursor.plain_string()?),
        "datatype" => once(&mut datatype, Datatype::from_name(cursor.plain_string()?)?),
        "shape" => {
            let mut dims = Shape::new();
            list(cursor, |cursor| {
                dims.push(cursor.natural()?);
                Some(())
            })?;
            let count = volume(&dims).ok()?;
            once(&mut shape, (dims, count))
        }
        "data" => {
            let (shape, count) = shape.as_ref()?;
            once(&mut data, cursor.elements(datatype?, shape, *count)?)
        }
        _ => None,
    })?;
    let (shape, _) = shape?;
    let data = WireData::Here(data?);
    Some(WireTensor { name: Cow::Borrowed(name?), datatype: datatype?, shape, data })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::wire::{self, Side};
    use super::*;

    /// What the short way takes is what the long way takes.
    fn check(json: &str) -> Result<bool, TestCaseError> {
        let short = read(json.as_bytes());
        if let Some(short) = &short {
            let long = wire::read_long(json.as_bytes(), Side::Request);
            prop_assert_eq!(format!("{:?}", long.as_ref().ok()), format!("{:?}", Some(short)));
        }
        Ok(short.is_some())
    }

    fn member() -> impl Strategy<Value = String> {
        let fixed = [
            "\"name\":\"x\"",
            "\"name\" : \"a\\\\b\"",
            "\"name\":\"\u{e9}\"",
            "\"name\":\"\u{1}\"",
            "\"datatype\":\"FP32\"",
            "\"datatype\":\"INT64\"",
            "\"datatype\":\"BYTES\"",
            "\"shape\":[1,2]",
            "\"shape\":[]",
            "\"shape\" :\t[ 2 ]",
            "\"shape\":[01]",
            "\"shape\":[4611686018427387904, 4]",
            "\"data\":[1,2]",
            "\"data\":[[1, 2]]",
            "\"data\":[1.5,-2e3]",
            "\"data\":[\"a\",\"b\"]",
            "\"data\":[]",
            "\"data\":7",
            "\"parameters\":{\"binary_data_size\":4}",
        ];
        prop::sample::select(fixed.to_vec()).prop_map(str::to_owned)
    }

    proptest! {
        #[test]
        fn both_ways_agree(
            tensors in prop::collection::vec(prop::collection::vec(member(), 0..6), 0..3),
            id in prop_oneof![Just(""), Just("\"id\":\"7\","), Just("\"id\":7,")],
            cut in any::<prop::sample::Index>(),
            with in any::<char>(),
        ) {
            let tensors: Vec<String> =
                tensors.iter().map(|members| format!("{{{}}}", members.join(","))).collect();
            let json = format!("{{{id}\"inputs\":[{}]}}", tensors.join(","));
            check(&json)?;
            // And with one character that is another.
            let mut other: Vec<char> = json.chars().collect();
            let at = cut.index(other.len());
            other[at] = with;
            check(&other.iter().collect::<String>())?;
            check(&json[..json.floor_char_boundary(at)])?;
        }
    }

    #[test]
    fn what_clients_send_goes_the_short_way() {
        for json in [
            r#"{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [0.5, -1]}]}"#,
            r#"{"id":"a","inputs":[{"name":"x","datatype":"INT64","shape":[2],"data":[1,2]}]}"#,
            r#"{"inputs":[{"name":"x","datatype":"FP64","shape":[1,2],"data":[[1,2.5e3]]},
                {"name":"y","datatype":"UINT8","shape":[1],"data":[1]}], "id": "b"}"#,
        ] {
            assert!(check(json).unwrap(), "{json}");
        }
    }
}
