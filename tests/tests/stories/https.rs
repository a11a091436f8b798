//! TLS ends at gateways: by Secrets, for whom the client asks, and never by another's certificate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::{Request, Version};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
use serde_json::{Value, json};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use weft_tests::{Mesh, Pod, eventually, story};

use crate::deploy::got_header;
use crate::forge::{Authority, Credentials};
use crate::hbone::Anybody;
use crate::http2::block_on;

type Connection = TlsStream<tokio::net::TcpStream>;

/// Somebody outside who speaks TLS to the gateway.
struct Stranger {
    pod: Arc<Pod>,
    roots: CertificateDer<'static>,
    shows: Option<Credentials>,
    speaks: Vec<&'static [u8]>,
    versions: Vec<&'static SupportedProtocolVersion>,
    /// The server's certificate bears no name of DNS.
    names_nobody: bool,
}

/// What was answered.
#[derive(Debug)]
struct Answer {
    status: u16,
    body: Value,
    version: Version,
}

impl Stranger {
    fn new(mesh: &Mesh, authority: &Authority) -> Result<Self> {
        Ok(Self {
            pod: mesh.outsider("stranger")?,
            roots: authority.root.clone(),
            shows: None,
            speaks: vec![b"http/1.1"],
            versions: vec![&version::TLS12, &version::TLS13],
            names_nobody: false,
        })
    }

    /// A connection whose handshake is over; whose certificate is good for the name.
    async fn dial(&self, mesh: &Mesh, port: u16, name: &str) -> Result<Connection> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.roots.clone())?;
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&self.versions)?;
        let builder = if self.names_nobody {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody))
        } else {
            builder.with_root_certificates(roots)
        };
        let mut config = match &self.shows {
            Some(own) => builder.with_client_auth_cert(own.chain.clone(), own.key())?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = self.speaks.iter().map(|protocol| protocol.to_vec()).collect();
        let socket = self.pod.connect(mesh.the("gateway")?.at(port))?;
        socket.set_nonblocking(true)?;
        let socket = tokio::net::TcpStream::from_std(socket)?;
        Ok(TlsConnector::from(Arc::new(config))
            .connect(ServerName::try_from(name.to_owned())?, socket)
            .await?)
    }

    /// One request on a connection of its own.
    async fn ask(&self, mesh: &Mesh, name: &str, host: &str, path: &str) -> Result<Answer> {
        let connection = self.dial(mesh, 8443, name).await.with_context(|| format!("TLS for {name}"))?;
        if self.speaks.contains(&&b"h2"[..]) {
            ensure!(connection.get_ref().1.alpn_protocol() == Some(b"h2"), "HTTP/2 is not spoken");
            let (mut sender, driver) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(connection)).await?;
            tokio::spawn(driver);
            let request = Request::get(format!("https://{host}{path}")).body(Empty::<bytes::Bytes>::new())?;
            return read(sender.send_request(request).await?).await;
        }
        let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(connection)).await?;
        tokio::spawn(driver);
        let request = Request::get(path).header("host", host).body(Empty::<bytes::Bytes>::new())?;
        read(sender.send_request(request).await?).await
    }
}

async fn read(response: http::Response<hyper::body::Incoming>) -> Result<Answer> {
    let (status, version) = (response.status().as_u16(), response.version());
    let body = response.into_body().collect().await?.to_bytes();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    Ok(Answer { status, body, version })
}

/// A Secret as `kubectl create secret tls` has it.
fn secret(name: &str, credentials: &Credentials) -> String {
    let (chain, key) = credentials.pem();
    secret_of(name, &[("tls.crt", &chain), ("tls.key", &key)])
}

fn secret_of(name: &str, values: &[(&str, &str)]) -> String {
    let values: serde_json::Map<String, Value> =
        values.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
    let metadata = json!({"name": name, "namespace": "default"});
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": values}).to_string()
}

fn server(name: &str, host: &str, tls: &str) -> String {
    format!(
        "  - {{port: {{number: 443, name: {name}, protocol: HTTPS}}, hosts: ['{host}'], tls: {{{tls}}}}}\n"
    )
}

fn gateway(servers: &[String]) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: edge, namespace: default}}\nspec:\n  \
         selector: {{istio: ingressgateway}}\n  servers:\n{}",
        servers.concat()
    )
}

const RULES: &str = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: default}
spec:
  hosts: ['*.shop.test', shop.test]
  gateways: [edge]
  http:
  - {match: [{uri: {prefix: /old}}], redirect: {uri: /new}}
  - {match: [{scheme: {exact: https}}], route: [{destination: {host: app}}]}
";

/// A gateway with nothing but its pod and rules, and an application.
fn edge(mesh: &Mesh) -> Result<()> {
    mesh.pod("app").label("app", "app").app(["echo", "--port", "8080"]).start()?;
    mesh.service("app").selector("app", "app").port("http", 9000, 8080).create()?;
    mesh.pod("gateway").label("istio", "ingressgateway").start()?;
    let ingress = mesh.service("ingress").selector("istio", "ingressgateway");
    ingress.port("https", 443, 8443).create()?;
    mesh.apply("rules", RULES)?;
    mesh.start_agent()?;
    mesh.wait_applied()
}

#[test]
fn tls_ends_by_the_secret_of_whom_the_client_asks_for() {
    story(|mesh| {
        edge(mesh)?;
        let authority = Authority::self_made()?;
        mesh.apply("one", &secret("one", &authority.sign_names(&["one.shop.test"])?))?;
        // As Istio's first documentation has it.
        let (chain, key) = authority.sign_names(&["*.shop.test"])?.pem();
        mesh.apply("all", &secret_of("all", &[("cert", &chain), ("key", &key)]))?;
        mesh.apply_now(
            "gateway",
            &gateway(&[
                server("one", "one.shop.test", "mode: SIMPLE, credentialName: one"),
                server("all", "*.shop.test", "mode: SIMPLE, credentialName: all"),
            ]),
        )?;
        let mut stranger = Stranger::new(mesh, &authority)?;
        block_on(async {
            for (name, host, status) in [
                ("one.shop.test", "one.shop.test", 200),
                ("ONE.shop.test", "One.Shop.test:443", 200),
                ("two.shop.test", "two.shop.test", 200),
                // Both have the same certificate.
                ("two.shop.test", "three.shop.test", 200),
                ("one.shop.test", "two.shop.test", 421),
                ("two.shop.test", "one.shop.test", 421),
                ("one.shop.test", "elsewhere.test", 404),
            ] {
                for speaks in [&b"http/1.1"[..], b"h2"] {
                    stranger.speaks = vec![speaks];
                    let answer = stranger.ask(mesh, name, host, "/").await?;
                    ensure!(answer.status == status, "{name}, {host}: {answer:?}");
                    ensure!((answer.version == Version::HTTP_2) == (speaks == b"h2"), "{answer:?}");
                    if status == 200 {
                        let told = got_header(&answer.body, "x-forwarded-proto");
                        ensure!(told.as_deref() == Some("https"), "{told:?}");
                    }
                }
            }
            stranger.speaks = vec![b"http/1.1"];
            ensure!(stranger.ask(mesh, "one.shop.test", "one.shop.test", "/old").await?.status == 301);
            for versions in [&version::TLS12, &version::TLS13] {
                stranger.versions = vec![versions];
                ensure!(stranger.ask(mesh, "two.shop.test", "two.shop.test", "/").await?.status == 200);
            }
            // Nobody has the name.
            for nobodys in ["shop.test", "elsewhere.test"] {
                ensure!(stranger.dial(mesh, 8443, nobodys).await.is_err(), "{nobodys} is served");
            }
            Ok(())
        })?;
        // What is not TLS is not served, and hears nothing.
        let plain = mesh.http("stranger", &format!("http://{}", mesh.the("gateway")?.at(8443)))?;
        ensure!(plain.header("host", "one.shop.test").send().is_err(), "plain HTTP is served");

        let rows = mesh.weft(&["get", "secrets"])?.stdout;
        for told in ["default", "one", "serves", "one.shop.test", "*.shop.test"] {
            ensure!(rows.contains(told), "{told}: {rows}");
        }
        let told = mesh.explain("gateway", "https://one.shop.test/", &[])?;
        ensure!(told["matched"]["virtualService"] == "default/edge" && told["action"] == "route", "{told:#}");
        ensure!(told.to_string().contains("by Secret default/one"), "{told:#}");
        let told = mesh.weft(&["explain", "https://one.shop.test/"])?.good()?;
        ensure!(told.contains("by Secret default/one") && told.contains("default/edge"), "{told}");
        let told = mesh.explain("gateway", "https://elsewhere.test/", &[])?;
        ensure!(told["action"] == "notFound", "{told:#}");
        Ok(())
    });
}

#[test]
fn a_missing_or_broken_secret_closes_its_server_alone() {
    story(|mesh| {
        edge(mesh)?;
        let authority = Authority::self_made()?;
        mesh.apply("one", &secret("one", &authority.sign_names(&["one.shop.test"])?))?;
        mesh.apply_now(
            "gateway",
            &gateway(&[
                server("one", "one.shop.test", "mode: SIMPLE, credentialName: one"),
                server("two", "two.shop.test", "mode: SIMPLE, credentialName: two"),
            ]),
        )?;
        let stranger = Stranger::new(mesh, &authority)?;
        let (good, other) =
            (authority.sign_names(&["two.shop.test"])?, authority.sign_names(&["two.shop.test"])?);
        let ((chain, key), (_, wrong)) = (good.pem(), other.pem());
        let broken = [
            (None, "there is no Secret default/two"),
            (
                Some(secret_of("two", &[("tls.crt", &chain)])),
                "has neither tls.crt and tls.key nor cert and key",
            ),
            (
                Some(secret_of("two", &[("tls.crt", &chain), ("tls.key", &wrong)])),
                "is not that of its certificate",
            ),
            (Some(secret_of("two", &[("tls.crt", "nothing"), ("tls.key", &key)])), "no certificate in PEM"),
        ];
        for (two, why) in broken {
            if let Some(two) = two {
                mesh.apply_now("two", &two)?;
            }
            let status = mesh.weft(&["status"])?.stdout;
            ensure!(status.contains("server is closed") && status.contains(why), "{why}: {status}");
            ensure!(mesh.weft(&["get", "secrets"])?.stdout.contains(why), "{why}");
            block_on(async {
                ensure!(stranger.dial(mesh, 8443, "two.shop.test").await.is_err(), "{why}: it is served");
                ensure!(stranger.ask(mesh, "one.shop.test", "one.shop.test", "/").await?.status == 200);
                Ok(())
            })?;
        }
        mesh.apply_now("two", &secret("two", &good))?;
        block_on(async {
            let answer = stranger.ask(mesh, "two.shop.test", "two.shop.test", "/").await?;
            ensure!(answer.status == 200, "{answer:?}");
            Ok(())
        })?;
        // No key of anybody is where people look.
        let told = [mesh.weft(&["status"])?.stdout, mesh.with_agent(|agent| Ok(agent.errors()))?].concat();
        ensure!(
            !told.contains("PRIVATE KEY") && !told.contains(key.lines().nth(1).unwrap_or("PRIVATE")),
            "{told}"
        );
        Ok(())
    });
}

#[test]
fn certificates_change_under_load() {
    const CLIENTS: usize = 32;
    story(|mesh| {
        edge(mesh)?;
        let authority = Authority::self_made()?;
        let fresh = || authority.sign_names(&["one.shop.test"]);
        mesh.apply("one", &secret("one", &fresh()?))?;
        mesh.apply_now(
            "gateway",
            &gateway(&[server("one", "one.shop.test", "mode: SIMPLE, credentialName: one")]),
        )?;
        let stranger = Stranger::new(mesh, &authority)?;
        block_on(async {
            let over = std::cell::Cell::new(false);
            // Each asks again and again, on a connection that stands and on new ones by turns.
            let client = async |_: usize| {
                let mut asked = 0_u32;
                while !over.get() {
                    let connection = stranger.dial(mesh, 8443, "one.shop.test").await?;
                    let (mut sender, driver) =
                        hyper::client::conn::http1::handshake(TokioIo::new(connection)).await?;
                    tokio::spawn(driver);
                    for _ in 0..8 {
                        sender.ready().await?;
                        let request = Request::get("/")
                            .header("host", "one.shop.test")
                            .body(Empty::<bytes::Bytes>::new())?;
                        let answer = read(sender.send_request(request).await?).await?;
                        ensure!(answer.status == 200, "{answer:?}");
                        asked += 1;
                    }
                }
                Ok(asked)
            };
            let rotate = async {
                let mut seen = Vec::new();
                for _ in 0..8 {
                    let next = fresh()?;
                    let leaf = next.chain[0].clone();
                    mesh.apply("one", &secret("one", &next))?;
                    // The next handshake has it: that is awaited, while the others go on.
                    loop {
                        let connection = stranger.dial(mesh, 8443, "one.shop.test").await?;
                        if connection.get_ref().1.peer_certificates().and_then(|all| all.first())
                            == Some(&leaf)
                        {
                            break;
                        }
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    seen.push(leaf);
                }
                over.set(true);
                anyhow::Ok(seen.len())
            };
            let clients = futures_join((0..CLIENTS).map(client).collect());
            let (rotated, asked) = tokio::join!(rotate, clients);
            let asked: Vec<u32> = asked.into_iter().collect::<Result<_>>()?;
            println!("{} requests while {} certificates came", asked.iter().sum::<u32>(), rotated?);
            ensure!(asked.iter().all(|asked| *asked > 0));
            Ok(())
        })
    });
}

#[test]
fn tls_goes_on_while_one_agent_takes_over_from_another() {
    story(|mesh| {
        edge(mesh)?;
        let authority = Authority::self_made()?;
        mesh.apply("one", &secret("one", &authority.sign_names(&["one.shop.test"])?))?;
        mesh.apply_now(
            "gateway",
            &gateway(&[server("one", "one.shop.test", "mode: SIMPLE, credentialName: one")]),
        )?;
        let stranger = Stranger::new(mesh, &authority)?;
        let over = AtomicBool::new(false);
        let asked = std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let mut asked = 0_u32;
                block_on(async {
                    while !over.load(Ordering::Relaxed) {
                        let answer = stranger.ask(mesh, "one.shop.test", "one.shop.test", "/").await?;
                        ensure!(answer.status == 200, "after {asked}: {answer:?}");
                        asked += 1;
                    }
                    Ok(())
                })?;
                anyhow::Ok(asked)
            });
            let upgraded = mesh.with_agent(|agent| agent.upgrade(&[]));
            over.store(true, Ordering::Relaxed);
            let asked = asking.join().expect("no panic")?;
            // The one before has ended when this goes.
            drop(upgraded?);
            anyhow::Ok(asked)
        })?;
        ensure!(asked > 0);
        println!("{asked} connections of TLS while an agent took over");
        Ok(())
    });
}

/// All of them side by side.
async fn futures_join<T>(all: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut all: Vec<_> = all.into_iter().map(|one| (Box::pin(one), None)).collect();
    std::future::poll_fn(|context| {
        let mut pending = false;
        for (one, done) in &mut all {
            if done.is_none() {
                match one.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *done = Some(value),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    all.into_iter().filter_map(|(_, done)| done).collect()
}

#[test]
fn clients_prove_who_they_are_where_a_server_asks() {
    story(|mesh| {
        edge(mesh)?;
        let (authority, clients, others) =
            (Authority::self_made()?, Authority::self_made()?, Authority::self_made()?);
        mesh.apply("one", &secret("one", &authority.sign_names(&["*.shop.test"])?))?;
        let root = crate::forge::pem("CERTIFICATE", &clients.root);
        mesh.apply("roots", &secret_of("one-cacert", &[("ca.crt", &root)]))?;
        let tls = |more: &str| format!("{more}credentialName: one");
        mesh.apply_now(
            "gateway",
            &gateway(&[
                server("must", "must.shop.test", &tls("mode: MUTUAL, ")),
                server("may", "may.shop.test", &tls("mode: OPTIONAL_MUTUAL, ")),
                server("named", "named.shop.test", &tls("mode: MUTUAL, subjectAltNames: [friend.example], ")),
                server("open", "open.shop.test", &tls("mode: SIMPLE, ")),
                server("new", "new.shop.test", &tls("mode: SIMPLE, minProtocolVersion: TLSV1_3, ")),
            ]),
        )?;
        let mut stranger = Stranger::new(mesh, &authority)?;
        block_on(async {
            let lets_in = async |stranger: &Stranger, name: &str| {
                // With TLS 1.3 a client hears of a refusal only when it reads.
                let answer = stranger.ask(mesh, name, name, "/").await.ok();
                answer
                    .filter(|answer| answer.status == 200)
                    .map(|answer| got_header(&answer.body, "x-forwarded-client-cert").unwrap_or_default())
            };
            for versions in [&version::TLS12, &version::TLS13] {
                stranger.versions = vec![versions];
                stranger.shows = None;
                for (name, is_open) in [("must", false), ("may", true), ("named", false), ("open", true)] {
                    let told = lets_in(&stranger, &format!("{name}.shop.test")).await;
                    ensure!(told.is_some() == is_open, "without a certificate, {name}: {told:?}");
                    ensure!(told.is_none_or(|told| told.is_empty()), "{name}");
                }
                stranger.shows = Some(clients.sign_names(&["friend.example"])?);
                for name in ["must", "may", "named"] {
                    let told = lets_in(&stranger, &format!("{name}.shop.test")).await;
                    let told = told.with_context(|| format!("friend is refused at {name}"))?;
                    ensure!(told.starts_with("By=;Hash=") && told.ends_with("DNS=friend.example"), "{told}");
                }
                stranger.shows = Some(clients.sign_names(&["somebody.example"])?);
                ensure!(lets_in(&stranger, "must.shop.test").await.is_some());
                ensure!(lets_in(&stranger, "named.shop.test").await.is_none(), "any name is let in");
                stranger.shows = Some(others.sign_names(&["friend.example"])?);
                for name in ["must", "may", "named"] {
                    let told = lets_in(&stranger, &format!("{name}.shop.test")).await;
                    ensure!(told.is_none(), "another authority's are let in at {name}");
                }
            }
            stranger.shows = None;
            stranger.versions = vec![&version::TLS12];
            ensure!(stranger.dial(mesh, 8443, "new.shop.test").await.is_err(), "TLS 1.2 is too old");
            Ok(())
        })?;

        // Whoever came before a server asked comes anew.
        block_on(async {
            stranger.versions = vec![&version::TLS13];
            let connection = stranger.dial(mesh, 8443, "open.shop.test").await?;
            let (mut sender, driver) =
                hyper::client::conn::http1::handshake(TokioIo::new(connection)).await?;
            tokio::spawn(driver);
            let request =
                || Request::get("/").header("host", "open.shop.test").body(Empty::<bytes::Bytes>::new());
            ensure!(read(sender.send_request(request()?).await?).await?.status == 200);
            mesh.apply_now("gateway", &gateway(&[server("open", "open.shop.test", &tls("mode: MUTUAL, "))]))?;
            sender.ready().await?;
            let answer = read(sender.send_request(request()?).await?).await?;
            ensure!(answer.status == 421, "{answer:?}");
            Ok(())
        })
    });
}

#[test]
fn the_meshs_own_certificates_serve_at_a_gateway_too() {
    story(|mesh| {
        mesh.pod("app").node("n1").label("app", "app").app(["echo", "--port", "8080"]).start()?;
        mesh.service("app").selector("app", "app").port("http", 9000, 8080).create()?;
        let gateway_pod =
            mesh.pod("gateway").node("n1").service_account("edge").label("istio", "ingressgateway");
        gateway_pod.start()?;
        mesh.service("ingress").selector("istio", "ingressgateway").port("https", 443, 8443).create()?;
        mesh.apply("rules", RULES)?;
        mesh.start_agents(&["n1"])?;
        mesh.apply("gateway", &gateway(&[server("one", "one.shop.test", "mode: ISTIO_MUTUAL")]))?;
        mesh.apply_now(
            "policy",
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: edge, namespace: default}\nspec:\n  \
             selector: {matchLabels: {istio: ingressgateway}}\n  rules:\n  \
             - {from: [{source: {principals: [cluster.local/ns/far/sa/friend]}}], when: [{key: connection.sni, values: [one.shop.test]}]}\n",
        )?;
        let of_the_mesh = Authority::in_dir(&mesh.ca_dir())?;
        let mut stranger = Stranger::new(mesh, &of_the_mesh)?;
        stranger.names_nobody = true;
        block_on(async {
            ensure!(
                stranger.ask(mesh, "one.shop.test", "one.shop.test", "/").await.is_err(),
                "without a certificate"
            );
            for (who, status) in [("friend", 200), ("somebody", 403)] {
                stranger.shows = Some(of_the_mesh.sign(&format!("spiffe://cluster.local/ns/far/sa/{who}"))?);
                let answer = stranger.ask(mesh, "one.shop.test", "one.shop.test", "/").await?;
                ensure!(answer.status == status, "{who}: {answer:?}");
            }
            stranger.shows = Some(Authority::self_made()?.sign("spiffe://cluster.local/ns/far/sa/friend")?);
            ensure!(
                stranger.ask(mesh, "one.shop.test", "one.shop.test", "/").await.is_err(),
                "of another root"
            );
            Ok(())
        })
    });
}

#[test]
fn bytes_come_out_of_tls_too() {
    story(|mesh| {
        mesh.pod("db").label("app", "db").app(["tcp-echo", "--port", "7000"]).start()?;
        mesh.service("db").selector("app", "db").port("tcp", 9000, 7000).create()?;
        mesh.pod("gateway").label("istio", "ingressgateway").start()?;
        mesh.start_agent()?;
        let authority = Authority::self_made()?;
        mesh.apply("db", &secret("db", &authority.sign_names(&["db.shop.test"])?))?;
        mesh.apply_now(
            "gateway",
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: edge, namespace: default}\nspec:\n  \
             selector: {istio: ingressgateway}\n  servers:\n  \
             - {port: {number: 8443, name: db, protocol: TLS}, hosts: [db.shop.test], tls: {mode: SIMPLE, credentialName: db}}\n---\n\
             apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: db, namespace: default}\nspec:\n  \
             hosts: [db.shop.test]\n  gateways: [edge]\n  tcp: [{route: [{destination: {host: db}}]}]\n",
        )?;
        let mut stranger = Stranger::new(mesh, &authority)?;
        stranger.speaks = Vec::new();
        block_on(async {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let mut connection = stranger.dial(mesh, 8443, "db.shop.test").await?;
            connection.write_all(b"select 1").await?;
            let mut answer = [0; 8];
            connection.read_exact(&mut answer).await?;
            ensure!(&answer == b"select 1");
            Ok(())
        })?;
        eventually("it is logged", Duration::from_secs(5), || mesh.is_logged("db.shop.test"))
    });
}
