//! Keys for Wireshark, where the configuration asks for them (`[ike] key_log`): a folder with the two tables that it reads, so that
//! `WIRESHARK_CONFIG_DIR=FOLDER wireshark` shows what is inside. Whoever can read them can read everything (I8).

use std::fmt::Write as _;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use phalanx_ike::{ChildSa, KeyLine, Keyed};
use phalanx_ipsec::Algorithm;
use zeroize::Zeroizing;

/// Both tables, open.
pub(super) struct KeyLog {
    ike: File,
    esp: File,
}

impl KeyLog {
    /// The tables in `folder`, which is made if it is not there. What is in them stays.
    ///
    /// # Errors
    /// The folder or a file cannot be made, or is somebody else's: keys are written for the one who runs this only.
    pub fn open(folder: &Path) -> io::Result<KeyLog> {
        if !folder.exists() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        Ok(KeyLog { ike: table(&folder.join("ikev2_decryption_table"))?, esp: table(&folder.join("esp_sa"))? })
    }

    /// An IKE SA.
    pub fn ike(&mut self, line: &KeyLine) -> io::Result<()> {
        let mut text = Zeroizing::new(String::with_capacity(1024));
        text.push_str(line.expose());
        text.push('\n');
        self.ike.write_all(text.as_bytes())
    }

    /// Both directions of a CHILD_SA.
    pub fn esp(&mut self, child: &ChildSa) -> io::Result<()> {
        let (local, remote) = (child.path.local.ip(), child.path.remote.ip());
        let mut text = esp_line(child, (remote, local), &child.inbound);
        text.push_str(&esp_line(child, (local, remote), &child.outbound));
        self.esp.write_all(text.as_bytes())
    }
}

/// A file of ours that nobody else can open.
fn table(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path)?;
    let about = file.metadata()?;
    if !about.is_file() || about.uid() != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{} is not ours", path.display())));
    }
    if about.mode() & 0o077 != 0 {
        file.set_permissions(PermissionsExt::from_mode(0o600))?;
    }
    Ok(file)
}

/// Family, ends, SPI, cipher with its key and salt, no integrity algorithm of its own. Columns that later versions added have
/// defaults; Wireshark's for 64-bit numbers only says whether it may check the ICV of an SA.
fn esp_line(child: &ChildSa, (from, to): (IpAddr, IpAddr), keyed: &Keyed) -> Zeroizing<String> {
    let family = if from.is_ipv4() { "IPv4" } else { "IPv6" };
    let cipher = match child.algorithm {
        Algorithm::Aes128Gcm16 | Algorithm::Aes256Gcm16 => "AES-GCM with 16 octet ICV [RFC4106]",
        // Wireshark checks no AH.
        _ => "NULL",
    };
    // Long enough for all of it: what a string leaves behind when it grows is not wiped.
    let mut line = Zeroizing::new(String::with_capacity(512));
    let _ = write!(line, "\"{family}\",\"{from}\",\"{to}\",\"{:#010x}\",\"{cipher}\",\"0x", keyed.spi.0);
    keyed.key.expose().iter().for_each(|byte| {
        let _ = write!(line, "{byte:02x}");
    });
    let _ = writeln!(line, "\",\"NULL\",\"\"");
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::ike_tunnels::tests::child;
    use phalanx_ipsec::SecretKey;
    use phalanx_wire::Spi;

    fn keyed(spi: u32, byte: u8) -> Keyed {
        Keyed { spi: Spi(spi), key: SecretKey::new(Algorithm::Aes128Gcm16, &[byte; 20]).unwrap() }
    }

    #[test]
    fn both_directions_of_an_sa_have_a_line_and_only_the_owner_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("keys");
        let child =
            ChildSa { inbound: keyed(0x1001, 0xa1), outbound: keyed(0xfedc_0001, 0xb2), ..child("10.77.0.10:9", true) };
        KeyLog::open(&folder).unwrap().esp(&child).unwrap();
        let file = folder.join("esp_sa");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
        // It goes on where it was, and closes what somebody opened.
        KeyLog::open(&folder).unwrap().esp(&child).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        let (a, b) = ("a1".repeat(20), "b2".repeat(20));
        let (cipher, rest) = ("AES-GCM with 16 octet ICV [RFC4106]", "\"NULL\",\"\"");
        let wanted = format!(
            "\"IPv4\",\"10.77.0.10\",\"10.77.0.100\",\"0x00001001\",\"{cipher}\",\"0x{a}\",{rest}\n\
             \"IPv4\",\"10.77.0.100\",\"10.77.0.10\",\"0xfedc0001\",\"{cipher}\",\"0x{b}\",{rest}\n"
        );
        assert_eq!(text, wanted.repeat(2));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&file), mode(&folder.join("ikev2_decryption_table"))), (0o700, 0o600, 0o600));
    }

    #[test]
    fn a_link_to_somewhere_else_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/null", folder.path().join("esp_sa")).unwrap();
        assert!(KeyLog::open(folder.path()).is_err());
    }
}
