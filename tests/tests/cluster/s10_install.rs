//! Scenario 2: install, check, look.

use anyhow::ensure;
use weft_tests::cluster_story;

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn weft_is_installed_by_one_command_and_says_how_it_is() {
    cluster_story(|cluster| {
        let version = cluster.weft(&["version"])?.good()?;
        ensure!(version.to_lowercase().contains("no mesh"), "{version}");
        let precheck = cluster.weft(&["precheck"])?.good()?;
        println!("{precheck}");
        ensure!(cluster.weft(&["verify-install"])?.good().is_err(), "nothing is installed yet");

        let yaml = cluster.weft(&["install", "--dry-run"])?.good()?;
        ensure!(
            yaml.contains("kind: DaemonSet") && yaml.contains("kind: CustomResourceDefinition"),
            "{yaml}"
        );
        let begun = std::time::Instant::now();
        let said = cluster.weft(&["install", "-y", "--set", "profile=demo"])?.good()?;
        println!("{said}\ninstalled within {:.1} s", begun.elapsed().as_secs_f32());
        println!("{}", cluster.weft(&["verify-install"])?.good()?);
        println!("{}", cluster.kubectl(&["get", "all", "--namespace", "weft-system", "--output=wide"])?);

        let again = cluster.weft(&["install", "-y", "--set", "profile=demo"])?.good()?;
        println!("{again}");
        for replicas in ["3", "2"] {
            let scale = format!("--replicas={replicas}");
            cluster.kubectl(&["scale", "deployment/weft-controller", "--namespace=weft-system", &scale])?;
            cluster.rolled_out("weft-system", "deployment/weft-controller")?;
        }
        let version = cluster.weft(&["version"])?.good()?;
        ensure!(version.matches("0.1.0").count() >= 2, "server versions are missing: {version}");
        Ok(())
    });
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn what_is_wrong_is_refused_when_it_is_applied() {
    cluster_story(|cluster| {
        let namespace = cluster.namespace("s10-refused")?;
        let wrong = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: wrong}\n\
                     spec: {hosts: [a], http: [{route: [{destination: {host: a}, weight: -5}]}]}\n";
        // The webhook is asked as soon as the API server knows of it.
        let refused = namespace.eventually("a refusal", std::time::Duration::from_secs(20), || {
            let Err(error) = namespace.apply(wrong) else {
                namespace.kubectl(&["delete", "virtualservice", "wrong"])?;
                anyhow::bail!("it was taken");
            };
            Ok(format!("{error:#}"))
        })?;
        println!("{refused}");
        ensure!(refused.contains("weight"), "{refused}");
        namespace.apply(
            "apiVersion: networking.istio.io/v1alpha3\nkind: VirtualService\nmetadata: {name: right}\n\
             spec: {hosts: [a], http: [{route: [{destination: {host: a}}]}]}\n",
        )
    });
}
