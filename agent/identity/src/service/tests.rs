//! A certificate service that misbehaves on request.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use base64::Engine;
use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateSigningRequestDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use weft_api::admin::{AuthorityKind, CertificateState};
use weft_api::identity::Identity;

use super::super::authority::{Authority, Parts, new_root};
use super::super::tests::{want, write};
use super::super::{CaOptions, Identities, IdentityOptions, SHORTEST_LIFE};
use super::*;

const REVIEWS: &str = "spiffe://cluster.local/ns/bookinfo/sa/reviews";

/// What the service does, and what it has heard.
#[derive(Default)]
struct Script {
    /// A gRPC status that it answers instead of a certificate.
    status: Option<(u32, &'static str)>,
    /// Names this identity, whatever is asked for.
    names: Option<&'static str>,
    heard: Vec<(Option<String>, CertificateRequest)>,
}

struct Ca {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
}

impl Ca {
    /// Serves; with TLS by a key and certificate of its own, if given.
    async fn start(tls: Option<rustls::ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(Script::default()));
        let (key, root) = new_root("cluster.local", SystemTime::now()).unwrap();
        let parts = Parts {
            key,
            certificate: root.der().clone(),
            chain: Vec::new(),
            roots: vec![root.der().clone()],
        };
        let authority = Arc::new(Authority::new(parts, "cluster.local", SystemTime::now()).unwrap());
        let root = root.pem();
        let acceptor = tls.map(|tls| tokio_rustls::TlsAcceptor::from(Arc::new(tls)));
        let shared = script.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, authority, root) = (shared.clone(), authority.clone(), root.clone());
                let service = hyper::service::service_fn(move |request| {
                    let (script, authority, root) = (script.clone(), authority.clone(), root.clone());
                    async move { Ok::<_, Infallible>(answer(&script, &authority, &root, request).await) }
                });
                let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    match acceptor {
                        None => drop(http.serve_connection(TokioIo::new(stream), service).await),
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                drop(http.serve_connection(TokioIo::new(stream), service).await);
                            }
                        }
                    }
                });
            }
        });
        Self { address, script }
    }

    fn set(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().unwrap());
    }

    fn plain(&self) -> ServiceOptions {
        ServiceOptions {
            address: format!("http://{}", self.address),
            root: None,
            root_comes: false,
            token: None,
        }
    }
}

async fn answer(
    script: &Mutex<Script>,
    authority: &Authority,
    root: &str,
    request: http::Request<Incoming>,
) -> http::Response<Full<Bytes>> {
    assert_eq!(request.uri().path(), METHOD);
    let token = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let asked = CertificateRequest::decode(&body[5..]).unwrap();
    let mut script = script.lock().unwrap();
    script.heard.push((token, asked.clone()));
    let response = http::Response::builder().header("content-type", "application/grpc");
    if let Some((status, message)) = script.status {
        let response = response.header("grpc-status", status).header("grpc-message", message);
        return response.body(Full::default()).unwrap();
    }
    let csr = CertificateSigningRequestDer::from_pem_slice(asked.csr.as_bytes()).unwrap();
    let name = asked.metadata.unwrap().fields["ImpersonatedIdentity"].clone();
    let Some(prost_types::value::Kind::StringValue(name)) = name.kind else { unreachable!("a string") };
    let life = Duration::from_secs(asked.validity_duration.unsigned_abs());
    let now = SystemTime::now();
    let chain = match script.names {
        None => authority.sign(&csr, &Identity::parse(&name).unwrap(), "cluster.local", life, now).unwrap(),
        // The certificate of somebody else, by another key.
        Some(other) => {
            let request = Request::new(Identity::parse(other).unwrap()).unwrap();
            authority.sign(request.csr(), request.identity(), "cluster.local", life, now).unwrap()
        }
    };
    let pem = chain.iter().map(|der| {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    });
    let message = CertificateResponse { cert_chain: pem.chain([root.to_owned()]).collect() };
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut frame).unwrap();
    // Without trailers: the status stands in the headers.
    response.header("grpc-status", 0).body(Full::from(frame.freeze())).unwrap()
}

fn node(ca: ServiceOptions, life: Duration) -> (Arc<Identities>, mpsc::UnboundedReceiver<()>) {
    let (report, reports) = mpsc::unbounded_channel();
    let options = IdentityOptions {
        trust_domain: "cluster.local".to_owned(),
        ca: CaOptions::Service(ca),
        life,
        revocations: None,
        credentials: crate::Credentials::new(crate::SecretsFrom::Controller),
    };
    (Identities::start(options, move || _ = report.send(())).unwrap(), reports)
}

#[tokio::test]
async fn a_certificate_is_asked_for_as_istio_does() {
    let ca = Ca::start(None).await;
    let dir = TempDir::new().unwrap();
    let token = write(&dir, "token", "first\n");
    let (node, mut reports) =
        node(ServiceOptions { token: Some(token), ..ca.plain() }, Duration::from_hours(1));
    want(&node, &[("bookinfo", "reviews")]);
    assert!(node.tls_soon("bookinfo", "reviews").await.is_some());
    reports.recv().await.unwrap();
    write(&dir, "token", "second");
    want(&node, &[("bookinfo", "reviews"), ("bookinfo", "ratings")]);
    assert!(node.tls_soon("bookinfo", "ratings").await.is_some());

    let script = ca.script.lock().unwrap();
    let tokens: Vec<_> = script.heard.iter().map(|(token, _)| token.as_deref().unwrap()).collect();
    assert_eq!(tokens, ["Bearer first", "Bearer second"]);
    assert_eq!(script.heard[0].1.validity_duration, 3600);
    let authority = node.status().ca.unwrap();
    assert_eq!(authority.kind, AuthorityKind::External);
    assert_eq!(authority.roots.len(), 1);
    assert!(authority.answered.is_some() && authority.error.is_none());
}

#[tokio::test]
async fn a_ca_that_is_away_is_asked_again_until_it_is_back() {
    let ca = Ca::start(None).await;
    ca.set(|script| script.status = Some((7, "not you")));
    let (node, mut reports) = node(ca.plain(), SHORTEST_LIFE);
    want(&node, &[("bookinfo", "reviews")]);
    assert!(node.tls_soon("bookinfo", "reviews").await.is_none(), "at once: the attempt has failed");
    reports.recv().await.unwrap();
    let row = node.status().certificates.remove(0);
    assert_eq!(row.state, CertificateState::Missing);
    assert!(row.error.unwrap().contains("not you"));
    assert!(node.status().ca.unwrap().error.unwrap().contains("PermissionDenied"));

    ca.set(|script| script.status = None);
    reports.recv().await.unwrap();
    assert_eq!(node.status().certificates[0].state, CertificateState::Valid);
    let first = node.tls("bookinfo", "reviews").unwrap();

    // Away again: what is there serves to its end, and the status says until when.
    ca.set(|script| script.status = Some((14, "gone")));
    reports.recv().await.unwrap();
    let row = node.status().certificates.remove(0);
    assert_eq!(row.state, CertificateState::RenewalFailing);
    assert!(row.not_after.is_some() && row.failing_since.is_some());
    assert!(node.tls("bookinfo", "reviews").is_some());
    while SystemTime::now() < first.not_after {
        reports.recv().await.unwrap();
    }
    assert!(node.tls("bookinfo", "reviews").is_none());
    assert_eq!(node.status().certificates[0].state, CertificateState::Missing);
}

#[tokio::test]
async fn a_certificate_that_was_not_asked_for_is_not_used() {
    let ca = Ca::start(None).await;
    let (node, _reports) = node(ca.plain(), Duration::from_hours(1));
    ca.set(|script| script.names = Some("spiffe://cluster.local/ns/bookinfo/sa/ratings"));
    want(&node, &[("bookinfo", "reviews")]);
    assert!(node.tls_soon("bookinfo", "reviews").await.is_none());
    let error = node.status().certificates[0].error.clone().unwrap();
    assert!(error.contains("a certificate of spiffe://cluster.local/ns/bookinfo/sa/ratings"), "{error}");
    // The right name for another key.
    ca.set(|script| script.names = Some(REVIEWS));
    want(&node, &[]);
    want(&node, &[("bookinfo", "reviews")]);
    assert!(node.tls_soon("bookinfo", "reviews").await.is_none());
    let error = node.status().certificates[0].error.clone().unwrap();
    assert!(error.contains("does not serve"), "{error}");
}

#[tokio::test]
async fn a_service_over_https_is_recognised_by_its_root() {
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let mut tls = rustls::ServerConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let ca = Ca::start(Some(tls)).await;
    let dir = TempDir::new().unwrap();
    let (_, stranger) = new_root("cluster.local", SystemTime::now()).unwrap();
    let root = write(&dir, "root.pem", &stranger.pem());
    let options = ServiceOptions {
        address: format!("https://{}", ca.address),
        root: Some(root),
        root_comes: false,
        token: None,
    };
    let (node, mut reports) = node(options, Duration::from_hours(1));
    want(&node, &[("bookinfo", "reviews")]);
    assert!(node.tls_soon("bookinfo", "reviews").await.is_none());
    reports.recv().await.unwrap();
    let error = node.status().certificates[0].error.clone().unwrap();
    assert!(error.contains("certificate"), "{error}");
    assert!(ca.script.lock().unwrap().heard.is_empty(), "nothing is told to a stranger");
    // The right roots come while it runs.
    write(&dir, "root.pem", &own.pem());
    reports.recv().await.unwrap();
    assert_eq!(node.status().certificates[0].state, CertificateState::Valid);
}

#[test]
fn wrong_options_are_refused_at_start() {
    let dir = TempDir::new().unwrap();
    let start = |address: &str, root: Option<PathBuf>| {
        let options = ServiceOptions { address: address.to_owned(), root, root_comes: false, token: None };
        Service::new(options).map(drop).map_err(|error| error.to_string())
    };
    assert!(start("ftp://ca", None).unwrap_err().contains("is no URL of a CA"));
    assert!(start("ca:15012", None).unwrap_err().contains("is no URL of a CA"));
    assert!(start("https://ca:15012", None).unwrap_err().contains("--ca-root"));
    assert!(start("https://ca:15012", Some(dir.path().join("none"))).unwrap_err().contains("cannot read"));
    let none = Some(dir.path().join("none"));
    let comes =
        ServiceOptions { address: "https://ca:15012".to_owned(), root: none, root_comes: true, token: None };
    Service::new(comes).unwrap();
    let rubbish = write(&dir, "root.pem", "rubbish");
    assert!(start("https://ca:15012", Some(rubbish)).unwrap_err().contains("no certificate in PEM"));
    start("http://ca:15010", None).unwrap();
}

#[test]
fn answers_are_read_from_leaf_to_root() {
    let (_, root) = new_root("cluster.local", SystemTime::now()).unwrap();
    let (_, other) = new_root("cluster.local", SystemTime::now()).unwrap();
    let leaf = CertificateParams::new([]).unwrap().self_signed(&KeyPair::generate().unwrap()).unwrap();
    let two_roots = format!("{}{}", root.pem(), other.pem());
    let issued = read(&[leaf.pem(), root.pem(), two_roots]).unwrap();
    assert_eq!(issued.chain, [leaf.der().clone()], "a root among the links is not sent to peers");
    assert_eq!(issued.roots, [root.der().clone(), other.der().clone()]);
    for wrong in [vec![], vec![leaf.pem()], vec![String::new(), root.pem()], vec![leaf.pem(), String::new()]]
    {
        read(&wrong).unwrap_err();
    }
}

#[test]
fn other_roots_of_the_service_renew_everything_twice() {
    let dir = TempDir::new().unwrap();
    let (_, first) = new_root("cluster.local", SystemTime::now()).unwrap();
    let (_, second) = new_root("cluster.local", SystemTime::now()).unwrap();
    let root = write(&dir, "root.pem", &first.pem());
    let options = ServiceOptions {
        address: "https://ca:15012".to_owned(),
        root: Some(root.clone()),
        token: None,
        root_comes: false,
    };
    let service = Service::new(options).unwrap();
    let start = Instant::now();
    assert!(!service.look(start));
    write(&dir, "root.pem", &second.pem());
    assert!(service.look(start), "at once, for the roots");
    assert!(!service.look(start + SUCCEEDED / 2));
    assert!(service.look(start + SUCCEEDED), "and when another key signs");
    assert!(!service.look(start + SUCCEEDED * 2));
    std::fs::remove_file(root).unwrap();
    assert!(!service.look(start), "a file that is away for a moment says nothing");
}
