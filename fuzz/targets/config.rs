//! The configuration reader on arbitrary text: a configuration or a report that can be shown, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::Path;

#[allow(dead_code, unused_imports, missing_docs)] // of its crate, this uses the reader alone
#[rustfmt::skip] // formatted where it belongs
#[path = "../../appliance/control/src/config/mod.rs"]
mod config;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Key files are looked for beside the configuration, in a folder that is not there.
    let path = Path::new("/nonexistent/phalanx.toml");
    match config::check(path, text, Some(0o100_600)) {
        Ok(checked) => {
            assert_eq!(checked.warnings.errors(), 0);
            let _ = (checked.warnings.render(true), format!("{:?}", checked.config));
        }
        Err(report) => {
            assert!(report.errors() > 0, "refused without a reason");
            assert!(report.lines().iter().all(|line| line.contains("phalanx.toml")), "a problem without its file");
            assert!(!report.render(false).is_empty() && !report.render(true).is_empty());
        }
    }
});
