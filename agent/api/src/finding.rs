//! What is wrong with an object.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::printable::printable;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing to do.
    Info,
    /// Accepted, and probably not what was meant.
    Warning,
    /// Refused.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// One thing to say about one object; a line of `weft analyze`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Stable, upper camel case: `UnknownField`, `InvalidRegex`, … [`code`] lists them.
    pub code: String,
    /// `Kind/namespace/name`.
    pub resource: String,
    /// Where in the object, as `spec.http[0].route[1].weight`; empty for the whole.
    pub path: String,
    /// What is wrong, and in parentheses what to do about it.
    pub message: String,
    /// The file, where it came from one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line in the file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
}

/// `SEVERITY CODE Kind/namespace/name path: message (cure)`, on one line.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.severity, self.code, printable(&self.resource))?;
        if !self.path.is_empty() {
            write!(f, " {}", printable(&self.path))?;
        }
        write!(f, ": {}", printable(&self.message.replace(['\n', '\r'], " ")))
    }
}

impl Finding {
    /// Where it is, as `file:line`, where that is known.
    pub fn location(&self) -> Option<String> {
        let file = self.file.as_deref()?;
        Some(self.line.map_or_else(|| file.to_owned(), |line| format!("{file}:{line}")))
    }

    /// Whether it keeps an object out.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// The codes of findings. They are stable: scripts filter by them.
pub mod code {
    macro_rules! codes {
        ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
            $($(#[$doc])* pub const $name: &str = $text;)*
            /// Every code that there is.
            pub const ALL: &[&str] = &[$($text),*];
        };
    }

    codes! {
        /// The text is no YAML; the document is lost.
        INVALID_YAML = "InvalidYaml";
        /// A mapping holds a key twice.
        DUPLICATE_KEY = "DuplicateKey";
        /// The document is no Kubernetes object.
        NOT_AN_OBJECT = "NotAnObject";
        /// A kind that weft reads, in a group or version that it does not.
        UNKNOWN_VERSION = "UnknownVersion";
        /// A kind of the past; the message names today's.
        REMOVED_KIND = "RemovedKind";
        /// A kind that weft will not have.
        UNSUPPORTED_KIND = "UnsupportedKind";
        /// The same object twice.
        DUPLICATE_OBJECT = "DuplicateObject";
        /// `metadata` is missing or wrong.
        INVALID_METADATA = "InvalidMetadata";
        /// A field that the kind does not have.
        UNKNOWN_FIELD = "UnknownField";
        /// A field that stands in the wrong place, mostly by its indentation.
        MISPLACED_FIELD = "MisplacedField";
        /// A field without a value.
        EMPTY_FIELD = "EmptyField";
        /// A value of the wrong type.
        INVALID_TYPE = "InvalidType";
        /// A field that must be there is not.
        MISSING_FIELD = "MissingField";
        /// A value out of its range or of the wrong form.
        INVALID_VALUE = "InvalidValue";
        /// Not a duration, or one that is too short.
        INVALID_DURATION = "InvalidDuration";
        /// A regular expression that RE2 does not know.
        INVALID_REGEX = "InvalidRegex";
        /// More than an agent holds of one object, one namespace or all.
        TOO_LARGE = "TooLarge";
        /// A host that is no DNS name, address or allowed wildcard.
        INVALID_HOST = "InvalidHost";
        /// A host that is there twice or covers another.
        DUPLICATE_HOST = "DuplicateHost";
        /// A name that is there twice.
        DUPLICATE_NAME = "DuplicateName";
        /// A header that cannot be matched or changed.
        INVALID_HEADER = "InvalidHeader";
        /// A port out of 1 to 65535.
        INVALID_PORT = "InvalidPort";
        /// A share out of 0 to 100.
        INVALID_PERCENTAGE = "InvalidPercentage";
        /// Weights that are negative or all zero.
        INVALID_WEIGHT = "InvalidWeight";
        /// Labels or label selectors of the wrong form.
        INVALID_LABEL = "InvalidLabel";
        /// Fields that exclude each other.
        CONFLICTING_FIELDS = "ConflictingFields";
        /// A rule that no request can reach.
        UNREACHABLE_RULE = "UnreachableRule";
        /// A match that an earlier one has taken.
        DUPLICATE_MATCH = "DuplicateMatch";
        /// A field that goes away, with its successor.
        DEPRECATED_FIELD = "DeprecatedField";
        /// A field that changes nothing where it stands.
        NO_EFFECT = "NoEffect";
        /// Accepted, and without effect in this version of weft.
        NOT_IN_FORCE = "NotInForce";
        /// A destination whose service is in none of the files.
        UNKNOWN_HOST = "UnknownHost";
        /// A subset that no DestinationRule defines.
        UNKNOWN_SUBSET = "UnknownSubset";
        /// A destination that cannot be resolved as things are: requests are answered 503.
        UNROUTABLE = "Unroutable";
        /// A delegate that cannot be one, or is not there.
        UNKNOWN_DELEGATE = "UnknownDelegate";
        /// A rule of a delegate that matches what the rule that delegates does not.
        DELEGATE_CONFLICT = "DelegateConflict";
        /// A port that the service does not have.
        UNKNOWN_PORT = "UnknownPort";
        /// A host whose traffic is taken by rules of another namespace than its Service's.
        HOST_TAKEN = "HostTaken";
        /// Another object that takes precedence.
        SHADOWED = "Shadowed";
        /// A port that names no protocol.
        PORT_NAMING = "PortNaming";
        /// Rules for another protocol than the port's.
        PROTOCOL_MISMATCH = "ProtocolMismatch";
        /// A NetworkPolicy that keeps out the mesh's traffic between nodes.
        TUNNELS_KEPT_OUT = "TunnelsKeptOut";
        /// No pod has a subset's labels.
        EMPTY_SUBSET = "EmptySubset";
        /// A provider that MeshConfig does not have.
        UNKNOWN_PROVIDER = "UnknownProvider";
        /// A service account that no pod in the files has.
        UNKNOWN_SERVICE_ACCOUNT = "UnknownServiceAccount";
        /// A service or policy that selects nothing in the files.
        NO_ENDPOINTS = "NoEndpoints";
    }
}
