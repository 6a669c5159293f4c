//! `[[peer]]` and `[[peer.child]]`.

use super::node::path;
use super::sa::SelectorsDraft;
use crate::config::number::Name;
use crate::config::proposal::{Esp, Ike};
use crate::config::read::{At, Fields, Span};
use crate::config::report::Problem;
use crate::config::{MssClamp, SaMode};
use phalanx_ike::auth::Identity;
use phalanx_ike::crypto::Secret;
use phalanx_ike::{EspProposal, IkeProposal, Remote};
use phalanx_ipsec::Prefix;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::str::FromStr;

pub(in crate::config) struct PeerDraft {
    pub span: Span,
    pub name: Option<At<String>>,
    pub vip: Option<At<String>>,
    pub remote: Option<At<Remote>>,
    pub local_id: Option<At<Identity>>,
    pub remote_id: Option<At<Identity>>,
    pub secret: Option<At<Secret>>,
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
        let (secret, secret_inline) = secret(&mut f, folder);
        let draft = PeerDraft {
            span: f.span.clone(),
            name: f.required_parsed::<Name>("name").map(|n| n.map(|n| n.0)),
            vip: f.required_parsed::<Name>("vip").map(|n| n.map(|n| n.0)),
            remote: f.parsed::<Place>("remote").map(|r| r.map(|r| r.0)),
            local_id: f.parsed("local_id"),
            remote_id: f.parsed("remote_id"),
            secret,
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

/// The secret from `secret` or `secret_file`, and whether it stood in the configuration itself.
fn secret(f: &mut Fields<'_, '_>, folder: &Path) -> (Option<At<Secret>>, bool) {
    let inline = f.raw("secret");
    if let Some(value) = inline {
        f.sink().secret(value.span());
    }
    let file = path(f, "secret_file", folder);
    match (inline, file) {
        (Some(value), None) => match value.get_ref().as_str().filter(|text| !text.is_empty()) {
            Some(text) => (Some(At::new(Secret::from(text.as_bytes()), value.span())), true),
            None => {
                f.sink().push(Problem::error("`secret` must be a string in quotes, not empty").at(value.span(), ""));
                (None, true)
            }
        },
        (None, Some(file)) => match secret_from(&file.value) {
            Ok(secret) => (Some(At::new(secret, file.span)), false),
            Err(problem) => {
                f.sink().push(problem.at(file.span, ""));
                (None, false)
            }
        },
        (Some(value), Some(file)) => {
            let problem = Problem::error("`secret` and `secret_file` are both given").at(file.span, "");
            f.sink().push(problem.at(value.span(), "not shown"));
            (None, true)
        }
        (None, None) => {
            if !f.has("secret_file") {
                let problem = Problem::error("`secret_file` (or `secret`) is missing").at(f.span.clone(), "here");
                f.sink().push(problem);
            }
            (None, false)
        }
    }
}

/// What the file holds but for the end of its line.
fn secret_from(path: &Path) -> Result<Secret, Problem> {
    let shown = path.display();
    let cannot = |e: std::io::Error| Problem::error(format!("cannot read the secret file {shown}: {e}"));
    let meta = fs::metadata(path).map_err(cannot)?;
    if meta.permissions().mode() & 0o007 != 0 {
        let problem = Problem::error(format!("everybody on this machine can get at the secret file {shown}"));
        return Err(problem.help(format!("chmod 600 {shown}")));
    }
    if meta.len() > 4096 {
        return Err(Problem::error(format!(
            "the secret file {shown} has {} bytes: no secret is that long",
            meta.len()
        )));
    }
    let bytes = zeroize::Zeroizing::new(fs::read(path).map_err(cannot)?);
    let end = bytes.iter().rposition(|b| !matches!(b, b'\n' | b'\r')).map_or(0, |last| last + 1);
    if end == 0 {
        return Err(Problem::error(format!("the secret file {shown} is empty")));
    }
    Ok(Secret::from(&bytes[..end]))
}
