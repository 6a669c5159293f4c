//! Runs `ip`, `nft` and `ss`, and writes sysctls; says what is missing when it cannot.

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// Why the host cannot be isolated, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A tool is not installed.
    #[error("`{tool}` is not installed: apt-get install {package}")]
    Missing {
        /// Its name.
        tool: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// Not allowed.
    #[error("{what}: not permitted; `phalanx run` needs root, or CAP_NET_ADMIN and write access to /proc/sys/net")]
    Permission {
        /// What was tried.
        what: String,
    },
    /// A tool said no.
    #[error("`{command}` failed: {said}")]
    Refused {
        /// What was tried.
        command: String,
        /// Its words.
        said: String,
    },
    /// A port of ours is used by the host.
    #[error(
        "{port} still has addresses of this host ({addresses}); the port belongs to the data plane: ip addr flush dev {port}"
    )]
    PortInUse {
        /// The interface.
        port: String,
        /// Its addresses.
        addresses: String,
    },
    /// Sockets that could still send from a VIP.
    #[error(
        "{left} sockets of {vip} cannot be ended (kernel without INET_DIAG_DESTROY?); the host stays closed for {vip}"
    )]
    SocketsRemain {
        /// Their address.
        vip: IpAddr,
        /// How many.
        left: usize,
    },
    /// A file cannot be read or written.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

fn run(tool: &'static str, package: &'static str, args: &[&str], input: Option<&str>) -> Result<Output, HostError> {
    let spawned = Command::new(tool)
        .args(args)
        .env("LC_ALL", "C")
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let line = || format!("{tool} {}", args.join(" "));
    let refused = |error: io::Error| HostError::Refused { command: line(), said: error.to_string() };
    let mut child = match spawned {
        Ok(child) => child,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(HostError::Missing { tool, package }),
        Err(e) => return Err(refused(e)),
    };
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        // A tool that ends early says why on its standard error.
        let _ = stdin.write_all(text.as_bytes());
    }
    child.wait_with_output().map_err(refused)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ")
}

fn good(command: String, output: &Output) -> Result<(), HostError> {
    if output.status.success() {
        return Ok(());
    }
    let said = said(output);
    if said.contains("Operation not permitted") || said.contains("Permission denied") {
        return Err(HostError::Permission { what: command });
    }
    Err(HostError::Refused { command, said })
}

/// Loads a ruleset in one transaction.
pub(super) fn nft(ruleset: &str) -> Result<(), HostError> {
    let output = run("nft", "nftables", &["-f", "-"], Some(ruleset))?;
    good("nft -f -".to_owned(), &output)
}

/// Runs `ip`.
pub(super) fn ip(args: &[&str]) -> Result<(), HostError> {
    let output = run("ip", "iproute2", args, None)?;
    good(format!("ip {}", args.join(" ")), &output)
}

/// Variants of [`ip()`].
pub(super) mod ip {
    use super::{HostError, good, run, said};

    /// What it prints.
    pub fn output(args: &[&str]) -> Result<String, HostError> {
        let output = run("ip", "iproute2", args, None)?;
        good(format!("ip {}", args.join(" ")), &output)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What exists already is as good.
    pub fn existing(args: &[&str]) -> Result<(), HostError> {
        let output = run("ip", "iproute2", args, None)?;
        if said(&output).contains("File exists") { Ok(()) } else { good(format!("ip {}", args.join(" ")), &output) }
    }

    /// What is gone already is as good.
    pub fn quiet(args: &[&str]) -> Result<(), HostError> {
        let output = run("ip", "iproute2", args, None)?;
        let said = said(&output);
        let gone =
            ["No such", "Cannot find device", "Cannot assign requested address", "does not exist", "Address not found"];
        if gone.iter().any(|g| said.contains(g)) { Ok(()) } else { good(format!("ip {}", args.join(" ")), &output) }
    }
}

/// Whether an interface is up.
pub(super) fn is_up(interface: &str) -> Result<bool, HostError> {
    let line = ip::output(&["-o", "link", "show", "dev", interface])?;
    let flags = line.split(['<', '>']).nth(1).unwrap_or("");
    Ok(flags.split(',').any(|f| f == "UP"))
}

/// The filters that find a VIP's connected sockets: a socket of `[::]` has an IPv4 VIP as a mapped address.
fn socket_filters(vip: IpAddr) -> Vec<String> {
    match vip {
        IpAddr::V4(v4) => vec![v4.to_string(), format!("[::ffff:{v4}]")],
        IpAddr::V6(v6) => vec![format!("[{v6}]")],
    }
}

/// Ends connected sockets of `vip`.
pub(super) fn kill_sockets(vip: IpAddr) -> Result<(), HostError> {
    for address in socket_filters(vip) {
        let args = ["-K", "-H", "-a", "-n", "-t", "-u", "state", "connected", "src", &address];
        let output = run("ss", "iproute2", &args, None)?;
        good(format!("ss {}", args.join(" ")), &output)?;
    }
    Ok(())
}

/// How many connected sockets `vip` has.
pub(super) fn sockets(vip: IpAddr) -> Result<usize, HostError> {
    let mut found = 0;
    for address in socket_filters(vip) {
        let args = ["-H", "-a", "-n", "-t", "-u", "state", "connected", "src", &address];
        let output = run("ss", "iproute2", &args, None)?;
        good(format!("ss {}", args.join(" ")), &output)?;
        found += String::from_utf8_lossy(&output.stdout).lines().count();
    }
    Ok(found)
}

/// Kernel parameters, through /proc/sys.
pub(super) mod sysctl {
    use super::HostError;
    use std::io;
    use std::path::{Path, PathBuf};

    /// Of an interface, IPv4.
    pub fn ipv4(interface: &str, key: &str) -> PathBuf {
        Path::new("/proc/sys/net/ipv4/conf").join(interface).join(key)
    }

    /// Of an interface, IPv6.
    pub fn ipv6(interface: &str, key: &str) -> PathBuf {
        Path::new("/proc/sys/net/ipv6/conf").join(interface).join(key)
    }

    /// Its value, where there is one.
    pub fn read(path: &Path) -> Option<String> {
        std::fs::read_to_string(path).ok().map(|v| v.trim().to_owned())
    }

    /// Sets it. A kernel without IPv6 has none of its parameters and needs none.
    pub fn write(path: &Path, value: &str) -> Result<(), HostError> {
        let no_ipv6 = || path.starts_with("/proc/sys/net/ipv6") && !Path::new("/proc/sys/net/ipv6").exists();
        match std::fs::write(path, value) {
            Ok(()) => Ok(()),
            Err(_) if no_ipv6() => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                Err(HostError::Permission { what: format!("writing {}", path.display()) })
            }
            Err(error) => Err(HostError::File { path: path.to_owned(), error }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_names_its_package() {
        let error = run("phalanx-no-such-tool", "nftables", &[], None).unwrap_err();
        assert_eq!(error.to_string(), "`phalanx-no-such-tool` is not installed: apt-get install nftables");
    }

    #[test]
    fn a_refusal_quotes_the_tool() {
        let output = run("sh", "dash", &["-c", "echo no >&2; exit 1"], None).unwrap();
        assert_eq!(good("sh".into(), &output).unwrap_err().to_string(), "`sh` failed: no");
    }
}
