//! The fields that Istio's kinds have, to explain what is wrong with an object that does not fit them.

use std::sync::OnceLock;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::kinds::Kind;
use crate::yaml::Segment;

/// A kind's JSON schema, without references.
#[derive(Debug)]
pub(super) struct Schema {
    root: Value,
}

impl Schema {
    /// The schema of a kind whose unknown fields are refused.
    pub fn of(kind: Kind) -> Option<&'static Self> {
        // Constants of the program, in truth; made once because making one takes longer than reading an object.
        static ALL: [OnceLock<Option<Schema>>; Kind::COUNT] = [const { OnceLock::new() }; Kind::COUNT];
        let make = || Some(Self::with_spec(&kind.entry().definition?.spec?()));
        ALL[kind as usize].get_or_init(make).as_ref()
    }

    fn with_spec(spec: &Value) -> Self {
        // Of metadata only what people write by hand; its unknown fields are not refused.
        let metadata =
            json!({ "properties": { "name": {}, "namespace": {}, "labels": {}, "annotations": {} } });
        let root = json!({
            "properties": { "apiVersion": {}, "kind": {}, "metadata": metadata, "spec": spec, "status": {} },
        });
        Self { root }
    }

    /// The schema of the whole object.
    pub fn root(&self) -> Shape<'_> {
        Shape(&self.root)
    }

    /// The schema of what `path` leads to.
    pub fn at(&self, path: &[Segment]) -> Option<Shape<'_>> {
        path.iter().try_fold(self.root(), |shape, segment| match segment {
            Segment::Key(key) => shape.field(key),
            Segment::Index(_) => shape.item(),
        })
    }
}

/// The JSON schema of a type, without references.
pub(crate) fn inlined<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::default().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    SchemaGenerator::new(settings).into_root_schema_for::<T>().into()
}

/// What a value looks like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape<'a>(&'a Value);

impl<'a> Shape<'a> {
    /// Without the `null` that an optional field allows.
    fn resolved(self) -> &'a Value {
        let alternatives = self.0.get("anyOf").and_then(Value::as_array);
        alternatives
            .and_then(|any| any.iter().find(|one| one.get("type") != Some(&json!("null"))))
            .unwrap_or(self.0)
    }

    /// The fields of a struct.
    pub fn fields(self) -> Option<&'a Map<String, Value>> {
        self.resolved().get("properties")?.as_object()
    }

    /// A field of a struct, or the values of a map.
    pub fn field(self, name: &str) -> Option<Shape<'a>> {
        if let Some(fields) = self.fields() {
            return fields.get(name).map(Shape);
        }
        self.resolved().get("additionalProperties").filter(|values| values.is_object()).map(Shape)
    }

    /// The items of a list.
    pub fn item(self) -> Option<Shape<'a>> {
        self.resolved().get("items").map(Shape)
    }

    /// The fields of a struct, or of the structs in a list.
    pub fn inner_fields(self) -> Option<&'a Map<String, Value>> {
        self.item().unwrap_or(self).fields()
    }

    /// The fields of a struct, or of the structs in a list, with their shapes.
    pub fn inner_shapes(self) -> impl Iterator<Item = (&'a str, Shape<'a>)> {
        self.inner_fields().into_iter().flatten().map(|(name, value)| (name.as_str(), Shape(value)))
    }

    /// Whether it is a map of free keys.
    pub fn is_map(self) -> bool {
        self.resolved().get("additionalProperties").is_some_and(Value::is_object)
    }

    /// Whether it is a list.
    pub fn is_list(self) -> bool {
        self.item().is_some()
    }
}

/// The name that was probably meant.
pub(crate) fn closest<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |name: &str| name.to_ascii_lowercase().replace(['_', '-'], "");
    let wrong = plain(wrong);
    names
        .map(|name| (strsim::damerau_levenshtein(&wrong, &plain(name)), name))
        .filter(|(distance, name)| *distance <= wrong.len().max(name.len()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Whether two names differ in their way of writing only: `mirror_percentage`, `mirrorPercentage`.
pub(super) fn same_but_for_style(a: &str, b: &str) -> bool {
    let plain = |name: &str| name.to_ascii_lowercase().replace(['_', '-'], "");
    plain(a) == plain(b)
}
