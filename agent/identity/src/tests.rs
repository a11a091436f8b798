//! Handshakes of real TLS over a pipe, between nodes of one mesh and strangers to it.

mod folder;
mod mesh;
mod strangers;

use std::collections::BTreeSet;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft_api::admin::CertificateState;

use super::*;
use mesh::{REVIEWS, certified, issuer, leaf};

fn node(dir: &std::path::Path) -> Arc<Identities> {
    let options = IdentityOptions {
        trust_domain: "cluster.local".to_owned(),
        ca: CaOptions::Folder(dir.to_owned()),
        life: LONGEST_LIFE,
        revocations: Some(dir.join(REVOCATIONS)),
        credentials: crate::Credentials::new(crate::SecretsFrom::Controller),
    };
    Identities::start(options, || {}).unwrap()
}

pub(super) fn write(dir: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

pub(super) fn want(identities: &Identities, accounts: &[(&str, &str)]) {
    let wanted: BTreeSet<(Arc<str>, Arc<str>)> =
        accounts.iter().map(|(ns, name)| ((*ns).into(), (*name).into())).collect();
    identities.want(&wanted);
}

/// Whom the server saw and whom the client saw, or what either said.
async fn shake(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
) -> Result<(Option<Identity>, Option<Identity>), String> {
    let (near, far) = tokio::io::duplex(64 << 10);
    let name = ServerName::try_from("10.0.0.1").unwrap();
    let accept = async {
        let mut stream = tokio_rustls::TlsAcceptor::from(server.clone())
            .accept(far)
            .await
            .map_err(|error| format!("server: {error}"))?;
        stream.write_all(b"hello").await.map_err(|error| error.to_string())?;
        Ok::<_, String>(peer(stream.get_ref().1))
    };
    let connect = async {
        let mut stream = tokio_rustls::TlsConnector::from(client.clone())
            .connect(name, near)
            .await
            .map_err(|error| format!("client: {error}"))?;
        // In TLS 1.3 the client hears of a refusal when it reads.
        stream.read_exact(&mut [0; 5]).await.map_err(|error| format!("client: {error}"))?;
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(super::alpn::LEAN));
        Ok::<_, String>(peer(stream.get_ref().1))
    };
    tokio::try_join!(accept, connect)
}

#[tokio::test]
async fn two_nodes_that_share_a_folder_believe_each_other_each_time_anew() {
    let dir = TempDir::new().unwrap();
    let (one, two) = (node(&dir.path().join("ca")), node(&dir.path().join("ca")));
    want(&one, &[("bookinfo", "reviews")]);
    want(&two, &[("bookinfo", "ratings")]);
    let reviews = one.tls_soon("bookinfo", "reviews").await.unwrap();
    let ratings = two.tls_soon("bookinfo", "ratings").await.unwrap();
    for _ in 0..3 {
        let (client, server) = shake(&reviews.client, &ratings.server).await.unwrap();
        assert_eq!(client.unwrap().to_string(), REVIEWS);
        assert_eq!(server.unwrap().to_string(), "spiffe://cluster.local/ns/bookinfo/sa/ratings");
    }
}

#[tokio::test]
async fn nodes_agree_upon_keys_that_no_quantum_computer_reads_by_what_the_build_approves_of() {
    let dir = TempDir::new().unwrap();
    let node = node(dir.path());
    want(&node, &[("bookinfo", "reviews")]);
    let tls = node.tls_soon("bookinfo", "reviews").await.unwrap();
    let (near, far) = tokio::io::duplex(64 << 10);
    let accept = tokio_rustls::TlsAcceptor::from(tls.server.clone()).accept(far);
    let connector = tokio_rustls::TlsConnector::from(tls.client.clone());
    let connect = connector.connect(ServerName::try_from("10.0.0.1").unwrap(), near);
    let (server, client) = tokio::try_join!(accept, connect).unwrap();
    let (server, client) = (server.get_ref().1, client.get_ref().1);
    assert_eq!((client.fips(), server.fips()), (cfg!(feature = "fips"), cfg!(feature = "fips")));
    let group = client.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), rustls::NamedGroup::X25519MLKEM768);
    assert_eq!(group.fips(), cfg!(feature = "fips"));
    assert_eq!(client.negotiated_cipher_suite().unwrap().fips(), cfg!(feature = "fips"));
}

#[tokio::test]
async fn only_wanted_accounts_have_a_certificate_and_only_while_they_are_wanted() {
    let dir = TempDir::new().unwrap();
    let node = node(dir.path());
    assert!(node.tls_soon("bookinfo", "reviews").await.is_none());
    want(&node, &[("bookinfo", "reviews"), ("shop", "catalog")]);
    let first = node.tls_soon("bookinfo", "reviews").await.unwrap();
    node.attempted().await;
    assert!(node.on_their_way().is_empty());
    assert!(node.tls("bookinfo", "catalog").is_none());

    want(&node, &[("bookinfo", "reviews")]);
    assert!(node.tls("shop", "catalog").is_none());
    assert!(Arc::ptr_eq(&first, &node.tls("bookinfo", "reviews").unwrap()), "others are left alone");
    let status = node.status();
    assert_eq!(status.certificates.len(), 1);
    assert_eq!(status.certificates[0].state, CertificateState::Valid);
    assert_eq!(status.ca.unwrap().roots.len(), 1);
}

#[tokio::test]
async fn a_certificate_is_renewed_before_it_ends() {
    let dir = TempDir::new().unwrap();
    let (report, mut reports) = mpsc::unbounded_channel();
    let options = IdentityOptions {
        trust_domain: "cluster.local".to_owned(),
        ca: CaOptions::Folder(dir.path().to_owned()),
        life: SHORTEST_LIFE,
        revocations: None,
        credentials: crate::Credentials::new(crate::SecretsFrom::Controller),
    };
    let node = Identities::start(options, move || _ = report.send(())).unwrap();
    want(&node, &[("bookinfo", "reviews")]);
    reports.recv().await.unwrap();
    let first = node.tls("bookinfo", "reviews").unwrap();
    reports.recv().await.unwrap();
    let second = node.tls("bookinfo", "reviews").unwrap();
    assert!(second.not_after > first.not_after);
    // Both serve, also towards each other.
    shake(&first.client, &second.server).await.unwrap();
}

#[tokio::test]
async fn an_ended_certificate_is_not_used() {
    let account = Account::new(Identity::parse(REVIEWS).unwrap());
    let (issuer, trust) = (issuer(), Trust::new("cluster.local".into()));
    trust.name(std::slice::from_ref(&issuer.root), SystemTime::now()).unwrap();
    let (server, client) =
        tls::Handshakes::new(trust.into()).configs(certified(&leaf(&issuer, |_| {}))).unwrap();
    let end = SystemTime::now() + Duration::from_secs(10);
    let client = Arc::new(client);
    let tls = Tls { server: server.into(), hbone_client: client.clone(), client, not_after: end };
    let facts = certificate::read(&leaf(&issuer, |_| {}).chain[0]).unwrap();
    account.succeed(tls, facts, end);
    assert!(account.tls(SystemTime::now()).is_some());
    assert!(account.tls(end).is_none());
}
