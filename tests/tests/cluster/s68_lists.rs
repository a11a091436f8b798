//! API servers that do not stream lists: those before Kubernetes 1.32, and 1.33 as it comes.

use std::time::Duration;

use anyhow::ensure;
use weft_tests::{Cluster, cluster_story};

use crate::agent::Agent;
use crate::apps::client;
use crate::mesh::in_mesh;
use crate::s60_agents::deploy;

/// The API server as it comes, whatever came of the story.
struct AsItComes<'a>(&'a Cluster);

impl Drop for AsItComes<'_> {
    fn drop(&mut self) {
        self.0.stop_apiserver().ok();
        self.0.start_apiserver().ok();
    }
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn an_agent_reads_lists_in_pages_where_they_are_not_streamed() {
    cluster_story(|cluster| {
        let namespace = cluster.namespace("s68-lists")?;
        deploy(&namespace)?;
        let _restored = AsItComes(cluster);
        cluster.stop_apiserver()?;
        cluster.start_apiserver_with(&["--feature-gates=WatchList=false"])?;
        let streamed = "/api/v1/pods?watch=1&allowWatchBookmarks=1&sendInitialEvents=1&resourceVersionMatch=NotOlderThan";
        let refused = cluster.kubectl(&["get", "--raw", streamed]).err().map(|error| format!("{error:#}"));
        ensure!(refused.as_ref().is_some_and(|said| said.contains("WatchList")), "{refused:?}");

        let agent = Agent::on(cluster, "n2");
        let ready = agent.starts_anew()?;
        println!("without streamed lists an agent is ready {:.2} s after its start", ready.as_secs_f32());
        in_mesh(&namespace, &namespace.pods("app")?, true)?;
        // It hears of what comes after its lists.
        namespace.apply(&client("later", "n2").yaml())?;
        namespace.rolled_out("deployment/later")?;
        let later = namespace.pods("app=later")?;
        namespace.eventually("in the mesh", Duration::from_secs(15), || in_mesh(&namespace, &later, true))
    });
}
