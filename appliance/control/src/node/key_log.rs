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

/// Family, ends, SPI, cipher with its key and salt, integrity algorithm with its key. Columns that later versions added have
/// defaults; Wireshark's for 64-bit numbers only says whether it may check the ICV of an SA. What it has no name for has no line: it
/// would take AES-GMAC's IV for the packet's first bytes.
fn esp_line(child: &ChildSa, (from, to): (IpAddr, IpAddr), keyed: &Keyed) -> Zeroizing<String> {
    let family = if from.is_ipv4() { "IPv4" } else { "IPv6" };
    let Some((cipher, integrity)) = names(child.algorithm) else { return Zeroizing::default() };
    // Long enough for all of it: what a string leaves behind when it grows is not wiped.
    let mut line = Zeroizing::new(String::with_capacity(1024));
    let _ = write!(line, "\"{family}\",\"{from}\",\"{to}\",\"{:#010x}\",\"{cipher}\",\"", keyed.spi.0);
    let material = keyed.key.expose();
    let (encryption, behind) = material.split_at(material.len() - child.algorithm.integrity_key_len());
    hex(&mut line, encryption);
    let _ = write!(line, "\",\"{integrity}\",\"");
    hex(&mut line, behind);
    let _ = writeln!(line, "\"");
    line
}

/// Nothing for no key.
fn hex(line: &mut String, key: &[u8]) {
    if !key.is_empty() {
        line.push_str("0x");
    }
    for byte in key {
        let _ = write!(line, "{byte:02x}");
    }
}

/// Wireshark's words for cipher and integrity algorithm.
fn names(algorithm: Algorithm) -> Option<(&'static str, &'static str)> {
    use Algorithm as A;
    let cipher = match algorithm {
        A::Aes128Gcm16 | A::Aes256Gcm16 => "AES-GCM with 16 octet ICV [RFC4106]",
        A::Aes128Gmac | A::Aes256Gmac => return None,
        // A name that a Wireshark does not know makes it refuse the table, and 4.0 does not know these.
        A::ChaCha20Poly1305 | A::Aes128Gcm16Iiv | A::Aes256Gcm16Iiv | A::ChaCha20Poly1305Iiv => return None,
        // Wireshark checks no AH.
        A::AhHmacSha256 | A::AhHmacSha384 | A::AhHmacSha512 | A::AhGmac128 | A::AhGmac256 => return None,
        A::Aes128CbcSha256 | A::Aes128CbcSha384 | A::Aes128CbcSha512 => "AES-CBC [RFC3602]",
        A::Aes256CbcSha256 | A::Aes256CbcSha384 | A::Aes256CbcSha512 => "AES-CBC [RFC3602]",
        A::NullSha256 | A::NullSha384 | A::NullSha512 => "NULL",
    };
    let integrity = match algorithm.integrity_key_len() {
        0 => "NULL",
        32 => "HMAC-SHA-256-128 [RFC4868]",
        48 => "HMAC-SHA-384-192 [RFC4868]",
        _ => "HMAC-SHA-512-256 [RFC4868]",
    };
    Some((cipher, integrity))
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
    fn keys_of_encryption_and_integrity_stand_in_columns_of_their_own() {
        let line = |algorithm: Algorithm| {
            let key = SecretKey::new(algorithm, &[&[0xee; 32][..], &[0x11; 64]].concat()[..algorithm.material_len()]);
            let keyed = Keyed { spi: Spi(0x1001), key: key.unwrap() };
            let child = ChildSa { algorithm, ..child("10.77.0.10:9", true) };
            esp_line(&child, ("::1".parse().unwrap(), "::2".parse().unwrap()), &keyed).trim_end().to_owned()
        };
        let start = "\"IPv6\",\"::1\",\"::2\",\"0x00001001\"";
        let (encryption, integrity) = ("ee".repeat(32), "11".repeat(48));
        assert_eq!(
            line(Algorithm::Aes256CbcSha384),
            format!(
                "{start},\"AES-CBC [RFC3602]\",\"0x{encryption}\",\"HMAC-SHA-384-192 [RFC4868]\",\"0x{integrity}\""
            )
        );
        assert_eq!(
            line(Algorithm::NullSha256),
            format!("{start},\"NULL\",\"\",\"HMAC-SHA-256-128 [RFC4868]\",\"0x{encryption}\"")
        );
        assert_eq!(line(Algorithm::Aes128Gmac), "", "Wireshark has no name for it");
    }

    #[test]
    fn a_link_to_somewhere_else_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/null", folder.path().join("esp_sa")).unwrap();
        assert!(KeyLog::open(folder.path()).is_err());
    }
}
