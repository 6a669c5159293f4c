//! `[memory]`, `[[port]]`, `[[core]]`: what of the machine is used.

use crate::config::number::Name;
use crate::config::read::{At, Fields, Span};
use crate::config::report::Problem;
use crate::config::{Device, Hugepages, Idle, PortRole};
use ipnet::IpNet;
use std::net::IpAddr;

#[derive(Default)]
pub(in crate::config) struct MemoryDraft {
    pub megabytes: Option<At<u32>>,
    pub hugepages: Option<At<Hugepages>>,
}

impl MemoryDraft {
    pub fn read(mut f: Fields<'_, '_>) -> MemoryDraft {
        let draft = MemoryDraft {
            megabytes: f.optional("megabytes"),
            hugepages: f.choice("hugepages", &[("auto", Hugepages::Auto), ("never", Hugepages::Never)]),
        };
        if let Some(mb) = &draft.megabytes
            && !(32..=1 << 20).contains(&mb.value)
        {
            f.sink().push(Problem::error("[memory]: `megabytes` must be 32 to 1048576").at(mb.span.clone(), ""));
        }
        f.finish();
        draft
    }
}

pub(in crate::config) struct PortDraft {
    pub span: Span,
    pub name: Option<At<String>>,
    pub device: Option<At<Device>>,
    pub role: Option<At<PortRole>>,
    pub addresses: Vec<At<IpNet>>,
    pub next_hops: Vec<At<IpAddr>>,
    pub mtu: Option<At<u16>>,
}

impl PortDraft {
    pub fn read(mut f: Fields<'_, '_>) -> PortDraft {
        f.demand("role");
        let roles = [("network", PortRole::Network), ("link", PortRole::Link), ("application", PortRole::Application)];
        let draft = PortDraft {
            span: f.span.clone(),
            name: f.required_parsed::<Name>("name").map(|n| n.map(|n| n.0)),
            device: f.required_parsed("device"),
            role: f.choice("role", &roles),
            addresses: f.parsed_list("addresses"),
            next_hops: f.parsed_list("next_hops"),
            mtu: f.optional("mtu"),
        };
        if let Some(mtu) = &draft.mtu
            && !(1280..=9600).contains(&mtu.value)
        {
            // RFC 8200 §5: a link carries 1280 bytes.
            f.sink().push(Problem::error("[[port]]: `mtu` must be 1280 to 9600").at(mtu.span.clone(), ""));
        }
        f.finish();
        draft
    }

    /// The MTU it has, said or not. Application ports have none until the SAs are known.
    pub fn mtu(&self) -> Option<u16> {
        let default = match self.role.as_ref()?.value {
            PortRole::Network => Some(1500),
            PortRole::Link => Some(1600),
            PortRole::Application => None,
        };
        self.mtu.as_ref().map(|m| m.value).or(default)
    }

    /// A link to one other process of this box.
    pub fn is_memif_link(&self) -> bool {
        self.is(PortRole::Link) && self.device.as_ref().is_some_and(|device| device.value.driver() == Some("net_memif"))
    }

    pub fn is(&self, role: PortRole) -> bool {
        self.role.as_ref().is_some_and(|r| r.value == role)
    }
}

pub(in crate::config) struct CoreDraft {
    pub span: Span,
    pub cpu: Option<At<u32>>,
    pub roles: Vec<At<CoreRole>>,
    /// `roles` is there and empty.
    pub idler: bool,
    pub ports: Vec<At<String>>,
    pub idle: Option<At<Idle>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum CoreRole {
    Router,
    Target,
}

impl std::str::FromStr for CoreRole {
    type Err = &'static str;
    fn from_str(s: &str) -> Result<CoreRole, &'static str> {
        match s {
            "router" => Ok(CoreRole::Router),
            "target" => Ok(CoreRole::Target),
            _ => Err("a core's role is `router` or `target`"),
        }
    }
}

impl CoreDraft {
    pub fn read(mut f: Fields<'_, '_>) -> CoreDraft {
        f.demand("roles");
        let idles = [("spin", Idle::Spin), ("pause", Idle::Pause), ("sleep", Idle::Sleep)];
        let draft = CoreDraft {
            span: f.span.clone(),
            cpu: f.required("cpu"),
            idler: f.raw("roles").is_some_and(|r| r.get_ref().as_array().is_some_and(|a| a.is_empty())),
            roles: f.parsed_list("roles"),
            ports: f.parsed_list::<Name>("ports").into_iter().map(|n| n.map(|n| n.0)).collect(),
            idle: f.choice("idle", &idles),
        };
        if let Some(cpu) = &draft.cpu
            && cpu.value >= 1024
        {
            f.sink().push(Problem::error("[[core]]: `cpu` must be below 1024").at(cpu.span.clone(), ""));
        }
        f.finish();
        draft
    }

    pub fn is(&self, role: CoreRole) -> bool {
        self.roles.iter().any(|r| r.value == role)
    }
}
