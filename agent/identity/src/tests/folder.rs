//! The embedded CA's files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256,
};

use super::mesh::{REVIEWS, ca};
use super::{Identity, TempDir, Trust, tls::Handshakes, write};
use crate::folder::Folder;
use crate::request::Request;

fn open(dir: &Path) -> Result<Folder, String> {
    Folder::open(dir, "cluster.local".into(), SystemTime::now()).map_err(|error| error.to_string())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn request() -> Request {
    Request::new(Identity::parse(REVIEWS).unwrap()).unwrap()
}

/// Puts the files of one CA in place of another's.
fn replace(from: &Path, to: &Path) {
    for name in ["ca-key.pem", "ca-cert.pem", "cert-chain.pem", "root-cert.pem"] {
        fs::rename(from.join(name), to.join(name)).unwrap();
    }
}

#[test]
fn the_first_agent_makes_a_root_that_only_its_owner_reads() {
    let temp = TempDir::new().unwrap();
    let dir = temp.path().join("ca");
    let first = open(&dir).unwrap();
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(&dir.join("ca-key.pem")), 0o600);
    let key = fs::read(dir.join("ca-key.pem")).unwrap();
    let second = open(&dir).unwrap();
    assert_eq!(first.roots(), second.roots());
    assert_eq!(fs::read(dir.join("ca-key.pem")).unwrap(), key, "made once");
}

#[test]
fn agents_that_start_together_agree_on_one_root() {
    let temp = TempDir::new().unwrap();
    let dir = temp.path().join("ca");
    let start = Arc::new(Barrier::new(8));
    let agents: Vec<_> = (0..8)
        .map(|_| {
            let (dir, start) = (dir.clone(), start.clone());
            std::thread::spawn(move || {
                start.wait();
                open(&dir).map(|folder| folder.roots().to_vec())
            })
        })
        .collect();
    let roots: Vec<_> = agents.into_iter().map(|agent| agent.join().unwrap().unwrap()).collect();
    assert!(roots.iter().all(|root| *root == roots[0]));
}

#[test]
fn a_broken_folder_is_refused_with_the_cure() {
    let temp = TempDir::new().unwrap();
    let dir = temp.path();
    let spare = temp.path().join("spare");
    let refused = |why: &str| {
        let error = open(dir).unwrap_err();
        assert!(error.contains(why), "{error:?} does not say {why:?}");
        assert!(error.contains("root-cert.pem") || error.contains("ca-") || error.contains("CA"), "{error}");
    };
    open(dir).unwrap();
    open(&spare).unwrap();

    let key = dir.join("ca-key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    refused("chmod 600");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();

    for name in ["ca-key.pem", "ca-cert.pem", "root-cert.pem"] {
        let path = dir.join(name);
        let text = fs::read_to_string(&path).unwrap();
        fs::remove_file(&path).unwrap();
        refused("is missing: put it back");
        for broken in ["", "rubbish", &text[..text.len() / 2]] {
            fs::write(&path, broken).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            refused("in PEM: put a copy of it back");
        }
        fs::copy(spare.join(name), &path).unwrap();
        refused("put its files right");
        fs::write(&path, text).unwrap();
    }
    open(dir).unwrap();
}

#[test]
fn a_folder_as_istio_has_it_works() {
    let temp = TempDir::new().unwrap();
    let dir = temp.path();
    // A root, and an intermediate of RSA that signs.
    let root_key = KeyPair::generate().unwrap();
    let root = ca().self_signed(&root_key).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Intermediate CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let signing = params.signed_by(&key, &Issuer::new(ca(), root_key)).unwrap();
    write(&temp, "ca-key.pem", &key.serialize_pem());
    write(&temp, "ca-cert.pem", &signing.pem());
    write(&temp, "cert-chain.pem", &format!("{}{}", signing.pem(), root.pem()));
    write(&temp, "root-cert.pem", &root.pem());
    fs::set_permissions(dir.join("ca-key.pem"), fs::Permissions::from_mode(0o600)).unwrap();

    let folder = open(dir).unwrap();
    let request = request();
    let issued = folder.issue(&request, Duration::from_hours(1), SystemTime::now()).unwrap();
    assert_eq!(issued.chain.len(), 2, "leaf and intermediate; peers have the root");
    let trust = Trust::new("cluster.local".into());
    trust.name(&issued.roots, SystemTime::now()).unwrap();
    Handshakes::new(trust.into()).tls(&request, issued.chain, SystemTime::now()).unwrap();
}

#[test]
fn a_new_key_is_trusted_at_once_and_signs_later() {
    let temp = TempDir::new().unwrap();
    let (dir, spare) = (temp.path().join("ca"), temp.path().join("spare"));
    let mut folder = open(&dir).unwrap();
    let before = folder.roots().to_vec();
    let now = SystemTime::now();
    assert!(!folder.look(now).unwrap(), "nothing has changed");

    let new = open(&spare).unwrap().roots().to_vec();
    replace(&spare, &dir);
    assert!(folder.look(now).unwrap());
    assert_eq!(folder.roots(), new);

    let trust = Arc::new(Trust::new("cluster.local".into()));
    trust.name(&before, now).unwrap();
    trust.name(folder.roots(), now).unwrap();
    let handshakes = Handshakes::new(trust);
    let signed_by = |folder: &Folder| {
        let request = request();
        let issued = folder.issue(&request, Duration::from_hours(1), now).unwrap();
        handshakes.tls(&request, issued.chain.clone(), now).unwrap();
        let trust = Trust::new("cluster.local".into());
        trust.name(&new, now).unwrap();
        Handshakes::new(trust.into()).tls(&request, issued.chain, now).is_ok()
    };
    assert!(!signed_by(&folder), "the old key still signs");
    assert!(!folder.settle(Instant::now()));
    assert!(folder.settle(Instant::now() + Duration::from_mins(1)));
    assert!(signed_by(&folder), "the new key signs");
}

#[test]
fn while_files_are_wrong_what_was_read_last_stays() {
    let temp = TempDir::new().unwrap();
    let mut folder = open(temp.path()).unwrap();
    write(&temp, "ca-cert.pem", "half a certif");
    folder.look(SystemTime::now()).unwrap_err();
    folder.look(SystemTime::now()).unwrap_err();
    folder.issue(&request(), Duration::from_hours(1), SystemTime::now()).unwrap();
}

#[test]
fn the_ca_signs_identities_of_its_trust_domain_only_and_for_a_day_at_most() {
    let temp = TempDir::new().unwrap();
    let folder = open(temp.path()).unwrap();
    let now = SystemTime::now();
    let stranger = Identity::parse("spiffe://other.example/ns/bookinfo/sa/reviews").unwrap();
    let error = folder.issue(&Request::new(stranger).unwrap(), Duration::from_hours(1), now).unwrap_err();
    assert!(error.to_string().contains("trust domain"), "{error}");

    let issued = folder.issue(&request(), Duration::from_hours(100), now).unwrap();
    let facts = crate::certificate::read(&issued.chain[0]).unwrap();
    assert!(facts.not_after <= now + Duration::from_hours(24));
    assert!(facts.not_before < now - Duration::from_mins(1), "backdated");
    assert_eq!(facts.identity.to_string(), REVIEWS);
}
