use std::time::Instant;

use kube::runtime::watcher::Event;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use tonic::Code;
use weft_identity::{Authority, Parts, Request, new_root};

use super::*;
use crate::pods::Index;

/// Nobody comes later in these tests.
const PATIENCE: Duration = Duration::from_millis(1);
const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

fn authority() -> Authority {
    let (key, root) = new_root("cluster.local", SystemTime::now()).unwrap();
    let der = root.der().clone();
    let parts = Parts { key, certificate: der.clone(), chain: Vec::new(), roots: vec![der] };
    Authority::new(parts, "cluster.local", SystemTime::now()).unwrap()
}

/// A CA that knows of one pod of shop/cart on n1, and of one of shop/job that has finished there.
fn issuer() -> Issuer {
    let ca = Ca::new("cluster.local".to_owned(), LONGEST_LIFE);
    ca.take(authority(), Instant::now());
    let pod = |name: &str, account: &str, phase: &str| {
        serde_json::from_value(json!({
            "metadata": { "name": name, "namespace": "shop" },
            "spec": { "nodeName": "n1", "serviceAccountName": account },
            "status": { "phase": phase },
        }))
        .map(Event::InitApply)
        .unwrap()
    };
    let pods = Pods::default();
    let mut listed = Index::default();
    for event in [pod("a", "cart", "Running"), pod("b", "job", "Succeeded"), Event::InitDone] {
        pods.take(event, &mut listed);
    }
    Issuer { ca: ca.into(), pods: pods.into(), patience: PATIENCE }
}

fn request(identity: &str) -> CertificateRequest {
    let request = Request::new(Identity::parse(identity).unwrap()).unwrap();
    CertificateRequest::new(request.csr_pem().to_owned(), 3600, identity.to_owned())
}

/// A request by a key of its own, for these names.
fn other_csr(names: &[&str], key: &KeyPair) -> String {
    let names = names.iter().map(|name| rcgen::SanType::URI((*name).try_into().unwrap())).collect();
    let mut params = CertificateParams::default();
    params.subject_alt_names = names;
    params.serialize_request(key).unwrap().pem().unwrap()
}

#[tokio::test]
async fn a_node_gets_what_runs_on_it() {
    let issuer = issuer();
    let chain = issuer.issue("n1", &request(CART)).await.unwrap();
    let [leaf, roots] = &*chain else { panic!("leaf and roots: {chain:?}") };
    assert_eq!(Some(roots), issuer.ca.roots().as_ref());
    let leaf = CertificateDer::from_pem_slice(leaf.as_bytes()).unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&leaf).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names, [x509_parser::extensions::GeneralName::URI(CART)]);
    let life = leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp();
    assert_eq!(life, 3600 + 120, "what was asked for, backdated by two minutes");
}

#[tokio::test]
async fn nobody_gets_more_than_a_day() {
    for asked in [0, -5, 7 * 86_400, i64::MAX] {
        let chain = issuer()
            .issue("n1", &CertificateRequest { validity_duration: asked, ..request(CART) })
            .await
            .unwrap();
        let leaf = CertificateDer::from_pem_slice(chain[0].as_bytes()).unwrap();
        let (_, leaf) = x509_parser::parse_x509_certificate(&leaf).unwrap();
        let left = leaf.validity().time_to_expiration().unwrap();
        assert!(left <= Duration::from_hours(24), "{asked}: {left}");
    }
}

#[tokio::test]
async fn everything_else_is_denied() {
    let key = KeyPair::generate().unwrap();
    let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let with = |csr: String| CertificateRequest { csr, ..request(CART) };
    // A request whose signature is of other bytes proves no possession.
    let mut forged = rcgen_request_der(&key);
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let cases = [
        ("another node", "n2", request(CART), Code::PermissionDenied),
        ("no node of that name", "", request(CART), Code::PermissionDenied),
        ("another account", "n1", request("spiffe://cluster.local/ns/shop/sa/carts"), Code::PermissionDenied),
        (
            "another namespace",
            "n1",
            request("spiffe://cluster.local/ns/bank/sa/cart"),
            Code::PermissionDenied,
        ),
        (
            "a pod that has finished",
            "n1",
            request("spiffe://cluster.local/ns/shop/sa/job"),
            Code::PermissionDenied,
        ),
        ("another mesh", "n1", request("spiffe://other/ns/shop/sa/cart"), Code::PermissionDenied),
        ("no identity", "n1", CertificateRequest { metadata: None, ..request(CART) }, Code::InvalidArgument),
        (
            "an identity of nobody",
            "n1",
            CertificateRequest::new(request(CART).csr, 60, "spiffe://x".to_owned()),
            Code::InvalidArgument,
        ),
        ("no PEM", "n1", with("garbage".to_owned()), Code::InvalidArgument),
        ("PEM of garbage", "n1", with(pem_request(b"garbage")), Code::InvalidArgument),
        ("another's key", "n1", with(pem_request(&forged)), Code::InvalidArgument),
        (
            "another name",
            "n1",
            with(other_csr(&["spiffe://cluster.local/ns/bank/sa/cart"], &key)),
            Code::InvalidArgument,
        ),
        (
            "one name more",
            "n1",
            with(other_csr(&[CART, "spiffe://cluster.local/ns/bank/sa/cart"], &key)),
            Code::InvalidArgument,
        ),
        ("another curve", "n1", with(other_csr(&[CART], &p384)), Code::InvalidArgument),
    ];
    for (what, node, request, code) in cases {
        let denied = issuer().issue(node, &request).await.unwrap_err();
        assert_eq!(denied.code(), code, "{what}: {denied}");
    }
    let denied = issuer().issue("n2", &request(CART)).await.unwrap_err().to_string();
    assert_eq!(denied, "no live pod of service account shop/cart is on node n2");
}

#[tokio::test]
async fn what_cannot_be_said_yet_is_no_denial() {
    let ready = issuer();
    let blind = Issuer { pods: Arc::default(), ca: ready.ca.clone(), patience: PATIENCE };
    assert_eq!(blind.issue("n1", &request(CART)).await.unwrap_err().code(), Code::Unavailable);
    let closed = Ca::new("cluster.local".to_owned(), LONGEST_LIFE);
    let closed = Issuer { ca: closed.into(), pods: ready.pods, patience: PATIENCE };
    assert_eq!(closed.issue("n1", &request(CART)).await.unwrap_err().code(), Code::Unavailable);
}

fn rcgen_request_der(key: &KeyPair) -> Vec<u8> {
    let pem = other_csr(&[CART], key);
    rustls::pki_types::CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

fn pem_request(der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")
}
