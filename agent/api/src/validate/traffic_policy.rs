//! `trafficPolicy`, of a rule, a subset or a port.

use std::collections::HashSet;

use super::Report;
use super::text::{is_ip, wrong_host};
use crate::finding::code;
use crate::istio::{
    ClientTlsSettings, ConnectionPoolSettings, ConsistentHash, LoadBalancerSettings, LocalityLbSetting,
    OutlierDetection, PortTrafficPolicy, SimpleLb, TlsMode, TrafficPolicy, TunnelSettings, Warmup,
};

/// Largest table of Maglev.
const MAX_MAGLEV: u64 = 5_000_011;

/// Checks a field `trafficPolicy`, if it is there.
pub(super) fn check(report: &mut Report, policy: Option<&TrafficPolicy>) {
    let Some(policy) = policy else { return };
    report.field("trafficPolicy", |report| {
        if *policy == TrafficPolicy::default() {
            return report
                .error(code::MISSING_FIELD, "the policy is empty (take it away, or say what it is for)");
        }
        parts(
            report,
            policy.load_balancer.as_ref(),
            policy.connection_pool.as_ref(),
            policy.outlier_detection.as_ref(),
            policy.tls.as_ref(),
        );
        report.at_most("portLevelSettings", policy.port_level_settings.len(), 4096);
        let mut ports = HashSet::new();
        report.each("portLevelSettings", &policy.port_level_settings, |r, one| {
            port_policy(r, one);
            if let Some(port) = one.port.as_ref().filter(|port| !ports.insert(port.number)) {
                r.field("port", |r| {
                    r.error(code::DUPLICATE_NAME, format!("port {} is there twice", port.number));
                });
            }
        });
        report.field("tunnel", |r| policy.tunnel.iter().for_each(|it| tunnel(r, it)));
        if let Some(protocol) = &policy.proxy_protocol {
            report.field("proxyProtocol", |r| {
                r.word_field("version", protocol.version.as_deref(), &["V1", "V2"]);
            });
        }
        if let Some(budget) = &policy.retry_budget {
            report.field("retryBudget", |r| {
                if let Some(percent) = budget.percent.filter(|percent| !(0.0..=100.0).contains(percent)) {
                    r.field("percent", |r| r.error(code::INVALID_PERCENTAGE, not_a_share(percent)));
                }
                r.duration_field("budgetInterval", budget.budget_interval);
            });
        }
    });
}

fn not_a_share(percent: f64) -> String {
    format!("{percent} is no share in percent (choose 0 to 100)")
}

fn port_policy(report: &mut Report, policy: &PortTrafficPolicy) {
    match &policy.port {
        None => report.field("port", |r| {
            r.error(code::MISSING_FIELD, "which port is missing (write port: {number: 80})");
        }),
        Some(port) => report.field("port", |r| r.field("number", |r| r.port(port.number))),
    }
    if *policy == (PortTrafficPolicy { port: policy.port.clone(), ..PortTrafficPolicy::default() }) {
        report.error(code::MISSING_FIELD, "the port's policy is empty (take it away, or say what it is for)");
    }
    parts(
        report,
        policy.load_balancer.as_ref(),
        policy.connection_pool.as_ref(),
        policy.outlier_detection.as_ref(),
        policy.tls.as_ref(),
    );
}

/// What a rule's policy and a port's have in common.
fn parts(
    report: &mut Report,
    balancer: Option<&LoadBalancerSettings>,
    pool: Option<&ConnectionPoolSettings>,
    outlier: Option<&OutlierDetection>,
    tls: Option<&ClientTlsSettings>,
) {
    report.field("loadBalancer", |r| balancer.iter().for_each(|it| load_balancer(r, it, outlier.is_some())));
    report.field("connectionPool", |r| pool.iter().for_each(|it| connection_pool(r, it)));
    report.field("outlierDetection", |r| outlier.iter().for_each(|it| outlier_detection(r, it)));
    report.field("tls", |r| tls.iter().for_each(|it| self::tls(r, it)));
}

fn load_balancer(report: &mut Report, balancer: &LoadBalancerSettings, has_outlier: bool) {
    if balancer.simple.is_some() && balancer.consistent_hash.is_some() {
        report.error(
            code::CONFLICTING_FIELDS,
            "a load balancer is either simple or a consistentHash (keep one)",
        );
    }
    if balancer.simple == Some(SimpleLb::LeastConn) {
        report.field("simple", |r| {
            r.warning(code::DEPRECATED_FIELD, "LEAST_CONN is an old name (write LEAST_REQUEST)");
        });
    }
    report.field("consistentHash", |r| balancer.consistent_hash.iter().for_each(|it| consistent_hash(r, it)));
    report.field("localityLbSetting", |r| {
        balancer.locality_lb_setting.iter().for_each(|it| locality(r, it, has_outlier));
    });
    if balancer.zone_aware_lb_setting.as_ref().is_some_and(|zones| zones.min_cluster_size == Some(0)) {
        report.field("zoneAwareLbSetting", |r| {
            r.field("minClusterSize", |r| {
                r.error(code::INVALID_VALUE, "0 endpoints are no cluster (choose 1 or more)");
            });
        });
    }
    report.duration_field("warmupDurationSecs", balancer.warmup_duration_secs);
    if balancer.warmup_duration_secs.is_some() {
        report.field("warmupDurationSecs", |r| {
            r.warning(code::DEPRECATED_FIELD, "an old field (use warmup.duration)");
        });
    }
    report.field("warmup", |r| balancer.warmup.iter().for_each(|it| warmup(r, it)));
}

fn warmup(report: &mut Report, warmup: &Warmup) {
    match warmup.duration {
        None => report.field("duration", |r| r.error(code::MISSING_FIELD, "how long it takes is missing")),
        span => report.duration_field("duration", span),
    }
    if let Some(percent) = warmup.minimum_percent.filter(|percent| !(0.0..=100.0).contains(percent)) {
        report.field("minimumPercent", |r| {
            r.error(code::INVALID_PERCENTAGE, not_a_share(percent));
        });
    }
    if let Some(aggression) =
        warmup.aggression.filter(|aggression| !(*aggression >= 1.0 && aggression.is_finite()))
    {
        report.field("aggression", |r| r.error(code::INVALID_VALUE, format!("{aggression} is less than 1")));
    }
}

fn consistent_hash(report: &mut Report, hash: &ConsistentHash) {
    let keys = [
        hash.http_header_name.is_some(),
        hash.http_cookie.is_some(),
        hash.use_source_ip.is_some(),
        hash.http_query_parameter_name.is_some(),
    ];
    let keys = keys.into_iter().filter(|set| *set).count();
    if keys != 1 {
        let code = if keys == 0 { code::MISSING_FIELD } else { code::CONFLICTING_FIELDS };
        report.error(
            code,
            format!("{keys} keys to hash by (write one of httpHeaderName, httpCookie, useSourceIp, httpQueryParameterName)"),
        );
    }
    if hash.http_cookie.as_ref().is_some_and(|cookie| cookie.name.is_empty()) {
        report.field("httpCookie", |r| {
            r.field("name", |r| r.error(code::MISSING_FIELD, "the cookie has no name"));
        });
    }
    let algorithms = [hash.ring_hash.is_some(), hash.maglev.is_some(), hash.minimum_ring_size.is_some()];
    if algorithms.into_iter().filter(|set| *set).count() > 1 {
        report.error(
            code::CONFLICTING_FIELDS,
            "more than one of ringHash, maglev and minimumRingSize (keep one)",
        );
    }
    if hash.minimum_ring_size.is_some() {
        report.field("minimumRingSize", |r| {
            r.warning(code::DEPRECATED_FIELD, "an old field (use ringHash.minimumRingSize)");
        });
    }
    if let Some(size) = hash.maglev.as_ref().and_then(|maglev| maglev.table_size)
        && (size >= MAX_MAGLEV || !is_prime(size))
    {
        report.field("maglev", |r| {
            r.field("tableSize", |r| {
                r.error(
                    code::INVALID_VALUE,
                    format!("{size} is no prime below {MAX_MAGLEV} (65537 is usual)"),
                );
            });
        });
    }
}

/// By trial, for numbers below [`MAX_MAGLEV`].
fn is_prime(number: u64) -> bool {
    const LARGEST_FACTOR: u64 = 2237;
    number >= 2
        && (2..=LARGEST_FACTOR)
            .filter(|factor| factor * factor <= number)
            .all(|factor| !number.is_multiple_of(factor))
}

fn locality(report: &mut Report, setting: &LocalityLbSetting, has_outlier: bool) {
    if !setting.distribute.is_empty() && !setting.failover.is_empty() {
        report.error(code::CONFLICTING_FIELDS, "distribute and failover exclude each other (keep one)");
    }
    report.each("distribute", &setting.distribute, |r, one| {
        let total: u64 = one.to.values().map(|weight| u64::from(*weight)).sum();
        if total != 100 || one.to.values().any(|weight| *weight == 0) {
            r.field("to", |r| {
                r.error(code::INVALID_WEIGHT, format!("weights of 1 to 100 must sum up to 100, not {total}"));
            });
        }
    });
    report.each("failover", &setting.failover, |r, one| {
        if one.from == one.to {
            r.error(code::INVALID_VALUE, "from and to are the same region");
        }
        if [&one.from, &one.to].into_iter().any(|region| region.contains(['/', '*'])) {
            r.error(code::INVALID_VALUE, "from and to are regions, without zone and wildcard");
        }
    });
    if (!setting.failover.is_empty() || !setting.failover_priority.is_empty()) && !has_outlier {
        report.warning(code::NO_EFFECT, "failover needs an outlierDetection beside the load balancer");
    }
}

fn connection_pool(report: &mut Report, pool: &ConnectionPoolSettings) {
    if pool.tcp.is_none() && pool.http.is_none() {
        report.error(code::MISSING_FIELD, "the pool is empty (write tcp or http)");
    }
    if let Some(tcp) = &pool.tcp {
        report.field("tcp", |r| {
            r.natural_field("maxConnections", tcp.max_connections);
            r.duration_field("connectTimeout", tcp.connect_timeout);
            r.duration_field("maxConnectionDuration", tcp.max_connection_duration);
            r.duration_field("idleTimeout", tcp.idle_timeout);
            if let Some(keepalive) = &tcp.tcp_keepalive {
                r.field("tcpKeepalive", |r| {
                    r.duration_field("time", keepalive.time);
                    r.duration_field("interval", keepalive.interval);
                });
            }
        });
    }
    if let Some(http) = &pool.http {
        report.field("http", |r| {
            r.natural_field("http1MaxPendingRequests", http.http1_max_pending_requests);
            r.natural_field("http2MaxRequests", http.http2_max_requests);
            r.natural_field("maxRequestsPerConnection", http.max_requests_per_connection);
            r.natural_field("maxRetries", http.max_retries);
            r.natural_field("maxConcurrentStreams", http.max_concurrent_streams);
            r.duration_field("idleTimeout", http.idle_timeout);
            if let Some(alive) = &http.http2_keep_alive {
                r.field("http2KeepAlive", |r| {
                    r.duration_field("interval", alive.interval);
                    r.duration_field("timeout", alive.timeout);
                });
            }
            let upgrade = http.h2_upgrade_policy.as_deref();
            r.word_field("h2UpgradePolicy", upgrade, &["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"]);
            if upgrade == Some("UPGRADE") && http.use_client_protocol == Some(true) {
                r.error(
                    code::CONFLICTING_FIELDS,
                    "useClientProtocol and h2UpgradePolicy UPGRADE exclude each other",
                );
            }
        });
    }
}

fn outlier_detection(report: &mut Report, outlier: &OutlierDetection) {
    report.duration_field("interval", outlier.interval);
    report.duration_field("baseEjectionTime", outlier.base_ejection_time);
    report.percent_field("maxEjectionPercent", outlier.max_ejection_percent);
    report.percent_field("minHealthPercent", outlier.min_health_percent);
    report.natural_field("consecutiveErrors", outlier.consecutive_errors);
    report.each(
        "outlierDetectionHttpErrorCodes",
        &outlier.outlier_detection_http_error_codes,
        |r, status| {
            if !(100..=599).contains(status) {
                r.error(code::INVALID_VALUE, format!("{status} is no HTTP status (choose 100 to 599)"));
            }
        },
    );
    if outlier.consecutive_errors.is_some() {
        report.field("consecutiveErrors", |r| {
            r.warning(
                code::DEPRECATED_FIELD,
                "an old field (use consecutive5xxErrors or consecutiveGatewayErrors)",
            );
        });
    }
    let local = outlier.consecutive_local_origin_failures.is_some_and(|failures| failures > 0);
    if local && outlier.split_external_local_origin_errors != Some(true) {
        report.field("consecutiveLocalOriginFailures", |r| {
            r.error(code::CONFLICTING_FIELDS, "not counted unless splitExternalLocalOriginErrors is true");
        });
    }
}

fn tunnel(report: &mut Report, tunnel: &TunnelSettings) {
    report.word_field("protocol", tunnel.protocol.as_deref(), &["CONNECT", "POST"]);
    report.field("targetHost", |r| {
        if tunnel.target_host.starts_with('*') {
            r.error(code::INVALID_HOST, "a tunnel leads to one host, not to a wildcard");
        } else if let Some(wrong) = wrong_host(&tunnel.target_host).filter(|_| !is_ip(&tunnel.target_host)) {
            r.error(code::INVALID_HOST, wrong);
        }
    });
    report.field("targetPort", |r| r.port(tunnel.target_port));
}

fn tls(report: &mut Report, tls: &ClientTlsSettings) {
    let set = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    let files = [
        ("clientCertificate", set(&tls.client_certificate)),
        ("privateKey", set(&tls.private_key)),
        ("caCertificates", set(&tls.ca_certificates)),
        ("caCrl", set(&tls.ca_crl)),
    ];
    let forbid = |report: &mut Report, names: &[(&'static str, bool)], why: &str| {
        for (name, _) in names.iter().filter(|(_, set)| *set) {
            report.field(*name, |r| r.error(code::CONFLICTING_FIELDS, format!("{why} (take it away)")));
        }
    };
    let credential = ("credentialName", set(&tls.credential_name));
    let own = matches!(tls.mode, Some(TlsMode::Simple | TlsMode::Mutual));
    match tls.mode {
        None => report.warning(code::NO_EFFECT, "tls without a mode is read as DISABLE (write the mode)"),
        Some(TlsMode::IstioMutual) => {
            forbid(report, &files, "ISTIO_MUTUAL uses the mesh's certificates");
            forbid(report, &[credential], "ISTIO_MUTUAL uses the mesh's certificates");
        }
        Some(TlsMode::Mutual) if !credential.1 => {
            for (name, _) in files.iter().take(2).filter(|(_, set)| !*set) {
                report.field(*name, |r| {
                    r.error(
                        code::MISSING_FIELD,
                        "MUTUAL needs a certificate and its key (or credentialName)",
                    );
                });
            }
        }
        _ => {}
    }
    if own && credential.1 {
        forbid(report, &files, "credentialName names the certificates already");
    }
    if own && tls.insecure_skip_verify == Some(true) {
        let names = [("caCertificates", files[2].1), ("subjectAltNames", !tls.subject_alt_names.is_empty())];
        forbid(report, &names, "insecureSkipVerify accepts any certificate");
    }
}
