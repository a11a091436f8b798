//! TLS that the mesh passes on: whom a client asks for decides where it gets, and the end of it is the server's.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use weft_tests::{Pod, eventually, story};

/// Rules by server name for callers of `secure`.
const RULES: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: secure, namespace: default}
spec:
  hosts: [secure, '*.secure.example']
  tls:
  - {match: [{sniHosts: [one.secure.example]}], route: [{destination: {host: one}}]}
  - {match: [{sniHosts: ['*.secure.example']}], route: [{destination: {host: two}}]}
";

/// What a TLS client says first.
pub fn hello(name: &str) -> Result<Vec<u8>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let mut bytes = Vec::new();
    ClientConnection::new(Arc::new(config), ServerName::try_from(name.to_owned())?)?.write_tls(&mut bytes)?;
    Ok(bytes)
}

#[test]
fn the_server_name_decides_where_tls_goes() {
    story(|mesh| {
        let client = mesh.pod("client").node("n1").service_account("client").start()?;
        // One on the client's node and one on another.
        let servers: Vec<Arc<Pod>> = [("one", "n1"), ("two", "n2")]
            .map(|(name, node)| mesh.pod(name).node(node).label("app", name).label("part", "all").start())
            .into_iter()
            .collect::<Result<_>>()?;
        for (service, label, value) in
            [("one", "app", "one"), ("two", "app", "two"), ("secure", "part", "all")]
        {
            mesh.service(service).selector(label, value).port("https", 443, 7000).create()?;
        }
        mesh.start_agents(&["n1", "n2"])?;
        mesh.wait_applied()?;
        let [one, two] = [servers[0].listen(7000)?, servers[1].listen(7000)?];
        mesh.apply_now("rules", RULES)?;
        let address = mesh.service_at("secure", 443)?;
        for (name, listener) in
            [("one.secure.example", &one), ("two.secure.example", &two), ("ONE.secure.example", &one)]
        {
            let said = hello(name)?;
            let mut here = client.connect(address)?;
            // In two pieces: the name may be in the second.
            here.write_all(&said[..60])?;
            here.write_all(&said[60..])?;
            let (mut there, peer) = listener.accept().context(name)?;
            ensure!(peer.ip() == client.ip, "{name}: the server sees {peer}");
            let mut got = vec![0; said.len()];
            there.read_exact(&mut got)?;
            ensure!(got == said, "{name}: what the client said has changed on its way");
            there.write_all(b"and so on")?;
            let mut answer = [0; 9];
            here.read_exact(&mut answer)?;
            ensure!(&answer == b"and so on");
        }
        for nobodys in
            [hello("secure.example")?, hello("elsewhere.example")?, b"GET / HTTP/1.1\r\n\r\n".to_vec()]
        {
            let mut here = client.connect(address)?;
            here.write_all(&nobodys)?;
            ensure!(here.read(&mut [0]).is_err(), "what is for nobody is not reset");
        }
        one.nobody()?;
        two.nobody()?;
        let told = mesh.explain("client", "secure:443", &[])?;
        ensure!(told["action"] == "notFound" && told.to_string().contains("no `tls` rule"), "{told}");
        mesh.is_logged(" one.secure.example -")?;
        let rows = mesh.weft(&["get", "routes"])?.stdout;
        ensure!(rows.contains("server name *.secure.example"), "{rows}");

        // Without rules it is bytes again, also for who says nothing.
        mesh.delete("rules")?;
        mesh.wait_applied()?;
        let _silent = client.connect(address)?;
        eventually("the silent client's connection", Duration::from_secs(5), || {
            ensure!(one.nobody().is_err() || two.nobody().is_err(), "nobody has connected");
            Ok(())
        })
    });
}
