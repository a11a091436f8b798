//! Collects problems with the place that they are about.

use std::borrow::Cow;

use crate::finding::{Finding, Severity};
use crate::yaml::{Node, Path, Segment, render};

/// A finding that does not know its object and line yet.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Problem {
    pub severity: Severity,
    pub code: &'static str,
    pub path: Path,
    pub message: String,
}

impl Problem {
    /// Completes it; `source` is the file and the object's text.
    pub fn into_finding(self, resource: &str, source: Option<(&str, &Node<'_>)>) -> Finding {
        Finding {
            severity: self.severity,
            code: self.code.to_owned(),
            resource: resource.to_owned(),
            path: render(&self.path),
            message: self.message,
            file: source.map(|(file, _)| file.to_owned()),
            line: source.map(|(_, node)| node.line_of(&self.path)),
        }
    }
}

/// Problems of one object, and the place that is being looked at.
#[derive(Debug, Default)]
pub(crate) struct Report {
    problems: Vec<Problem>,
    here: Path,
}

impl Report {
    pub fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    /// Looks into a field.
    pub fn field<R>(&mut self, name: impl Into<Cow<'static, str>>, look: impl FnOnce(&mut Self) -> R) -> R {
        self.here.push(Segment::Key(name.into()));
        let result = look(self);
        self.here.pop();
        result
    }

    /// Looks into an item of a list field.
    pub fn item<R>(&mut self, name: &'static str, index: usize, look: impl FnOnce(&mut Self) -> R) -> R {
        self.field(name, |report| {
            report.here.push(Segment::Index(index));
            let result = look(report);
            report.here.pop();
            result
        })
    }

    /// Looks into every item of a list field.
    pub fn each<'a, T>(
        &mut self,
        name: &'static str,
        items: &'a [T],
        mut look: impl FnMut(&mut Self, &'a T),
    ) {
        for (index, item) in items.iter().enumerate() {
            self.item(name, index, |report| look(report, item));
        }
    }

    /// Looks at a place by its whole path.
    pub fn at<R>(&mut self, path: Path, look: impl FnOnce(&mut Self) -> R) -> R {
        let here = std::mem::replace(&mut self.here, path);
        let result = look(self);
        self.here = here;
        result
    }

    pub fn error(&mut self, code: &'static str, message: impl Into<String>) {
        self.push(Severity::Error, code, message.into());
    }

    pub fn warning(&mut self, code: &'static str, message: impl Into<String>) {
        self.push(Severity::Warning, code, message.into());
    }

    /// Takes over problems whose paths are whole.
    pub fn extend(&mut self, problems: impl IntoIterator<Item = Problem>) {
        self.problems.extend(problems);
    }

    /// Tells something that is worth knowing.
    pub fn info(&mut self, code: &'static str, message: impl Into<String>) {
        self.push(Severity::Info, code, message.into());
    }

    pub fn push(&mut self, severity: Severity, code: &'static str, message: String) {
        self.problems.push(Problem { severity, code, path: self.here.clone(), message });
    }
}
