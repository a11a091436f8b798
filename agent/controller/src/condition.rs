//! What the status of an Istio object says about weft: one condition beside those of others.

use serde_json::{Value, json};
use weft_api::finding::Finding;
use weft_api::names::ACCEPTED_CONDITION;

use crate::admission::line;

/// The longest message: 32 findings fit, and a status stays small.
const LONGEST: usize = 4 << 10;

/// Whether an object is accepted, and what is to say about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it is in force.
    pub accepted: bool,
    /// A finding on each line.
    pub message: String,
    /// Of the object.
    pub generation: i64,
}

impl Verdict {
    /// What the findings of an object mean.
    pub fn new(findings: &[Finding], generation: i64) -> Self {
        let accepted = !findings.iter().any(Finding::is_error);
        let told = findings.iter().filter(|finding| accepted || finding.is_error());
        let message = told.map(line).collect::<Vec<_>>().join("\n");
        Self { accepted, message: cut(message, LONGEST), generation }
    }

    /// `Accepted` or `Refused`.
    pub fn reason(&self) -> &'static str {
        if self.accepted { "Accepted" } else { "Refused" }
    }

    fn status(&self) -> &'static str {
        if self.accepted { "True" } else { "False" }
    }

    /// The conditions of an object with this verdict among them, at `now` in RFC 3339; `None`: it is there already.
    pub fn among(&self, conditions: &[Value], now: &str) -> Option<Vec<Value>> {
        let ours = |condition: &&Value| condition["type"] == ACCEPTED_CONDITION;
        let before = conditions.iter().find(ours);
        let mut fresh = json!({
            "type": ACCEPTED_CONDITION,
            "status": self.status(),
            "reason": self.reason(),
            "message": self.message,
            "observedGeneration": self.generation,
        });
        let since = before.filter(|before| before["status"] == fresh["status"]);
        fresh["lastTransitionTime"] =
            since.and_then(|before| before.get("lastTransitionTime").cloned()).unwrap_or_else(|| json!(now));
        if before == Some(&fresh) {
            return None;
        }
        let others = conditions.iter().filter(|condition| !ours(condition)).cloned();
        Some(others.chain([fresh]).collect())
    }

    /// Whether the conditions of an object say the same already, but for its generation.
    pub fn is_news_to(&self, conditions: &[Value]) -> bool {
        let before = conditions.iter().find(|condition| condition["type"] == ACCEPTED_CONDITION);
        before.is_none_or(|before| before["status"] != self.status() || before["message"] != self.message)
    }
}

/// At most so many bytes of a text.
pub fn cut(mut text: String, longest: usize) -> String {
    if text.len() > longest {
        let mark = "…";
        text.truncate(text.floor_char_boundary(longest - mark.len()));
        text += mark;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::findings;

    const NOW: &str = "2026-11-21T12:00:00Z";

    fn verdict(timeout: &str) -> Verdict {
        let object = json!({
            "apiVersion": "networking.istio.io/v1beta1",
            "kind": "VirtualService",
            "metadata": { "name": "cart", "namespace": "shop" },
            "spec": { "hosts": ["cart"], "http": [{ "timeout": timeout, "route": [{ "destination": { "host": "cart" } }] }] },
        });
        Verdict::new(&findings(object, ""), 3)
    }

    #[test]
    fn a_good_object_is_accepted_and_a_bad_one_refused() {
        let good = verdict("5s").among(&[], NOW).unwrap();
        assert_eq!(good[0]["status"], "True");
        assert_eq!(good[0]["observedGeneration"], 3);
        let bad = verdict("5").among(&[], NOW).unwrap();
        assert_eq!((&bad[0]["status"], &bad[0]["reason"]), (&json!("False"), &json!("Refused")));
        assert!(bad[0]["message"].as_str().unwrap().starts_with("spec.http[0].timeout: "), "{bad:?}");
    }

    #[test]
    fn what_is_said_already_is_not_said_again() {
        let istios = json!({ "type": "Reconciled", "status": "True" });
        let first = verdict("5s").among(std::slice::from_ref(&istios), NOW).unwrap();
        assert_eq!(first[0], istios, "others' conditions stay");
        let later = "2026-11-21T13:00:00Z";
        assert_eq!(verdict("5s").among(&first, later), None);
        let changed = verdict("5").among(&first, later).unwrap();
        assert_eq!((changed.len(), &changed[1]["lastTransitionTime"]), (2, &json!(later)));
        let next = Verdict { generation: 4, ..verdict("5") }.among(&changed, "2026-11-21T14:00:00Z").unwrap();
        assert_eq!(next[1]["lastTransitionTime"], later, "still refused");
    }

    #[test]
    fn news_is_what_a_user_has_not_been_told() {
        let refused = verdict("5").among(&[], NOW).unwrap();
        assert!(verdict("5").is_news_to(&[]));
        assert!(verdict("5s").is_news_to(&refused));
        assert!(!Verdict { generation: 9, ..verdict("5") }.is_news_to(&refused));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("äää".to_owned(), 6), "äää");
        assert_eq!(cut("ääää".to_owned(), 6), "ä…");
    }
}
