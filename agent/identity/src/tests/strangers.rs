//! Who is believed, and who is not.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::pki_types::UnixTime;
use rustls::{ClientConfig, HandshakeKind, NamedGroup, ServerConfig};
use tempfile::TempDir;
use webpki::KeyUsage;

use super::mesh::{Leaf, REVIEWS, Root, ca, certified, good, issuer, leaf, revocation_list, uri};
use super::{Trust, shake, tls::Handshakes};
use crate::revocation::RevocationFile;
use crate::verify::Verifier;

/// A node of a mesh with one root.
struct Node {
    root: Root,
    trust: Arc<Trust>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Node {
    fn new() -> Self {
        let root = issuer();
        let trust = Arc::new(Trust::new("cluster.local".into()));
        trust.name(std::slice::from_ref(&root.root), SystemTime::now()).unwrap();
        let (server, client) =
            Handshakes::new(trust.clone()).configs(certified(&leaf(&root, |_| {}))).unwrap();
        Self { root, trust, server: server.into(), client: client.into() }
    }

    /// A peer with the mesh's trust and this certificate, as client and as server of this node: what this node's
    /// verifier says, and that the handshakes say no.
    async fn refuses(&self, peer: &Leaf, why: &str) {
        let (server, client) = Handshakes::new(self.trust.clone()).configs(certified(peer)).unwrap();
        let as_client = shake(&client.into(), &self.server).await;
        let as_server = shake(&self.client, &server.into()).await;
        let said = self.says(peer).unwrap_err();
        assert!(said.contains(why), "{said:?} does not say {why:?}");
        assert!(as_client.unwrap_err().starts_with("server: "), "{why}");
        assert!(as_server.unwrap_err().starts_with("client: "), "{why}");
    }

    async fn believes(&self, peer: &Leaf) {
        let (server, client) = Handshakes::new(self.trust.clone()).configs(certified(peer)).unwrap();
        self.says(peer).unwrap();
        shake(&client.into(), &self.server).await.unwrap();
        shake(&self.client, &server.into()).await.unwrap();
    }

    fn says(&self, peer: &Leaf) -> Result<(), String> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let verifier = Verifier::new(self.trust.clone(), provider.signature_verification_algorithms);
        let [leaf, between @ ..] = &*peer.chain else { unreachable!("a chain has a leaf") };
        verifier
            .verify(leaf, between, UnixTime::now(), &KeyUsage::client_auth())
            .map(drop)
            .map_err(|refusal| refusal.to_string())
    }
}

fn now() -> SystemTime {
    SystemTime::now()
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_certificate_of_the_mesh_is_believed() {
    let node = Node::new();
    node.believes(&leaf(&node.root, |_| {})).await;
    // Other names beside the one URI say nothing.
    node.believes(&leaf(&node.root, |it| {
        it.subject_alt_names.push(SanType::DnsName("reviews.bookinfo.svc".try_into().unwrap()));
    }))
    .await;
}

#[tokio::test]
async fn times_are_taken_with_a_minute_of_tolerance() {
    let node = Node::new();
    node.believes(&leaf(&node.root, |it| it.not_after = (now() - 30 * SECOND).into())).await;
    node.believes(&leaf(&node.root, |it| it.not_before = (now() + 30 * SECOND).into())).await;
    node.refuses(&leaf(&node.root, |it| it.not_after = (now() - 90 * SECOND).into()), "has ended").await;
    node.refuses(&leaf(&node.root, |it| it.not_before = (now() + 90 * SECOND).into()), "not good yet").await;
}

#[tokio::test]
async fn another_trust_domain_is_a_stranger_unless_it_is_an_alias() {
    let node = Node::new();
    let other = leaf(&node.root, |it| {
        it.subject_alt_names = vec![uri("spiffe://old.example/ns/bookinfo/sa/reviews")];
    });
    node.refuses(&other, "trust domain").await;
    node.trust.set_domains(&["cluster.local".into(), "old.example".into()]);
    node.believes(&other).await;
}

#[tokio::test]
async fn a_certificate_of_nobody_is_refused() {
    let node = Node::new();
    let key = KeyPair::generate().unwrap();
    let own = good().self_signed(&key).unwrap().der().clone();
    node.refuses(&Leaf { chain: vec![own], key }, "no root of this mesh").await;
    // The right name, by a root of the same name.
    let imitation = issuer();
    node.refuses(&leaf(&imitation, |_| {}), "does not hold").await;
    let mut with_root = leaf(&imitation, |_| {});
    with_root.chain.push(imitation.root.clone());
    node.refuses(&with_root, "does not hold").await;
}

#[tokio::test]
async fn one_workload_signs_for_no_other() {
    let node = Node::new();
    let worker = leaf(&node.root, |_| {});
    let mut params = good();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let signs = Issuer::new(params, worker.key);
    let key = KeyPair::generate().unwrap();
    let forged = good().signed_by(&key, &signs).unwrap().der().clone();
    node.refuses(&Leaf { chain: vec![forged, worker.chain[0].clone()], key }, "does not hold").await;
}

#[tokio::test]
async fn an_intermediate_is_followed_when_it_is_sent() {
    let node = Node::new();
    let mut params: CertificateParams = ca();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "between");
    let between_key = KeyPair::generate().unwrap();
    let between = params.signed_by(&between_key, &node.root.signs).unwrap().der().clone();
    let between_root = Root { root: between.clone(), signs: Issuer::new(params, between_key) };
    let mut peer = leaf(&between_root, |_| {});
    node.refuses(&peer, "no root of this mesh").await;
    peer.chain.push(between);
    node.believes(&peer).await;
}

#[tokio::test]
async fn names_are_exactly_one_spiffe_id() {
    let node = Node::new();
    let named = |names: Vec<SanType>| leaf(&node.root, |it| it.subject_alt_names = names);
    let dns = SanType::DnsName("reviews.bookinfo.svc".try_into().unwrap());
    let ratings = uri("spiffe://cluster.local/ns/bookinfo/sa/ratings");
    node.refuses(&named(vec![uri(REVIEWS), ratings]), "2 URIs").await;
    node.refuses(&named(vec![uri(REVIEWS), uri("https://example.com")]), "2 URIs").await;
    node.refuses(&named(vec![]), "no SPIFFE ID").await;
    node.refuses(&named(vec![dns]), "no SPIFFE ID").await;
    node.refuses(&named(vec![uri("spiffe://cluster.local/ns/a/sa/b/c")]), "not of the form").await;
    node.refuses(&named(vec![uri("https://cluster.local/ns/a/sa/b")]), "not of the form").await;
}

#[tokio::test]
async fn a_certificate_serves_its_own_purpose_only() {
    let node = Node::new();
    let ca = leaf(&node.root, |it| {
        it.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        it.key_usages.push(KeyUsagePurpose::KeyCertSign);
    });
    node.refuses(&ca, "a CA's").await;
    let no_signing = leaf(&node.root, |it| it.key_usages = vec![KeyUsagePurpose::KeyEncipherment]);
    node.refuses(&no_signing, "digitalSignature").await;
    let mail = leaf(&node.root, |it| {
        it.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection];
    });
    node.refuses(&mail, "does not hold").await;

    let server_only = leaf(&node.root, |it| {
        it.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let (server, client) = Handshakes::new(node.trust.clone()).configs(certified(&server_only)).unwrap();
    shake(&node.client, &server.into()).await.unwrap();
    shake(&client.into(), &node.server).await.unwrap_err();
}

#[tokio::test]
async fn who_does_not_say_what_his_certificate_is_for_is_refused() {
    let node = Node::new();
    node.refuses(&leaf(&node.root, |it| it.extended_key_usages = Vec::new()), "extended key usage").await;
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_and_others_of_its_issuer_are_not() {
    let node = Node::new();
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("ca-crl.pem");
    let mut file = RevocationFile::new(path.clone());
    let mut publish = |text: &str| {
        std::fs::write(dir.path().join("fresh"), text).unwrap();
        std::fs::rename(dir.path().join("fresh"), &path).unwrap();
        node.trust.revoke(file.look().unwrap().unwrap());
    };
    let (lost, other) = (leaf(&node.root, |_| {}), leaf(&node.root, |_| {}));
    let stranger = issuer();
    node.believes(&lost).await;
    // A root of the same name revokes nothing of this one, and stops nobody.
    let strangers = revocation_list(&stranger, &[&lost]);
    publish(&strangers);
    node.believes(&lost).await;
    publish(&(strangers + &revocation_list(&node.root, &[&lost])));
    node.refuses(&lost, "revoked").await;
    node.believes(&other).await;
    publish(&revocation_list(&node.root, &[]));
    node.believes(&lost).await;
}

#[tokio::test]
async fn the_key_exchange_is_hybrid_where_both_ends_know_it() {
    let node = Node::new();
    let exchange = |server: ServerConfig| {
        let client = node.client.clone();
        async move {
            let (near, far) = tokio::io::duplex(64 << 10);
            let name = rustls::pki_types::ServerName::try_from("10.0.0.1").unwrap();
            let accept = tokio_rustls::TlsAcceptor::from(Arc::new(server)).accept(far);
            let connect = tokio_rustls::TlsConnector::from(client).connect(name, near);
            let (client, _server) = tokio::try_join!(connect, accept).unwrap();
            let (_, state) = client.get_ref();
            (state.negotiated_key_exchange_group().unwrap().name(), state.handshake_kind().unwrap())
        }
    };
    let by = certified(&leaf(&node.root, |_| {}));
    let (ours, _) = Handshakes::new(node.trust.clone()).configs(by).unwrap();
    assert_eq!(exchange(ours).await, (NamedGroup::X25519MLKEM768, HandshakeKind::Full));
    // ztunnel before its time: it knows X25519 only, and is not asked to begin again. FIPS approves of X25519 in company only.
    let (known, agreed) = if cfg!(feature = "fips") {
        (kx_group::SECP256R1, (NamedGroup::secp256r1, HandshakeKind::FullWithHelloRetryRequest))
    } else {
        (kx_group::X25519, (NamedGroup::X25519, HandshakeKind::Full))
    };
    let mut old = rustls::crypto::aws_lc_rs::default_provider();
    old.kx_groups = vec![known];
    let verifier = Verifier::new(node.trust.clone(), old.signature_verification_algorithms);
    let old = ServerConfig::builder_with_provider(old.into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified(&leaf(
            &node.root,
            |_| {},
        )))));
    assert_eq!(exchange(old).await, agreed);
}

#[tokio::test]
async fn a_client_needs_a_certificate_and_tls_1_3() {
    let node = Node::new();
    let with = |versions: &[&'static rustls::SupportedProtocolVersion]| {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let verifier = Verifier::new(node.trust.clone(), provider.signature_verification_algorithms);
        ClientConfig::builder_with_provider(provider.into())
            .with_protocol_versions(versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
    };
    let anonymous = with(&[&rustls::version::TLS13]).with_no_client_auth();
    let said = shake(&anonymous.into(), &node.server).await.unwrap_err();
    assert!(said.contains("no certificates"), "{said}");

    let old = leaf(&node.root, |_| {});
    let key = rustls::pki_types::PrivateKeyDer::try_from(old.key.serialize_der()).unwrap();
    let old = with(&[&rustls::version::TLS12]).with_client_auth_cert(old.chain, key).unwrap();
    let said = shake(&old.into(), &node.server).await.unwrap_err();
    assert!(said.contains("incompatible"), "{said}");
}

#[tokio::test]
async fn roots_change_under_running_nodes() {
    let node = Node::new();
    let new = issuer();
    let (old_peer, new_peer) = (leaf(&node.root, |_| {}), leaf(&new, |_| {}));
    node.refuses(&new_peer, "does not hold").await;
    // The CA names the new root: from now on both are believed, by the configurations that stand.
    assert!(node.trust.name(&[node.root.root.clone(), new.root.clone()], now()).unwrap());
    node.believes(&new_peer).await;
    // It names the old one no more, and certificates of it still run.
    node.trust.name(std::slice::from_ref(&new.root), now()).unwrap();
    node.believes(&old_peer).await;
    node.believes(&new_peer).await;
    // When none of them can be good any more, it is gone.
    node.trust.prune(now() + Duration::from_hours(24) + 2 * super::SKEW);
    node.says(&old_peer).unwrap_err();
    node.says(&new_peer).unwrap();
}

#[test]
fn a_workload_is_no_root() {
    let root = issuer();
    let trust = Trust::new("cluster.local".into());
    let error = trust.name(&leaf(&root, |_| {}).chain, now()).unwrap_err();
    assert!(error.to_string().contains("named as a root"), "{error}");
    assert!(trust.anchors().is_empty());
}

#[test]
fn a_retired_root_that_is_named_again_stays() {
    let (one, two) = (issuer(), issuer());
    let trust = Trust::new("cluster.local".into());
    trust.name(std::slice::from_ref(&one.root), now()).unwrap();
    trust.name(std::slice::from_ref(&two.root), now()).unwrap();
    assert_eq!(trust.roots().values().filter(|root| root.retired.is_some()).count(), 1);
    assert!(!trust.name(&[one.root, two.root], now()).unwrap(), "nothing changes for handshakes");
    assert_eq!(trust.roots().values().filter(|root| root.retired.is_some()).count(), 0);
}
