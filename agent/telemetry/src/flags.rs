//! Envoy's response flags.

/// Envoy's response flags, those that weft sets. Several may hold.
/// Source: Envoy's access log documentation, `%RESPONSE_FLAGS%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseFlag {
    /// `UH`: no healthy endpoint.
    NoHealthyUpstream,
    /// `UF`: the connection to the endpoint failed.
    UpstreamConnectionFailure,
    /// `UT`: the request timed out.
    UpstreamRequestTimeout,
    /// `UC`: the endpoint closed the connection.
    UpstreamConnectionTermination,
    /// `UR`: the endpoint reset the stream.
    UpstreamRemoteReset,
    /// `URX`: the retry limit was reached.
    UpstreamRetryLimitExceeded,
    /// `UO`: a bound of the agent was reached.
    UpstreamOverflow,
    /// `NR`: no route matched.
    NoRouteFound,
    /// `NC`: the destination does not exist.
    NoClusterFound,
    /// `DC`: the client went away.
    DownstreamConnectionTermination,
    /// `DI`: a delay was injected.
    DelayInjected,
    /// `FI`: an abort was injected.
    FaultInjected,
    /// `UAEX`: an external authorizer refused.
    UnauthorizedExternalService,
    /// `DPE`: the client broke the protocol.
    DownstreamProtocolError,
    /// `UPE`: the endpoint broke the protocol.
    UpstreamProtocolError,
}

/// All flags in the order in which Envoy writes them (its `CORE_RESPONSE_FLAGS`).
const ORDER: [(ResponseFlag, &str); 15] = [
    (ResponseFlag::NoHealthyUpstream, "UH"),
    (ResponseFlag::UpstreamRequestTimeout, "UT"),
    (ResponseFlag::UpstreamRemoteReset, "UR"),
    (ResponseFlag::UpstreamConnectionFailure, "UF"),
    (ResponseFlag::UpstreamConnectionTermination, "UC"),
    (ResponseFlag::UpstreamOverflow, "UO"),
    (ResponseFlag::NoRouteFound, "NR"),
    (ResponseFlag::DelayInjected, "DI"),
    (ResponseFlag::FaultInjected, "FI"),
    (ResponseFlag::UnauthorizedExternalService, "UAEX"),
    (ResponseFlag::DownstreamConnectionTermination, "DC"),
    (ResponseFlag::UpstreamRetryLimitExceeded, "URX"),
    (ResponseFlag::DownstreamProtocolError, "DPE"),
    (ResponseFlag::UpstreamProtocolError, "UPE"),
    (ResponseFlag::NoClusterFound, "NC"),
];

/// A set of flags, small enough to be part of a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct FlagSet(u32);

impl FlagSet {
    /// Whether any of `flags` is in it.
    pub fn has_any(self, flags: &[ResponseFlag]) -> bool {
        self.0 & Self::from(flags).0 != 0
    }
}

impl From<&[ResponseFlag]> for FlagSet {
    fn from(flags: &[ResponseFlag]) -> Self {
        Self(flags.iter().fold(0, |set, flag| set | 1 << (*flag as u32)))
    }
}

impl std::fmt::Display for FlagSet {
    /// As in Envoy's logs: `UF,URX`, or `-` for none.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 == 0 {
            return f.write_str("-");
        }
        let mut separator = "";
        for (flag, name) in ORDER {
            if self.0 & 1 << (flag as u32) != 0 {
                f.write_str(separator)?;
                f.write_str(name)?;
                separator = ",";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_written_in_envoys_order() {
        assert_eq!(FlagSet::from(&[][..]).to_string(), "-");
        let flags = [ResponseFlag::UpstreamRetryLimitExceeded, ResponseFlag::UpstreamConnectionFailure];
        assert_eq!(FlagSet::from(&flags[..]).to_string(), "UF,URX");
    }
}
