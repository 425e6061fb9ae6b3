//! Small bodies that say what is to be done.

use serde::{Deserialize, Deserializer};

/// A JSON object, or nothing at all, which is an empty one. A list is none, although it could be read
/// as the members in their order.
pub(super) fn object<'a, T: Deserialize<'a> + Default>(body: &'a [u8]) -> Result<T, String> {
    let body = body.trim_ascii();
    match body.first() {
        None => Ok(T::default()),
        Some(b'{') => serde_json::from_slice(body).map_err(|error| format!("the body: {error}")),
        Some(_) => Err("the body: expected a JSON object".to_owned()),
    }
}

/// A whole number, or none. `20000.0` is one, as everywhere in JSON.
pub(super) fn whole<'a, D: Deserializer<'a>>(from: D) -> Result<Option<u64>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(from)? else { return Ok(None) };
    // Beyond 2^53 numbers with a point are not exact, and nobody means one of them.
    let exact =
        |value: &f64| value.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(value);
    let value = number.as_u64().or_else(|| number.as_f64().filter(exact).map(|value| value as u64));
    let wrong =
        || serde::de::Error::custom(format!("expected a whole number from 0 on, got {number}"));
    value.map(Some).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Order {
        rows: u32,
    }

    #[test]
    fn an_object_or_nothing() {
        assert_eq!(object(b" \n"), Ok(Order::default()));
        assert_eq!(object(b" {\"rows\": 3} "), Ok(Order { rows: 3 }));
        for wrong in ["[3]", "null", "3", "{\"rows\": -1}", "{}x", "{"] {
            let error = object::<Order>(wrong.as_bytes()).unwrap_err();
            assert!(error.starts_with("the body: "), "{wrong}: {error}");
        }
    }

    #[test]
    fn whole_numbers_with_and_without_a_point() {
        #[derive(Debug, Default, PartialEq, Deserialize)]
        struct Order {
            #[serde(default, deserialize_with = "whole")]
            rows: Option<u64>,
        }
        for (text, rows) in [
            ("{}", None),
            (r#"{"rows": null}"#, None),
            (r#"{"rows": 20000.0}"#, Some(20_000)),
            (r#"{"rows": 18446744073709551615}"#, Some(u64::MAX)),
        ] {
            assert_eq!(object(text.as_bytes()), Ok(Order { rows }), "{text}");
        }
        for wrong in [r#"{"rows": -1}"#, r#"{"rows": 0.5}"#, r#"{"rows": 1e300}"#] {
            let error = object::<Order>(wrong.as_bytes()).unwrap_err();
            assert!(error.contains("expected a whole number from 0 on"), "{error}");
        }
    }
}
