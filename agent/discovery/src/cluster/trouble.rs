//! Why the API server did not do what it was asked.

use std::time::Duration;

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The server says so.
    #[error("{message} ({code})")]
    Api {
        /// As in HTTP.
        code: u16,
        /// In the server's words.
        message: String,
    },
    /// No answer, or none that makes sense.
    #[error("{0}")]
    Other(String),
}

impl Trouble {
    /// Any other error, with its causes.
    pub fn other(error: &dyn std::error::Error) -> Self {
        let mut text = String::new();
        for cause in std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string) {
            if text.is_empty() {
                text = cause;
            } else if !text.contains(&cause) {
                text = format!("{text}: {cause}");
            }
        }
        Self::Other(text)
    }

    /// No answer in time.
    pub fn silent(after: Duration) -> Self {
        Self::Other(format!("no answer in {} seconds", after.as_secs()))
    }
}

impl From<kube::core::Status> for Trouble {
    fn from(status: kube::core::Status) -> Self {
        Self::Api { code: status.code, message: status.message }
    }
}

impl From<kube::Error> for Trouble {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::from(*status),
            kube::Error::Service(error) => Self::other(&*error),
            error => Self::other(&error),
        }
    }
}
