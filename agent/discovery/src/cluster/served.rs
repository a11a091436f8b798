//! Finds out in which version the server has a custom kind, if it has it.

use std::time::Duration;

use http::Request;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIGroup, APIResourceList};
use kube::Client;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use weft_api::kinds::Entry;

use super::contact::READY_PATH;
use super::kinds::Watched;
use super::trouble::Trouble;

/// How long the server may take for an answer.
const ANSWER: Duration = Duration::from_secs(10);

/// The first of the kind's versions that the server has; `None` when it surely has none.
pub async fn find(client: &Client, watched: &Watched) -> Result<Option<&'static str>, Trouble> {
    let Entry { group: name, versions, plural, .. } = watched.kind.entry();
    let group: Option<APIGroup> = get(client, &format!("/apis/{name}")).await?;
    if let Some(group) = group {
        for version in *versions {
            if !group.versions.iter().any(|served| served.version == *version) {
                continue;
            }
            let list: Option<APIResourceList> = get(client, &format!("/apis/{name}/{version}")).await?;
            if list.is_some_and(|list| list.resources.iter().any(|kind| kind.name == *plural)) {
                return Ok(Some(version));
            }
        }
    }
    // A server that is starting does not know of its custom kinds yet.
    let request = Request::get(READY_PATH).body(Vec::new()).map_err(|error| Trouble::other(&error))?;
    match timeout(ANSWER, client.request_text(request)).await {
        Ok(Ok(_)) => Ok(None),
        // It lists all that it is made of.
        Ok(Err(kube::Error::Api(status))) if status.code >= 500 => {
            Err(Trouble::Api { code: status.code, message: "the API server is not ready".to_owned() })
        }
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Trouble::silent(ANSWER)),
    }
}

/// What is at a path; `None`: nothing.
async fn get<T: DeserializeOwned>(client: &Client, path: &str) -> Result<Option<T>, Trouble> {
    let request = Request::get(path).body(Vec::new()).map_err(|error| Trouble::other(&error))?;
    match timeout(ANSWER, client.request(request)).await {
        Ok(Ok(found)) => Ok(Some(found)),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(None),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Trouble::silent(ANSWER)),
    }
}
