//! What the host was like before, and which VIPs it must not leak: kept on disk, because the process may be killed.

use super::tools::HostError;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// As it stands in `host.json` of the state folder.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Record {
    /// Which boot and which network namespace it is about: in any other there is nothing to take over.
    host: String,
    /// Ports as they were.
    pub ports: BTreeMap<String, PortState>,
    /// VIPs that sockets may still have.
    pub vips: BTreeSet<IpAddr>,
}

/// A software port before we took it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PortState {
    /// The value of the sysctl, where there is one.
    pub disable_ipv6: Option<String>,
    /// Whether it was up.
    pub up: bool,
}

fn file(folder: &Path) -> PathBuf {
    folder.join("host.json")
}

/// This boot and this network namespace.
fn host() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = std::fs::read_link("/proc/self/ns/net").unwrap_or_default();
    format!("{} {}", boot.trim(), namespace.display())
}

impl Record {
    /// What an earlier life left, or nothing.
    pub fn load(folder: &Path) -> Result<Record, HostError> {
        let path = file(folder);
        let fresh = Record { host: host(), ..Record::default() };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(fresh),
            Err(error) => return Err(HostError::File { path, error }),
        };
        match serde_json::from_str::<Record>(&text) {
            Ok(record) if record.host == fresh.host => Ok(record),
            Ok(_) => Ok(fresh),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot read what an earlier run left; starting afresh");
                Ok(fresh)
            }
        }
    }

    /// Durable when it returns: written aside, then renamed.
    pub fn save(&self, folder: &Path) -> Result<(), HostError> {
        let path = file(folder);
        let aside = folder.join("host.json.new");
        let write = || -> std::io::Result<()> {
            std::fs::create_dir_all(folder)?;
            let mut to = std::fs::File::create(&aside)?;
            to.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
            to.sync_all()?;
            std::fs::rename(&aside, &path)
        };
        write().map_err(|error| HostError::File { path: file(folder), error })
    }

    /// There is nothing to take over any more.
    pub fn forget(&self, folder: &Path) -> Result<(), HostError> {
        match std::fs::remove_file(file(folder)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(HostError::File { path: file(folder), error })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_the_process_but_not_another_boot() {
        let folder = tempfile::tempdir().unwrap();
        let mut record = Record::load(folder.path()).unwrap();
        assert!(record.vips.is_empty());
        record.vips.insert("10.77.0.100".parse().unwrap());
        record.ports.insert("net0".into(), PortState { disable_ipv6: Some("0".into()), up: true });
        record.save(folder.path()).unwrap();
        let again = Record::load(folder.path()).unwrap();
        assert_eq!(again.vips.len(), 1);
        assert!(again.ports["net0"].up);
        record.host = "another boot".into();
        record.save(folder.path()).unwrap();
        assert!(Record::load(folder.path()).unwrap().vips.is_empty());
        record.forget(folder.path()).unwrap();
        record.forget(folder.path()).unwrap();
        std::fs::write(file(folder.path()), "{").unwrap();
        assert!(Record::load(folder.path()).unwrap().ports.is_empty());
    }
}
