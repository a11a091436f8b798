//! From a document to objects.

use std::borrow::Cow;

use serde::de::DeserializeOwned;

use super::reading::{Reading, reading};
use super::schema::Schema;
use super::{Ignored, Loaded, LoadedObject, Refused, fault, kustomize, misprint, template};
use crate::finding::{Finding, Severity, code};
use crate::kinds::{self, Kind};
use crate::meta::ObjectKey;
use crate::object::{Object, Source};
use crate::validate::{self, Problem};
use crate::yaml::{Data, DeError, Document, Fault, Key, Node, Path, Segment, from_node};

/// Most errors that are told about one object.
const MAX_FAULTS: usize = 32;

/// Reads the objects of a document: one, or the items of a List.
pub(super) fn document(file: &str, document: Document<'_>, loaded: &mut Loaded) {
    let Some(mut root) = document.root else { return };
    let mut duplicates: Vec<Problem> = document
        .duplicates
        .into_iter()
        .map(|duplicate| {
            let (first, second) = (duplicate.first, duplicate.second);
            let message = format!("the key is there twice, on lines {first} and {second} (keep one of them)");
            Problem { severity: Severity::Error, code: code::DUPLICATE_KEY, path: duplicate.path, message }
        })
        .collect();
    let kind = root.get("kind").and_then(Node::text).unwrap_or_default();
    let is_list =
        kind.ends_with("List") && matches!(root.get("items"), Some(Node { data: Data::List(_), .. }));
    if !is_list {
        return object(file, &mut root, duplicates, loaded);
    }
    let items = root
        .at_mut(&[Segment::Key("items".into())])
        .map(|items| std::mem::replace(&mut items.data, Data::Null));
    let Some(Data::List(items)) = items else { return };
    for (index, mut item) in items.into_iter().enumerate() {
        let base = [Segment::Key("items".into()), Segment::Index(index)];
        let own = duplicates.extract_if(.., |problem| problem.path.starts_with(&base));
        let own =
            own.map(|problem| Problem { path: problem.path[base.len()..].to_vec(), ..problem }).collect();
        object(file, &mut item, own, loaded);
    }
    if !duplicates.is_empty() {
        let findings = duplicates
            .into_iter()
            .map(|problem| problem.into_finding(UNNAMED, Some((file, &root))))
            .collect();
        loaded.refused.push(Refused { key: None, findings, line: root.line });
    }
}

/// How findings call what has no name.
pub(super) const UNNAMED: &str = "?";

/// Reads one object.
fn object(file: &str, node: &mut Node<'_>, duplicates: Vec<Problem>, loaded: &mut Loaded) {
    let line = node.line;
    let text = |key: &str| node.get(key).and_then(Node::text).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if let Some(problem) = kustomize::is_its_own(file, node) {
        let key = key_of(node, api_version, kind);
        let called = if kind.is_empty() { UNNAMED.to_owned() } else { resource(key.as_ref(), kind) };
        let finding = problem.into_finding(&called, Some((file, node)));
        let name = key.map(|key| key.name.into()).unwrap_or_default();
        let kind = if kind.is_empty() { "Kustomization" } else { kind }.to_owned();
        return loaded.ignored.push(Ignored { kind, name, findings: vec![finding], line });
    }
    if kind.is_empty() || api_version.is_empty() {
        let finding = not_an_object(node).into_finding(UNNAMED, Some((file, node)));
        loaded.refused.push(Refused { key: None, findings: vec![finding], line });
        return;
    }
    let key = key_of(node, api_version, kind);
    let resource = resource(key.as_ref(), kind);
    let one = |severity, code, message: String| {
        let path = if code == code::UNKNOWN_VERSION { "apiVersion" } else { "kind" };
        let path = vec![Segment::Key(path.into())];
        Problem { severity, code, path, message }.into_finding(&resource, Some((file, node)))
    };
    let refuse = |finding: Finding| Refused { key: key.clone(), findings: vec![finding], line };
    let ignored = |findings| Ignored {
        kind: kind.to_owned(),
        name: key.as_ref().map(|key| key.name.to_string()).unwrap_or_default(),
        findings,
        line,
    };
    let kind = match reading(api_version, kind) {
        Reading::Foreign => {
            let findings = template::without_force(node)
                .into_iter()
                .map(|problem| problem.into_finding(&resource, Some((file, node))));
            return loaded.ignored.push(ignored(findings.collect()));
        }
        Reading::NotYet(message) => {
            return loaded.ignored.push(ignored(vec![one(Severity::Warning, code::NOT_IN_FORCE, message)]));
        }
        Reading::OtherVersion(accepted) => {
            let message =
                format!("{api_version} has no {kind} that weft reads (write apiVersion: {accepted})");
            return loaded.refused.push(refuse(one(Severity::Error, code::UNKNOWN_VERSION, message)));
        }
        Reading::Removed(today) => {
            let message = format!("{kind} of {api_version} is a kind of the past (use {today})");
            return loaded.refused.push(refuse(one(Severity::Error, code::REMOVED_KIND, message)));
        }
        Reading::Never(message) => {
            return loaded.refused.push(refuse(one(Severity::Error, code::UNSUPPORTED_KIND, message)));
        }
        Reading::Read(kind) => kind,
    };
    let (object, problems) = typed(kind, node, duplicates);
    match judge(object, problems, key, &resource, Some((file, node))) {
        Ok(accepted) => loaded.objects.push(accepted),
        Err(refused) => loaded.refused.push(refused),
    }
}

/// Accepts an object, or refuses it where a problem is an error.
fn judge(
    object: Option<Object>,
    problems: Vec<Problem>,
    key: Option<ObjectKey>,
    resource: &str,
    source: Option<(&str, &Node<'_>)>,
) -> Result<LoadedObject, Refused> {
    let line = source.map_or(0, |(_, node)| node.line);
    let findings: Vec<Finding> =
        problems.into_iter().map(|problem| problem.into_finding(resource, source)).collect();
    match object {
        Some(object) if !findings.iter().any(Finding::is_error) => {
            Ok(LoadedObject { object, findings, line })
        }
        _ => Err(Refused { key, findings, line }),
    }
}

/// Reads one object of a kind that weft reads, as the API server serves it.
pub(super) fn served(kind: Kind, json: &str) -> Result<LoadedObject, Refused> {
    // Unknown fields of Kubernetes' own kinds mean nothing, and there are many of them: they are read straight from the text.
    if !kind.is_users()
        && let Some(object) = kind.read(&mut Served(json))
    {
        let (object, problems) = checked(object, Vec::new());
        let key = object.key();
        let resource = key.to_string();
        return judge(Some(object), problems, Some(key), &resource, None);
    }
    let value = serde_json::from_str(json).unwrap_or_default();
    let mut node = Node::from_json(value);
    let key = key_of(&node, kind.entry().group, kind.name());
    let resource = resource(key.as_ref(), kind.name());
    let (object, problems) = typed(kind, &mut node, Vec::new());
    judge(object, problems, key, &resource, None)
}

/// An object's text, as the API server serves it.
struct Served<'a>(&'a str);

impl Source for Served<'_> {
    fn read<T: DeserializeOwned>(&mut self) -> Option<T> {
        serde_json::from_str(self.0).ok()
    }
}

fn not_an_object(node: &Node<'_>) -> Problem {
    // Istio 0.1 wrote `type: route-rule` and neither kind nor apiVersion.
    let (code, path, message) = match node.get("type").and_then(Node::text) {
        Some(kind @ ("route-rule" | "destination-policy" | "ingress-rule")) if node.get("kind").is_none() => {
            (
                code::REMOVED_KIND,
                vec![Segment::Key("type".into())],
                format!(
                    "{kind} is a rule of the past (use a VirtualService, with a DestinationRule for its subsets)"
                ),
            )
        }
        // Mixer's own language, from before its rules were objects.
        _ if holds_aspects(node) => (
            code::REMOVED_KIND,
            vec![Segment::Key("rules".into())],
            format!("rules with aspects are Mixer's, and of the past (use {})", kinds::MIXER),
        ),
        _ => {
            let missing =
                ["apiVersion", "kind"].into_iter().filter(|key| node.get(key).and_then(Node::text).is_none());
            let missing: Vec<_> = missing.collect();
            let message = match node.data {
                Data::Map(_) => format!(
                    "no Kubernetes object: {} missing",
                    if missing.len() == 2 {
                        "apiVersion and kind are".to_owned()
                    } else {
                        format!("{} is", missing.first().unwrap_or(&"kind"))
                    }
                ),
                _ => "no Kubernetes object: not a mapping (begin with apiVersion, kind and metadata)"
                    .to_owned(),
            };
            (code::NOT_AN_OBJECT, Vec::new(), message)
        }
    };
    Problem { severity: Severity::Error, code, path, message }
}

/// `rules: [{aspects: …}]`, also below further rules.
fn holds_aspects(node: &Node<'_>) -> bool {
    let Some(Node { data: Data::List(rules), .. }) = node.get("rules") else { return false };
    node.get("kind").is_none()
        && rules.iter().any(|rule| rule.get("aspects").is_some() || holds_aspects(rule))
}

/// The object's name, if it has one; `api_version` with or without the version.
fn key_of(node: &Node<'_>, api_version: &str, kind: &str) -> Option<ObjectKey> {
    let metadata = node.get("metadata")?;
    let name = metadata.get("name")?.written()?.into_owned();
    let namespace =
        metadata.get("namespace").and_then(Node::written).map(Cow::into_owned).unwrap_or_default();
    let namespace = namespace_of(kind, namespace);
    let group = api_version.rsplit_once('/').map_or(api_version, |(group, _)| group);
    (!name.is_empty()).then(|| ObjectKey {
        kind: kind.to_owned().into(),
        group: group.to_owned().into(),
        namespace: namespace.into(),
        name: name.into(),
    })
}

/// How findings call an object, named or not.
pub(super) fn resource(key: Option<&ObjectKey>, kind: &str) -> String {
    key.map_or_else(|| format!("{kind}/{UNNAMED}"), ToString::to_string)
}

/// The namespace that an object is in.
pub(super) fn namespace_of(kind: &str, written: String) -> String {
    if !kinds::is_namespaced(kind) {
        String::new()
    } else if written.is_empty() {
        "default".to_owned()
    } else {
        written
    }
}

/// Reads the object, with all problems that can be told at once. Problems of the form keep the checks of the
/// meaning from being made: they would only repeat them.
fn typed(kind: Kind, node: &mut Node<'_>, problems: Vec<Problem>) -> (Option<Object>, Vec<Problem>) {
    let schema = Schema::of(kind);
    let mut reader = Reader { node, schema, problems, taken: Vec::new() };
    let object = reader.object(kind);
    reader.restore();
    let problems = reader.problems;
    match object {
        Some(object) => {
            let (object, problems) = checked(object, problems);
            (Some(object), problems)
        }
        None => (None, problems),
    }
}

/// Says which namespace the object is in, and checks what it means if its form is good.
fn checked(mut object: Object, mut problems: Vec<Problem>) -> (Object, Vec<Problem>) {
    let kind = object.kind().name();
    if let Some(metadata) = object.metadata_mut() {
        metadata.namespace = namespace_of(kind, std::mem::take(&mut metadata.namespace));
    }
    if !problems.iter().any(|problem| problem.severity == Severity::Error) {
        problems.extend(validate::check(&object));
        problems.extend(validate::without_force(&object));
    }
    (object, problems)
}

/// A policy without a spec is one with an empty spec: an AuthorizationPolicy of that kind allows nothing, and must not be
/// left out.
fn give_spec(node: &mut Node<'_>) {
    let line = node.line;
    let Data::Map(entries) = &mut node.data else { return };
    match entries.iter_mut().find(|(key, _)| key.text == "spec") {
        Some((_, spec)) if spec.data == Data::Null => spec.data = Data::Map(Vec::new()),
        Some(_) => {}
        None => {
            let spec = Node { line, data: Data::Map(Vec::new()) };
            entries.push((Key { line, text: "spec".into() }, spec));
        }
    }
}

/// Reads what fits, and explains what does not.
struct Reader<'n, 'a> {
    node: &'n mut Node<'a>,
    schema: Option<&'static Schema>,
    problems: Vec<Problem>,
    /// What was taken out of the node, and from where, in order.
    taken: Vec<(Path, Data<'a>)>,
}

impl Reader<'_, '_> {
    fn object(&mut self, kind: Kind) -> Option<Object> {
        if let Some(schema) = self.schema {
            for stray in misprint::find(self.node, schema, &mut self.problems) {
                self.take(stray);
            }
        }
        if kind.entry().group == kinds::SECURITY {
            give_spec(self.node);
        }
        kind.read(self)
    }
}

impl Source for Reader<'_, '_> {
    /// Reads it, taking out what does not fit and reading again, until it fits or there is too much of it.
    fn read<T: DeserializeOwned>(&mut self) -> Option<T> {
        for _ in 0..MAX_FAULTS {
            let error = match from_node(self.node) {
                Ok(object) => return Some(object),
                Err(error) => error,
            };
            if !self.is_told(&error) {
                self.problems.push(fault::explain(self.node, self.schema, &error));
            }
            if error.path.is_empty() || !self.take(error.path) {
                return None;
            }
        }
        None
    }
}

impl Reader<'_, '_> {
    /// Whether a field is missing because its content stands elsewhere, or what is left of one is wrong because something
    /// was taken out of it: both have been said.
    fn is_told(&self, error: &DeError) -> bool {
        if matches!(error.fault, Fault::Other(_)) {
            let inside = |path: &Path| path.len() > error.path.len() && path.starts_with(&error.path);
            return self.taken.iter().any(|(path, _)| inside(path));
        }
        let Fault::Missing(field) = error.fault else { return false };
        let path = error.path.iter().cloned().chain([Segment::Key(field.into())]);
        let path: Path = path.collect();
        self.problems.iter().any(|problem| problem.code == code::MISPLACED_FIELD && problem.path == path)
    }

    /// Takes a value out of the reading; false when it is out already.
    fn take(&mut self, path: Path) -> bool {
        let Some(misfit) = self.node.at_mut(&path).filter(|node| node.data != Data::Skipped) else {
            return false;
        };
        let data = std::mem::replace(&mut misfit.data, Data::Skipped);
        self.taken.push((path, data));
        true
    }

    /// Puts back what was taken, for the lines of the findings.
    fn restore(&mut self) {
        while let Some((path, data)) = self.taken.pop() {
            if let Some(node) = self.node.at_mut(&path) {
                node.data = data;
            }
        }
    }
}
