//! May whoever runs this install weft?

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::PostParams;
use weft_api::names::NAMESPACE;

use super::Line;
use crate::cluster::Cluster;
use crate::install::object::KINDS;

/// Verbs that an installation takes.
const VERBS: [&str; 3] = ["get", "create", "patch"];

/// Asks the API server.
pub async fn look(cluster: &Cluster) -> anyhow::Result<Vec<Line>> {
    let mut lacking = Vec::new();
    for kind in KINDS {
        let resource = kind.resource();
        for verb in VERBS {
            let what = ResourceAttributes {
                group: Some(resource.group.clone()),
                resource: Some(resource.plural.clone()),
                verb: Some(verb.to_owned()),
                namespace: Some(NAMESPACE.to_owned()),
                ..ResourceAttributes::default()
            };
            if !may(cluster, what).await? {
                lacking.push(format!("{verb} {}", resource.plural));
            }
        }
    }
    // Whoever gives rights must have them, or be allowed to give what he has not.
    let escalate = ResourceAttributes {
        group: Some("rbac.authorization.k8s.io".to_owned()),
        resource: Some("clusterroles".to_owned()),
        verb: Some("escalate".to_owned()),
        ..ResourceAttributes::default()
    };
    let mut lines = vec![Line::new(
        "permissions",
        if lacking.is_empty() {
            Ok("to install weft".to_owned())
        } else {
            Err((
                format!("you may not {}", lacking.join(", ")),
                "use an administrator's kubeconfig (--context)",
            ))
        },
    )];
    if lacking.is_empty() && !may(cluster, escalate).await? {
        lines.push(Line::note(
            "permissions",
            "you may give others only rights that you have yourself",
            "weft install fails if its ClusterRoles hold more; `kubectl auth can-i --list` shows yours",
        ));
    }
    let exec = ResourceAttributes {
        resource: Some("pods".to_owned()),
        subresource: Some("exec".to_owned()),
        verb: Some("create".to_owned()),
        namespace: Some(NAMESPACE.to_owned()),
        ..ResourceAttributes::default()
    };
    if !may(cluster, exec).await? {
        lines.push(Line::note(
            "permissions",
            format!("you may not create pods/exec in {NAMESPACE}"),
            "weft status, get, tap, edges and explain ask agents that way",
        ));
    }
    Ok(lines)
}

async fn may(cluster: &Cluster, what: ResourceAttributes) -> anyhow::Result<bool> {
    let spec = SelfSubjectAccessReviewSpec {
        resource_attributes: Some(what),
        ..SelfSubjectAccessReviewSpec::default()
    };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let answer = cluster.all::<SelfSubjectAccessReview>().create(&PostParams::default(), &review).await;
    Ok(answer.map_err(|error| cluster.told(error))?.status.is_some_and(|status| status.allowed))
}
