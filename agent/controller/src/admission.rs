//! What the validating webhook says about an object: the same as `weft analyze` about a file with that object alone.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use weft_api::finding::{Finding, code};
use weft_api::load::load;
use weft_api::printable::printable;

/// `admission.k8s.io/v1` AdmissionReview, as far as it is read.
#[derive(Debug, Deserialize)]
pub struct Review {
    /// Absent in an answer.
    pub request: Option<Request>,
}

/// What the API server asks.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Request {
    /// Comes back in the answer.
    pub uid: String,
    /// `CREATE`, `UPDATE`, `DELETE`, `CONNECT`.
    pub operation: String,
    /// Where the object is.
    pub namespace: String,
    /// The object; null for deletes.
    pub object: Value,
    /// What it was before an update.
    pub old_object: Value,
}

/// The answer.
#[derive(Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// Whether it may pass.
    pub allowed: bool,
    /// Why not: one finding on each line.
    pub refusal: Option<String>,
    /// Shown by kubectl.
    pub warnings: Vec<String>,
}

/// How the API server calls an answer with this reason.
const UNPROCESSABLE: u16 = 422;

impl Verdict {
    fn allowed() -> Self {
        Self { allowed: true, refusal: None, warnings: Vec::new() }
    }

    /// For the counters.
    pub fn result(&self) -> &'static str {
        match (self.allowed, self.warnings.is_empty()) {
            (true, true) => "allowed",
            (true, false) => "warned",
            (false, _) => "refused",
        }
    }

    /// As the API server reads it.
    pub fn to_review(&self, uid: &str) -> Value {
        let mut response = json!({ "uid": uid, "allowed": self.allowed });
        if let Some(refusal) = &self.refusal {
            response["status"] = json!({ "status": "Failure", "message": refusal, "reason": "Invalid", "code": UNPROCESSABLE });
        }
        if !self.warnings.is_empty() {
            response["warnings"] = json!(self.warnings);
        }
        json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response })
    }
}

/// Decides about one request.
pub fn decide(request: Request) -> Verdict {
    if !matches!(request.operation.as_str(), "CREATE" | "UPDATE") || !request.object.is_object() {
        return Verdict::allowed();
    }
    let unchanged =
        request.operation == "UPDATE" && request.object.get("spec") == request.old_object.get("spec");
    let findings = findings(request.object, &request.namespace);
    let (errors, warnings): (Vec<_>, Vec<_>) = findings.iter().partition(|finding| refuses(finding));
    let lines = |findings: &[&Finding]| findings.iter().map(|finding| line(finding)).collect::<Vec<_>>();
    // An object from before weft must still be able to lose a finalizer or a label, and to be deleted.
    if errors.is_empty() || unchanged {
        let all: Vec<_> = errors.into_iter().chain(warnings).collect();
        return Verdict { warnings: lines(&all), ..Verdict::allowed() };
    }
    let refusal = lines(&errors).into_iter().chain(lines(&warnings)).collect::<Vec<_>>().join("\n");
    Verdict { allowed: false, refusal: Some(refusal), warnings: Vec::new() }
}

/// What weft will never have, another mesh of the cluster may: its users are told, and not kept from it.
fn refuses(finding: &Finding) -> bool {
    finding.is_error() && finding.code != code::UNSUPPORTED_KIND
}

/// What is wrong with an object that stands alone; nothing, for kinds that are somebody else's.
pub fn findings(mut object: Value, namespace: &str) -> Vec<Finding> {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        // The name is made after admission, and the namespace may be told by the URL alone.
        let generated =
            metadata.get("generateName").and_then(Value::as_str).map(|prefix| format!("{prefix}x"));
        if let Some(name) = generated {
            metadata.entry("name").or_insert(Value::String(name));
        }
        if !namespace.is_empty() {
            metadata.entry("namespace").or_insert_with(|| namespace.into());
        }
        // Long, and nothing of the user's.
        metadata.remove("managedFields");
    }
    load("", &object.to_string()).findings()
}

/// `spec.http[0].timeout: 5 has no unit (write 5s for seconds, or 1h, 1m, 1ms) [InvalidDuration]`: the API server names
/// the object itself.
pub fn line(finding: &Finding) -> String {
    let message = finding.message.replace(['\n', '\r'], " ");
    let (message, path) = (printable(&message), printable(&finding.path));
    let code = &finding.code;
    if path.is_empty() { format!("{message} [{code}]") } else { format!("{path}: {message} [{code}]") }
}

#[cfg(test)]
mod tests;
