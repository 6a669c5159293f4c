//! What an IKE SA shows of itself.

use zeroize::Zeroizing;

use super::child::{Child, Life};
use super::{Cx, IkeSa, Stage, Todo};
use crate::api::KeyLine;
use crate::crypto::{Cipher, IkeKeys, Secret};
use crate::{ChildRow, IkeRow, Millis, Output};

impl IkeSa {
    /// Its row in a table.
    pub fn row(&self, now: Millis) -> IkeRow {
        let rekeying =
            self.undecided || self.tasks.iter().any(|t| matches!(t.what, Todo::RekeyIke)) || self.is_rekeying();
        let state = match self.stage {
            Stage::Init(_) | Stage::Auth(_) => "connecting",
            Stage::Up if rekeying => "rekeying",
            Stage::Up => "established",
            Stage::Replaced => "replaced",
            Stage::Closing | Stage::Gone => "deleting",
        };
        IkeRow {
            id: self.id,
            spis: self.spis(),
            initiator: self.initiator,
            peer: self.peer.as_ref().map(|p| p.name.clone()),
            identity: self.identity.as_ref().map(|i| i.1.clone()),
            path: self.path,
            state,
            suite: self.suite.map_or(String::new(), |s| s.name()),
            age_ms: now.saturating_sub(self.began),
            rekey_in_ms: (self.rekey_at != Millis::MAX).then(|| self.rekey_at.saturating_sub(now)),
            silent_ms: now.saturating_sub(self.heard_at),
            nat: (self.nat.us, self.nat.peer),
            message_ids: (self.next_id, self.expected),
            children: self.children.iter().map(|c| c.row(now)).collect(),
        }
    }
}

impl Child {
    fn row(&self, now: Millis) -> ChildRow {
        let state = match self.life {
            Life::Installing => "installing",
            Life::Up if self.successor.is_some() => "replaced",
            Life::Up if self.rekeying => "rekeying",
            Life::Up => "up",
            Life::Deleting | Life::Removing => "deleting",
        };
        ChildRow {
            id: self.id,
            name: self.config.name.clone(),
            state,
            mode: self.mode,
            inbound: self.spi_in,
            outbound: self.spi_out,
            selectors: self.selectors,
            suite: self.suite.name(),
            esn: self.suite.esn,
            age_ms: now.saturating_sub(self.since),
            rekey_in_ms: (self.rekey_at != Millis::MAX).then(|| self.rekey_at.saturating_sub(now)),
            replaces: self.replaces,
        }
    }
}

/// A line of Wireshark's ikev2_decryption_table, if somebody asked for them.
pub fn log_keys(cx: &mut Cx, (spi_i, spi_r): ([u8; 8], [u8; 8]), cipher: Cipher, keys: &IkeKeys) {
    if !cx.config.key_log {
        return;
    }
    let hex =
        |secret: &Secret| Zeroizing::new(secret.as_bytes().iter().map(|b| format!("{b:02x}")).collect::<String>());
    let encryption = match cipher {
        Cipher::AesGcm16 { bits } => format!("AES-GCM-{} with 16 octet ICV [RFC5282]", bits.bits()),
        // Wireshark has no name for it, and refuses a whole table for one line that it does not know.
        Cipher::ChaCha20Poly1305 => return,
        Cipher::AesCbc { bits, .. } => format!("AES-CBC-{} [RFC3602]", bits.bits()),
    };
    let integrity = match cipher.integrity() {
        None => "NONE [RFC4306]",
        Some(crate::crypto::Integrity::HmacSha256_128) => "HMAC_SHA2_256_128 [RFC4868]",
        Some(crate::crypto::Integrity::HmacSha384_192) => "HMAC_SHA2_384_192 [RFC4868]",
        Some(crate::crypto::Integrity::HmacSha512_256) => "HMAC_SHA2_512_256 [RFC4868]",
    };
    let (i, r) = (u64::from_be_bytes(spi_i), u64::from_be_bytes(spi_r));
    let (ei, er, ai, ar) = (hex(&keys.ei), hex(&keys.er), hex(&keys.ai), hex(&keys.ar));
    let line = format!(
        "{i:016x},{r:016x},{},{},\"{encryption}\",{},{},\"{integrity}\"",
        ei.as_str(),
        er.as_str(),
        ai.as_str(),
        ar.as_str()
    );
    cx.out.push_back(Output::KeyLog(KeyLine(Zeroizing::new(line))));
}
