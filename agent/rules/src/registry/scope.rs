//! `exportTo`: who sees an object.

use std::sync::Arc;

use crate::intern::Interner;

/// The namespaces that see an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All (`*`).
    Everywhere,
    /// These; none at all for `~`.
    Namespaces(Box<[Arc<str>]>),
}

impl Scope {
    /// Reads `exportTo` of an object in namespace `own`; an empty one means the mesh's default, and that one's
    /// absence means everywhere.
    pub(crate) fn compile(
        export_to: &[String],
        mesh_default: &[String],
        own: &Arc<str>,
        interner: &mut Interner,
    ) -> Self {
        let entries = if export_to.is_empty() { mesh_default } else { export_to };
        if entries.is_empty() || entries.iter().any(|entry| entry == "*") {
            return Self::Everywhere;
        }
        let namespaces = entries.iter().filter_map(|entry| match entry.as_str() {
            "." => Some(own.clone()),
            "~" => None,
            name => Some(interner.text(name)),
        });
        Self::Namespaces(namespaces.collect())
    }

    /// Whether callers in this namespace see the object.
    pub(crate) fn admits(&self, namespace: &str) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Namespaces(namespaces) => namespaces.iter().any(|seen| &**seen == namespace),
        }
    }

    /// Whether nobody outside of this namespace sees the object.
    pub(crate) fn is_only(&self, namespace: &str) -> bool {
        match self {
            Self::Everywhere => false,
            Self::Namespaces(namespaces) => namespaces.iter().all(|seen| &**seen == namespace),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn star_wins_dot_is_home_and_tilde_nobody() {
        let own: Arc<str> = "home".into();
        let seen = |entries: &[&str], default: &[&str], from: &str| {
            let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
            Scope::compile(&owned(entries), &owned(default), &own, &mut Interner::default()).admits(from)
        };
        assert!(seen(&[], &[], "other"));
        assert!(!seen(&[], &["."], "other"));
        assert!(seen(&["*"], &["."], "other"));
        assert!(seen(&["."], &[], "home"));
        assert!(!seen(&["."], &[], "other"));
        assert!(!seen(&["~"], &[], "home"));
        assert!(seen(&["a", "other"], &[], "other"));
        assert!(seen(&["~", "*"], &[], "other"));
    }
}
