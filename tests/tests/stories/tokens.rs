//! RequestAuthentication: tokens of a real issuer, whose keys are fetched as users would have them fetched.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use weft_tests::{Mesh, eventually, story};

use crate::deploy::got_header;
use crate::request_authorization::{echo_and_callers, for_echo, from_outside};

const ISSUER: &str = "https://issuer.example.com";
const PATIENCE: Duration = Duration::from_secs(15);

/// [`echo_and_callers`], with an issuer.
fn world(mesh: &Mesh) -> Result<()> {
    mesh.pod("issuer").label("app", "issuer").app(["issuer", "--port", "8080"]).start()?;
    mesh.service("issuer").selector("app", "issuer").port("http", 80, 8080).create()?;
    echo_and_callers(mesh)
}

/// Asks the issuer around the mesh.
fn issuer(mesh: &Mesh, path: &str) -> Result<String> {
    let (status, body) = weft_tests::get(mesh.the("issuer")?.at(8080), path)?;
    ensure!(status == 200, "{path}: {status} {body}");
    Ok(body)
}

/// How often the keys were fetched.
fn asked(mesh: &Mesh) -> Result<u64> {
    serde_json::from_str::<Value>(&issuer(mesh, "/asked")?)?["asked"].as_u64().context("no count")
}

/// A token with these claims besides issuer and subject.
fn token(mesh: &Mesh, claims: &Value) -> Result<String> {
    let mut all = json!({"iss": ISSUER, "sub": "ann", "exp": 4_000_000_000_u64});
    all.as_object_mut().context("an object")?.extend(claims.as_object().context("claims")?.clone());
    let hex = all.to_string().bytes().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    issuer(mesh, &format!("/token/{hex}"))
}

#[test]
fn a_token_decides_who_is_let_in() {
    story(|mesh| {
        world(mesh)?;
        let tokens = format!(
            "jwtRules:\n- issuer: {ISSUER}\n  jwksUri: http://issuer.default.svc.cluster.local/keys\n\
             \u{20} audiences: [shop]\n  outputClaimToHeaders: [{{header: x-user, claim: sub}}]"
        );
        mesh.apply("tokens", &for_echo("RequestAuthentication", "tokens", &tokens))?;
        let rules = format!(
            "rules:\n- from: [{{source: {{requestPrincipals: ['{ISSUER}/*']}}}}]\n\
             \u{20} when: [{{key: 'request.auth.claims[groups]', values: [staff]}}]\n\
             - to: [{{operation: {{paths: [/public]}}}}]"
        );
        mesh.apply_now("policy", &for_echo("AuthorizationPolicy", "staff", &rules))?;
        let staff = token(mesh, &json!({"aud": "shop", "groups": ["staff", "other"]}))?;
        let guest = token(mesh, &json!({"aud": "shop", "groups": ["guests"]}))?;
        let elsewhere = token(mesh, &json!({"aud": "bank", "groups": ["staff"]}))?;
        let expired = token(mesh, &json!({"aud": "shop", "exp": 1_000}))?;
        let stranger = token(mesh, &json!({"iss": "https://evil.example.com", "aud": "shop"}))?;
        let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", staff.split('.').nth(1).context("a payload")?);
        let long = "a".repeat(40_000);
        for (path, bearer, status, body) in [
            ("/", None, 403, "RBAC: access denied"),
            ("/public", None, 200, ""),
            ("/", Some(&staff), 200, ""),
            ("/", Some(&guest), 403, "RBAC: access denied"),
            ("/public", Some(&elsewhere), 403, "Audiences in Jwt are not allowed"),
            ("/public", Some(&expired), 401, "Jwt is expired"),
            ("/public", Some(&stranger), 401, "Jwt issuer is not configured"),
            ("/public", Some(&unsigned), 401, "Jwt header [alg] is not supported"),
            (
                "/public",
                Some(&long),
                401,
                "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
            ),
        ] {
            for inside in [true, false] {
                let request = if inside {
                    mesh.http("client", &format!("http://echo{path}"))?
                } else {
                    from_outside(mesh, path)?
                };
                let request = match bearer {
                    Some(token) => request.header("authorization", &format!("Bearer {token}")),
                    None => request,
                };
                let answer = request.header("x-user", "forged").send()?;
                ensure!(
                    answer.status == status && answer.body.contains(body),
                    "{path} {bearer:?}: {answer:?}"
                );
                ensure!(answer.status != 401 || answer.header("www-authenticate").is_some(), "{answer:?}");
                if status == 200 {
                    let seen = answer.json()?;
                    ensure!(got_header(&seen, "authorization").is_none(), "{seen}");
                    let user = got_header(&seen, "x-user");
                    ensure!(user.as_deref() == bearer.map(|_| "ann"), "{seen}");
                }
            }
        }
        ensure!(asked(mesh)? == 1, "keys are fetched once, not for each request");
        Ok(())
    });
}

#[test]
fn keys_are_followed_and_outlive_their_issuer() {
    story(|mesh| {
        world(mesh)?;
        let tokens = format!("jwtRules: [{{issuer: {ISSUER}, jwksUri: 'http://issuer.default/keys'}}]");
        mesh.apply_now("tokens", &for_echo("RequestAuthentication", "tokens", &tokens))?;
        eventually("keys are fetched before anybody asks", PATIENCE, || {
            ensure!(asked(mesh)? == 1);
            Ok(())
        })?;
        let ask = |token: &str| -> Result<u16> {
            let request = mesh.http("client", "http://echo/")?;
            Ok(request.header("authorization", &format!("Bearer {token}")).send()?.status)
        };
        let old = token(mesh, &json!({}))?;
        ensure!(ask(&old)? == 200);
        issuer(mesh, "/fail").ok();
        issuer(mesh, "/rotate").ok();
        let new = token(mesh, &json!({}))?;
        ensure!(ask(&new)? == 401 && ask(&old)? == 200);
        issuer(mesh, "/mend")?;
        eventually("the new key", PATIENCE, || {
            ensure!(ask(&new)? == 200);
            Ok(())
        })?;
        ensure!(ask(&old)? == 401);
        Ok(())
    });
}

#[test]
fn an_issuer_out_of_reach_has_its_tokens_refused_and_is_named() {
    story(|mesh| {
        world(mesh)?;
        let tokens =
            format!("jwtRules: [{{issuer: {ISSUER}, jwksUri: 'http://127.0.0.1:1/keys', timeout: 1s}}]");
        mesh.apply_now("tokens", &for_echo("RequestAuthentication", "tokens", &tokens))?;
        let token = token(mesh, &json!({}))?;
        let answer = mesh
            .http("client", "http://echo/")?
            .header("authorization", &format!("Bearer {token}"))
            .send()?;
        ensure!(answer.status == 401 && answer.body == "Jwks remote fetch is failed", "{answer:?}");
        ensure!(mesh.get("client", "http://echo/")?.status == 200, "without a token");
        Ok(())
    });
}

/// A Service of namespace `default` whose endpoint is wherever its owner says, and for a pod that it is not.
fn to_anywhere(name: &str, own: &str, address: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\n\
         spec: {{clusterIP: {own}, ports: [{{name: http, port: 80}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {name}-1, namespace: default, labels: {{kubernetes.io/service-name: {name}}}}}\n\
         addressType: IPv4\nports: [{{name: http, port: 8080}}]\n\
         endpoints: [{{addresses: [{address}], targetRef: {{kind: Pod, name: issuer, namespace: default}}}}]\n"
    )
}

#[test]
fn no_user_sends_a_node_to_itself_to_its_cloud_or_to_other_peoples_pods() {
    story(|mesh| {
        world(mesh)?;
        mesh.namespace("vault", true)?;
        let vault = mesh.pod("vault").namespace("vault").app(["issuer", "--port", "8080"]).start()?;
        let asked_there = || -> Result<Value> {
            let (status, body) = weft_tests::get(vault.at(8080), "/asked")?;
            ensure!(status == 200, "{status} {body}");
            Ok(serde_json::from_str::<Value>(&body)?["asked"].clone())
        };
        let vault_address = vault.at(8080).ip();
        mesh.apply("anywhere", &to_anywhere("anywhere", "10.96.200.1", &vault_address.to_string()))?;
        mesh.apply("metadata", &to_anywhere("metadata", "10.96.200.2", "169.254.169.254"))?;
        for (url, kind) in [
            ("http://127.0.0.1:15020/metrics".to_owned(), "a loopback address"),
            ("http://2130706433/".to_owned(), "a loopback address"),
            ("http://[::ffff:127.0.0.1]/".to_owned(), "a loopback address"),
            ("http://169.254.169.254/latest/meta-data/".to_owned(), "a link-local address"),
            ("http://[fd00:ec2::254]/".to_owned(), "the address of a cloud's metadata"),
            ("http://metadata.default/".to_owned(), "a link-local address"),
            (format!("http://{vault_address}:8080/keys"), "a pod's address"),
            ("http://anywhere.default/keys".to_owned(), "a pod's address"),
        ] {
            let tokens = format!("jwtRules: [{{issuer: {ISSUER}, jwksUri: '{url}'}}]");
            mesh.apply_now("tokens", &for_echo("RequestAuthentication", "tokens", &tokens))?;
            eventually(&format!("{url} in the status"), PATIENCE, || {
                let status = mesh.with_agent(|agent| agent.status())?;
                let troubles = status["troubles"].to_string();
                ensure!(troubles.contains(&url) && troubles.contains(kind), "{troubles}");
                Ok(())
            })?;
        }
        ensure!(asked_there()? == 0, "another namespace's pod was asked");
        Ok(())
    });
}

#[test]
fn a_gateway_routes_by_the_claims_of_a_token() {
    story(|mesh| {
        mesh.pod("issuer").label("app", "issuer").app(["issuer", "--port", "8080"]).start()?;
        mesh.service("issuer").selector("app", "issuer").port("http", 80, 8080).create()?;
        for name in ["members", "staff", "others"] {
            mesh.pod(name).label("app", name).app(["echo", "--port", "8080"]).start()?;
            mesh.service(name).selector("app", name).port("http", 80, 8080).create()?;
        }
        mesh.pod("gateway").label("istio", "ingressgateway").start()?;
        mesh.outsider("stranger")?;
        mesh.apply(
            "rules",
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: edge, namespace: default}\nspec:\n  \
             selector: {istio: ingressgateway}\n  servers: [{port: {number: 8080, name: http, protocol: HTTP}, hosts: ['*']}]\n---\n\
             apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: shop, namespace: default}\nspec:\n  \
             hosts: ['*']\n  gateways: [edge]\n  http:\n  \
             - {match: [{headers: {'@request.auth.claims[realm][roles]': {exact: staff}}}], route: [{destination: {host: staff}}]}\n  \
             - {match: [{headers: {'@request.auth.claims.group': {prefix: mem}}}], route: [{destination: {host: members}}]}\n  \
             - {match: [{withoutHeaders: {'@request.auth.claims.group': {exact: banned}}}], route: [{destination: {host: others}}]}\n",
        )?;
        mesh.start_agent()?;
        mesh.wait_applied()?;
        let url = format!("http://{}/", mesh.the("gateway")?.at(8080));
        let ask = |bearer: Option<&str>| {
            let request = mesh.http("stranger", &url)?;
            match bearer {
                Some(token) => request.header("authorization", &format!("Bearer {token}")).send(),
                None => request.send(),
            }
        };
        let staff = token(mesh, &json!({"group": "x", "realm": {"roles": ["reader", "staff"]}}))?;
        let member = token(mesh, &json!({"group": "members"}))?;
        let banned = token(mesh, &json!({"group": "banned"}))?;
        // Nobody looks at tokens: nobody has a claim.
        ensure!(ask(Some(&staff))?.app() == "others");
        mesh.apply_now(
            "tokens",
            &format!(
                "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: edge, namespace: default}}\nspec:\n  \
                 selector: {{matchLabels: {{istio: ingressgateway}}}}\n  jwtRules:\n  \
                 - {{issuer: '{ISSUER}', jwksUri: 'http://issuer.default.svc.cluster.local/keys'}}\n"
            ),
        )?;
        for (bearer, app) in [(Some(&*staff), "staff"), (Some(&member), "members"), (None, "others")] {
            let answer = ask(bearer)?;
            ensure!(answer.status == 200 && answer.app() == app, "{app}: {answer:?}");
        }
        ensure!(ask(Some(&banned))?.status == 404, "no route is for who is banned");
        let forged = format!("{}x", member.get(..member.len() - 4).context("a token")?);
        ensure!(ask(Some(&forged))?.status == 401);
        let told = mesh.explain("gateway", "http://shop.example:8080/", &[])?;
        ensure!(told.to_string().contains("no token was looked at"), "{told:#}");
        Ok(())
    });
}
