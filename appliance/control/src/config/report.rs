//! All that is wrong with a configuration, and how it is shown.

use super::read::{Sink, Span};
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use std::fmt;
use std::path::Path;

/// How bad a [`Problem`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The configuration cannot be run.
    Error,
    /// It can, but somebody should look.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub struct Problem {
    severity: Severity,
    message: String,
    /// The first is where it is wrong; the others are what it is in conflict with.
    places: Vec<(Span, String)>,
    help: Option<String>,
}

impl Problem {
    pub(super) fn error(message: impl Into<String>) -> Problem {
        Problem { severity: Severity::Error, message: message.into(), places: Vec::new(), help: None }
    }

    pub(super) fn warning(message: impl Into<String>) -> Problem {
        Problem { severity: Severity::Warning, ..Problem::error(message) }
    }

    pub(super) fn at(mut self, span: Span, label: impl Into<String>) -> Problem {
        self.places.push((span, label.into()));
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }

    /// With the keys starred out that it says: a message may quote a value that stands under the wrong name.
    fn masked(mut self) -> Problem {
        let texts = self.places.iter_mut().map(|(_, label)| label).chain(&mut self.help).chain([&mut self.message]);
        texts.for_each(|text| *text = super::text::mask(text, &[], false));
        self
    }

    /// Whether this keeps the configuration from being run.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// What is wrong, in one sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    fn start(&self) -> usize {
        self.places.first().map_or(0, |p| p.0.start)
    }
}

/// The problems of one file. Their words and its text are kept with every key starred out, so nothing made from a report shows
/// one (I8).
#[derive(Clone, Debug)]
pub struct Report {
    file: String,
    source: String,
    problems: Vec<Problem>,
}

impl Report {
    pub(super) fn new(path: &Path, text: &str, sink: Sink) -> Report {
        let (problems, secrets) = sink.into_parts();
        let mut problems: Vec<_> = problems.into_iter().map(Problem::masked).collect();
        problems.sort_by_key(Problem::start);
        let suspicious = problems.iter().any(|p| p.message.starts_with("not TOML"));
        Report { file: path.display().to_string(), source: super::text::mask(text, &secrets, suspicious), problems }
    }

    pub(super) fn without_source(path: &Path, problem: Problem) -> Report {
        Report { file: path.display().to_string(), source: String::new(), problems: vec![problem] }
    }

    /// Everything found, in the order of the file.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// How many problems are errors.
    pub fn errors(&self) -> usize {
        self.problems.iter().filter(|p| p.is_error()).count()
    }

    /// How many are warnings.
    pub fn warnings(&self) -> usize {
        self.problems.len() - self.errors()
    }

    /// For people: each problem with the lines it is about.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let mut out = String::new();
        for problem in &self.problems {
            out.push_str(&renderer.render(&[self.group(problem)]));
            out.push_str("\n\n");
        }
        out
    }

    fn group<'a>(&'a self, problem: &'a Problem) -> Group<'a> {
        let level = if problem.is_error() { Level::ERROR } else { Level::WARNING };
        let mut group = Group::with_title(level.primary_title(problem.message.as_str()));
        if problem.places.is_empty() {
            group = group.element(annotate_snippets::Origin::path(self.file.as_str()));
        } else {
            let mut snippet = Snippet::source(self.source.as_str()).path(self.file.as_str());
            for (i, (span, label)) in problem.places.iter().enumerate() {
                let kind = if i == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
                let annotation = kind.span(self.clip(span));
                snippet =
                    snippet.annotation(if label.is_empty() { annotation } else { annotation.label(label.as_str()) });
            }
            group = group.element(snippet);
        }
        match &problem.help {
            Some(help) => group.element(Level::HELP.message(help.as_str())),
            None => group,
        }
    }

    /// A table's span may cover many lines: its first one says enough.
    fn clip(&self, span: &Span) -> Span {
        let start = span.start.min(self.source.len());
        let end = span.end.clamp(start, self.source.len());
        let line = self.source.get(start..end).and_then(|s| s.find('\n')).map_or(end, |n| start + n);
        start..line.max(start)
    }

    /// One line per problem: `file:line: message (help)`.
    pub fn lines(&self) -> Vec<String> {
        self.problems.iter().map(|p| self.line(p)).collect()
    }

    fn line(&self, problem: &Problem) -> String {
        let place = match problem.places.first() {
            Some((span, _)) => {
                let before = self.source.as_bytes().get(..span.start.min(self.source.len())).unwrap_or(&[]);
                format!("{}:{}", self.file, 1 + before.iter().filter(|b| **b == b'\n').count())
            }
            None => self.file.clone(),
        };
        match &problem.help {
            Some(help) => format!("{place}: {} ({help})", problem.message),
            None => format!("{place}: {}", problem.message),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Report {}
