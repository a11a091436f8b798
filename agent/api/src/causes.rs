//! Errors with their causes: many libraries' say little by themselves.

use std::error::Error;

/// An error with its causes, each once.
pub fn all(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let what = cause.to_string();
        if !text.contains(&what) {
            text = format!("{text}: {what}");
        }
        next = cause.source();
    }
    text
}
