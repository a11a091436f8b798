//! The log of commands that run for long: standard error, as WEFT_LOG says.

use std::io::IsTerminal;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::{MakeWriter, format};
use weft_api::printable::printable;

/// Starts it.
pub fn start() {
    // Weft tells by itself, and once, what the API client says at each attempt.
    let told = std::env::var("WEFT_LOG").ok().filter(|told| !told.is_empty());
    let filter = format!("kube_client=off,{}", told.as_deref().unwrap_or("info"));
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("kube_client=off,info"));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let _ = tracing::subscriber::set_global_default(to(std::io::stderr, filter, colour));
}

/// One line for each event, whatever its fields hold: they come from files, callers and API servers, and must neither
/// begin a line of their own nor reach the terminal.
fn to<W>(writer: W, filter: EnvFilter, colour: bool) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let fields = format::debug_fn(|out, field, value| {
        let value = format!("{value:?}");
        let value = printable(&value);
        if field.name() == "message" {
            write!(out, "{value}")
        } else {
            write!(out, "{}={value}", field.name())
        }
    });
    tracing_subscriber::fmt()
        .fmt_fields(fields.delimited(" "))
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(colour)
        .finish()
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_field_begins_no_line_and_moves_no_cursor() {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = to(move || writer.clone(), EnvFilter::new("info"), false);
        tracing::subscriber::with_default(subscriber, || {
            let kind = "Odd\x1b[2J\r\n2026-11-30T00:00:00Z  INFO forged\u{202e}";
            tracing::info!(kind = %kind, file = "a.yaml", "ignored {}", "in\nwords");
        });
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text:?}");
        assert!(!text.trim_end_matches('\n').chars().any(|c| c.is_control() || c == '\u{202e}'), "{text:?}");
        assert!(text.contains(r"kind=Odd\u{1b}[2J\r\n2026-11-30"), "{text}");
        assert!(text.contains(r"ignored in\nwords") && text.contains(r#"file="a.yaml""#), "{text}");
    }
}
