//! From a PeerAuthentication to a compiled one.

use weft_api::istio::{MutualTls, MutualTlsMode, PeerAuthentication};

use crate::guard::Mtls;
use crate::guard::compile::authorization::age;
use crate::guard::peer::PeerPolicy;
use crate::intern::Interner;

pub(crate) fn compile(object: &PeerAuthentication, intern: &mut Interner) -> PeerPolicy {
    let (meta, spec) = (&object.metadata, &object.spec);
    let selector = spec.selector.as_ref().filter(|selector| !selector.match_labels.is_empty());
    let ports = spec.port_level_mtls.iter().map(|(port, mtls)| (*port, mode(mtls)));
    PeerPolicy {
        key: format!("{}/{}", meta.namespace, meta.name).into(),
        age: age(meta, intern),
        selector: selector.map(|selector| intern.labels(&selector.match_labels)),
        mode: spec.mtls.as_ref().and_then(mode),
        ports: ports.collect(),
    }
}

fn mode(mtls: &MutualTls) -> Option<Mtls> {
    match mtls.mode {
        MutualTlsMode::Unset => None,
        MutualTlsMode::Disable => Some(Mtls::Disable),
        MutualTlsMode::Permissive => Some(Mtls::Permissive),
        MutualTlsMode::Strict => Some(Mtls::Strict),
    }
}
