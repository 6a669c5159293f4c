//! `[[sa]]` and `[[filter]]`.

use super::natt::NattDraft;
use super::node::path;
use crate::config::key::KeyText;
use crate::config::number::{self, Block, Cipher, Name};
use crate::config::read::{At, Fields, Span, article};
use crate::config::report::Problem;
use crate::config::{Algorithm, MssClamp, PortRange, SaMode};
use ipnet::IpNet;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use zeroize::Zeroizing;

/// The replay windows we and the RFC's readers know: RFC 4303 §3.4.3 asks for at least 32.
const WINDOWS: std::ops::RangeInclusive<u32> = 32..=65536;

pub(in crate::config) struct SaDraft {
    pub span: Span,
    pub name: Option<At<String>>,
    pub vip: Option<At<String>>,
    pub peer: Option<At<IpAddr>>,
    pub mode: Option<At<SaMode>>,
    pub algorithm: Option<At<Algorithm>>,
    pub esn: Option<At<bool>>,
    pub inbound: Option<HalfDraft>,
    pub outbound: Option<HalfDraft>,
    pub selectors: SelectorsDraft,
    pub soft_bytes: Option<At<u64>>,
    pub hard_bytes: Option<At<u64>>,
    pub path_mtu: Option<At<u16>>,
    pub mss_clamp: Option<At<MssClamp>>,
    pub copy_dscp: Option<At<bool>>,
    pub ecn: Option<At<bool>>,
    pub natt: NattDraft,
    /// The name of an SA of AH.
    pub within: Option<At<String>>,
}

pub(in crate::config) struct HalfDraft {
    pub span: Span,
    pub spi: Option<At<u32>>,
    pub key: Option<At<KeyText>>,
    /// Whether the key stands in this file, readable by whoever reads it.
    pub key_inline: bool,
    pub window: Option<At<u32>>,
}

pub(in crate::config) struct SelectorsDraft {
    pub local: Option<At<IpNet>>,
    pub remote: Option<At<IpNet>>,
    pub protocol: Option<At<Option<u8>>>,
    pub local_ports: Option<At<PortRange>>,
    pub remote_ports: Option<At<PortRange>>,
}

impl SaDraft {
    pub fn read(mut f: Fields<'_, '_>, folder: &Path) -> SaDraft {
        f.demand("mode");
        f.demand("inbound");
        f.demand("outbound");
        let draft = SaDraft {
            span: f.span.clone(),
            name: f.required_parsed::<Name>("name").map(|n| n.map(|n| n.0)),
            vip: f.required_parsed::<Name>("vip").map(|n| n.map(|n| n.0)),
            peer: f.required_parsed("peer"),
            mode: f.choice("mode", &[("tunnel", SaMode::Tunnel), ("transport", SaMode::Transport)]),
            algorithm: f.parsed::<Cipher>("algorithm").map(|a| a.map(|a| a.0)),
            esn: f.optional("esn"),
            inbound: f.table("inbound", "`inbound` of [[sa]]").map(|h| HalfDraft::read(h, folder)),
            outbound: f.table("outbound", "`outbound` of [[sa]]").map(|h| HalfDraft::read(h, folder)),
            selectors: SelectorsDraft::read(&mut f),
            soft_bytes: f.optional("soft_bytes"),
            hard_bytes: f.optional("hard_bytes"),
            path_mtu: f.optional("path_mtu"),
            mss_clamp: mss_clamp(&mut f, "[[sa]]"),
            copy_dscp: f.optional("copy_dscp"),
            ecn: f.optional("ecn"),
            natt: NattDraft::read(&mut f),
            within: f.parsed::<Name>("within").map(|n| n.map(|n| n.0)),
        };
        if let Some(mtu) = &draft.path_mtu
            && !(576..=9600).contains(&mtu.value)
        {
            f.sink().push(Problem::error("[[sa]]: `path_mtu` must be 576 to 9600").at(mtu.span.clone(), ""));
        }
        f.finish();
        draft
    }

    /// Both directions, where they are given.
    pub fn halves(&self) -> impl Iterator<Item = (&'static str, &HalfDraft)> {
        [("inbound", &self.inbound), ("outbound", &self.outbound)]
            .into_iter()
            .filter_map(|(n, h)| Some((n, h.as_ref()?)))
    }
}

impl HalfDraft {
    fn read(mut f: Fields<'_, '_>, folder: &Path) -> HalfDraft {
        let (key, key_inline) = key(&mut f, folder);
        let draft =
            HalfDraft { span: f.span.clone(), spi: f.required("spi"), key, key_inline, window: f.optional("window") };
        if let Some(spi) = &draft.spi
            && spi.value < 256
        {
            // RFC 4303 §2.1: 1 to 255 are reserved, 0 is for local use.
            f.sink().push(
                Problem::error("an `spi` is 256 to 4294967295").at(spi.span.clone(), "reserved by RFC 4303 §2.1"),
            );
        }
        check_window(&draft.window, &f);
        f.finish();
        draft
    }
}

pub(super) fn check_window(window: &Option<At<u32>>, f: &Fields<'_, '_>) {
    if let Some(window) = window
        && (!WINDOWS.contains(&window.value) || !window.value.is_multiple_of(32))
    {
        let problem = Problem::error("a replay `window` is 32 to 65536 packets, a multiple of 32");
        f.sink().push(problem.at(window.span.clone(), ""));
    }
}

/// `"none"`, `"path"` or a number. RFC 9293 §3.7.1: 536 is what every IPv4 host takes.
pub(super) fn mss_clamp(f: &mut Fields<'_, '_>, what: &str) -> Option<At<MssClamp>> {
    let value = f.raw("mss_clamp")?;
    let most = value.get_ref().as_integer().and_then(|most| most.to_string().parse().ok());
    let most = most.filter(|most: &u16| *most >= 536);
    let clamp = match value.get_ref().as_str() {
        Some("none") => Some(MssClamp::None),
        Some("path") => Some(MssClamp::Path),
        _ => most.map(MssClamp::Most),
    };
    if clamp.is_none() {
        let message = format!("{what}: `mss_clamp` must be \"none\", \"path\" or 536 to 65535");
        f.sink().push(Problem::error(message).at(value.span(), ""));
    }
    clamp.map(|clamp| At::new(clamp, value.span()))
}

/// The key from `key` or `key_file`, and whether it stood in the configuration itself.
fn key(f: &mut Fields<'_, '_>, folder: &Path) -> (Option<At<KeyText>>, bool) {
    let inline = f.raw("key");
    if let Some(value) = inline {
        f.sink().secret(value.span());
    }
    let file = path(f, "key_file", folder);
    match (inline, file) {
        (Some(value), None) => {
            let Some(text) = value.get_ref().as_str() else {
                let found = article(value.get_ref().type_str());
                f.sink().push(
                    Problem::error(format!("`key` must be hex digits in quotes, not {found}")).at(value.span(), ""),
                );
                return (None, true);
            };
            match KeyText::from_hex(text) {
                Ok(key) => (Some(At::new(key, value.span())), true),
                Err(why) => {
                    let label = format!("{} characters, not shown", text.chars().count());
                    f.sink().push(Problem::error(format!("`key` {why}")).at(value.span(), label));
                    (None, true)
                }
            }
        }
        (None, Some(file)) => match key_from(&file.value) {
            Ok(key) => (Some(At::new(key, file.span)), false),
            Err(problem) => {
                f.sink().push(problem.at(file.span, ""));
                (None, false)
            }
        },
        (Some(value), Some(file)) => {
            let problem = Problem::error("`key` and `key_file` are both given").at(file.span, "");
            f.sink().push(problem.at(value.span(), "not shown"));
            (None, true)
        }
        (None, None) => {
            if !f.has("key_file") {
                f.sink().push(Problem::error("`key` (or `key_file`) is missing").at(f.span.clone(), "here"));
            }
            (None, false)
        }
    }
}

fn key_from(path: &Path) -> Result<KeyText, Problem> {
    let shown = path.display();
    let cannot = |e: std::io::Error| Problem::error(format!("cannot read the key file {shown}: {e}"));
    let meta = fs::metadata(path).map_err(cannot)?;
    if meta.permissions().mode() & 0o007 != 0 {
        let problem = Problem::error(format!("everybody on this machine can get at the key file {shown}"));
        return Err(problem.help(format!("chmod 600 {shown}")));
    }
    if meta.len() > 4096 {
        return Err(Problem::error(format!("the key file {shown} has {} bytes: no key is that long", meta.len())));
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(cannot)?);
    KeyText::from_hex(&text).map_err(|why| Problem::error(format!("the key in {shown} {why}")))
}

impl SelectorsDraft {
    pub(super) fn read(f: &mut Fields<'_, '_>) -> SelectorsDraft {
        SelectorsDraft {
            local: f.parsed::<Block>("local").map(|b| b.map(|b| b.0)),
            remote: f.parsed::<Block>("remote").map(|b| b.map(|b| b.0)),
            protocol: protocol(f),
            local_ports: port_range(f, "local_ports"),
            remote_ports: port_range(f, "remote_ports"),
        }
    }
}

fn protocol(f: &mut Fields<'_, '_>) -> Option<At<Option<u8>>> {
    let value = f.raw("protocol")?;
    if let Some(text) = value.get_ref().as_str() {
        return match number::protocol(text) {
            Ok(p) => Some(At::new(p, value.span())),
            Err(why) => {
                f.sink().push(Problem::error(format!("`protocol` {why}")).at(value.span(), ""));
                None
            }
        };
    }
    f.optional::<u8>("protocol").map(|n| n.map(Some))
}

fn port_range(f: &mut Fields<'_, '_>, key: &'static str) -> Option<At<PortRange>> {
    let value = f.raw(key)?;
    if value.get_ref().as_str() == Some("any") {
        return Some(At::new(PortRange::ALL, value.span()));
    }
    let why = match super::vip::range(value.get_ref()) {
        Some(Ok(range)) => return Some(At::new(range, value.span())),
        Some(Err(why)) => why,
        None => "must be \"any\", a port or a range such as \"1000-2000\"".to_owned(),
    };
    f.sink().push(Problem::error(format!("`{key}`: {why}")).at(value.span(), ""));
    None
}

pub(in crate::config) struct FilterDraft {
    pub span: Span,
    pub action: Option<At<ActionDraft>>,
    pub vip: Option<At<String>>,
    pub tunnel: Option<At<String>>,
    pub selectors: SelectorsDraft,
    pub log: Option<At<bool>>,
    pub name: Option<At<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum ActionDraft {
    Permit,
    Deny,
    Protect,
}

impl FilterDraft {
    pub fn read(mut f: Fields<'_, '_>) -> FilterDraft {
        f.demand("action");
        let actions = [("permit", ActionDraft::Permit), ("deny", ActionDraft::Deny), ("protect", ActionDraft::Protect)];
        let draft = FilterDraft {
            span: f.span.clone(),
            action: f.choice("action", &actions),
            vip: f.required_parsed::<Name>("vip").map(|n| n.map(|n| n.0)),
            tunnel: f.parsed::<Name>("tunnel").map(|n| n.map(|n| n.0)),
            selectors: SelectorsDraft::read(&mut f),
            log: f.optional("log"),
            name: f.parsed::<Name>("name").map(|n| n.map(|n| n.0)),
        };
        f.finish();
        draft
    }
}
