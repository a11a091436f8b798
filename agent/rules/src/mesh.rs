//! MeshConfig, reduced to what routing reads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use weft_api::kubernetes::ConfigMap;
use weft_api::mesh_config::{self, Normalization, OutboundMode};
use weft_api::settings::{self, HostOwnership};

use crate::compile::CompilerOptions;
use crate::guard::provider::Provider;
use crate::route::http_route::RetryPolicy;

/// Mesh-wide settings in force.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MeshSettings {
    /// `cluster.local`.
    pub(crate) cluster_domain: Arc<str>,
    /// `outboundTrafficPolicy.mode: REGISTRY_ONLY`.
    pub(crate) registry_only: bool,
    /// Where a DestinationRule says nothing.
    pub(crate) connect_timeout: Duration,
    /// Where a route says nothing; `None` switches retries off.
    pub(crate) retry: Option<Arc<RetryPolicy>>,
    /// What an absent `exportTo` means: everywhere when empty.
    pub(crate) service_export_to: Vec<String>,
    /// As above.
    pub(crate) virtual_service_export_to: Vec<String>,
    /// As above.
    pub(crate) destination_rule_export_to: Vec<String>,
    /// The mesh's own trust domain, then the names that count as it.
    pub(crate) trust_domains: Vec<Arc<str>>,
    /// Only a Service's own namespace, and the root, have rules for its host.
    pub(crate) host_ownership: bool,
    /// External authorizers by name.
    pub(crate) providers: BTreeMap<Box<str>, Arc<Provider>>,
    /// The form that paths take.
    pub(crate) paths: Normalization,
}

impl Default for MeshSettings {
    fn default() -> Self {
        Self {
            cluster_domain: "cluster.local".into(),
            registry_only: false,
            connect_timeout: Duration::from_secs(10),
            retry: Some(Arc::new(RetryPolicy::default())),
            service_export_to: Vec::new(),
            virtual_service_export_to: Vec::new(),
            destination_rule_export_to: Vec::new(),
            trust_domains: Vec::new(),
            host_ownership: false,
            providers: BTreeMap::new(),
            paths: Normalization::default(),
        }
    }
}

impl MeshSettings {
    /// Reads MeshConfig and weft's own settings, each from the first ConfigMap that has its key; without one, all is as by
    /// default. `None`: it cannot be read, and what was in force stays so.
    pub(crate) fn read(maps: &[&ConfigMap], options: &CompilerOptions) -> Option<Self> {
        let mut defaults = Self { cluster_domain: options.cluster_domain.as_str().into(), ..Self::default() };
        defaults.trust_domains.push(options.trust_domain.as_str().into());
        if let Some(own) = maps.iter().find_map(|map| settings::read(map).transpose()) {
            defaults.host_ownership = own.ok()?.host_ownership == HostOwnership::Namespace;
        }
        let Some(read) = maps.iter().find_map(|map| mesh_config::read(map)) else { return Some(defaults) };
        let config = read.config?;
        let retry = match &config.default_http_retry_policy {
            Some(policy) => RetryPolicy::compile(policy).map(Arc::new),
            None => defaults.retry.clone(),
        };
        let mut trust_domains = defaults.trust_domains.clone();
        for alias in &config.trust_domain_aliases {
            if !alias.is_empty() && !trust_domains.iter().any(|known| **known == **alias) {
                trust_domains.push(alias.as_str().into());
            }
        }
        let providers = config.extension_providers.iter().filter_map(|provider| {
            Some((provider.name.as_str().into(), Arc::new(Provider::compile(provider)?)))
        });
        Some(Self {
            trust_domains,
            providers: providers.collect(),
            paths: config.path_normalization.normalization,
            registry_only: config.outbound_traffic_policy.mode == OutboundMode::RegistryOnly,
            retry,
            service_export_to: config.default_service_export_to,
            virtual_service_export_to: config.default_virtual_service_export_to,
            destination_rule_export_to: config.default_destination_rule_export_to,
            ..defaults
        })
    }
}
