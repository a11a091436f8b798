//! From a [`Node`] to a typed object, by serde. Errors keep their path.
//!
//! A key without a value counts as absent, at every level: so does Kubernetes.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserializer, IntoDeserializer as _, Visitor};

use super::node::{Data, Key, Node, Path, Segment, shorten};

/// Reads an object.
pub(crate) fn from_node<T: de::DeserializeOwned>(node: &Node<'_>) -> Result<T, DeError> {
    T::deserialize(node).map_err(|mut error| {
        error.path.reverse();
        error
    })
}

/// What does not fit, and where.
#[derive(Debug)]
pub(crate) struct DeError {
    /// The way to it, from the root.
    pub path: Path,
    /// What it is.
    pub fault: Fault,
}

/// What does not fit.
#[derive(Debug, PartialEq)]
pub(crate) enum Fault {
    /// The last segment of the path is no field of its struct.
    UnknownField,
    /// Not one of the values that an enum has.
    UnknownVariant(String, &'static [&'static str]),
    /// A value of another type than this.
    Type(String),
    /// A number that does not fit this type.
    Value(String),
    /// The struct lacks a field that has no default.
    Missing(&'static str),
    /// Anything else.
    Other(String),
}

impl DeError {
    fn new(fault: Fault) -> Self {
        Self { path: Vec::new(), fault }
    }

    fn under(mut self, segment: Segment) -> Self {
        self.path.push(segment);
        self
    }
}

impl fmt::Display for DeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.fault)
    }
}

impl std::error::Error for DeError {}

impl de::Error for DeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Fault::Other(message.to_string()))
    }

    fn invalid_type(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(Fault::Type(expected.to_string()))
    }

    fn invalid_value(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(Fault::Value(expected.to_string()))
    }

    fn unknown_field(_: &str, _: &'static [&'static str]) -> Self {
        Self::new(Fault::UnknownField)
    }

    fn unknown_variant(found: &str, expected: &'static [&'static str]) -> Self {
        Self::new(Fault::UnknownVariant(found.to_owned(), expected))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(Fault::Missing(field))
    }
}

fn key_segment(key: &Key<'_>) -> Segment {
    Segment::Key(Cow::Owned(key.text.clone().into_owned()))
}

impl<'de> Deserializer<'de> for &'de Node<'_> {
    type Error = DeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        match &self.data {
            Data::Null | Data::Skipped => visitor.visit_unit(),
            Data::Bool(value) => visitor.visit_bool(*value),
            Data::Integer(value, _) => visitor.visit_i64(*value),
            Data::Float(value, _) => visitor.visit_f64(*value),
            Data::Text(text) => visitor.visit_borrowed_str(text),
            Data::List(items) => visitor.visit_seq(Items { items: items.iter().enumerate() }),
            Data::Map(entries) => visitor.visit_map(Entries::new(entries, false)),
        }
    }

    /// A map of free keys, not a struct: here a key without a value is still a key.
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        match &self.data {
            Data::Map(entries) => visitor.visit_map(Entries::new(entries, true)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        match self.data {
            Data::Null | Data::Skipped => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, DeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DeError> {
        match &self.data {
            Data::Text(text) => visitor.visit_enum((&**text).into_deserializer()),
            _ => Err(DeError::new(Fault::Type("text".to_owned()))),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct struct identifier
    }
}

struct Items<'de, 'a> {
    items: std::iter::Enumerate<std::slice::Iter<'de, Node<'a>>>,
}

impl<'de> de::SeqAccess<'de> for Items<'de, '_> {
    type Error = DeError;

    fn next_element_seed<T: de::DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DeError> {
        let Some((index, item)) = self.items.find(|(_, item)| item.data != Data::Skipped) else {
            return Ok(None);
        };
        seed.deserialize(item).map(Some).map_err(|error| error.under(Segment::Index(index)))
    }
}

struct Entries<'de, 'a> {
    rest: std::slice::Iter<'de, (Key<'a>, Node<'a>)>,
    free_keys: bool,
    value: Option<(&'de Key<'a>, &'de Node<'a>)>,
}

impl<'de, 'a> Entries<'de, 'a> {
    fn new(entries: &'de [(Key<'a>, Node<'a>)], free_keys: bool) -> Self {
        Self { rest: entries.iter(), free_keys, value: None }
    }
}

impl<'de> de::MapAccess<'de> for Entries<'de, '_> {
    type Error = DeError;

    fn next_key_seed<K: de::DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DeError> {
        let free_keys = self.free_keys;
        let next = self.rest.find(|(_, value)| match value.data {
            Data::Skipped => false,
            Data::Null => free_keys,
            _ => true,
        });
        let Some((key, value)) = next else { return Ok(None) };
        self.value = Some((key, value));
        seed.deserialize(KeyText(&key.text)).map(Some).map_err(|error: DeError| error.under(key_segment(key)))
    }

    fn next_value_seed<V: de::DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, DeError> {
        let Some((key, value)) = self.value.take() else {
            return Err(DeError::new(Fault::Other("a value without a key".to_owned())));
        };
        let read = match value.data {
            Data::Null => seed.deserialize(EmptyValue),
            _ => seed.deserialize(value),
        };
        read.map_err(|error| error.under(key_segment(key)))
    }
}

/// A key, which is text; where ports are keys, a number, with or without quotes.
struct KeyText<'de>(&'de str);

impl<'de> Deserializer<'de> for KeyText<'de> {
    type Error = DeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        visitor.visit_borrowed_str(self.0)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        let Ok(number) = self.0.parse() else {
            let shown = shorten(self.0);
            return Err(DeError::new(Fault::Other(format!("{shown:?} is no port (write 1 to 65535)"))));
        };
        visitor.visit_u16(number)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DeError> {
        visitor.visit_enum(de::value::BorrowedStrDeserializer::new(self.0))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct
        seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// The value of a key without one, in a map of free keys: empty text, as Kubernetes reads it, and no struct.
struct EmptyValue;

impl<'de> Deserializer<'de> for EmptyValue {
    type Error = DeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        visitor.visit_unit()
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        visitor.visit_borrowed_str("")
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str bytes byte_buf option unit unit_struct newtype_struct
        seq tuple tuple_struct map struct enum identifier ignored_any
    }
}
