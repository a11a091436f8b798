//! Handshakes of real TLS over a pipe, between nodes of one mesh and strangers to it.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::test_dir::TestDir;

fn node(dir: &std::path::Path) -> Arc<Identities> {
    let options = IdentityOptions {
        trust_domain: "cluster.local".to_owned(),
        ca: CaOptions::Folder(dir.to_owned()),
        life: LONGEST_LIFE,
    };
    Identities::start(options, || {}).unwrap()
}

fn want(identities: &Identities, accounts: &[(&str, &str)]) {
    let wanted: BTreeSet<(Arc<str>, Arc<str>)> =
        accounts.iter().map(|(ns, name)| ((*ns).into(), (*name).into())).collect();
    identities.want(&wanted);
}

/// Whom the server saw and whom the client saw, or what either said.
async fn shake(client: &Tls, server: &Tls) -> Result<(Option<Identity>, Option<Identity>), String> {
    let (near, far) = tokio::io::duplex(64 << 10);
    let name = ServerName::try_from("10.0.0.1").unwrap();
    let accept = async {
        let mut stream = tokio_rustls::TlsAcceptor::from(server.server.clone())
            .accept(far)
            .await
            .map_err(|error| format!("server: {error}"))?;
        stream.write_all(b"hello").await.map_err(|error| error.to_string())?;
        Ok::<_, String>(peer(stream.get_ref().1))
    };
    let connect = async {
        let mut stream = tokio_rustls::TlsConnector::from(client.client.clone())
            .connect(name, near)
            .await
            .map_err(|error| format!("client: {error}"))?;
        // In TLS 1.3 the client hears of a refusal when it reads.
        stream.read_exact(&mut [0; 5]).await.map_err(|error| format!("client: {error}"))?;
        Ok::<_, String>(peer(stream.get_ref().1))
    };
    tokio::try_join!(accept, connect)
}

#[tokio::test]
async fn two_nodes_that_share_a_folder_believe_each_other() {
    let dir = TestDir::new("ca");
    let (one, two) = (node(&dir.path().join("ca")), node(&dir.path().join("ca")));
    want(&one, &[("bookinfo", "reviews")]);
    want(&two, &[("bookinfo", "ratings")]);
    let reviews = one.tls_soon("bookinfo", "reviews").await.unwrap();
    let ratings = two.tls_soon("bookinfo", "ratings").await.unwrap();
    let (client, server) = shake(&reviews, &ratings).await.unwrap();
    assert_eq!(client.unwrap().to_string(), "spiffe://cluster.local/ns/bookinfo/sa/reviews");
    assert_eq!(server.unwrap().to_string(), "spiffe://cluster.local/ns/bookinfo/sa/ratings");
}
