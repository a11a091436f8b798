//! HTTPS from outside: the Secret is the API server's, the gateways are on several nodes, and no agent may read Secrets.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::json;
use weft_tests::{Cluster, cluster_story};

use crate::apps::{App, service};

const HOST: &str = "secure.shop.test";

const EDGE: &str = "\
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: [secure.shop.test]
    tls: {mode: SIMPLE, credentialName: shop-cert}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge}
spec:
  hosts: [secure.shop.test]
  gateways: [edge]
  http: [{route: [{destination: {host: storefront}}]}]
";

/// Somebody's root in PEM, and a Secret with a certificate of it.
fn certificate() -> Result<(String, String)> {
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    // Of one name with its leaf, OpenSSL would take that for the root itself.
    root.distinguished_name.push(DnType::CommonName, "somebody's root");
    let root_key = KeyPair::generate()?;
    let signed = root.self_signed(&root_key)?;
    let issuer = Issuer::from_ca_cert_der(signed.der(), root_key)?;
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new([HOST.to_owned()])?.signed_by(&key, &issuer)?;
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": "shop-cert", "namespace": "weft-system"},
        "stringData": {"tls.crt": leaf.pem(), "tls.key": key.serialize_pem()},
    });
    Ok((signed.pem(), secret.to_string()))
}

/// What curl gets over TLS whose certificate is of this root.
fn ask(at: SocketAddr, root: &str) -> Result<String> {
    let file = std::env::temp_dir().join(format!("weft-https-{}.pem", std::process::id()));
    std::fs::write(&file, root)?;
    let said = Command::new("curl")
        .args(["-sS", "--max-time", "5", "--noproxy", "*", "--cacert"])
        .arg(&file)
        .args(["--resolve", &format!("{HOST}:{}:{}", at.port(), at.ip())])
        .arg(format!("https://{HOST}:{}/", at.port()))
        .output()
        .context("curl");
    std::fs::remove_file(&file)?;
    let said = said?;
    ensure!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    Ok(String::from_utf8(said.stdout)?)
}

/// Port 443 of the gateways on each node.
fn outside(cluster: &Cluster) -> Result<Vec<SocketAddr>> {
    let service = cluster.get(&["service", "istio-ingressgateway", "--namespace", "weft-system"])?;
    let ports = service["spec"]["ports"].as_array().context("no ports")?;
    let port = ports.iter().find(|port| port["port"] == 443).context("no port 443")?;
    let nodes = ["10.77.0.11", "10.77.0.12"];
    nodes.iter().map(|node| Ok(format!("{node}:{}", port["nodePort"]).parse()?)).collect()
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn https_comes_in_by_a_secret_that_the_controller_hands_over() {
    cluster_story(|cluster| {
        cluster.weft(&["install", "-y", "--set", "profile=demo"])?.good()?;
        cluster.rolled_out("weft-system", "deployment/istio-ingressgateway")?;
        let shop = cluster.namespace("secure")?;
        shop.join_mesh()?;
        shop.apply(&App::new("storefront", &["echo"], 8080).yaml())?;
        shop.apply(&service("storefront", "storefront", "http", 80, 8080))?;
        shop.rolled_out("deployment/storefront")?;
        shop.apply(EDGE)?;
        let nodes = outside(cluster)?;
        let (root, secret) = certificate()?;
        let patience = Duration::from_secs(30);

        // Without its Secret the server is closed, and who looks after it is told why.
        shop.eventually("it is told", patience, || {
            let told = cluster.weft(&["get", "secrets", "-n", "weft-system"])?.good()?;
            ensure!(
                told.contains("closed") && told.contains("there is no Secret weft-system/shop-cert"),
                "{told}"
            );
            Ok(())
        })?;
        let refused = nodes.iter().all(|at| ask(*at, &root).is_err());
        ensure!(refused, "something is served without a certificate");

        let all_serve = |root: &str| -> Result<()> {
            for at in &nodes {
                let told = ask(*at, root)?;
                ensure!(told.contains("\"x-forwarded-proto\"") && told.contains("storefront-"), "{told}");
            }
            Ok(())
        };
        let begun = Instant::now();
        cluster.apply(&secret)?;
        shop.eventually("HTTPS", patience, || all_serve(&root))?;
        println!("HTTPS {:.2} s after its Secret", begun.elapsed().as_secs_f32());
        let (next_root, next) = certificate()?;
        let begun = Instant::now();
        cluster.apply(&next)?;
        shop.eventually("the next certificate", patience, || all_serve(&next_root))?;
        println!(
            "another certificate on all nodes {:.2} s after it was applied",
            begun.elapsed().as_secs_f32()
        );

        // Agents may read no Secret: they are handed those of their gateways.
        let agent = "--as=system:serviceaccount:weft-system:weft-agent";
        for verb in ["get", "list", "watch"] {
            let may = cluster.kubectl(&["auth", "can-i", verb, "secrets", "--namespace=weft-system", agent]);
            // It ends with 1 where the answer is no.
            ensure!(may.is_err(), "agents may {verb} Secrets: {may:?}");
        }
        let told = cluster.weft(&[
            "explain",
            "deploy/istio-ingressgateway.weft-system",
            &format!("https://{HOST}/"),
        ])?;
        let told = told.good()?;
        ensure!(told.contains("by Secret weft-system/shop-cert") && told.contains("secure/edge"), "{told}");

        // While there is no controller, what was had serves on.
        cluster.kubectl(&[
            "scale",
            "--namespace=weft-system",
            "deployment/weft-controller",
            "--replicas=0",
        ])?;
        shop.eventually("no controller", patience, || {
            let pods = cluster.get(&[
                "pods",
                "--namespace=weft-system",
                "--selector=app.kubernetes.io/name=weft-controller",
            ])?;
            ensure!(pods["items"].as_array().is_some_and(Vec::is_empty), "{pods}");
            Ok(())
        })?;
        all_serve(&next_root)?;
        cluster.weft(&["install", "-y", "--set", "profile=demo"])?.good()?;
        cluster.rolled_out("weft-system", "deployment/weft-controller")?;
        all_serve(&next_root)?;
        cluster.kubectl(&["delete", "secret", "shop-cert", "--namespace=weft-system"])?;
        shop.eventually("it is closed again", patience, || {
            ensure!(nodes.iter().all(|at| ask(*at, &next_root).is_err()), "it is served");
            Ok(())
        })
    });
}
