//! HBONE from a hostile client: certificates that prove nothing, places that a tunnel must not lead to, names in headers.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use http::{Method, Request, StatusCode};
use http_body_util::Empty;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use weft_tests::{Mesh, story};

use crate::attacks::{NAMED, STRICT, UNNAMED, Victim, only};
use crate::deploy;
use crate::forge::{Authority, Credentials, spiffe_id};
use crate::hbone::{self, Client, block_on, tls};

const FRIEND: &str = "spiffe://cluster.local/ns/default/sa/friend";

/// A victim on n1 that only the friend may call, under STRICT; and a stranger, who has a network and maybe a certificate.
fn victim_and_stranger(mesh: &Mesh) -> Result<(Victim, Authority)> {
    mesh.outsider("stranger")?;
    let victim = Victim::start(mesh, "victim", "n1")?;
    mesh.pod("bystander").node("n1").app(["tcp-echo", "--port", "7000"]).start()?;
    mesh.start_agents(&["n1"])?;
    mesh.apply("strict", STRICT)?;
    mesh.apply_now("only", &only("friend"))?;
    let authority = Authority::in_dir(&mesh.ca_dir())?;
    Ok((victim, authority))
}

/// The status that a CONNECT gets from a new connection.
async fn connect(
    mesh: &Mesh,
    victim: &Victim,
    who: Option<&Credentials>,
    authority: &str,
) -> Result<StatusCode> {
    let stranger = mesh.the("stranger")?;
    let mut client = Client::dial(&stranger, victim.pod.at(hbone::PORT), who).await?;
    Ok(client.connect(authority).await?.0)
}

#[test]
fn certificates_that_prove_nothing_open_nothing() {
    story(|mesh| {
        let (victim, ours) = victim_and_stranger(mesh)?;
        let other = Authority::self_made()?;
        let now = SystemTime::now();
        let (minute, hour) = (Duration::from_mins(1), Duration::from_hours(1));
        let friend = ours.sign(FRIEND)?;
        let at = |from, until| ours.sign_as(&[FRIEND], from, until);
        let named = |uris: &[&str]| ours.sign_as(uris, now - minute, now + hour);
        let mut wrong_chain = other.sign(FRIEND)?;
        wrong_chain.chain[1] = ours.root.clone();
        let forgeries = [
            ("none", None),
            ("self-made, with a root of the right name", Some(other.sign(FRIEND)?)),
            ("the right name and the wrong chain", Some(wrong_chain)),
            ("expired", Some(at(now - hour, now - 2 * minute)?)),
            ("not valid yet", Some(at(now + 5 * minute, now + hour)?)),
            ("another trust domain's", Some(named(&["spiffe://evil.local/ns/default/sa/friend"])?)),
            ("two names", Some(named(&["spiffe://cluster.local/ns/default/sa/mallory", FRIEND])?)),
            ("two names, the good one first", Some(named(&[FRIEND, "spiffe://cluster.local/ns/a/sa/b"])?)),
            ("the same name twice", Some(named(&[FRIEND, FRIEND])?)),
            ("no name", Some(named(&[])?)),
            ("a name with a query", Some(named(&["spiffe://cluster.local/ns/default/sa/friend?x"])?)),
            ("a name that is escaped", Some(named(&["spiffe://cluster.local/ns/default/sa/%66riend"])?)),
            ("a name with a way up", Some(named(&["spiffe://cluster.local/ns/x/../default/sa/friend"])?)),
            ("a name of another form", Some(named(&["spiffe://cluster.local/friend"])?)),
            ("a name that is no SPIFFE ID", Some(named(&["https://cluster.local/ns/default/sa/friend"])?)),
        ];
        block_on(async {
            let to = victim.pod.at(NAMED).to_string();
            for (what, credentials) in &forgeries {
                let outcome = connect(mesh, &victim, credentials.as_ref(), &to).await;
                ensure!(outcome.is_err(), "{what}: {outcome:?}");
                victim.heard_nothing().with_context(|| (*what).to_owned())?;
            }
            // A good one of somebody else is believed, and refused.
            let mallory = ours.sign("spiffe://cluster.local/ns/default/sa/mallory")?;
            ensure!(connect(mesh, &victim, Some(&mallory), &to).await? == 401);
            victim.heard_nothing()?;
            ensure!(connect(mesh, &victim, Some(&friend), &to).await? == 200);
            Ok(())
        })
    });
}

#[test]
fn a_server_proves_who_it_is_and_speaks_nothing_older_than_tls_1_3() {
    story(|mesh| {
        let (victim, ours) = victim_and_stranger(mesh)?;
        let stranger = mesh.the("stranger")?;
        block_on(async {
            let friend = ours.sign(FRIEND)?;
            let client = Client::dial(&stranger, victim.pod.at(hbone::PORT), Some(&friend)).await?;
            ours.verify(&client.server)?;
            ensure!(spiffe_id(&client.server)? == "spiffe://cluster.local/ns/default/sa/victim");
            let stream = tls(&stranger, victim.pod.at6(hbone::PORT), Some(&friend), b"h2").await?;
            let version = stream.get_ref().1.protocol_version();
            ensure!(version == Some(rustls::ProtocolVersion::TLSv1_3), "{version:?}");
            // Another protocol than HBONE is none.
            for alpn in [&b"http/1.1"[..], b"istio"] {
                let stream = tls(&stranger, victim.pod.at(hbone::PORT), Some(&friend), alpn).await;
                ensure!(stream.is_err(), "{}", alpn.escape_ascii());
            }
            Ok(())
        })
    });
}

#[test]
fn a_tunnel_leads_to_the_pod_that_it_was_opened_to_and_nowhere_else() {
    story(|mesh| {
        let (victim, ours) = victim_and_stranger(mesh)?;
        let bystander = mesh.the("bystander")?;
        let outside = mesh.outsider("outside")?;
        let beyond = outside.listen(NAMED)?;
        let service = mesh.service_at("victim", 80)?;
        let node = mesh.world().gateway();
        let pod = &victim.pod;
        let readiness = mesh.with_agent(|agent| Ok(agent.readiness_address()))?;
        let mut places = vec![
            bystander.at(7000).to_string(),
            bystander.at6(7000).to_string(),
            outside.at(NAMED).to_string(),
            service.to_string(),
            readiness.to_string(),
            format!("{node}:{NAMED}"),
            format!("{}:0", pod.ip),
            pod.ip.to_string(),
            format!("{}:99999", pod.ip),
            format!("u@{}:{NAMED}", pod.ip),
        ];
        for host in [
            "127.0.0.1",
            "127.1.2.3",
            "[::1]",
            "[::]",
            "0.0.0.0",
            "169.254.169.254",
            "[::ffff:127.0.0.1]",
            "[fe80::1]",
            "localhost",
            "victim",
            "victim.default.svc.cluster.local",
            "255.255.255.255",
        ] {
            places.push(format!("{host}:{NAMED}"));
        }
        block_on(async {
            let friend = ours.sign(FRIEND)?;
            for place in &places {
                // hyper sends some of these as they are, and refuses others.
                let Ok(request) = Request::connect(place.as_str()).body(Empty::new()) else { continue };
                let stranger = mesh.the("stranger")?;
                let mut client = Client::dial(&stranger, pod.at(hbone::PORT), Some(&friend)).await?;
                match client.send(request).await {
                    Ok((status, _, _)) => ensure!(status.is_client_error(), "{place}: {status}"),
                    Err(error) => println!("{place}: {error:#}"),
                }
                victim.heard_nothing().with_context(|| place.clone())?;
                beyond.nobody().with_context(|| place.clone())?;
            }
            // weft's own ports in the pod lead to no loop and to no door.
            for port in [15001, 15006, 15008] {
                for place in [pod.at(port), pod.at6(port)] {
                    let status = connect(mesh, &victim, Some(&friend), &place.to_string()).await?;
                    ensure!(status != 200, "{place}: {status}");
                }
            }
            // A CONNECT is what opens a tunnel.
            for method in [Method::GET, Method::POST, Method::OPTIONS] {
                let stranger = mesh.the("stranger")?;
                let mut client = Client::dial(&stranger, pod.at(hbone::PORT), Some(&friend)).await?;
                let request =
                    Request::builder().method(&method).uri(format!("https://{}/secret", pod.at(NAMED)));
                let (status, _, _) = client.send(request.body(Empty::new())?).await?;
                ensure!(status.is_client_error(), "{method}: {status}");
            }
            victim.heard_nothing()?;
            // To the pod itself it leads, whatever the port: that is for policies.
            let stranger = mesh.the("stranger")?;
            for place in [pod.at(NAMED), pod.at6(NAMED), pod.at(UNNAMED)] {
                let to = SocketAddr::new(place.ip(), hbone::PORT);
                let mut client = Client::dial(&stranger, to, Some(&friend)).await?;
                let (status, _) = client.connect(&place.to_string()).await?;
                ensure!(status == 200, "{place}: {status}");
            }
            Ok(())
        })
    });
}

#[test]
fn headers_that_claim_an_identity_are_not_believed() {
    story(|mesh| {
        mesh.outsider("stranger")?;
        for node in ["n1", "n2"] {
            let pod = mesh.pod(&format!("caller-{node}")).node(node).service_account("mallory");
            pod.start()?;
        }
        let echo = mesh.pod("echo").node("n1").service_account("victim").label("app", "victim");
        echo.app(["echo", "--port", "8080"]).start()?;
        mesh.service("echo").selector("app", "victim").port("http", 80, 8080).create()?;
        mesh.start_agents(&["n1", "n2"])?;
        let forged = [
            (
                "x-forwarded-client-cert",
                "By=spiffe://cluster.local/ns/default/sa/victim;URI=spiffe://cluster.local/ns/default/sa/friend",
            ),
            ("x-forwarded-client-cert-chain", "friend"),
            ("forwarded", "for=10.0.0.1;by=friend"),
            ("x-envoy-peer-metadata-id", "friend"),
            ("x-envoy-peer-metadata", "friend"),
            ("x-envoy-internal", "true"),
            ("baggage", "k8s.namespace.name=default,k8s.service-account.name=friend"),
        ];
        for caller in ["caller-n1", "caller-n2"] {
            let request = |path: &str| -> Result<_> {
                let request = mesh.http(caller, &format!("http://echo{path}"))?;
                Ok(forged.iter().fold(request, |request, (name, value)| request.header(name, value)))
            };
            mesh.apply_now("only", "")?;
            let seen = request("/seen")?.send()?.json()?;
            for name in ["x-forwarded-client-cert", "x-envoy-peer-metadata", "x-envoy-peer-metadata-id"] {
                let got = deploy::got_header(&seen, name).unwrap_or_default();
                ensure!(!got.contains("friend"), "{caller}: {name}: {got}");
            }
            mesh.apply_now("only", &only("friend"))?;
            let answer = request("/secret")?.send()?;
            ensure!(
                answer.status == 403 && answer.body.trim() == "RBAC: access denied",
                "{caller}: {answer:?}"
            );
        }
        // Nor are those of a CONNECT, whoever sends it.
        let (echo, stranger) = (mesh.the("echo")?, mesh.the("stranger")?);
        let mallory =
            Authority::in_dir(&mesh.ca_dir())?.sign("spiffe://cluster.local/ns/default/sa/mallory")?;
        block_on(async {
            for policy in [only("friend"), only("mallory")] {
                mesh.apply_now("only", &policy)?;
                let mut client = Client::dial(&stranger, echo.at(hbone::PORT), Some(&mallory)).await?;
                let mut request = Request::connect(echo.at(8080).to_string());
                for (name, value) in forged {
                    request = request.header(name, value);
                }
                let (status, _, tunnel) = client.send(request.body(Empty::new())?).await?;
                let Some(mut tunnel) = tunnel else {
                    ensure!(policy == only("friend") && status == 401, "{status}");
                    continue;
                };
                // On an HTTP port each request is decided upon by the certificate as well.
                let get = "GET /secret HTTP/1.1\r\nHost: echo\r\nConnection: close\r\n\
                           X-Forwarded-Client-Cert: URI=spiffe://cluster.local/ns/default/sa/friend\r\n\r\n";
                tunnel.write_all(get.as_bytes()).await?;
                let mut text = String::new();
                tunnel.read_to_string(&mut text).await?;
                if policy == only("friend") {
                    ensure!(text.starts_with("HTTP/1.1 403"), "{text}");
                } else {
                    // Its bytes are relayed unread: what they claim is for the client's own node to remove.
                    ensure!(text.starts_with("HTTP/1.1 200"), "{text}");
                }
            }
            Ok(())
        })
    });
}
