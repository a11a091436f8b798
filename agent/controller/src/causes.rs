//! Errors with their causes: those of the API client say little by themselves.

use std::error::Error;

/// An error with its causes, each once.
pub fn all(error: &dyn Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut text = String::new();
    for cause in causes.map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
