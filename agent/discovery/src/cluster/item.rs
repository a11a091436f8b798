//! One object as the API server serves it: its text, and what has to be known of it before it is read.

use std::hash::BuildHasher;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// An object that was not read yet. Whatever is wrong with it concerns nobody but itself.
#[derive(Debug, Clone)]
pub struct Item {
    head: Head,
    text: Box<RawValue>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Head {
    #[serde(default)]
    metadata: Meta,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Meta {
    name: String,
    namespace: String,
    uid: String,
    resource_version: String,
}

impl Item {
    /// `namespace/name`, or the name alone of what is in no namespace.
    pub fn name(&self) -> String {
        let Meta { name, namespace, .. } = &self.head.metadata;
        if namespace.is_empty() { name.clone() } else { format!("{namespace}/{name}") }
    }

    /// Namespace and name.
    pub fn names(&self) -> (&str, &str) {
        (&self.head.metadata.namespace, &self.head.metadata.name)
    }

    /// Where a watch may go on after this event.
    pub fn resource_version(&self) -> &str {
        &self.head.metadata.resource_version
    }

    /// Tells this version of the object from all others.
    pub fn version(&self, hasher: &impl BuildHasher) -> u64 {
        hasher.hash_one((&self.head.metadata.uid, &self.head.metadata.resource_version))
    }

    /// Its JSON.
    pub fn text(&self) -> &str {
        self.text.get()
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let head = serde_json::from_str(text.get()).map_err(serde::de::Error::custom)?;
        Ok(Self { head, text })
    }
}

/// A page of a list.
#[derive(Debug, Clone, Deserialize)]
pub struct Page {
    /// What is said of the list.
    pub metadata: PageMeta,
    /// What is on it.
    #[serde(default)]
    pub items: Option<Vec<Item>>,
}

/// `metadata` of a list.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PageMeta {
    /// The state that it shows; a watch goes on from there.
    #[serde(default)]
    pub resource_version: String,
    /// Where the next page begins; empty on the last.
    #[serde(default, rename = "continue")]
    pub next: String,
}

#[cfg(test)]
mod tests {
    use kube::core::WatchEvent;

    use super::*;

    #[test]
    fn watches_and_lists_are_cut_into_texts() {
        let line = r#"{"type":"MODIFIED","object":{"kind":"Pod","metadata":{"name":"a","namespace":"shop","resourceVersion":"7"},"spec":{"x":[1]}}}"#;
        let WatchEvent::Modified(item) = serde_json::from_str::<WatchEvent<Item>>(line).unwrap() else {
            panic!("modified")
        };
        assert_eq!((&*item.name(), item.resource_version()), ("shop/a", "7"));
        assert!(item.text().ends_with(r#""spec":{"x":[1]}}"#));
        let page = r#"{"kind":"List","metadata":{"resourceVersion":"9","continue":"c"},"items":[{"metadata":{"name":"n"}}]}"#;
        let page: Page = serde_json::from_str(page).unwrap();
        assert_eq!((&*page.metadata.resource_version, &*page.metadata.next), ("9", "c"));
        assert_eq!(page.items.unwrap()[0].name(), "n");
        let end = r#"{"type":"BOOKMARK","object":{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"12","creationTimestamp":null,"annotations":{"k8s.io/initial-events-end":"true"}}}}"#;
        assert!(matches!(serde_json::from_str::<WatchEvent<Item>>(end).unwrap(), WatchEvent::Bookmark(_)));
    }
}
