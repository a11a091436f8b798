//! Requests that are meant to look otherwise to the policy than to the program.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use weft_tests::{Mesh, story};

/// Anybody may GET what is public, and the test itself counts hits from the node.
const PUBLIC: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
    metadata: {name: public, namespace: default}\nspec:\n  selector: {matchLabels: {app: victim}}\n  rules:\n\
    \u{20} - to: [{operation: {methods: [GET, POST], paths: [/public, /public/*]}}]\n\
    \u{20} - to: [{operation: {methods: [GET], paths: [/hits/*]}}]\n";
/// The same said the other way round.
const SECRET: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
    metadata: {name: public, namespace: default}\nspec:\n  selector: {matchLabels: {app: victim}}\n  action: DENY\n\
    \u{20} rules:\n  - to: [{operation: {paths: [/secret, /secret/*]}}]\n";

/// A client on n1, and the same program on n1 and n2, behind one Service each.
fn client_and_victims(mesh: &Mesh) -> Result<()> {
    mesh.pod("client").node("n1").service_account("client").start()?;
    for (name, node) in [("near", "n1"), ("far", "n2")] {
        let pod = mesh.pod(name).node(node).label("app", "victim").label("pod", name);
        pod.app(["echo", "--port", "8080"]).start()?;
        mesh.service(name).selector("pod", name).port("http", 80, 8080).create()?;
    }
    mesh.start_agents(&["n1", "n2"])?;
    mesh.wait_applied()
}

/// For what a smuggled request would need to get through, many times over.
const PATIENCE: Duration = Duration::from_millis(500);

/// Sends texts as they are, each on a connection of its own and all at once; answers what came back until the end, or
/// until nothing comes any more.
fn send(mesh: &Mesh, service: &str, texts: &[Vec<u8>]) -> Result<Vec<String>> {
    let (client, to) = (mesh.the("client")?, mesh.service_at(service, 80)?);
    let mut streams = Vec::new();
    for text in texts {
        let mut stream = client.connect(to)?;
        // It may be refused before all of it is written.
        let _ = stream.write_all(text);
        streams.push(stream);
    }
    let end = Instant::now() + PATIENCE;
    let read = |mut stream: TcpStream| -> Result<String> {
        let mut back = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let rest = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            stream.set_read_timeout(Some(rest))?;
            match stream.read(&mut buffer) {
                Ok(length) if length > 0 => back.extend_from_slice(&buffer[..length]),
                _ => return Ok(String::from_utf8_lossy(&back).into_owned()),
            }
        }
    };
    streams.into_iter().map(read).collect()
}

/// A GET that ends its connection.
fn get(target: &str, host: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").into_bytes()
}

/// Fails if the program was asked for its secret, and says by what.
fn the_secret_is_kept(mesh: &Mesh, victim: &str) -> Result<()> {
    // Two slashes are not one, by default and for Istio: `//secret` is another path, to the program as well.
    for path in ["/secret", "/secret/", "/public/../secret", "/secret/x"] {
        let address = mesh.the(victim)?.at(8080);
        let (status, body) = weft_tests::get(address, &format!("/hits{path}"))?;
        ensure!(status == 200, "hits: {status}");
        let seen: serde_json::Value = serde_json::from_str(&body)?;
        ensure!(seen["count"] == 0, "{victim} was asked for its secret: {}", seen["last"]);
    }
    Ok(())
}

#[test]
fn a_path_in_disguise_is_the_same_path() {
    story(|mesh| {
        client_and_victims(mesh)?;
        let disguises = [
            "/secret",
            "/secret/",
            "//secret",
            "/./secret",
            "/public/../secret",
            "/public/%2e%2e/secret",
            "/public/..%2fsecret",
            "/public/%2E%2E%2Fsecret",
            "/%73ecret",
            "/secret?x=/public",
            "/secret#/public",
            "/public\\..\\secret",
            "/public/..\\secret",
            "/public//../../secret",
            "/secret/x/..",
            "/SECRET/../secret",
        ];
        for (what, policy) in [("ALLOW", PUBLIC), ("DENY", SECRET)] {
            mesh.apply_now("policy", policy)?;
            for victim in ["near", "far"] {
                let texts = disguises.iter().flat_map(|path| {
                    [(*path).to_owned(), format!("http://{victim}{path}"), format!("http://public{path}")]
                });
                let texts: Vec<_> = texts.map(|target| get(&target, victim)).collect();
                send(mesh, victim, &texts)?;
                the_secret_is_kept(mesh, victim).context(what)?;
                let answers = send(mesh, victim, &[get("/public/x", victim)])?;
                ensure!(answers[0].starts_with("HTTP/1.1 200"), "{what}, {victim}: {answers:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn no_request_is_smuggled_inside_of_another() {
    story(|mesh| {
        client_and_victims(mesh)?;
        mesh.apply_now("policy", PUBLIC)?;
        let inner = "GET /secret HTTP/1.1\r\nHost: x\r\n\r\n";
        let length = inner.len();
        let head = "POST /public HTTP/1.1\r\nHost: near\r\n";
        let long = "a".repeat(200_000);
        let cases = [
            (
                "CL.TE",
                format!(
                    "{head}Content-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}",
                    length + 5
                ),
            ),
            (
                "TE.CL",
                format!(
                    "{head}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n{length:x}\r\n{inner}\r\n0\r\n\r\n"
                ),
            ),
            (
                "TE with a blank",
                format!("{head}Transfer-Encoding : chunked\r\nContent-Length: {length}\r\n\r\n{inner}"),
            ),
            (
                "TE folded",
                format!("{head}Transfer-Encoding:\r\n chunked\r\nContent-Length: {length}\r\n\r\n{inner}"),
            ),
            (
                "TE of another kind",
                format!("{head}Transfer-Encoding: xchunked\r\nContent-Length: {length}\r\n\r\n{inner}"),
            ),
            (
                "TE twice",
                format!(
                    "{head}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{inner}"
                ),
            ),
            (
                "TE with a tab",
                format!("{head}Transfer-Encoding:\tchunked\r\nContent-Length: {length}\r\n\r\n{inner}"),
            ),
            (
                "TE in HTTP/1.0",
                format!(
                    "POST /public HTTP/1.0\r\nHost: near\r\nTransfer-Encoding: chunked\r\nContent-Length: {length}\r\n\r\n{inner}"
                ),
            ),
            ("two lengths", format!("{head}Content-Length: 0\r\nContent-Length: {length}\r\n\r\n{inner}")),
            ("a list of lengths", format!("{head}Content-Length: 0, {length}\r\n\r\n{inner}")),
            ("a length with a sign", format!("{head}Content-Length: +{length}\r\n\r\n{inner}")),
            ("bare line feeds", format!("POST /public HTTP/1.1\nHost: near\nContent-Length: 0\n\n{inner}")),
            (
                "a chunk with an extension",
                format!("{head}Transfer-Encoding: chunked\r\n\r\n0;a=\n\r\n\r\n{inner}"),
            ),
            (
                "a chunk that overflows",
                format!("{head}Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n{inner}"),
            ),
            (
                "a request line that hides one",
                format!("GET /public HTTP/1.1\rGET /secret HTTP/1.1\r\nHost: near\r\n\r\n{inner}"),
            ),
            (
                "an upgrade that is none",
                format!(
                    "GET /public HTTP/1.1\r\nHost: near\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n{inner}"
                ),
            ),
            (
                "a header that is too long",
                format!("GET /public HTTP/1.1\r\nHost: near\r\nX: {long}\r\n\r\n{inner}"),
            ),
            ("two hosts", format!("GET /public HTTP/1.1\r\nHost: near\r\nHost: far\r\n\r\n{inner}")),
            (
                "a hop-by-hop Host",
                format!(
                    "GET /public HTTP/1.1\r\nHost: near\r\nConnection: Host, X-Forwarded-For\r\n\r\n{inner}"
                ),
            ),
        ];
        for victim in ["near", "far"] {
            let texts: Vec<_> = cases.iter().map(|(_, text)| text.clone().into_bytes()).collect();
            let answers = send(mesh, victim, &texts)?;
            the_secret_is_kept(mesh, victim)?;
            // Nobody is left waiting for an answer that is another one's.
            let first = mesh.get("client", &format!("http://{victim}/public"))?;
            ensure!(first.status == 200 && first.json()?["path"] == "/public", "{victim}: {first:?}");
            for ((name, _), answer) in cases.iter().zip(answers) {
                ensure!(!answer.contains("\"path\":\"/secret"), "{victim}, {name}: {answer}");
            }
        }
        Ok(())
    });
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A header that HPACK does not index, as it is.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        bytes.push(u8::try_from(text.len()).expect("short"));
        bytes.extend(text.as_bytes());
    }
    bytes
}

#[test]
fn nothing_is_injected_into_http_1_from_http_2() {
    const HEADERS: u8 = 1;
    const END: u8 = 0x5;
    story(|mesh| {
        client_and_victims(mesh)?;
        mesh.apply_now("policy", PUBLIC)?;
        let usual = |path: &str, method: &str| {
            [
                literal(":method", method),
                literal(":scheme", "http"),
                literal(":path", path),
                literal(":authority", "near"),
            ]
            .concat()
        };
        let with = |name: &str, value: &str| [usual("/public", "GET"), literal(name, value)].concat();
        let cases = [
            ("a line break in the path", usual("/public HTTP/1.1\r\nHost: x\r\n\r\nGET /secret", "GET")),
            ("a blank in the path", usual("/public HTTP/1.1 /secret", "GET")),
            ("a line break in the method", usual("/public", "GET /secret HTTP/1.1\r\nX: y\r\n\r\nGET")),
            ("a line break in a value", with("x", "y\r\n\r\nGET /secret HTTP/1.1\r\nHost: x\r\n\r\n")),
            ("a line break in a name", with("x: y\r\nz", "1")),
            ("a colon in a name", with("transfer-encoding: chunked\r\nx", "1")),
            ("transfer-encoding", with("transfer-encoding", "chunked")),
            ("connection", with("connection", "transfer-encoding")),
            ("upper case", with("Transfer-Encoding", "chunked")),
            ("a length that is wrong", with("content-length", "50")),
            ("two paths", with(":path", "/secret")),
            ("a host that differs", with("host", "evil")),
            ("a path without a slash", usual("secret", "GET")),
            ("a whole URI as path", usual("http://near/secret", "GET")),
        ];
        for victim in ["near", "far"] {
            let texts = cases.iter().map(|(_, block)| {
                let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
                [preface, frame(4, 0, 0, &[]), frame(HEADERS, END, 1, block)].concat()
            });
            let answers = send(mesh, victim, &texts.collect::<Vec<_>>())?;
            the_secret_is_kept(mesh, victim)?;
            for ((name, _), answer) in cases.iter().zip(answers) {
                ensure!(!answer.contains("\"path\":\"/secret"), "{victim}, {name}: {answer}");
            }
            let served = mesh.http("client", &format!("http://{victim}/public"))?.h2().send()?;
            ensure!(served.status == 200, "{victim}: {}", served.status);
        }
        Ok(())
    });
}
