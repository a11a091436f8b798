//! After the story: the mesh stays up, and the user is told what to try.

use anyhow::Result;
use weft_tests::Mesh;

use super::stage::Stage;

/// Prints addresses and commands, and waits for Ctrl-C, which takes the world down.
pub fn stay(stage: &Stage, mesh: &Mesh) -> Result<()> {
    let page = mesh.the("productpage-v1")?;
    let (run_dir, manifests) =
        (mesh.with_agent(|agent| Ok(agent.run_dir().to_path_buf()))?, mesh.manifests());
    let weft = weft_tests::built_binary("weft")?;

    stage.heading("It stays up. Open in a browser on this machine:");
    stage.entry(
        &format!("http://{}/productpage", page.at(9080)),
        "sign in as jason in the corner, and the stars change",
    );
    stage.heading("In another terminal:");
    let setting = format!("alias weft={}; export WEFT_RUN_DIR={}", weft.display(), run_dir.display());
    stage.entry(&setting, "then the commands below are as short as they are printed");
    for (command, why) in [
        ("weft status", "what is enrolled, what is in force, what was refused"),
        ("weft get routes", "every rule, and where it sends requests"),
        (
            "weft explain pod/productpage-v1.bookinfo reviews:9080 -H 'end-user: jason'",
            "why a request goes where",
        ),
        ("weft edges -n bookinfo", "who talks to whom, and whether it is secured"),
        ("weft get certificates", "whose certificates this node has, and until when"),
        ("weft tap --to service/reviews.bookinfo", "requests as they happen; reload the page"),
        ("curl -s localhost:METRICS/metrics | grep istio_requests_total", "what Prometheus would scrape"),
    ] {
        let metrics = mesh.with_agent(|agent| Ok(agent.metrics_address().port()))?;
        stage.entry(&command.replace("METRICS", &metrics.to_string()), why);
    }
    let client = mesh.the("client")?.netns.clone();
    stage.entry(
        &format!("ip netns exec {client} curl -s http://productpage.bookinfo:9080/productpage"),
        "any program, in a pod",
    );
    stage.entry(
        &format!("$EDITOR {}", manifests.join("bookinfo-reviews.yaml").display()),
        "change the rule and reload the page",
    );
    stage.heading("Ctrl-C takes everything down.");
    weft_tests::until_interrupted();
    println!();
    Ok(())
}
