//! `run`, `check`, `store create`: what starts from a configuration.

use super::{Failure, Outcome, print};
use crate::config::{self, Checked, Config, Hugepages, Report};
use std::io::{IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// `phalanx run`
pub(super) fn run(file: &Path, version: &'static str) -> Outcome {
    heap_in_huge_pages();
    let config = load(file)?;
    log();
    if config.memory.hugepages == Hugepages::Never
        && let Err(error) = nix::sys::prctl::set_thp_disable(true)
    {
        tracing::warn!(%error, "the heap may still be in huge pages");
    }
    choose_kernel(&config)?;
    crate::node::run(config, version).map_err(|error| Failure::new(chain(&error)))
}

/// The configuration was checked, the environment was not: whoever forces a kernel is to get that one or nothing.
pub(super) fn choose_kernel(config: &Config) -> Outcome {
    let wrong = |error| Failure { message: format!("{error}"), code: Failure::CONFIGURATION.code };
    phalanx_aead::Kernel::choose(config.node.cipher_kernel).map(|_| ()).map_err(wrong)
}

/// With many SAs a good part of what packets wait for is where memory's pages are, so the heap goes to huge ones where the kernel
/// has some (`transparent_hugepage` at `madvise` or `always`). glibc reads its tunables before anything of ours runs, hence a
/// second start within the same process. Whoever sets tunables himself is left alone.
fn heap_in_huge_pages() {
    const TUNABLES: &str = "GLIBC_TUNABLES";
    let mut arguments = std::env::args_os();
    if std::env::var_os(TUNABLES).is_none()
        && let (Ok(program), Some(name)) = (std::env::current_exe(), arguments.next())
    {
        // It comes back only where that fails, and ordinary pages do as well.
        let _ = Command::new(program).arg0(name).args(arguments).env(TUNABLES, "glibc.malloc.hugetlb=1").exec();
    }
}

/// `phalanx check`
pub(super) fn check(file: &Path) -> Outcome {
    let config = load(file)?;
    let words = [
        (config.vips.len(), "VIP"),
        (config.peers.len(), "peer"),
        (config.sas.len(), "SA pair"),
        (config.ports.len(), "port"),
        (config.cores.len(), "core"),
    ];
    let words: Vec<String> =
        words.iter().map(|(n, what)| format!("{n} {what}{}", if *n == 1 { "" } else { "s" })).collect();
    print(&format!("{}: node {}: {}\n", file.display(), config.node.name, words.join(", ")));
    Ok(())
}

/// `phalanx store create`
pub(super) fn create_store(file: &Path) -> Outcome {
    let config = load(file)?;
    if config.vips.is_empty() {
        return Err(Failure::new("this node owns no VIP and needs no store: its routers keep what must survive"));
    }
    let path = crate::node::store_path(&config);
    std::fs::create_dir_all(&config.node.state_dir)
        .map_err(|error| Failure::new(format!("{}: {error}", config.node.state_dir.display())))?;
    phalanx_fabric::Embedded::create(&path).map_err(|error| Failure::new(chain(&error)))?;
    print(&format!("{}: created\n", path.display()));
    Ok(())
}

/// The configuration; what is wrong or remarkable is shown on standard error.
pub(super) fn load(file: &Path) -> Result<Config, Failure> {
    match config::load(file) {
        Ok(Checked { config, warnings }) => {
            show(&warnings);
            Ok(config)
        }
        Err(report) => {
            show(&report);
            let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
            let _ = writeln!(
                std::io::stderr(),
                "{}: {}, {}",
                file.display(),
                count(report.errors(), "error"),
                count(report.warnings(), "warning")
            );
            Err(Failure::CONFIGURATION)
        }
    }
}

fn show(report: &Report) {
    let mut to = std::io::stderr();
    let _ = to.write_all(report.render(to.is_terminal()).as_bytes());
}

/// Log lines to standard error, where service managers look for them. `PHALANX_LOG` filters, as in `PHALANX_LOG=debug`.
fn log() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("PHALANX_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let colour = std::io::stderr().is_terminal();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour).try_init();
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Many errors quote their cause already.
        if !text.contains(&cause_text) {
            text.push_str(&format!(": {cause_text}"));
        }
        source = cause.source();
    }
    text
}
