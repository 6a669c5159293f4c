//! What sections say about each other. Every check looks at drafts: a field that is absent or wrong was reported before, so a
//! check that lacks it stays silent.

mod bundles;
mod filters;
mod ike;
mod machine;
mod memif;
mod natt;
mod nodes;
mod peers;
mod sas;
mod selectors;
mod vips;

use super::read::{At, Sink, Span};
use super::report::Problem;
use super::section::{Draft, place};
use std::collections::HashMap;
use std::hash::Hash;

/// Reports every contradiction. `mode`: permission bits of the file.
pub(super) fn check(draft: &Draft, mode: Option<u32>, sink: &Sink) {
    nodes::check(draft, sink);
    machine::check(draft, sink);
    memif::check(draft, sink);
    vips::check(draft, sink);
    peers::check(draft, sink);
    ike::check(draft, sink);
    sas::check(draft, sink);
    bundles::check(draft, sink);
    filters::check(draft, sink);
    secrecy(draft, mode, sink);
}

/// Reports each item whose key an earlier one has.
fn unique<K: Hash + Eq>(items: impl Iterator<Item = (K, Span)>, message: impl Fn(&K) -> String, sink: &Sink) {
    let mut first: HashMap<K, Span> = HashMap::new();
    for (key, span) in items {
        match first.get(&key) {
            Some(before) => {
                sink.push(Problem::error(message(&key)).at(span, "again here").at(before.clone(), "first here"))
            }
            None => {
                first.insert(key, span);
            }
        }
    }
}

/// Reports names that are taken. `what`: "two ports".
fn unique_names<'a>(names: impl Iterator<Item = Option<&'a At<String>>>, what: &str, sink: &Sink) {
    let names = names.flatten().map(|n| (n.value.as_str(), n.span.clone()));
    unique(names, |name| format!("two {what} are called `{name}`"), sink);
}

/// Whether `name` is one of `names`; if not, that is reported. `what`: "node", "port".
fn known<'a>(name: &At<String>, names: impl Iterator<Item = &'a str> + Clone, what: &str, sink: &Sink) -> bool {
    if names.clone().any(|n| n == name.value) {
        return true;
    }
    let mut problem = Problem::error(format!("there is no {what} `{}`", name.value)).at(name.span.clone(), "");
    if let Some(near) = super::text::nearest(&name.value, names.clone()) {
        problem = problem.help(format!("did you mean `{near}`?"));
    } else if names.clone().next().is_some() {
        problem = problem.help(format!("there is {}", super::text::list(names)));
    }
    sink.push(problem);
    false
}

/// Keys in a file that others may read (I8).
fn secrecy(draft: &Draft, mode: Option<u32>, sink: &Sink) {
    let keys = draft.sas.iter().flat_map(|s| s.halves()).filter(|(_, h)| h.key_inline).map(|(_, h)| &h.span);
    let secrets = draft.peers.iter().filter(|p| p.secret_inline).map(|p| place(&p.proof, &p.span));
    let inline = keys.cloned().chain(secrets).next();
    if let (Some(place), Some(mode)) = (inline, mode)
        && mode & 0o077 != 0
    {
        let who = if mode & 0o007 != 0 { "everybody on this machine" } else { "the file's group" };
        let problem = Problem::warning(format!("this file holds keys, and {who} may read it"))
            .at(place, "a key in the file itself")
            .help("chmod 600 the file, or keep keys apart with `key_file` and `secret_file`");
        sink.push(problem);
    }
}
