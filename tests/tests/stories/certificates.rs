//! Where identities come from: the embedded CA, an external one, and what is told when there is none.

use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use serde_json::Value;
use weft_tests::{Agent, Mesh, Pod, eventually, story};

/// A renewal, or a certificate's end, comes within so long.
const PATIENCE: Duration = Duration::from_secs(20);

fn certificates(agent: &Agent) -> Result<Value> {
    Ok(agent.status()?["certificates"].clone())
}

/// The line of a service account.
fn row(agent: &Agent, account: &str) -> Result<Value> {
    let all = certificates(agent)?["certificates"].clone();
    let found = all.as_array().into_iter().flatten().find(|row| row["serviceAccount"] == account);
    found.cloned().with_context(|| format!("no certificate of {account} in {all}"))
}

/// Waits for a state; answers the line.
fn becomes(mesh: &Mesh, account: &str, state: &str) -> Result<Value> {
    eventually(state, PATIENCE, || {
        let row = mesh.with_agent(|agent| row(agent, account))?;
        ensure!(row["state"] == state, "{row}");
        Ok(row)
    })
}

#[test]
fn agents_that_share_a_folder_have_certificates_of_one_root() {
    story(|mesh| {
        mesh.pod("client").node("n1").service_account("client").start()?;
        mesh.pod("echo").node("n2").service_account("echo").start()?;
        // At once, on a folder that is not there yet.
        mesh.start_agents(&["n1", "n2"])?;
        mesh.wait_applied()?;
        let mut roots = Vec::new();
        for (node, account) in [("n1", "client"), ("n2", "echo")] {
            let all = mesh.with_agent_of(node, |agent| certificates(agent))?;
            let rows = all["certificates"].as_array().context("no list")?;
            ensure!(rows.len() == 1, "{node} has those of its own pods only: {all}");
            let identity = format!("spiffe://cluster.local/ns/default/sa/{account}");
            ensure!(rows[0]["identity"] == *identity && rows[0]["state"] == "valid", "{all}");
            ensure!(all["ca"]["kind"] == "embedded" && all["ca"].get("error").is_none(), "{all}");
            roots.push(all["ca"]["roots"].clone());
        }
        ensure!(roots[0] == roots[1] && roots[0].as_array().is_some_and(|it| it.len() == 1), "{roots:?}");
        let key = fs::metadata(mesh.ca_dir().join("ca-key.pem"))?;
        ensure!(key.permissions().mode() & 0o777 == 0o600);

        // With the last pod of an account its certificate goes.
        mesh.delete_pod("client")?;
        mesh.wait_applied()?;
        let all = mesh.with_agent_of("n1", |agent| certificates(agent))?;
        ensure!(all["certificates"].as_array().is_some_and(Vec::is_empty), "{all}");
        Ok(())
    });
}

#[test]
fn a_key_that_others_may_read_is_refused_with_the_cure() {
    story(|mesh| {
        mesh.start_agents(&["n1"])?;
        mesh.with_agent(Agent::terminate)?;
        let key = mesh.ca_dir().join("ca-key.pem");
        fs::set_permissions(&key, Permissions::from_mode(0o644))?;
        mesh.with_agent(|agent| {
            agent.spawn()?;
            let error = format!("{:#}", agent.ready().err().context("it started")?);
            ensure!(error.contains(&format!("chmod 600 {}", key.display())), "{error}");
            Ok(())
        })
    });
}

fn start_ca(ca: &Pod, mesh: &Mesh, flags: &[&str]) -> Result<()> {
    let dir = mesh.world().dir().join("external-ca").display().to_string();
    ca.app(&[&["ca", "--port", "15010", "--dir", &dir], flags].concat())
}

#[test]
fn without_its_ca_an_agent_says_until_when_it_serves() {
    story(|mesh| {
        let ca = mesh.outsider("ca")?;
        start_ca(&ca, mesh, &["--token", "secret"])?;
        mesh.pod("echo").node("n1").service_account("echo").start()?;
        let address = format!("http://{}", ca.at(15010));
        let token = mesh.world().dir().join("token");
        fs::write(&token, "wrong")?;
        let token_path = token.display().to_string();
        let flags = ["--ca-address", &address, "--ca-token", &token_path, "--certificate-life", "6s"];
        // Refused: it is ready nevertheless, and says why there is no certificate.
        mesh.start_agent_with("n1", &flags)?;
        mesh.wait_applied()?;
        let refused = becomes(mesh, "echo", "missing")?;
        ensure!(refused["error"].as_str().is_some_and(|error| error.contains("not for you")), "{refused}");

        fs::write(&token, "secret\n")?;
        let first = becomes(mesh, "echo", "valid")?;
        let renewed = eventually("renewed", PATIENCE, || {
            let row = mesh.with_agent(|agent| row(agent, "echo"))?;
            ensure!(row["serial"] != first["serial"] && row["state"] == "valid", "{row}");
            Ok(row)
        })?;
        ensure!(renewed["identity"] == "spiffe://cluster.local/ns/default/sa/echo", "{renewed}");

        ca.stop();
        let failing = becomes(mesh, "echo", "renewalFailing")?;
        for told in ["notAfter", "failingSince", "error", "nextAttempt"] {
            ensure!(failing[told].is_string(), "{told} is not told: {failing}");
        }
        let ended = becomes(mesh, "echo", "missing")?;
        ensure!(ended.get("notAfter").is_none(), "{ended}");

        // Started anew, it has none, says so, and is ready.
        mesh.with_agent(|agent| {
            agent.terminate()?;
            agent.spawn()?;
            agent.ready()?;
            agent.wait_applied()
        })?;
        let none = becomes(mesh, "echo", "missing")?;
        ensure!(none["error"].is_string(), "{none}");
        let all = mesh.with_agent(|agent| certificates(agent))?;
        ensure!(all["ca"]["kind"] == "external" && all["ca"]["location"] == *address, "{all}");
        ensure!(all["ca"]["error"].is_string() && all["ca"].get("answered").is_none(), "{all}");

        start_ca(&ca, mesh, &["--token", "secret"])?;
        becomes(mesh, "echo", "valid").map(drop)
    });
}

#[test]
fn an_external_ca_hands_over_to_a_new_root_in_two_steps() {
    story(|mesh| {
        let ca = mesh.outsider("ca")?;
        start_ca(&ca, mesh, &["--signs", "old"])?;
        mesh.pod("echo").node("n1").service_account("echo").start()?;
        let address = format!("http://{}", ca.at(15010));
        mesh.start_agent_with("n1", &["--ca-address", &address, "--certificate-life", "3s"])?;
        let roots = |subjects: &[&str], retired: usize| {
            eventually("roots", PATIENCE, || {
                let all = mesh.with_agent(|agent| certificates(agent))?;
                let roots = all["ca"]["roots"].as_array().context("no roots")?;
                for subject in subjects {
                    ensure!(roots.iter().any(|root| root["subject"] == format!("CN={subject}")), "{all}");
                }
                ensure!(roots.len() == subjects.len(), "{all}");
                let found = roots.iter().filter(|root| root["retiredUntil"].is_string()).count();
                ensure!(found == retired, "{all}");
                ensure!(all["certificates"][0]["state"] == "valid", "{all}");
                Ok(())
            })
        };
        roots(&["old"], 0)?;
        let steps: [(&[&str], usize); 3] = [
            (&["--signs", "old", "--names", "new"], 0),
            (&["--signs", "new", "--names", "old"], 0),
            (&["--signs", "new"], 1),
        ];
        for (flags, retired) in steps {
            ca.stop();
            start_ca(&ca, mesh, flags)?;
            roots(&["old", "new"], retired)?;
        }
        Ok(())
    });
}

/// Waits until both nodes have other certificates than `before`; answers those.
fn renewed(mesh: &Mesh, before: &[Value; 2]) -> Result<[Value; 2]> {
    let serial = |node: &str, account: &str| {
        let row = mesh.with_agent_of(node, |agent| row(agent, account))?;
        ensure!(row["state"] == "valid", "{row}");
        Ok(row["serial"].clone())
    };
    eventually("renewed", PATIENCE, || {
        let now = [serial("n1", "client")?, serial("n2", "echo")?];
        ensure!(now[0] != before[0] && now[1] != before[1], "still {now:?}");
        Ok(now)
    })
}

/// Puts a new root in place of the mesh's, all at once.
fn replace_root(mesh: &Mesh) -> Result<()> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "new");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = params.self_signed(&key)?.pem();
    for name in ["ca-key.pem", "ca-cert.pem", "cert-chain.pem", "root-cert.pem"] {
        let fresh = mesh.ca_dir().join("fresh");
        fs::write(&fresh, if name == "ca-key.pem" { key.serialize_pem() } else { root.clone() })?;
        fs::set_permissions(&fresh, Permissions::from_mode(0o600))?;
        fs::rename(&fresh, mesh.ca_dir().join(name))?;
    }
    Ok(())
}

#[test]
fn new_certificates_and_a_new_root_cost_no_request_and_no_connection() {
    story(|mesh| {
        for client in ["client", "client-2", "client-3"] {
            mesh.pod(client).node("n1").service_account(client).start()?;
        }
        let echo = mesh.pod("echo").node("n2").service_account("echo").label("app", "echo");
        let echo = echo.app(["echo", "--port", "8080"]).start()?;
        echo.app(&["tcp-echo", "--port", "7000"])?;
        let service = mesh.service("echo").selector("app", "echo");
        service.port("http", 80, 8080).port("tcp", 7000, 7000).create()?;
        mesh.add_node("n2")?;
        mesh.start_agents_with(&["n1", "n2"], &["--certificate-life", "4s"])?;
        mesh.wait_applied()?;

        let mut wire = echo.capture()?;
        let mut long = mesh.the("client")?.connect(mesh.service_at("echo", 7000)?)?;
        let mut said = |what: &[u8]| {
            let mut back = vec![0; what.len()];
            long.write_all(what)?;
            long.read_exact(&mut back)?;
            ensure!(back == what);
            Ok(())
        };
        said(b"before")?;
        let load = mesh.load("client", &["http://echo/", "-c", "4"])?;
        let mut serials = [Value::Null, Value::Null];
        for _ in 0..3 {
            serials = renewed(mesh, &serials)?;
        }
        // The first request of an account makes its agent shake hands anew.
        let answer = mesh.get("client-2", "http://echo/")?;
        ensure!(answer.status == 200, "{answer:?}");
        said(b"rotated")?;

        replace_root(mesh)?;
        for node in ["n1", "n2"] {
            eventually("both roots", PATIENCE, || {
                let roots = mesh.with_agent_of(node, |agent| certificates(agent))?["ca"]["roots"].clone();
                ensure!(roots.as_array().is_some_and(|roots| roots.len() == 2), "{roots}");
                Ok(())
            })?;
        }
        for _ in 0..3 {
            serials = renewed(mesh, &serials)?;
        }
        let answer = mesh.get("client-3", "http://echo/")?;
        ensure!(answer.status == 200, "{answer:?}");
        said(b"of another root")?;
        load.finish()?.none_failed()?;
        ensure!(wire.tls_to(15008)? >= 3, "fewer handshakes than accounts");
        Ok(())
    });
}

/// Puts a list into the mesh's CA folder that revokes the certificate with this serial (in hex).
fn revoke(mesh: &Mesh, serial: &str) -> Result<()> {
    let digits =
        serial.as_bytes().chunks(2).map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?));
    let now = std::time::SystemTime::now();
    let list = CertificateRevocationListParams {
        this_update: now.into(),
        next_update: (now + Duration::from_hours(1)).into(),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from(digits.collect::<Result<Vec<u8>>>()?),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let read = |name: &str| fs::read_to_string(mesh.ca_dir().join(name));
    let key = KeyPair::from_pem(&read("ca-key.pem")?)?;
    let list = list.signed_by(&Issuer::from_ca_cert_pem(&read("ca-cert.pem")?, key)?)?;
    fs::write(mesh.ca_dir().join("fresh"), list.pem()?)?;
    Ok(fs::rename(mesh.ca_dir().join("fresh"), mesh.ca_dir().join("ca-crl.pem"))?)
}

#[test]
fn a_revoked_certificate_ends_the_connections_that_it_has_and_a_new_one_serves() {
    story(|mesh| {
        mesh.pod("client").node("n1").service_account("client").start()?;
        let echo = mesh.pod("echo").node("n2").service_account("echo").label("app", "echo");
        let echo = echo.app(["echo", "--port", "8080"]).start()?;
        echo.app(&["tcp-echo", "--port", "7000"])?;
        let service = mesh.service("echo").selector("app", "echo");
        service.port("http", 80, 8080).port("tcp", 7000, 7000).create()?;
        mesh.add_node("n2")?;
        mesh.start_agents(&["n1", "n2"])?;
        mesh.wait_applied()?;
        let mut long = mesh.the("client")?.connect(mesh.service_at("echo", 7000)?)?;
        let mut back = [0; 6];
        long.write_all(b"before")?;
        long.read_exact(&mut back)?;
        let lost = mesh.with_agent_of("n1", |agent| row(agent, "client"))?["serial"].clone();

        revoke(mesh, lost.as_str().context("no serial")?)?;
        // Its end is the event that is awaited; whether as a reset or in good order is the same.
        long.set_read_timeout(Some(PATIENCE))?;
        match long.read(&mut back) {
            Ok(0) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            other => anyhow::bail!("the connection lives on: {other:?}"),
        }
        // One of the two agents was the first to read the list.
        for node in ["n1", "n2"] {
            eventually("the list", PATIENCE, || {
                let told =
                    mesh.with_agent_of(node, |agent| certificates(agent))?["ca"]["revocations"].clone();
                ensure!(told["lists"] == 1, "{node} tells {told}");
                Ok(())
            })?;
        }
        eventually("another certificate", PATIENCE, || {
            let serial = mesh.with_agent_of("n1", |agent| row(agent, "client"))?["serial"].clone();
            ensure!(serial != lost, "still {serial}");
            Ok(())
        })?;
        let answer = mesh.get("client", "http://echo/")?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    });
}
