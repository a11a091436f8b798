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
            // As many as somebody wants, by hand or by an autoscaler.
            println!("{}", cluster.weft(&["verify-install"])?.good()?);
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

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn what_has_no_effect_is_told_when_it_is_applied_and_in_status() {
    cluster_story(|cluster| {
        let namespace = cluster.namespace("s10-vain")?;
        for (group, kind, spec) in [
            (
                "networking.istio.io",
                "ServiceEntry",
                "{hosts: [a.example.com], ports: [{number: 80, name: http}]}",
            ),
            ("networking.istio.io", "Sidecar", "{egress: [{hosts: ['./*']}]}"),
            ("telemetry.istio.io", "Telemetry", "{accessLogging: [{disabled: true}]}"),
        ] {
            let object =
                format!("apiVersion: {group}/v1\nkind: {kind}\nmetadata: {{name: vain}}\nspec: {spec}\n");
            let words = [
                "--namespace",
                namespace.name(),
                "apply",
                "--filename=-",
                "--dry-run=server",
                "--warnings-as-errors",
            ];
            let warned = namespace.eventually("a warning", std::time::Duration::from_secs(20), || {
                match cluster.feed(&words, &object) {
                    Ok(said) => anyhow::bail!("no warning: {said}"),
                    Err(error) => Ok(format!("{error:#}")),
                }
            })?;
            ensure!(warned.contains(kind) && warned.contains("not in force"), "{warned}");
            namespace.apply(&object)?;
        }
        let told = cluster.weft(&["status", "--namespace", namespace.name()])?.good()?;
        println!("{told}");
        for kind in ["ServiceEntry", "Sidecar", "Telemetry"] {
            let line = format!("{kind} is not in force");
            ensure!(
                told.lines().any(|told| told.contains(&line) && told.contains("s10-vain/vain")),
                "{kind}"
            );
        }
        Ok(())
    });
}
