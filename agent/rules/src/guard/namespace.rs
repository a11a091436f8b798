//! The security policies of each namespace, as a snapshot holds them.

use std::sync::Arc;

use crate::guard::peer::PeerPolicy;
use crate::guard::policy::{Policy, TokenPolicy};

/// The policies of one namespace, each list oldest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct NamespaceSecurity {
    pub(crate) peers: Vec<Arc<PeerPolicy>>,
    pub(crate) authorizations: Vec<Arc<Policy>>,
    pub(crate) tokens: Vec<Arc<TokenPolicy>>,
}

impl NamespaceSecurity {
    pub(crate) fn is_empty(&self) -> bool {
        self.peers.is_empty() && self.authorizations.is_empty() && self.tokens.is_empty()
    }
}
