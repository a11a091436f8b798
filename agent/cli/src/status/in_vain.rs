//! Objects of a cluster whose kinds have no effect in this version of weft: no agent reads them, and their authors are to
//! be told all the same.

use std::collections::BTreeMap;
use std::fmt::Write;

use futures_util::future::join_all;
use kube::ResourceExt;
use kube::api::ListParams;
use kube::core::ApiResource;
use kube::discovery::{self, verbs};
use weft_api::finding::{Finding, Severity, code};
use weft_api::kinds::{in_vain, is_in_vain};
use weft_api::meta::ObjectKey;

use crate::cluster::Cluster;
use crate::output::{Paint, Tone, count, safe};

/// Most objects of a kind that are asked for by name.
const NAMED: u32 = 500;
/// Most names that people are shown.
const SHOWN: usize = 5;

/// The objects of one such kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    /// `ServiceEntry`.
    name: String,
    /// `networking.istio.io`.
    group: String,
    /// What holds instead.
    told: String,
    /// `NAMESPACE` (empty for what is in none) and `NAME`.
    objects: Vec<(String, String)>,
    /// How many more there are.
    more: usize,
}

/// Asks the API server; only what objects are called is sent. What the asker may not see is left out.
pub async fn look(cluster: &Cluster) -> anyhow::Result<Vec<Kind>> {
    let mut found = Vec::new();
    let groups: Vec<_> = cluster.client.list_api_groups().await.map_err(|error| cluster.told(error))?.groups;
    for group in groups.iter().filter(|group| is_in_vain(&group.name)) {
        let Ok(group) = discovery::group(&cluster.client, &group.name).await else { continue };
        let kinds = group.recommended_resources();
        let kinds = kinds.iter().filter(|(_, can)| can.supports_operation(verbs::LIST));
        let asked = kinds.filter_map(|(kind, _)| Some((kind, in_vain(&kind.group, &kind.kind)?)));
        found.extend(join_all(asked.map(|(kind, told)| list(cluster, kind, told))).await);
    }
    Ok(found.into_iter().flatten().filter(|kind| !kind.objects.is_empty()).collect())
}

async fn list(cluster: &Cluster, kind: &ApiResource, told: String) -> Option<Kind> {
    let all = cluster.dynamic(kind, "").list_metadata(&ListParams::default().limit(NAMED)).await.ok()?;
    let more = usize::try_from(all.metadata.remaining_item_count.unwrap_or(0)).unwrap_or(0);
    let objects = all.items.iter().map(|item| (item.namespace().unwrap_or_default(), item.name_any()));
    Some(Kind { name: kind.kind.clone(), group: kind.group.clone(), told, objects: objects.collect(), more })
}

/// Only what is in this namespace; how many more there are of it is not known then.
pub fn within(kinds: Vec<Kind>, namespace: &str) -> Vec<Kind> {
    let own = |kind: Kind| Kind {
        objects: kind.objects.into_iter().filter(|(place, _)| place == namespace).collect(),
        more: 0,
        ..kind
    };
    kinds.into_iter().map(own).filter(|kind| !kind.objects.is_empty()).collect()
}

/// For programs: as `weft analyze` says it.
pub fn findings(kinds: &[Kind]) -> Vec<Finding> {
    let finding = |kind: &Kind, (namespace, name): &(String, String)| Finding {
        severity: Severity::Warning,
        code: code::NOT_IN_FORCE.to_owned(),
        resource: ObjectKey {
            kind: kind.name.clone().into(),
            group: kind.group.clone().into(),
            namespace: (**namespace).into(),
            name: (**name).into(),
        }
        .to_string(),
        path: "kind".to_owned(),
        message: kind.told.clone(),
        file: None,
        line: None,
    };
    kinds.iter().flat_map(|kind| kind.objects.iter().map(move |object| finding(kind, object))).collect()
}

/// For people: a line for each kind.
pub fn render(kinds: &[Kind], paint: Paint) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    if kinds.is_empty() {
        return Ok(text);
    }
    writeln!(text, "\n{}", paint.word(Tone::Strong, "Objects without effect in this cluster"))?;
    // Gateways of two groups have one name.
    let mut by_name: BTreeMap<(&str, &str), Vec<&Kind>> = BTreeMap::new();
    for kind in kinds {
        by_name.entry((&kind.name, &kind.told)).or_default().push(kind);
    }
    for ((_, told), kinds) in by_name {
        let objects: Vec<String> = kinds
            .iter()
            .flat_map(|kind| &kind.objects)
            .map(
                |(namespace, name)| {
                    if namespace.is_empty() { name.clone() } else { format!("{namespace}/{name}") }
                },
            )
            .collect();
        let all = objects.len() + kinds.iter().map(|kind| kind.more).sum::<usize>();
        let mut names = objects[..objects.len().min(SHOWN)].join(", ");
        if all > SHOWN {
            write!(names, ", …")?;
        }
        let warning = paint.word(Tone::Warn, "warning");
        writeln!(text, "  {warning} {}: {} ({})", safe(told), count(all, "object"), safe(&names))?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(name: &str, objects: &[(&str, &str)], more: usize) -> Kind {
        let told = in_vain("networking.istio.io", name).expect("a kind without effect");
        let objects = objects.iter().map(|(place, name)| ((*place).to_owned(), (*name).to_owned()));
        Kind {
            name: name.to_owned(),
            group: "networking.istio.io".to_owned(),
            told,
            objects: objects.collect(),
            more,
        }
    }

    #[test]
    fn each_kind_is_counted_and_its_first_objects_are_named() {
        let many = [("shop", "a"), ("shop", "b"), ("web", "c"), ("web", "d"), ("web", "e"), ("web", "f")];
        let all = [kind("Sidecar", &[("shop", "default")], 0), kind("ServiceEntry", &many, 40)];
        assert_eq!(
            render(&all, Paint::plain()).unwrap(),
            "\nObjects without effect in this cluster\n  \
             warning ServiceEntry is not in force in this version of weft: its hosts and endpoints are not known: \
             46 objects (shop/a, shop/b, web/c, web/d, web/e, …)\n  \
             warning Sidecar is not in force in this version of weft: what its workloads see is not limited: \
             1 object (shop/default)\n"
        );
        assert_eq!(render(&[], Paint::plain()).unwrap(), "");
        let told = findings(&within(all.to_vec(), "shop"));
        let told: Vec<_> = told.iter().map(|finding| finding.resource.as_str()).collect();
        assert_eq!(told, ["Sidecar/shop/default", "ServiceEntry/shop/a", "ServiceEntry/shop/b"]);
    }
}
