//! Roots and leaves of any shape.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber,
};
use rustls::crypto::aws_lc_rs::sign::any_ecdsa_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// The workload of most leaves.
pub const REVIEWS: &str = "spiffe://cluster.local/ns/bookinfo/sa/reviews";

/// A root that signs.
pub struct Root {
    pub root: CertificateDer<'static>,
    pub signs: Issuer<'static, KeyPair>,
}

/// A leaf, its chain and its key.
pub struct Leaf {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: KeyPair,
}

/// A new root; all bear the same name.
pub fn issuer() -> Root {
    let key = KeyPair::generate().unwrap();
    let params = ca();
    let root = params.self_signed(&key).unwrap().der().clone();
    Root { root, signs: Issuer::new(params, key) }
}

/// What a CA's certificate says.
pub fn ca() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// A list by which `root` revokes certificates, in PEM.
pub fn revocation_list(root: &Root, revoked: &[&Leaf]) -> String {
    let now = SystemTime::now();
    let revoked_certs = revoked.iter().map(|leaf| {
        let (_, certificate) = x509_parser::parse_x509_certificate(&leaf.chain[0]).unwrap();
        RevokedCertParams {
            serial_number: SerialNumber::from_slice(certificate.raw_serial()),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        }
    });
    let params = CertificateRevocationListParams {
        this_update: now.into(),
        next_update: (now + Duration::from_hours(1)).into(),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked_certs.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(&root.signs).unwrap().pem().unwrap()
}

/// What a good leaf says.
pub fn good() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![uri(REVIEWS)];
    params.not_before = (SystemTime::now() - Duration::from_hours(1)).into();
    params.not_after = (SystemTime::now() + Duration::from_hours(1)).into();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

pub fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// A leaf as good as `change` leaves it.
pub fn leaf(root: &Root, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
    let key = KeyPair::generate().unwrap();
    let mut params = good();
    change(&mut params);
    let certificate = params.signed_by(&key, &root.signs).unwrap();
    Leaf { chain: vec![certificate.der().clone()], key }
}

/// For TLS.
pub fn certified(leaf: &Leaf) -> CertifiedKey {
    let key = PrivateKeyDer::try_from(leaf.key.serialize_der()).unwrap();
    CertifiedKey::new(leaf.chain.clone(), any_ecdsa_type(&key).unwrap())
}
