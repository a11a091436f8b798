//! What status tells of certificates and their CA.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use weft_api::admin::{
    AuthorityKind, CertificateAuthority, CertificateRow, CertificateState, Certificates, RevocationsRow,
    RootRow,
};

use super::CaOptions;
use super::account::Account;
use super::ca::{Revocations, State};
use super::trust::Roots;

/// As of now.
pub fn certificates<'a>(
    ca: &CaOptions,
    state: &State,
    roots: &Roots,
    revocations: Option<RevocationsRow>,
    accounts: impl Iterator<Item = &'a Arc<Account>>,
) -> Certificates {
    let now = SystemTime::now();
    Certificates {
        ca: Some(authority(ca, state, roots, revocations)),
        certificates: accounts.map(|account| row(account, now)).collect(),
    }
}

fn authority(
    ca: &CaOptions,
    state: &State,
    roots: &Roots,
    revocations: Option<RevocationsRow>,
) -> CertificateAuthority {
    let (kind, location) = match ca {
        CaOptions::Folder(dir) => (AuthorityKind::Embedded, dir.display().to_string()),
        CaOptions::Service(service) => (AuthorityKind::External, service.address.clone()),
    };
    let roots = roots.iter().map(|(fingerprint, root)| RootRow {
        subject: root.subject.to_string(),
        fingerprint: fingerprint.clone(),
        not_after: stamp(root.not_after),
        retired_until: root.retired.map(|_| stamp(root.trusted_until())),
    });
    CertificateAuthority {
        kind,
        location,
        answered: state.answered.map(stamp),
        failing_since: state.failure.as_ref().map(|(since, _)| stamp(*since)),
        error: state.failure.as_ref().map(|(_, why)| why.clone()),
        roots: roots.collect(),
        revocations,
    }
}

/// What there is to say of revocation lists: nothing where there are none.
pub fn revocations(file: &Path, state: Revocations) -> Option<RevocationsRow> {
    let Revocations { lists, error } = state;
    (lists > 0 || error.is_some()).then(|| RevocationsRow { file: file.display().to_string(), lists, error })
}

fn row(account: &Account, now: SystemTime) -> CertificateRow {
    let identity = account.identity();
    let record = account.record();
    let serves = account.tls(now).is_some();
    let facts = record.facts.filter(|_| serves);
    let state = match (&facts, &record.failure) {
        (Some(_), None) => CertificateState::Valid,
        (Some(_), Some(_)) => CertificateState::RenewalFailing,
        (None, _) if account.was_attempted() => CertificateState::Missing,
        (None, _) => CertificateState::Requested,
    };
    CertificateRow {
        namespace: identity.namespace.to_string(),
        service_account: identity.service_account.to_string(),
        identity: identity.to_string(),
        state,
        serial: facts.as_ref().map(|facts| facts.serial.clone()),
        not_before: facts.as_ref().map(|facts| stamp(facts.not_before)),
        not_after: facts.as_ref().map(|facts| stamp(facts.not_after)),
        next_attempt: record.next.map(stamp),
        failing_since: record.failure.as_ref().map(|(since, _)| stamp(*since)),
        error: record.failure.map(|(_, why)| why),
    }
}

/// RFC 3339, to the second.
fn stamp(time: SystemTime) -> String {
    let stamp = jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::MAX);
    let second = jiff::Timestamp::from_second(stamp.as_second()).unwrap_or(stamp);
    second.to_string()
}
