use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::CipherSuite;
use weft_api::istio::ServerTls;

use super::*;
use crate::service::ServiceError;
use crate::wire::SecretTold;

/// Chain and key in PEM, and the root that signed, of a new key each time.
fn pair(names: &[&str], key: &KeyPair) -> (String, String, String) {
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let root_key = KeyPair::generate().unwrap();
    let root_der = root.self_signed(&root_key).unwrap();
    let issuer = Issuer::from_ca_cert_der(root_der.der(), root_key).unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let leaf = CertificateParams::new(names).unwrap().signed_by(key, &issuer).unwrap();
    (leaf.pem(), key.serialize_pem(), root_der.pem())
}

fn new_pair() -> (String, String, String) {
    pair(&["one.test"], &KeyPair::generate().unwrap())
}

fn simple(secret: &str) -> ServerTls {
    ServerTls {
        mode: ServerTlsMode::Simple,
        credential_name: Some(secret.to_owned()),
        ..ServerTls::default()
    }
}

fn termination(settings: ServerTls) -> Arc<Termination> {
    Arc::new(Termination { settings, namespace: "edge".into(), requests: true })
}

fn object(values: &[(&str, &str)]) -> Secret {
    let mut secret = Secret::default();
    for (key, value) in values {
        secret.string_data.insert((*key).to_owned(), weft_api::kubernetes::Hidden((*value).to_owned()));
    }
    secret
}

/// Why the server is closed; empty: it is open.
fn closed(credentials: &Credentials, of: &Arc<Termination>) -> String {
    credentials.server(of).err().map(|why| why.to_string()).unwrap_or_default()
}

#[test]
fn a_server_follows_its_secret() {
    let credentials = Credentials::new(SecretsFrom::Folder);
    let one = termination(simple("one"));
    assert_eq!(closed(&credentials, &one), "it is not served");
    credentials.want([&one].into_iter());
    assert_eq!(closed(&credentials, &one), "there is no Secret edge/one");
    let ((chain, key, _), (_, other_key, _)) = (new_pair(), new_pair());
    for (values, expected) in [
        (vec![("tls.crt", &*chain), ("tls.key", &*key)], ""),
        (vec![("cert", &chain), ("key", &key)], ""),
        // Istio's first documentation's names count before Kubernetes'.
        (vec![("cert", &chain), ("key", &key), ("tls.crt", "nothing"), ("tls.key", "nothing")], ""),
        (vec![("tls.crt", &chain)], "Secret edge/one has neither tls.crt and tls.key nor cert and key"),
        (
            vec![("tls.crt", &chain), ("key", &key)],
            "Secret edge/one has neither tls.crt and tls.key nor cert and key",
        ),
        (vec![("tls.crt", "nothing"), ("tls.key", &key)], "Secret edge/one holds no certificate in PEM"),
        (vec![("tls.crt", &chain), ("tls.key", &chain)], "Secret edge/one holds no private key in PEM"),
        (
            vec![("tls.crt", &chain), ("tls.key", &other_key)],
            "Secret edge/one has a key that is not that of its certificate",
        ),
    ] {
        credentials.put_object("edge", "one", Some(&object(&values)));
        assert_eq!(closed(&credentials, &one), expected);
    }
    credentials.put_object("edge", "one", Some(&object(&[("tls.crt", &chain), ("tls.key", &key)])));
    let rows = credentials.rows();
    let [row] = &*rows else { panic!("{rows:?}") };
    assert_eq!((row.state, &*row.names), (SecretState::Serves, &["one.test".to_owned()][..]));
    // Another namespace's Secret of that name is another one.
    credentials.put_object("edge", "one", None);
    credentials.put_object("shop", "one", Some(&object(&[("tls.crt", &chain), ("tls.key", &key)])));
    assert_eq!(closed(&credentials, &one), "there is no Secret edge/one");
    assert_eq!(credentials.rows()[0].state, SecretState::Closed);
    credentials.want([].into_iter());
    assert_eq!(credentials.rows(), []);
}

#[test]
fn nobody_is_let_in_by_roots_that_may_be_the_wrong_ones() {
    let credentials = Credentials::new(SecretsFrom::Controller);
    let mutual = termination(ServerTls { mode: ServerTlsMode::Mutual, ..simple("one") });
    credentials.want([&mutual].into_iter());
    assert_eq!(credentials.on_their_way(), ["edge/one", "edge/one-cacert"]);
    let (chain, key, root) = new_pair();
    let told = |name: &str, version: &str, values: &[(&str, &str)], refused: &str| SecretTold {
        namespace: "edge".into(),
        name: name.into(),
        version: version.into(),
        data: values.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect(),
        refused: refused.into(),
    };
    let own = [("tls.crt", &*chain), ("tls.key", &*key), ("ca.crt", &*root)];
    credentials.take(vec![told("one", "1", &own, "")]);
    // What is in the Secret itself counts only where there is no other one.
    assert_eq!(closed(&credentials, &mutual), "Secret edge/one-cacert is on its way");
    credentials.take(vec![told("one-cacert", "refused", &[], "there is no Secret edge/one-cacert")]);
    assert_eq!(closed(&credentials, &mutual), "");
    credentials.take(vec![told("one-cacert", "2", &[("cacert", "nothing")], "")]);
    assert_eq!(closed(&credentials, &mutual), "Secret edge/one-cacert holds no root in PEM");
    credentials.take(vec![told("one-cacert", "3", &[("ca.crt", &root), ("ca.crl", "nothing")], "")]);
    assert_eq!(closed(&credentials, &mutual), "Secret edge/one-cacert holds no revocation list in PEM");
    credentials.take(vec![told("one-cacert", "4", &[("ca.crt", &root)], "")]);
    assert_eq!(closed(&credentials, &mutual), "");
    assert_eq!(credentials.on_their_way(), [""; 0]);
    credentials.take(vec![told("one-cacert", "refused", &[], "none"), told("one", "5", &own[..2], "")]);
    assert_eq!(closed(&credentials, &mutual), "Secret edge/one has neither ca.crt nor cacert");
}

#[test]
fn what_was_had_serves_on_while_nobody_answers() {
    let credentials = Credentials::new(SecretsFrom::Controller);
    let (one, two) = (termination(simple("one")), termination(simple("two")));
    credentials.want([&one].into_iter());
    let (chain, key, _) = new_pair();
    let data = [("tls.crt", &chain), ("tls.key", &key)];
    let told = SecretTold {
        namespace: "edge".into(),
        name: "one".into(),
        version: "1".into(),
        data: data.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect(),
        refused: String::new(),
    };
    credentials.take(vec![told]);
    credentials.want([&one, &two].into_iter());
    let away = ServiceError::Unreachable("nobody is there".to_owned());
    assert!(credentials.lack(&away));
    assert!(!credentials.lack(&away), "that is no news");
    assert_eq!(closed(&credentials, &one), "");
    assert!(closed(&credentials, &two).contains("nobody is there"));
    // Who answers again is asked for all of what is missing.
    let asked: Vec<(String, String)> =
        credentials.asks().into_iter().map(|asked| (asked.name, asked.version)).collect();
    assert_eq!(asked, [("one".into(), "1".into()), ("two".into(), String::new())]);
    // And what is not wanted any more is forgotten.
    credentials.want([&two].into_iter());
    credentials.want([&one].into_iter());
    assert_eq!(closed(&credentials, &one), "Secret edge/one is on its way");
}

#[test]
fn servers_have_the_versions_ciphers_and_keys_that_are_asked_for() {
    let credentials = Credentials::new(SecretsFrom::Folder);
    let (chain, key, _) = new_pair();
    credentials.put_object("edge", "one", Some(&object(&[("tls.crt", &chain), ("tls.key", &key)])));
    let made = |settings: ServerTls| {
        let of = termination(settings);
        credentials.want([&of].into_iter());
        credentials.server(&of)
    };
    let suites = |settings| -> Vec<CipherSuite> {
        let config = made(settings).unwrap();
        config.crypto_provider().cipher_suites.iter().map(rustls::SupportedCipherSuite::suite).collect()
    };
    let chosen = |names: &[&str]| ServerTls {
        cipher_suites: names.iter().map(|name| (*name).to_owned()).collect(),
        ..simple("one")
    };
    let all = suites(simple("one"));
    for name in ServerTls::CIPHERS {
        let left = suites(chosen(&[name, "AES128-SHA"]));
        assert!(
            left.len() < all.len() && left.contains(&CipherSuite::TLS13_AES_128_GCM_SHA256),
            "{name}: {left:?}"
        );
    }
    assert_eq!(suites(chosen(&["AES128-SHA"])), all, "nothing that weft knows was chosen");
    let bounds = |oldest: &str, newest: &str| ServerTls {
        min_protocol_version: Some(oldest.to_owned()),
        max_protocol_version: Some(newest.to_owned()),
        ..simple("one")
    };
    for (oldest, newest, serves) in [
        ("TLSV1_0", "TLSV1_3", true),
        ("TLSV1_2", "TLSV1_2", true),
        ("TLS_AUTO", "TLS_AUTO", true),
        ("TLSV1_0", "TLSV1_1", false),
        ("TLSV1_3", "TLSV1_2", false),
    ] {
        assert_eq!(made(bounds(oldest, newest)).is_ok(), serves, "{oldest} to {newest}");
    }
    assert_eq!(made(simple("one")).unwrap().alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
}

#[test]
fn files_are_certificates_without_a_cluster_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (chain_file, key_file) = (dir.path().join("chain.pem"), dir.path().join("key.pem"));
    let path = |file: &Path| Some(file.display().to_string());
    let by_files = termination(ServerTls {
        mode: ServerTlsMode::Simple,
        server_certificate: path(&chain_file),
        private_key: path(&key_file),
        ..ServerTls::default()
    });
    let credentials = Credentials::new(SecretsFrom::Folder);
    credentials.want([&by_files].into_iter());
    assert!(closed(&credentials, &by_files).contains("chain.pem"));
    let (chain, key, _) = new_pair();
    std::fs::write(&chain_file, chain).unwrap();
    std::fs::write(&key_file, key).unwrap();
    credentials.look_at_files();
    assert_eq!(closed(&credentials, &by_files), "");

    let in_cluster = Credentials::new(SecretsFrom::Controller);
    in_cluster.want([&by_files].into_iter());
    assert!(closed(&in_cluster, &by_files).contains("are not read in a cluster"));
    // Where nobody hands any over, that is said, and nothing waits for it.
    let alone = Credentials::new(SecretsFrom::Nobody);
    let one = termination(simple("one"));
    alone.want([&one].into_iter());
    assert!(closed(&alone, &one).contains("no controller"));
    assert_eq!(alone.on_their_way(), [""; 0]);
}

#[test]
fn what_secrets_hold_together_has_a_bound() {
    let credentials = Credentials::new(SecretsFrom::Controller);
    let all: Vec<_> = (0..4).map(|index| termination(simple(&format!("s{index}")))).collect();
    let elsewhere = Arc::new(Termination { namespace: "other".into(), ..(*all[0]).clone() });
    credentials.want(all.iter().chain([&elsewhere]));
    let (chain, key, _) = new_pair();
    // Revocation lists may be long.
    let long = vec![b'x'; OF_NAMESPACE / 3];
    let told = |namespace: &str, name: &str| SecretTold {
        namespace: namespace.into(),
        name: name.into(),
        version: "1".into(),
        data: [("tls.crt", chain.as_bytes()), ("tls.key", key.as_bytes()), ("ca.crl", &*long)]
            .map(|(key, value)| (key.to_owned(), value.to_vec()))
            .into(),
        refused: String::new(),
    };
    credentials.take((0..4).map(|index| told("edge", &format!("s{index}"))).collect());
    credentials.take(vec![told("other", "s0")]);
    let closed: Vec<String> = all.iter().map(|of| closed(&credentials, of)).collect();
    assert_eq!((&*closed[0], &*closed[1]), ("", ""));
    let why = "has no room: those of namespace edge would hold more than 8 MiB together";
    assert!(closed[2].contains(why) && closed[3].contains(why), "{closed:?}");
    assert!(credentials.server(&elsewhere).is_ok(), "another namespace has room of its own");
    let asked = |credentials: &Credentials| -> Vec<String> {
        credentials
            .asks()
            .into_iter()
            .filter(|asked| asked.version.is_empty())
            .map(|asked| asked.name)
            .collect()
    };
    assert_eq!(asked(&credentials), [""; 0], "nothing is asked for again and again");
    // Room that is free is for those that had none.
    credentials.want(all[1..].iter());
    assert_eq!(asked(&credentials), ["s2", "s3"]);
    credentials.take(vec![told("edge", "s2"), told("edge", "s3")]);
    assert!(credentials.server(&all[2]).is_ok() && credentials.server(&all[3]).is_err());
    assert_eq!(asked(&credentials), [""; 0]);
}

#[test]
fn no_key_is_shown() {
    let (chain, key, _) = new_pair();
    let secret = object(&[("tls.crt", &chain), ("tls.key", &key)]);
    let credentials = Credentials::new(SecretsFrom::Folder);
    let one = termination(simple("one"));
    credentials.want([&one].into_iter());
    credentials.put_object("edge", "one", Some(&secret));
    let line = key.lines().nth(1).unwrap();
    for shown in
        [format!("{credentials:?}"), format!("{secret:?}"), format!("{:?}", credentials.server(&one))]
    {
        assert!(!shown.contains("PRIVATE KEY") && !shown.contains(line), "{shown}");
    }
}
