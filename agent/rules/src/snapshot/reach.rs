//! How a caller in the mesh reaches an address, and how that is protected: decided once, for connections and for those who ask
//! what would happen.

use weft_api::istio::TlsMode;

use crate::guard::Mtls;
use crate::snapshot::Snapshot;
use crate::workload::{Enrolment, Workload};

/// Why a connection is without mutual TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Plaintext {
    /// The caller is no pod of the mesh.
    CallerOutside,
    /// The destination is no pod of the mesh.
    DestinationOutside,
    /// A DestinationRule says `tls.mode: DISABLE`.
    DestinationRule,
    /// A DestinationRule says SIMPLE or MUTUAL: TLS, but with certificates that are not the mesh's.
    OtherTls,
    /// The destination's PeerAuthentication says DISABLE.
    PeerAuthentication,
    /// The caller's agent has no certificate authority.
    NoAuthority,
}

/// An address that a caller in the mesh is to be connected to.
#[derive(Debug, Clone, Copy)]
pub struct Towards<'a> {
    /// Whose address it is; `None`: no pod's that is known.
    pub workload: Option<&'a Workload>,
    /// The port there.
    pub port: u16,
    /// What a DestinationRule says of TLS.
    pub tls: Option<TlsMode>,
    /// The caller's node.
    pub node: &'a str,
    /// Whether the agent there serves the destination, too.
    pub is_local: bool,
    /// Whether it has certificates.
    pub has_certificates: bool,
}

/// How an address is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Straight to the program in a pod of the same node. `None`: the caller is known there by what the kernel proves.
    Local(Option<Plaintext>),
    /// By mutual TLS, through the agent of another node. It fails where the caller's agent has no certificate.
    Tunnel,
    /// As it is, or by TLS that is not the mesh's.
    Plain(Plaintext),
    /// Not at all: a DestinationRule wants `ISTIO_MUTUAL`, and nobody there speaks it.
    NoPeer,
}

impl Towards<'_> {
    /// Decides by the rules in force.
    pub fn reach(&self, snapshot: &Snapshot) -> Reach {
        let must = self.tls == Some(TlsMode::IstioMutual);
        let outside = || if must { Reach::NoPeer } else { Reach::Plain(Plaintext::DestinationOutside) };
        // Whoever calls a gateway comes from outside the mesh.
        if self.workload.is_some_and(Workload::is_gateway) {
            return outside();
        }
        let without = match self.tls {
            Some(TlsMode::Disable) => Some(Plaintext::DestinationRule),
            Some(TlsMode::Simple | TlsMode::Mutual) => Some(Plaintext::OtherTls),
            Some(TlsMode::IstioMutual) | None => None,
        };
        if self.is_local {
            return Reach::Local(without);
        }
        if let Some(why) = without {
            return Reach::Plain(why);
        }
        // One of the same node that is not (yet, or any more) in the mesh has nobody to take a tunnel.
        let takes_tunnels = |pod: &&Workload| pod.enrolment == Enrolment::Enrolled && *pod.node != *self.node;
        match self.workload.filter(takes_tunnels) {
            None => outside(),
            Some(_) if must => Reach::Tunnel,
            Some(_) if !self.has_certificates => Reach::Plain(Plaintext::NoAuthority),
            Some(pod) if snapshot.mtls(pod, self.port) == Mtls::Disable => {
                Reach::Plain(Plaintext::PeerAuthentication)
            }
            Some(_) => Reach::Tunnel,
        }
    }
}
