//! `[[peer]]` and `[[peer.child]]`.

use super::proof::ProofDraft;
use super::sa::SelectorsDraft;
use crate::config::number::Name;
use crate::config::proposal::{Esp, Ike};
use crate::config::read::{At, Fields, Span};
use crate::config::report::Problem;
use crate::config::{MssClamp, SaMode};
use phalanx_ike::auth::{Identity, IdentityPattern};
use phalanx_ike::{EspProposal, IkeProposal, Remote};
use phalanx_ipsec::Prefix;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;

pub(in crate::config) struct PeerDraft {
    pub span: Span,
    pub name: Option<At<String>>,
    pub vip: Option<At<String>>,
    pub remote: Option<At<Remote>>,
    pub local_id: Option<At<Identity>>,
    pub remote_id: Option<At<IdentityPattern>>,
    pub proof: Option<At<ProofDraft>>,
    /// Whether the secret stands in this file.
    pub secret_inline: bool,
    pub proposal: Option<At<IkeProposal>>,
    pub life: LifeDraft,
    pub reauthenticate: Option<At<bool>>,
    pub liveness: Option<At<u32>>,
    pub nat_keepalive: Option<At<u32>>,
    pub fragment: Option<At<u16>>,
    pub start: Option<At<bool>>,
    pub unique: Option<At<bool>>,
    pub udp: Option<At<bool>>,
    pub path_mtu: Option<At<u16>>,
    pub mss_clamp: Option<At<MssClamp>>,
    pub copy_dscp: Option<At<bool>>,
    pub ecn: Option<At<bool>>,
    pub children: Vec<ChildDraft>,
}

pub(in crate::config) struct ChildDraft {
    pub span: Span,
    pub name: Option<At<String>>,
    pub mode: Option<At<SaMode>>,
    pub selectors: SelectorsDraft,
    pub proposal: Option<At<EspProposal>>,
    pub life: LifeDraft,
    pub window: Option<At<u32>>,
    pub start: Option<At<bool>>,
}

/// When keys are replaced (`rekey_…`) and when an SA ends (`life_…`).
#[derive(Default)]
pub(in crate::config) struct LifeDraft {
    pub rekey_seconds: Option<At<u32>>,
    pub life_seconds: Option<At<u32>>,
    pub rekey_bytes: Option<At<u64>>,
    pub life_bytes: Option<At<u64>>,
    pub rekey_packets: Option<At<u64>>,
    pub life_packets: Option<At<u64>>,
    pub jitter: Option<At<u8>>,
}

/// `"any"`, an address or a block.
struct Place(Remote);

impl FromStr for Place {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Place, &'static str> {
        if text == "any" {
            return Ok(Place(Remote::Any));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Place(Remote::Address(address)));
        }
        let block: Result<Prefix, _> = text.parse();
        block.map(|block| Place(Remote::Block(block))).map_err(|_| "must be \"any\", an address or a block of them")
    }
}

impl PeerDraft {
    pub fn read(mut f: Fields<'_, '_>, folder: &Path) -> PeerDraft {
        let (proof, secret_inline) = super::proof::read(&mut f, folder);
        let local_id: Option<At<Identity>> = f.parsed("local_id");
        let local_id = match &proof {
            Some(proof) => proof.value.local_id(local_id.as_ref(), &f),
            None => local_id,
        };
        let draft = PeerDraft {
            span: f.span.clone(),
            name: f.required_parsed::<Name>("name").map(|n| n.map(|n| n.0)),
            vip: f.required_parsed::<Name>("vip").map(|n| n.map(|n| n.0)),
            remote: f.parsed::<Place>("remote").map(|r| r.map(|r| r.0)),
            local_id,
            remote_id: f.parsed("remote_id"),
            proof,
            secret_inline,
            proposal: f.parsed::<Ike>("proposal").map(|p| p.map(|p| p.0)),
            life: LifeDraft { rekey_seconds: f.optional("rekey_seconds"), ..LifeDraft::times(&mut f) },
            reauthenticate: f.optional("reauthenticate"),
            liveness: f.optional("liveness"),
            nat_keepalive: f.optional("nat_keepalive"),
            fragment: f.optional("fragment"),
            start: f.optional("start"),
            unique: f.optional("unique"),
            udp: f.choice("encapsulation", &[("nat", false), ("udp", true)]),
            path_mtu: f.optional("path_mtu"),
            mss_clamp: super::sa::mss_clamp(&mut f, "[[peer]]"),
            copy_dscp: f.optional("copy_dscp"),
            ecn: f.optional("ecn"),
            children: f.tables("child", "[[peer.child]]").into_iter().map(ChildDraft::read).collect(),
        };
        draft.bounds(&f);
        f.finish();
        draft
    }

    fn bounds(&self, f: &Fields<'_, '_>) {
        let wrong = |span: &Span, message: &str| f.sink().push(Problem::error(message).at(span.clone(), ""));
        if let Some(mtu) = self.path_mtu.as_ref().filter(|mtu| !(576..=9600).contains(&mtu.value)) {
            wrong(&mtu.span, "[[peer]]: `path_mtu` must be 576 to 9600");
        }
        // RFC 7383 §2.5.1: what every path carries of IPv4, and room for one message of IPv6.
        if let Some(size) = self.fragment.as_ref().filter(|s| s.value != 0 && !(576..=9000).contains(&s.value)) {
            wrong(&size.span, "[[peer]]: `fragment` must be 576 to 9000 bytes, or 0 (never cut)");
        }
        for (key, seconds) in [("liveness", &self.liveness), ("nat_keepalive", &self.nat_keepalive)] {
            if let Some(seconds) = seconds.as_ref().filter(|s| s.value > 3600) {
                wrong(&seconds.span, &format!("[[peer]]: `{key}` must be 0 (never) to 3600 seconds"));
            }
        }
    }
}

impl LifeDraft {
    fn times(f: &mut Fields<'_, '_>) -> LifeDraft {
        LifeDraft { life_seconds: f.optional("life_seconds"), jitter: jitter(f), ..LifeDraft::default() }
    }
}

/// Percent.
fn jitter(f: &mut Fields<'_, '_>) -> Option<At<u8>> {
    let percent: At<u8> = f.optional("jitter")?;
    if percent.value > 90 {
        f.sink().push(Problem::error("`jitter` must be 0 to 90 percent").at(percent.span, ""));
        return None;
    }
    Some(percent)
}

impl ChildDraft {
    fn read(mut f: Fields<'_, '_>) -> ChildDraft {
        let draft = ChildDraft {
            span: f.span.clone(),
            name: f.required_parsed::<Name>("name").map(|n| n.map(|n| n.0)),
            mode: f.choice("mode", &[("tunnel", SaMode::Tunnel), ("transport", SaMode::Transport)]),
            selectors: SelectorsDraft::read(&mut f),
            proposal: f.parsed::<Esp>("proposal").map(|p| p.map(|p| p.0)),
            life: LifeDraft {
                rekey_seconds: f.optional("rekey_seconds"),
                rekey_bytes: f.optional("rekey_bytes"),
                life_bytes: f.optional("life_bytes"),
                rekey_packets: f.optional("rekey_packets"),
                life_packets: f.optional("life_packets"),
                ..LifeDraft::times(&mut f)
            },
            window: f.optional("window"),
            start: f.optional("start"),
        };
        super::sa::check_window(&draft.window, &f);
        f.finish();
        draft
    }
}
