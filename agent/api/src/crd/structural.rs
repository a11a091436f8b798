//! From a JSON schema as schemars makes it to a structural one, which is all that the API server takes.

use serde_json::{Map, Value, json};

/// Fields of which at most one may be set: Istio's oneofs. A struct is known by having all of them.
const ONE_OF: &[&[&str]] = &[
    &["exact", "prefix", "regex"],
    &["simple", "consistentHash"],
    &["httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"],
    &["port", "derivePort"],
    &["string", "bytes"],
    &["httpStatus", "grpcStatus", "http2Error"],
    &["fixedDelay", "exponentialDelay"],
];

/// Keeps what a structural schema may say, in its words.
pub fn structural(schema: Value) -> Value {
    let Value::Object(mut schema) = schema else {
        // `true`: anything.
        return json!({ "x-kubernetes-preserve-unknown-fields": true });
    };
    if let Some(inner) = without_null(&mut schema) {
        let mut inner = structural(inner);
        if let (Some(description), Value::Object(inner)) = (schema.remove("description"), &mut inner) {
            inner.insert("description".to_owned(), description);
        }
        return inner;
    }
    let mut out = Map::new();
    for key in ["description", "enum", "minimum", "maximum", "minItems", "maxItems", "minProperties"] {
        if let Some(value) = schema.remove(key) {
            out.insert(key.to_owned(), value);
        }
    }
    if let Some(variants) = variants(&mut schema) {
        out.insert("type".to_owned(), json!("string"));
        out.insert("enum".to_owned(), Value::Array(variants));
        return Value::Object(out);
    }
    if let Some(kind) = schema.remove("type") {
        out.insert("type".to_owned(), one_type(kind));
    }
    if let Some(format) = schema.get("format").and_then(Value::as_str) {
        number(&mut out, format);
    }
    if let Some(items) = schema.remove("items") {
        out.insert("items".to_owned(), structural(items));
    }
    if let Some(Value::Object(fields)) = schema.remove("properties") {
        if let Some(alternatives) =
            ONE_OF.iter().find(|all| all.iter().all(|name| fields.contains_key(*name)))
        {
            out.insert("oneOf".to_owned(), at_most_one(alternatives));
        }
        let fields = fields.into_iter().map(|(name, field)| (name, structural(field))).collect();
        out.insert("properties".to_owned(), Value::Object(fields));
    } else if let Some(values) = map_values(&mut schema) {
        out.insert("additionalProperties".to_owned(), structural(values));
    }
    Value::Object(out)
}

/// The schema of an optional value, of which null is one form.
fn without_null(schema: &mut Map<String, Value>) -> Option<Value> {
    let Value::Array(any) = schema.remove("anyOf")? else { return None };
    any.into_iter().find(|one| one.get("type") != Some(&json!("null")))
}

/// The names of an enum, each of which has a description of its own.
fn variants(schema: &mut Map<String, Value>) -> Option<Vec<Value>> {
    let Value::Array(all) = schema.remove("oneOf")? else { return None };
    Some(
        all.into_iter()
            .flat_map(|variant| match (variant.get("const"), variant.get("enum")) {
                (Some(name), _) => vec![name.clone()],
                (None, Some(Value::Array(names))) => names.clone(),
                _ => Vec::new(),
            })
            .collect(),
    )
}

/// `[string, null]` is a string: an absent field is what Kubernetes has for null.
fn one_type(kind: Value) -> Value {
    match kind {
        Value::Array(all) => all.into_iter().find(|one| one != "null").unwrap_or(Value::Null),
        one => one,
    }
}

/// The ranges of unsigned numbers, whose formats OpenAPI does not know.
fn number(out: &mut Map<String, Value>, format: &str) {
    match format {
        "int32" | "int64" | "double" => _ = out.insert("format".to_owned(), json!(format)),
        "uint16" => _ = out.insert("maximum".to_owned(), json!(u16::MAX)),
        "uint32" => _ = out.insert("maximum".to_owned(), json!(u32::MAX)),
        _ => {}
    }
}

/// The values of a map, whose keys may be any text or numbers.
fn map_values(schema: &mut Map<String, Value>) -> Option<Value> {
    if let Some(Value::Object(patterns)) = schema.remove("patternProperties") {
        return patterns.into_iter().next().map(|(_, values)| values);
    }
    schema.remove("additionalProperties").filter(|values| !values.is_boolean())
}

fn at_most_one(names: &[&str]) -> Value {
    let one = |name: &&str| json!({ "required": [name] });
    let none = json!({ "not": { "anyOf": names.iter().map(one).collect::<Vec<_>>() } });
    std::iter::once(none).chain(names.iter().map(one)).collect()
}
