//! What the controller counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

/// Counters of the CA and the webhook.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    certificates: Family<Outcome, Counter>,
    reviews: Family<Outcome, Counter>,
    secrets: Family<Outcome, Counter>,
    /// Live pods that the CA knows.
    pub pods: Gauge,
    /// 1 in the replica that writes statuses.
    pub leader: Gauge,
}

impl Metrics {
    /// Everything at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("weft");
        let (certificates, reviews, secrets) = (Family::default(), Family::default(), Family::default());
        let (pods, leader) = (Gauge::default(), Gauge::default());
        registry.register("ca_certificates", "Requests for certificates, by result", certificates.clone());
        let help = "Secrets of gateways of which agents were told, by result";
        registry.register("gateway_secrets", help, secrets.clone());
        registry.register("ca_pods", "Live pods that the CA knows", pods.clone());
        registry.register("webhook_reviews", "Objects reviewed at admission, by result", reviews.clone());
        registry.register("controller_leader", "1 in the replica that writes statuses", leader.clone());
        Self { registry, certificates, reviews, secrets, pods, leader }
    }

    /// A request for a certificate has been answered.
    pub fn certificate(&self, code: tonic::Code) {
        let result = match code {
            tonic::Code::Ok => "signed",
            tonic::Code::Unauthenticated => "unauthenticated",
            tonic::Code::PermissionDenied => "denied",
            tonic::Code::InvalidArgument => "invalid",
            tonic::Code::Unavailable => "unavailable",
            _ => "failed",
        };
        self.certificates.get_or_create(&Outcome { result }).inc();
    }

    /// An agent was told of a Secret, or that it cannot have it.
    pub fn secret(&self, handed_over: bool) {
        let result = if handed_over { "handed_over" } else { "refused" };
        self.secrets.get_or_create(&Outcome { result }).inc();
    }

    /// An object has been reviewed.
    pub fn review(&self, result: &'static str) {
        self.reviews.get_or_create(&Outcome { result }).inc();
    }

    /// As Prometheus reads it.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
