//! Small bodies that say what is to be done.

use serde::Deserialize;

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
}
