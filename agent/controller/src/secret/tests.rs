use std::time::SystemTime;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyUsagePurpose};
use weft_identity::{Authority, new_root};

use super::*;

/// A Secret with these keys.
fn secret(data: &[(&str, &str)]) -> Secret {
    let data = data.iter().map(|(key, text)| ((*key).to_owned(), ByteString(text.as_bytes().to_vec())));
    Secret { data: Some(data.collect()), ..Secret::default() }
}

/// Whether the Secret makes a CA that peers would believe.
fn works(secret: &Secret) -> Result<(), String> {
    let parts = parts(secret).map_err(|error| error.to_string())?;
    Authority::new(parts, "cluster.local", SystemTime::now()).map(drop).map_err(|error| error.to_string())
}

/// A root, and a CA below it: key and certificate in PEM each.
fn two_levels() -> (String, String, String) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root_key = KeyPair::generate().unwrap();
    let root = params.self_signed(&root_key).unwrap();
    params.distinguished_name.push(DnType::CommonName, "below");
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::from_ca_cert_der(root.der(), root_key).unwrap();
    let below = params.signed_by(&key, &issuer).unwrap();
    (key.serialize_pem(), below.pem(), root.pem())
}

#[test]
fn what_weft_makes_it_reads() {
    let (key, certificate) = new_root("cluster.local", SystemTime::now()).unwrap();
    let made = new("weft-ca", &key, &certificate);
    assert_eq!(made.metadata.name.as_deref(), Some("weft-ca"));
    assert_eq!(works(&made), Ok(()));
}

#[test]
fn istios_layout_with_a_chain() {
    let (key, below, root) = two_levels();
    let chain = format!("{below}{root}");
    let all = [
        ("ca-key.pem", &*key),
        ("ca-cert.pem", &below),
        ("cert-chain.pem", &chain),
        ("root-cert.pem", &root),
    ];
    assert_eq!(works(&secret(&all)), Ok(()));
    assert_eq!(works(&secret(&[all[0], all[1], all[3]])), Ok(()), "the chain adds nothing to what is there");
    assert_eq!(works(&secret(&[all[0], all[1]])).unwrap_err(), "root-cert.pem is missing");
    assert_eq!(works(&secret(&[all[1], all[3]])).unwrap_err(), "ca-key.pem is missing");
}

#[test]
fn cert_managers_layout() {
    let (key, below, root) = two_levels();
    let chain = format!("{below}{root}");
    assert_eq!(works(&secret(&[("tls.key", &key), ("tls.crt", &below), ("ca.crt", &root)])), Ok(()));
    assert_eq!(
        works(&secret(&[("tls.key", &key), ("tls.crt", &chain)])),
        Ok(()),
        "the chain ends in the root"
    );
    assert_eq!(works(&secret(&[("tls.key", &key), ("tls.crt", &chain), ("ca.crt", "")])), Ok(()));
    let none = works(&secret(&[("tls.key", &key), ("tls.crt", &below)])).unwrap_err();
    assert!(none.contains("put the root of the chain under ca.crt"), "{none}");
}

#[test]
fn other_secrets_are_no_ca() {
    let (key, below, root) = two_levels();
    let (other, _, strange) = two_levels();
    let with = |key: &str, certificate: &str, root: &str| {
        works(&secret(&[("ca-key.pem", key), ("ca-cert.pem", certificate), ("root-cert.pem", root)]))
            .unwrap_err()
    };
    assert!(works(&Secret::default()).unwrap_err().contains("neither ca-key.pem"));
    assert_eq!(with("rubbish", &below, &root), "ca-key.pem holds no private key in PEM");
    assert_eq!(with(&key, "rubbish", &root), "ca-cert.pem holds no certificate in PEM");
    assert_eq!(with(&key, &below, ""), "root-cert.pem holds no certificate in PEM");
    assert_eq!(with(&other, &below, &root), "ca-key.pem is not the key of ca-cert.pem");
    assert!(with(&key, &below, &strange).contains("would not be believed"), "another root");
}
