//! Takes a TOML tree apart field by field. A field that is wrong is reported and read as absent, so the rest is still checked.

use super::report::Problem;
use serde::de::{DeserializeOwned, IntoDeserializer};
use std::cell::RefCell;
use std::fmt::Display;
use std::ops::Range;
use std::str::FromStr;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where in the file something stands: bytes.
pub(super) type Span = Range<usize>;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub value: T,
    pub span: Span,
}

impl<T> At<T> {
    pub fn new(value: T, span: Span) -> At<T> {
        At { value, span }
    }

    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> At<U> {
        At { value: f(self.value), span: self.span }
    }
}

/// Gathers problems while a file is read.
#[derive(Default)]
pub(super) struct Sink {
    problems: RefCell<Vec<Problem>>,
    /// Where keys stand: never shown.
    secrets: RefCell<Vec<Span>>,
}

impl Sink {
    pub fn push(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    pub fn syntax(&self, error: &toml::de::Error) {
        self.push(Problem::error(format!("not TOML: {}", error.message())).at(error.span().unwrap_or(0..0), "here"));
    }

    pub fn secret(&self, span: Span) {
        self.secrets.borrow_mut().push(span);
    }

    pub fn has_errors(&self) -> bool {
        self.problems.borrow().iter().any(Problem::is_error)
    }

    /// After a syntax error the rest of what we found may be its consequence.
    pub fn keep_syntax_only(&self) {
        self.problems.borrow_mut().retain(|p| p.message().starts_with("not TOML"));
    }

    pub fn into_parts(self) -> (Vec<Problem>, Vec<Span>) {
        (self.problems.into_inner(), self.secrets.into_inner())
    }
}

/// The fields of one table.
pub(super) struct Fields<'a, 'i> {
    sink: &'a Sink,
    table: &'a DeTable<'i>,
    /// How the table is called in messages: `[[port]]`.
    what: String,
    pub span: Span,
    known: Vec<&'static str>,
}

impl<'a, 'i> Fields<'a, 'i> {
    pub fn new(sink: &'a Sink, table: &'a DeTable<'i>, what: impl Into<String>, span: Span) -> Fields<'a, 'i> {
        Fields { sink, table, what: what.into(), span, known: Vec::new() }
    }

    pub fn sink(&self) -> &'a Sink {
        self.sink
    }

    fn look(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'i>>> {
        self.known.push(key);
        self.table.get(key)
    }

    /// Whether the field is there at all, right or wrong.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    fn wrong(&self, span: Span, key: &str, message: impl Display) {
        self.sink.push(Problem::error(format!("{}: `{key}`: {message}", self.what)).at(span, ""));
    }

    fn value<T: DeserializeOwned>(&self, key: &str, value: &Spanned<DeValue<'i>>) -> Option<At<T>> {
        match T::deserialize(value.clone().into_deserializer()) {
            Ok(v) => Some(At::new(v, value.span())),
            Err(e) => {
                self.wrong(value.span(), key, e.message());
                None
            }
        }
    }

    fn parsed_value<T: FromStr<Err: Display>>(&self, key: &str, value: &Spanned<DeValue<'i>>) -> Option<At<T>> {
        let Some(text) = value.get_ref().as_str() else {
            self.wrong(
                value.span(),
                key,
                format!("must be a string in quotes, not {}", article(value.get_ref().type_str())),
            );
            return None;
        };
        match text.parse() {
            Ok(v) => Some(At::new(v, value.span())),
            Err(e) => {
                self.wrong(value.span(), key, e);
                None
            }
        }
    }

    /// A number, boolean or string, or nothing.
    pub fn optional<T: DeserializeOwned>(&mut self, key: &'static str) -> Option<At<T>> {
        let value = self.look(key)?;
        self.value(key, value)
    }

    /// As [`Self::optional`]; its absence is an error.
    pub fn required<T: DeserializeOwned>(&mut self, key: &'static str) -> Option<At<T>> {
        self.demand(key);
        self.optional(key)
    }

    /// A string with a meaning, or nothing.
    pub fn parsed<T: FromStr<Err: Display>>(&mut self, key: &'static str) -> Option<At<T>> {
        let value = self.look(key)?;
        self.parsed_value(key, value)
    }

    /// As [`Self::parsed`]; its absence is an error.
    pub fn required_parsed<T: FromStr<Err: Display>>(&mut self, key: &'static str) -> Option<At<T>> {
        self.demand(key);
        self.parsed(key)
    }

    /// An array of strings with a meaning; each wrong one is reported.
    pub fn parsed_list<T: FromStr<Err: Display>>(&mut self, key: &'static str) -> Vec<At<T>> {
        self.items(key).into_iter().filter_map(|v| self.parsed_value(key, v)).collect()
    }

    /// The items of an array, as they are.
    pub fn items(&mut self, key: &'static str) -> Vec<&'a Spanned<DeValue<'i>>> {
        let Some(value) = self.look(key) else { return Vec::new() };
        match value.get_ref().as_array() {
            Some(array) => array.iter().collect(),
            None => {
                self.wrong(value.span(), key, format!("must be an array: `{key} = [ … ]`"));
                Vec::new()
            }
        }
    }

    /// The value, as it is.
    pub fn raw(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'i>>> {
        self.look(key)
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Option<At<T>> {
        let value = self.look(key)?;
        let names = || choices.iter().map(|c| c.0);
        let word = value.get_ref().as_str();
        if let Some(found) = word.and_then(|w| choices.iter().find(|c| c.0 == w)) {
            return Some(At::new(found.1, value.span()));
        }
        let mut problem =
            Problem::error(format!("{}: `{key}` must be one of {}", self.what, super::text::list(names())))
                .at(value.span(), "");
        if let Some(near) = word.and_then(|w| super::text::nearest(w, names())) {
            problem = problem.help(format!("did you mean `{near}`?"));
        }
        self.sink.push(problem);
        None
    }

    /// A sub-table, or nothing.
    pub fn table(&mut self, key: &'static str, what: &str) -> Option<Fields<'a, 'i>> {
        let value = self.look(key)?;
        self.as_table(value, what)
    }

    /// The tables of an array of tables.
    pub fn tables(&mut self, key: &'static str, what: &str) -> Vec<Fields<'a, 'i>> {
        self.items(key).into_iter().filter_map(|v| self.as_table(v, what)).collect()
    }

    fn as_table(&self, value: &'a Spanned<DeValue<'i>>, what: &str) -> Option<Fields<'a, 'i>> {
        match value.get_ref().as_table() {
            Some(table) => Some(Fields::new(self.sink, table, what, value.span())),
            None => {
                let found = article(value.get_ref().type_str());
                self.sink.push(Problem::error(format!("{what} must be a table, not {found}")).at(value.span(), ""));
                None
            }
        }
    }

    /// Reports that `key` is missing, if it is.
    pub fn demand(&self, key: &str) {
        if !self.has(key) {
            self.sink.push(Problem::error(format!("{}: `{key}` is missing", self.what)).at(self.span.clone(), "here"));
        }
    }

    /// Reports every field nobody asked for.
    pub fn finish(self) {
        for (key, value) in self.table {
            let name = key.get_ref().as_ref();
            if self.known.contains(&name) {
                continue;
            }
            // A misspelt `secret` is one still.
            self.sink.secret(value.span());
            let mut problem = Problem::error(format!("{}: there is no key `{name}`", self.what)).at(key.span(), "");
            problem = match super::text::nearest(name, self.known.iter().copied()) {
                Some(near) => problem.help(format!("did you mean `{near}`?")),
                None => problem.help(format!("known are {}", super::text::list(self.known.iter().copied()))),
            };
            self.sink.push(problem);
        }
    }
}

/// "a string", "an integer".
pub(super) fn article(noun: &str) -> String {
    let an = noun.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {noun}", if an { "an" } else { "a" })
}
