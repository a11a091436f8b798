//! The flags of `weft agent` that say how much it may hold for others.

use clap::Args;
use weft_limits::LimitOptions;

/// How much the agent may hold for others; docs/limits.md tells of all bounds.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
#[expect(clippy::struct_field_names, reason = "they are called as the flags are")]
pub struct LimitArgs {
    /// Memory that the agent may have (512Mi, 1Gi); near it load is shed [default: the limit of its control group, else a
    /// quarter of the machine's]
    #[arg(long, value_name = "SIZE", env = "WEFT_LIMIT_MEMORY", value_parser = size)]
    limit_memory: Option<u64>,
    /// Memory for connections, requests and their headers [default: three eighths of --limit-memory]
    #[arg(long, value_name = "SIZE", env = "WEFT_LIMIT_STANDING", value_parser = size)]
    limit_standing: Option<u64>,
    /// Memory for bodies that were read and not written yet [default: a quarter of --limit-memory]
    #[arg(long, value_name = "SIZE", env = "WEFT_LIMIT_BUFFERED", value_parser = size)]
    limit_buffered: Option<u64>,
    /// File descriptors for connections [default: three quarters of what the process may have]
    #[arg(long, value_name = "N", env = "WEFT_LIMIT_DESCRIPTORS")]
    limit_descriptors: Option<u64>,
    /// Memory for VirtualServices and the other rules and policies of all namespaces, as docs/limits.md estimates it; a
    /// namespace may have a quarter [default: 128Mi]
    #[arg(long, value_name = "SIZE", env = "WEFT_LIMIT_RULES", value_parser = size)]
    limit_rules: Option<u64>,
    /// Memory for Services and EndpointSlices; a namespace may have three eighths [default: 256Mi]
    #[arg(long, value_name = "SIZE", env = "WEFT_LIMIT_ENDPOINTS", value_parser = size)]
    limit_endpoints: Option<u64>,
    /// Instructions of regular expressions; a namespace may have an eighth [default: 1048576]
    #[arg(long, value_name = "N", env = "WEFT_LIMIT_REGEX")]
    limit_regex: Option<u64>,
    /// Part of memory and descriptors of connections that one pod may have, in hundredths; a gateway twice that [default: 25]
    #[arg(long, value_name = "PERCENT", env = "WEFT_LIMIT_POD", value_parser = clap::value_parser!(u8).range(1..=100))]
    limit_pod: Option<u8>,
    /// Part that whoever connects to a pod may have there [default: 12]
    #[arg(long, value_name = "PERCENT", env = "WEFT_LIMIT_PEER", value_parser = clap::value_parser!(u8).range(1..=100))]
    limit_peer: Option<u8>,
    /// Part that the pods of one namespace may have [default: 50]
    #[arg(long, value_name = "PERCENT", env = "WEFT_LIMIT_NAMESPACE",
          value_parser = clap::value_parser!(u8).range(1..=100))]
    limit_namespace: Option<u8>,
}

impl LimitArgs {
    /// What was told.
    pub fn options(&self) -> LimitOptions {
        LimitOptions {
            memory: self.limit_memory,
            standing: self.limit_standing,
            buffered: self.limit_buffered,
            descriptors: self.limit_descriptors,
            rules: self.limit_rules,
            endpoints: self.limit_endpoints,
            regex_instructions: self.limit_regex,
            pod_percent: self.limit_pod,
            peer_percent: self.limit_peer,
            namespace_percent: self.limit_namespace,
        }
    }
}

/// Reads `512Mi`, `1Gi`, `300M`, `1000000`, as Kubernetes writes sizes.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale: u64 = match unit {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return Err(format!("{text:?} has no unit that is known (Ki, Mi, Gi, k, M, G)")),
    };
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is no size (write 512Mi)"))?;
    number.checked_mul(scale).ok_or_else(|| format!("{text:?} is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_as_kubernetes_writes_them() {
        let sizes = ["512Mi", "1Gi", "300M", "7"].map(size);
        assert_eq!(sizes, [Ok(512 << 20), Ok(1 << 30), Ok(300_000_000), Ok(7)]);
        for wrong in ["", "Mi", "1.5Gi", "-1", "1TB", "99999999999Gi"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
