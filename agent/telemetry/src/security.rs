//! How safe a connection was, who its ends were, and who refused it: for labels, log, tap and `weft edges`.

use std::fmt;
use std::hash::BuildHasher;
use std::sync::{Arc, LazyLock};

use foldhash::quality::RandomState;
use weft_api::identity::Identity;
use weft_rules::guard::Denial;
use weft_rules::snapshot::reach::Plaintext;
use weft_rules::workload::Workload;

use super::record::Upstream;

/// How the ends of a connection knew each other.
///
/// The same node's proof counts as mutual TLS, as it does for policies: both identities come from the kernel, and
/// nothing leaves the machine.
#[derive(Debug, Clone, Default)]
pub enum Security {
    /// It got to no endpoint, or nobody has looked.
    #[default]
    Unknown,
    /// Both ends are pods of this node; their identities are those of the record's source and upstream workload.
    SameNode {
        /// Of this mesh.
        trust_domain: Arc<str>,
    },
    /// TLS with a certificate on both sides. Made once per TLS connection, and shared by all that it carries.
    MutualTls(Arc<Ends>),
    /// Without, and why.
    Plaintext(Plaintext),
}

/// The two ends of a connection with mutual TLS.
#[derive(Debug)]
pub struct Ends {
    source: Identity,
    destination: Identity,
    hash: u64,
}

/// For people, as `weft edges` shows it.
pub(crate) fn reason(why: Plaintext) -> &'static str {
    match why {
        Plaintext::CallerOutside => "plaintext: caller not in the mesh",
        Plaintext::DestinationOutside => "plaintext: destination not in the mesh",
        Plaintext::DestinationRule => "plaintext: DestinationRule disables TLS",
        Plaintext::OtherTls => "TLS by DestinationRule, without mesh identity",
        Plaintext::PeerAuthentication => "plaintext: PeerAuthentication disables mTLS",
        Plaintext::NoAuthority => "plaintext: no certificate authority",
    }
}

/// [`Security`] without who: what `weft edges` tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Secured {
    /// No endpoint was reached.
    Unknown,
    /// Within the node.
    SameNode,
    /// By certificates.
    MutualTls,
    /// Not, and why.
    Plaintext(Plaintext),
}

/// What became of it, as far as labels do not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Outcome {
    /// How safe it was.
    pub secured: Secured,
    /// Whether a policy refused it.
    pub refused: bool,
}

/// Who refused a connection or request at its destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// An AuthorizationPolicy; or there are ALLOW policies, and none matched.
    Policy(Denial),
    /// PeerAuthentication STRICT: the caller has no identity.
    Strict,
    /// The destination's node, or an external authorizer, which told no more.
    Elsewhere,
}

impl Refusal {
    /// `NAMESPACE/NAME` of the policy, where one is known.
    pub fn policy(&self) -> Option<&str> {
        match self {
            Self::Policy(denial) => denial.policy.as_deref(),
            Self::Strict | Self::Elsewhere => None,
        }
    }
}

impl fmt::Display for Refusal {
    /// As Istio's RBAC filter puts it into Envoy's response code details; STRICT as its listener does, which has no
    /// filter chain for plaintext.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let denial = match self {
            Self::Policy(denial) => denial,
            Self::Strict => return f.write_str("filter_chain_not_found"),
            Self::Elsewhere => return f.write_str("rbac_access_denied_by_destination"),
        };
        f.write_str("rbac_access_denied_matched_policy[")?;
        match denial.policy.as_deref() {
            Some(policy) => {
                let (namespace, name) = policy.split_once('/').unwrap_or(("", policy));
                let rule = denial.rule.unwrap_or_default();
                write!(f, "ns[{namespace}]-policy[{name}]-rule[{rule}]")?;
            }
            None => f.write_str("none")?,
        }
        f.write_str("]")
    }
}

impl Security {
    /// Of a connection whose peers proved who they are by their certificates.
    pub fn mutual_tls(source: Identity, destination: Identity) -> Self {
        static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::default);
        let hash = HASHER.hash_one((&source, &destination));
        Self::MutualTls(Arc::new(Ends { source, destination, hash }))
    }

    fn secured(&self) -> Secured {
        match self {
            Self::Unknown => Secured::Unknown,
            Self::SameNode { .. } => Secured::SameNode,
            Self::MutualTls(_) => Secured::MutualTls,
            Self::Plaintext(why) => Secured::Plaintext(*why),
        }
    }

    /// A number that differs where labels would, given that the workloads are the same.
    pub(super) fn key(&self) -> u64 {
        match self {
            Self::Unknown => 0,
            Self::SameNode { .. } => 1,
            Self::MutualTls(ends) => ends.hash,
            Self::Plaintext(why) => 2 + *why as u64,
        }
    }

    /// The identities of source and destination, where they are proved.
    pub(super) fn identities(
        &self,
        source: Option<&Workload>,
        destination: Option<&Workload>,
    ) -> [Option<Identity>; 2] {
        match self {
            Self::Unknown | Self::Plaintext(_) => [None, None],
            Self::SameNode { trust_domain } => {
                [source, destination].map(|pod| pod.map(|pod| pod.identity(trust_domain)))
            }
            Self::MutualTls(ends) => [Some(ends.source.clone()), Some(ends.destination.clone())],
        }
    }
}

impl Upstream {
    /// How safe, and whether refused.
    pub(super) fn outcome(&self) -> Outcome {
        Outcome { secured: self.security.secured(), refused: self.refused.is_some() }
    }

    /// SPIFFE IDs of source and destination; empty where they are not proved.
    pub(super) fn principals(&self, source: Option<&Arc<Workload>>) -> [String; 2] {
        self.security
            .identities(source.map(|pod| &**pod), self.workload.as_deref())
            .map(|identity| identity.map_or_else(String::new, |identity| identity.to_string()))
    }
}
