//! What the administrator wrote, as a value that is already right.
//!
//! [`load`] reads a TOML file, checks it as a whole and answers either a [`Config`] or *all* that is wrong with it, each
//! problem with its file, line and text ([`Report`]). Nothing behind this module checks configuration again: a [`Config`]
//! that exists is one that can be run.
//!
//! Way of a file: `read` takes the TOML tree apart field by field (so one mistake does not hide the next), `section/*`
//! gives each section its draft, `whole/*` looks at what sections say about each other, `build` turns drafts into a `Config`.

mod build;
mod key;
mod number;
mod proposal;
mod read;
mod report;
mod section;
mod text;
mod types;
mod whole;

#[cfg(test)]
mod tests;

pub use key::KeyText;
pub use report::{Problem, Report, Severity};
pub use types::*;

use std::path::Path;
use zeroize::Zeroizing;

/// A configuration that may be run, and what is nevertheless remarkable about it.
#[derive(Debug)]
pub struct Checked {
    /// The configuration.
    pub config: Config,
    /// Warnings only; may be empty.
    pub warnings: Report,
}

/// The longest configuration file we read. Ten thousand SAs fit several times.
const LONGEST_FILE: u64 = 16 << 20;

/// Reads and checks the file at `path`. The error holds everything that is wrong, warnings included.
pub fn load(path: &Path) -> Result<Checked, Report> {
    let unreadable = |why: String| Report::without_source(path, Problem::error(why));
    let meta = std::fs::metadata(path).map_err(|e| unreadable(format!("cannot read the configuration: {e}")))?;
    if meta.len() > LONGEST_FILE {
        return Err(unreadable(format!("the configuration is larger than {LONGEST_FILE} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| unreadable(format!("cannot read the configuration: {e}")))?;
    let text = Zeroizing::new(text);
    use std::os::unix::fs::PermissionsExt;
    check(path, &text, Some(meta.permissions().mode()))
}

/// Checks `text` as if it stood in the file `path`, whose permission bits are `mode` (`None`: not looked at).
/// Relative paths inside are taken from the folder of `path`.
pub fn check(path: &Path, text: &str, mode: Option<u32>) -> Result<Checked, Report> {
    let sink = read::Sink::default();
    let (tree, mistakes) = toml::de::DeTable::parse_recoverable(text);
    let parsed = mistakes.is_empty();
    for mistake in mistakes {
        sink.syntax(&mistake);
    }
    let draft = section::Draft::read(&tree, path, &sink);
    // After a syntax error the tree has holes; what it lacks is then no mistake of its own.
    let config = if parsed {
        whole::check(&draft, mode, &sink);
        if sink.has_errors() { None } else { build::config(path, draft, &sink) }
    } else {
        sink.keep_syntax_only();
        None
    };
    let report = Report::new(path, text, sink);
    match config {
        Some(mut config) => {
            config.warnings = report.lines();
            Ok(Checked { config, warnings: report })
        }
        None => Err(report),
    }
}
