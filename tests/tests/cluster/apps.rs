//! Deployments of the test application, as people would write them.

use std::fmt::Write as _;

/// A Deployment to be written.
#[derive(Debug, Clone)]
pub struct App<'a> {
    name: &'a str,
    label: &'a str,
    version: &'a str,
    words: Vec<&'a str>,
    port: u16,
    replicas: u32,
    node: Option<&'a str>,
    account: Option<&'a str>,
    probe: Option<&'a str>,
    grace: u32,
}

impl<'a> App<'a> {
    /// A pod that runs `weft-app WORDS… --port PORT`, labelled `app` and `version: v1`.
    pub fn new(name: &'a str, words: &[&'a str], port: u16) -> Self {
        Self {
            name,
            label: name,
            version: "v1",
            words: words.to_vec(),
            port,
            replicas: 1,
            node: None,
            account: None,
            probe: None,
            grace: 1,
        }
    }

    /// The label `app`, where it is not the Deployment's name.
    pub fn app(self, app: &'a str) -> Self {
        Self { label: app, ..self }
    }

    /// The label `version`, which answers name.
    pub fn version(self, version: &'a str) -> Self {
        Self { version, ..self }
    }

    /// How many pods, spread over the nodes.
    pub fn replicas(self, replicas: u32) -> Self {
        Self { replicas, ..self }
    }

    /// The node that it must be on.
    pub fn on(self, node: &'a str) -> Self {
        Self { node: Some(node), ..self }
    }

    /// Its service account, which is made too.
    pub fn account(self, account: &'a str) -> Self {
        Self { account: Some(account), ..self }
    }

    /// Liveness and readiness by HTTP on this path.
    pub fn probe(self, path: &'a str) -> Self {
        Self { probe: Some(path), ..self }
    }

    /// It serves on for a moment after it was told to end, as applications behind a Service should.
    pub fn lingers(self) -> Self {
        Self { grace: 8, ..self }
    }

    /// The Deployment, and its ServiceAccount.
    pub fn yaml(&self) -> String {
        let mut yaml = String::new();
        if let Some(account) = self.account {
            let _ =
                writeln!(yaml, "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {account}}}");
        }
        let words: Vec<String> = self.words.iter().map(|word| format!("{word:?}")).collect();
        let named = if self.words[0].starts_with("tcp") || self.words[0] == "greet" {
            String::new()
        } else {
            format!(", --name, $(POD), --version, {}", self.version)
        };
        let _ = write!(
            yaml,
            "---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {app}, version: {version}}}}}
  strategy: {{rollingUpdate: {{maxUnavailable: 0, maxSurge: 1}}}}
  template:
    metadata: {{labels: {{app: {app}, version: {version}}}}}
    spec:
      terminationGracePeriodSeconds: {grace}
      serviceAccountName: {account}
      topologySpreadConstraints:
      - {{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {{matchLabels: {{app: {app}, version: {version}}}}}}}
      containers:
      - name: app
        image: weft.dev/app:0.1.0
        imagePullPolicy: IfNotPresent
        args: [{words}, --port, \"{port}\"{named}]
        env:
        - {{name: POD, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
        ports: [{{name: main, containerPort: {port}}}]
",
            name = self.name,
            replicas = self.replicas,
            app = self.label,
            version = self.version,
            grace = self.grace,
            account = self.account.unwrap_or("default"),
            words = words.join(", "),
            port = self.port,
        );
        if let Some(path) = self.probe {
            for (probe, period) in [("readinessProbe", 1), ("livenessProbe", 2)] {
                let _ = writeln!(
                    yaml,
                    "        {probe}: {{httpGet: {{path: {path}, port: main}}, periodSeconds: {period}}}"
                );
            }
        } else {
            yaml.push_str("        readinessProbe: {tcpSocket: {port: main}, periodSeconds: 1}\n");
        }
        if self.grace > 1 {
            yaml.push_str("        lifecycle: {preStop: {sleep: {seconds: 4}}}\n");
        }
        if let Some(node) = self.node {
            let _ = writeln!(yaml, "      nodeName: {node}");
        }
        yaml
    }
}

/// A Service for the pods with this label `app`.
pub fn service(name: &str, app: &str, port_name: &str, port: u16, target: u16) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  selector: {{app: {app}}}\n  \
         ports: [{{name: {port_name:?}, port: {port}, targetPort: {target}}}]\n"
    )
}

/// Somebody who asks: does nothing by itself.
pub fn client<'a>(name: &'a str, node: &'a str) -> App<'a> {
    App::new(name, &["echo"], 8080).on(node)
}
