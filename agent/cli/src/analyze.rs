//! `weft analyze`: what is wrong with manifests.

use std::fmt::Write;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use weft_api::finding::{Finding, Severity};

use crate::output::{self, Format, Outcome, Paint, Tone, count, safe};

/// Checks manifests as the agent and the admission webhook do: schema, unknown fields, meaning. One line per finding:
/// severity, code, object, path, message and cure. Exit code 1 if there is an error.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weft analyze shop.yaml
  weft analyze ./manifests -o json
  kustomize build . | weft analyze -")]
pub struct AnalyzeArgs {
    /// Files, folders (all *.yaml and *.yml below), or - for standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Look at the files alone, at no cluster (always so for now; analyzing a cluster is not there yet)
    #[arg(long)]
    offline: bool,
    /// Print data instead of text
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
}

impl AnalyzeArgs {
    /// Checks everything.
    pub fn run(&self) -> anyhow::Result<Outcome> {
        let files = read_all(&self.files)?;
        let findings = weft_api::analyze::analyze(&files);
        let bad = findings.iter().any(|finding| finding.severity == Severity::Error);
        match self.output {
            Some(format) => output::data(format, &findings)?,
            None => output::print(&render(&findings, files.len(), Paint::stdout())?)?,
        }
        Ok(if bad { Outcome::Bad } else { Outcome::Good })
    }
}

fn render(findings: &[Finding], files: usize, paint: Paint) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    for finding in findings {
        writeln!(text, "{}", line(finding, paint))?;
    }
    let of = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings) = (of(Severity::Error), of(Severity::Warning));
    let files = count(files, "file");
    if findings.is_empty() {
        writeln!(text, "{}  {files}, nothing to say", paint.word(Tone::Good, "Good"))?;
    } else {
        writeln!(text, "{}, {} in {files}", count(errors, "error"), count(warnings, "warning"))?;
    }
    Ok(text)
}

/// A finding on one line: `SEVERITY CODE Kind/ns/name path: message (cure)`, and where it is.
pub fn line(finding: &Finding, paint: Paint) -> String {
    let (word, tone) = match finding.severity {
        Severity::Error => ("error", Tone::Bad),
        Severity::Warning => ("warning", Tone::Warn),
        Severity::Info => ("info", Tone::Faint),
    };
    let mut text = format!("{} {}", paint.word(tone, word), finding.code);
    for part in [&finding.resource, &finding.path] {
        if !part.is_empty() {
            text += " ";
            text += &safe(part);
        }
    }
    text += ": ";
    text += &safe(&finding.message);
    if let Some(file) = &finding.file {
        let at = finding.line.map_or_else(String::new, |line| format!(":{line}"));
        text += &paint.word(Tone::Faint, &format!(" [{}{at}]", safe(file)));
    }
    text
}

/// Reads what the command line names: text by the name that findings give it.
fn read_all(paths: &[PathBuf]) -> anyhow::Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for path in paths {
        if path == Path::new("-") {
            let mut bytes = Vec::new();
            std::io::stdin().lock().read_to_end(&mut bytes).context("cannot read standard input")?;
            files.push(("-".to_owned(), utf8(bytes, "standard input")?));
        } else {
            let meta = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
            if meta.is_dir() {
                let before = files.len();
                read_folder(path, 0, &mut files)?;
                if files.len() == before {
                    anyhow::bail!("no *.yaml or *.yml is below {}", path.display());
                }
            } else {
                read_file(path, &mut files)?;
            }
        }
    }
    Ok(files)
}

fn read_file(path: &Path, files: &mut Vec<(String, String)>) -> anyhow::Result<()> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {name}"))?;
    files.push((name.clone(), utf8(bytes, &name)?));
    Ok(())
}

fn utf8(bytes: Vec<u8>, name: &str) -> anyhow::Result<String> {
    String::from_utf8(bytes).with_context(|| format!("{name} is no text"))
}

/// As the agent reads a folder: sorted, without dot-files.
fn read_folder(dir: &Path, depth: usize, files: &mut Vec<(String, String)>) -> anyhow::Result<()> {
    const MAX_DEPTH: usize = 32;
    let cannot = || format!("cannot read {}", dir.display());
    let mut entries =
        std::fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>).with_context(cannot)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let hidden = entry.file_name().as_encoded_bytes().first() == Some(&b'.');
        let Ok(meta) = std::fs::metadata(&path) else { continue };
        if hidden || depth > MAX_DEPTH {
            continue;
        }
        if meta.is_dir() {
            read_folder(&path, depth + 1, files)?;
        } else if path.extension().is_some_and(|ext| ext == "yaml" || ext == "yml") {
            read_file(&path, files)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_on_one_line() {
        let mut finding = Finding {
            severity: Severity::Error,
            code: "UnknownField".into(),
            resource: "VirtualService/shop/reviews".into(),
            path: "spec.http[0].foo".into(),
            message: "is no field (did you mean fault?)".into(),
            file: Some("a.yaml".into()),
            line: Some(7),
        };
        assert_eq!(
            line(&finding, Paint::plain()),
            "error UnknownField VirtualService/shop/reviews spec.http[0].foo: \
             is no field (did you mean fault?) [a.yaml:7]"
        );
        finding.path.clear();
        finding.file = None;
        assert_eq!(
            line(&finding, Paint::plain()),
            "error UnknownField VirtualService/shop/reviews: is no field (did you mean fault?)"
        );
    }
}
