//! Callers, what they send, and a world to send it to.

use std::net::IpAddr;

use weft_api::identity::Identity;
use weft_rules::claims::Claims;
use weft_rules::guard::{ConnectionVerdict, Guard, Inbound, InboundRequest, RequestVerdict};
use weft_rules::registry::protocol::Protocol;

use crate::support::World;

pub const WORLD: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp-db, port: 90, targetPort: db}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {serviceAccountName: web, containers: [{name: c, ports: [{name: db, containerPort: 9090}]}]}
status: {podIP: 10.1.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: far, namespace: shop, labels: {app: web}}
spec: {nodeName: n2}
status: {podIP: 10.2.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: other, namespace: other, labels: {app: web}}
status: {podIP: 10.1.0.2}
";

pub fn policy(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {name}, namespace: {namespace}}}
spec: {spec}
"
    )
}

/// A caller, and what it sends.
#[derive(Debug)]
pub struct Call {
    pub identity: Option<Identity>,
    pub peer: IpAddr,
    pub to: &'static str,
    pub sni: Option<&'static str>,
    pub request: http::request::Parts,
    pub remote: IpAddr,
    pub claims: Option<Claims>,
}

/// Frontend calls `GET http://web/a/b?c=d` with a header and a token.
pub fn call() -> Call {
    let request = http::Request::get("/a/b?c=d")
        .header("host", "Web.shop:8080")
        .header("x-role", "admin")
        .header("x-empty", "");
    let claims = serde_json::json!({
        "iss": "https://issuer.example", "sub": "jane", "aud": ["web", "api"], "azp": "app",
        "groups": ["staff", "dev"], "realm": {"roles": ["reader"]}, "level": 3,
    });
    let serde_json::Value::Object(all) = claims else { unreachable!() };
    Call {
        identity: Identity::parse("spiffe://cluster.local/ns/shop/sa/frontend"),
        peer: "10.1.0.9".parse().unwrap(),
        to: "10.1.0.1:8080",
        sni: Some("web.shop"),
        request: request.body(()).unwrap().into_parts().0,
        remote: "203.0.113.7".parse().unwrap(),
        claims: Some(Claims {
            issuer: "https://issuer.example".into(),
            principal: "https://issuer.example/jane".into(),
            all,
        }),
    }
}

/// The same without any proof of who calls, and without a token.
pub fn stranger() -> Call {
    Call { identity: None, claims: None, sni: None, ..call() }
}

impl Call {
    pub fn inbound(&self) -> Inbound<'_> {
        Inbound {
            identity: self.identity.as_ref(),
            peer: self.peer,
            to: self.to.parse().unwrap(),
            sni: self.sni,
        }
    }

    pub fn request(&self) -> InboundRequest<'_> {
        InboundRequest { head: &self.request, remote: self.remote, claims: self.claims.as_ref() }
    }

    pub fn may_request(&self, guard: &Guard) -> bool {
        guard.admit_request(&self.inbound(), &self.request()) == RequestVerdict::Allowed
    }

    pub fn connect(&self, guard: &Guard, protocol: Protocol) -> ConnectionVerdict {
        guard.admit_connection(&self.inbound(), protocol)
    }
}

/// A world with one policy for the web pod.
pub fn world(action: &str, rules: &str) -> World {
    World::of(&format!("{WORLD}{}", policy("shop", "p", &format!("{{action: {action}, rules: {rules}}}"))))
}

pub fn with_guard<T>(world: &World, pod: &str, ask: impl FnOnce(&Guard) -> T) -> T {
    ask(world.snapshot.guard(&world.pod(pod)).expect("a guard"))
}

pub fn from(source: &str) -> String {
    format!("{{from: [{{source: {{{source}}}}}]}}")
}

pub fn to(operation: &str) -> String {
    format!("{{to: [{{operation: {{{operation}}}}}]}}")
}

pub fn when(key: &str, values: &str) -> String {
    format!("{{when: [{{key: '{key}', {values}}}]}}")
}
