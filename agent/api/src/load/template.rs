//! What controllers make pods from: Deployments, Jobs and their like, of whatever group.

use crate::meta::Labels;
use crate::validate::{Problem, template_without_force};
use crate::yaml::{Node, Path, Segment};

/// Where a pod's template may be; it has containers.
const PLACES: [&[&str]; 2] = [&["spec", "template"], &["spec", "jobTemplate", "spec", "template"]];

/// Tells the annotations of a template's pods that have no effect.
pub(super) fn without_force(object: &Node<'_>) -> Vec<Problem> {
    let at =
        |place: &[&'static str]| -> Path { place.iter().map(|key| Segment::Key((*key).into())).collect() };
    let is_template = |place: &&&[&'static str]| {
        let containers = [*place, &["spec", "containers"][..]].concat();
        object.at(&at(&containers)).is_some()
    };
    let Some(place) = PLACES.iter().find(is_template) else { return Vec::new() };
    let metadata = at(&[*place, &["metadata"][..]].concat());
    let Some(annotations) = object.at(&metadata).and_then(|metadata| metadata.get("annotations")) else {
        return Vec::new();
    };
    let text = |value: &Node<'_>| value.written().unwrap_or_default().into_owned();
    let annotations: Labels = annotations
        .entries()
        .iter()
        .map(|(key, value)| (key.text.clone().into_owned(), text(value)))
        .collect();
    template_without_force(metadata, &annotations)
}
