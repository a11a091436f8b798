//! What a request's token says, once it was found good.

use serde_json::{Map, Value};

/// A token that was found good.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims {
    /// `iss`.
    pub issuer: String,
    /// `ISS/SUB`; empty for a token without `sub`.
    pub principal: String,
    /// The whole payload, with claims that are lists separated by spaces as lists.
    pub all: Map<String, Value>,
}

impl Claims {
    /// The claim at the end of a path: `a`, and in it `b`.
    pub(crate) fn find(&self, path: &[Box<str>]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.all.get(&**first)?, |value, name| value.get(&**name))
    }

    /// Whether that claim is a text that is so, or a list of which one is.
    pub(crate) fn any(&self, path: &[Box<str>], is: impl Fn(&[u8]) -> bool) -> bool {
        let is = |value: &Value| value.as_str().is_some_and(|text| is(text.as_bytes()));
        match self.find(path) {
            Some(Value::Array(values)) => values.iter().any(is),
            Some(value) => is(value),
            None => false,
        }
    }
}
