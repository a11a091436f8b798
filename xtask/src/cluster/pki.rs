//! Certificates: three authorities, as kubeadm makes them, and what is signed by them.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose,
};

use super::layout::{self, API_PORT, API_SERVICE, CONTROL, DOMAIN, NODES, pki};

type Authority = CertifiedIssuer<'static, KeyPair>;

/// Makes every key and certificate, and a kubeconfig for everybody who speaks to the API server.
pub fn make() -> Result<()> {
    fs::create_dir_all(layout::state("pki"))?;
    let ca = authority("ca", "weft-cluster-ca")?;
    let etcd_ca = authority("etcd-ca", "weft-cluster-etcd-ca")?;
    let front_ca = authority("front-ca", "weft-cluster-front-ca")?;
    let (client, server) = (ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth);

    let etcd = Subject::named("etcd").at(&["127.0.0.1", "localhost"]);
    etcd.certify(&etcd_ca, "etcd", &[client.clone(), server.clone()])?;
    Subject::named("kube-apiserver").certify(&etcd_ca, "etcd-client", std::slice::from_ref(&client))?;
    let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"];
    let full = format!("kubernetes.default.svc.{DOMAIN}");
    let api = Subject::named("kube-apiserver").at(&[CONTROL, API_SERVICE, "127.0.0.1", &full]).at(&names);
    api.certify(&ca, "apiserver", std::slice::from_ref(&server))?;

    let clients = |authority: &Authority, file: &str, subject: Subject| {
        subject.certify(authority, file, std::slice::from_ref(&client))
    };
    clients(&front_ca, "front-client", Subject::named("front-proxy-client"))?;
    clients(&ca, "kubelet-client", Subject::named("kube-apiserver-kubelet-client"))?;
    clients(&ca, "admin", Subject::named("admin").of("system:masters"))?;
    for name in ["kube-controller-manager", "kube-scheduler", "kube-proxy"] {
        clients(&ca, name, Subject::named(&format!("system:{name}")))?;
        write_kubeconfig(name, &by_files(name))?;
    }
    for node in &NODES {
        let subject = || Subject::named(&format!("system:node:{}", node.name)).of("system:nodes");
        clients(&ca, node.name, subject())?;
        let serving = subject().at(&[node.address, node.name]);
        serving.certify(&ca, &format!("{}-serving", node.name), std::slice::from_ref(&server))?;
        write_kubeconfig(node.name, &by_files(node.name))?;
    }
    // The one that leaves this machine's state: tools copy it, so it holds what the others name.
    write_kubeconfig("admin", &admin()?)?;

    let tokens = KeyPair::generate()?;
    write_private(&pki("sa.key"), &tokens.serialize_pem())?;
    Ok(fs::write(pki("sa.pub"), tokens.public_key_pem())?)
}

/// Makes an authority. Nobody but the processes here believes it.
fn authority(file: &str, name: &str) -> Result<Authority> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    write_pair(file, &authority.pem(), authority.key())?;
    Ok(authority)
}

/// Whom a certificate is for.
struct Subject {
    name: DistinguishedName,
    addresses: Vec<String>,
}

impl Subject {
    fn named(common_name: &str) -> Self {
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, common_name);
        Self { name, addresses: Vec::new() }
    }

    /// The group that RBAC sees.
    fn of(mut self, group: &str) -> Self {
        self.name.push(DnType::OrganizationName, group);
        self
    }

    /// Names and addresses under which it is reached.
    fn at(mut self, addresses: &[&str]) -> Self {
        self.addresses.extend(addresses.iter().map(|&address| address.to_owned()));
        self
    }

    fn certify(self, by: &Authority, file: &str, usages: &[ExtendedKeyUsagePurpose]) -> Result<()> {
        let mut params = CertificateParams::new(self.addresses)?;
        params.distinguished_name = self.name;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages.to_vec();
        let key = KeyPair::generate()?;
        write_pair(file, &params.signed_by(&key, by)?.pem(), &key)
    }
}

fn write_pair(file: &str, certificate: &str, key: &KeyPair) -> Result<()> {
    fs::write(pki(&format!("{file}.crt")), certificate)?;
    write_private(&pki(&format!("{file}.key")), &key.serialize_pem())
}

fn write_private(path: &str, text: &str) -> Result<()> {
    use std::io::Write as _;
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(Path::new(path));
    file.and_then(|mut file| file.write_all(text.as_bytes())).with_context(|| format!("cannot write {path}"))
}

fn write_kubeconfig(name: &str, text: &str) -> Result<()> {
    write_private(&layout::kubeconfig(name), text)
}

fn by_files(name: &str) -> String {
    let user = format!(
        "client-certificate: {}, client-key: {}",
        pki(&format!("{name}.crt")),
        pki(&format!("{name}.key"))
    );
    config(&format!("certificate-authority: {}", pki("ca.crt")), &user)
}

fn admin() -> Result<String> {
    let encoded = |file: &str| -> Result<String> { Ok(STANDARD.encode(fs::read(pki(file))?)) };
    let user = format!(
        "client-certificate-data: {}, client-key-data: {}",
        encoded("admin.crt")?,
        encoded("admin.key")?
    );
    Ok(config(&format!("certificate-authority-data: {}", encoded("ca.crt")?), &user))
}

fn config(authority: &str, user: &str) -> String {
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters: [{{name: weft, cluster: {{server: \"https://{CONTROL}:{API_PORT}\", {authority}}}}}]\n\
         users: [{{name: weft, user: {{{user}}}}}]\n\
         contexts: [{{name: weft, context: {{cluster: weft, user: weft}}}}]\n\
         current-context: weft\n"
    )
}
