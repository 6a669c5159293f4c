//! `[node]`, `[cluster]`, `[[cluster.node]]`, `[limits]`.

use crate::config::Kernel;
use crate::config::number::{Name, NodeLink, NodeName};
use crate::config::read::{At, Fields, Span};
use crate::config::report::Problem;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

#[derive(Default)]
pub(in crate::config) struct NodeDraft {
    pub name: Option<At<String>>,
    pub status_socket: Option<At<PathBuf>>,
    pub state_dir: Option<At<PathBuf>>,
    pub metrics: Option<At<SocketAddr>>,
    pub load_file: Option<At<PathBuf>>,
    /// `"auto"` is none.
    pub cipher_kernel: Option<At<Option<Kernel>>>,
}

impl NodeDraft {
    pub fn read(mut f: Fields<'_, '_>, folder: &Path) -> NodeDraft {
        let kernels = Kernel::ALL.map(|kernel| (kernel.name(), Some(kernel)));
        let kernels: Vec<_> = std::iter::once(("auto", None)).chain(kernels).collect();
        let draft = NodeDraft {
            name: f.required_parsed::<NodeName>("name").map(|n| n.map(|n| n.0)),
            status_socket: path(&mut f, "status_socket", folder),
            state_dir: path(&mut f, "state_dir", folder),
            metrics: f.parsed("metrics"),
            load_file: path(&mut f, "load_file", folder),
            cipher_kernel: f.choice("cipher_kernel", &kernels),
        };
        // `sockaddr_un` holds 108 bytes, the terminating zero among them.
        if let Some(socket) = &draft.status_socket
            && socket.value.as_os_str().len() > 107
        {
            f.sink().push(Problem::error("[node]: a socket's path has at most 107 bytes").at(socket.span.clone(), ""));
        }
        f.finish();
        draft
    }
}

/// A path; a relative one is taken from the folder of the configuration.
pub(super) fn path(f: &mut Fields<'_, '_>, key: &'static str, folder: &Path) -> Option<At<PathBuf>> {
    let text = f.optional::<String>(key)?;
    if text.value.is_empty() {
        f.sink().push(Problem::error(format!("`{key}` is empty")).at(text.span, ""));
        return None;
    }
    Some(text.map(|t| folder.join(t)))
}

#[derive(Default)]
pub(in crate::config) struct ClusterDraft {
    pub span: Span,
    pub name: Option<At<String>>,
    pub listen: Option<At<SocketAddr>>,
    /// `listen` is there, right or wrong.
    pub listen_given: bool,
    pub certificate: Option<At<PathBuf>>,
    pub key: Option<At<PathBuf>>,
    pub ca: Option<At<PathBuf>>,
    /// Where `coupling = { etcd = … }` stands.
    pub etcd: Option<Span>,
    pub nodes: Vec<ClusterNodeDraft>,
    pub routers: Vec<At<String>>,
}

pub(in crate::config) struct ClusterNodeDraft {
    pub span: Span,
    pub name: Option<At<String>>,
    pub address: Option<At<SocketAddr>>,
    pub links: Vec<At<IpAddr>>,
    /// Our memif ports that lead there.
    pub memifs: Vec<At<String>>,
}

impl ClusterDraft {
    pub fn read(mut f: Fields<'_, '_>, folder: &Path) -> ClusterDraft {
        let draft = ClusterDraft {
            span: f.span.clone(),
            name: f.required_parsed::<Name>("name").map(|n| n.map(|n| n.0)),
            listen: f.parsed("listen"),
            listen_given: f.has("listen"),
            certificate: path(&mut f, "certificate", folder),
            key: path(&mut f, "key", folder),
            ca: path(&mut f, "ca", folder),
            etcd: coupling(&mut f),
            nodes: f.tables("node", "[[cluster.node]]").into_iter().map(ClusterNodeDraft::read).collect(),
            routers: f.parsed_list::<NodeName>("routers").into_iter().map(|n| n.map(|n| n.0)).collect(),
        };
        f.finish();
        draft
    }
}

/// `"embedded"` or `{ etcd = [ … ] }`; answers where the latter stands.
fn coupling(f: &mut Fields<'_, '_>) -> Option<Span> {
    let value = f.raw("coupling")?;
    if value.get_ref().as_str() == Some("embedded") {
        return None;
    }
    if value.get_ref().is_table() {
        let mut inner = f.table("coupling", "`coupling`")?;
        inner.demand("etcd");
        let endpoints: Vec<At<String>> = inner.parsed_list("etcd");
        if inner.has("etcd") && endpoints.is_empty() {
            f.sink().push(Problem::error("`etcd` names no endpoint").at(value.span(), ""));
        }
        inner.finish();
        return Some(value.span());
    }
    let message = "[cluster]: `coupling` must be \"embedded\" or { etcd = [\"https://host:2379\", …] }";
    f.sink().push(Problem::error(message).at(value.span(), ""));
    None
}

impl ClusterNodeDraft {
    fn read(mut f: Fields<'_, '_>) -> ClusterNodeDraft {
        let mut draft = ClusterNodeDraft {
            span: f.span.clone(),
            name: f.required_parsed::<NodeName>("name").map(|n| n.map(|n| n.0)),
            address: f.parsed("address"),
            links: Vec::new(),
            memifs: Vec::new(),
        };
        for At { value, span } in f.parsed_list("link") {
            match value {
                NodeLink::Address(address) => draft.links.push(At::new(address, span)),
                NodeLink::Memif(port) => draft.memifs.push(At::new(port, span)),
            }
        }
        f.finish();
        draft
    }

    /// Whether it says how it is reached on the trusted link.
    pub fn is_linked(&self) -> bool {
        !self.links.is_empty() || !self.memifs.is_empty()
    }
}

#[derive(Default)]
pub(in crate::config) struct LimitsDraft {
    pub connections: Option<At<u32>>,
    pub connections_per_peer: Option<At<u32>>,
    pub half_open_per_peer: Option<At<u32>>,
    pub peers: Option<At<u32>>,
    pub sas: Option<At<u32>>,
    pub path_mtu_age: Option<At<u32>>,
    pub fragmented_packets: Option<At<u32>>,
    pub fragment_ms: Option<At<u32>>,
}

impl LimitsDraft {
    pub fn read(mut f: Fields<'_, '_>) -> LimitsDraft {
        let mut bounded = |key, most: u32| {
            let n: At<u32> = f.optional(key)?;
            if n.value >= 1 && n.value <= most {
                return Some(n);
            }
            f.sink().push(Problem::error(format!("[limits]: `{key}` must be 1 to {most}")).at(n.span, ""));
            None
        };
        let draft = LimitsDraft {
            connections: bounded("connections", 16 << 20),
            connections_per_peer: bounded("connections_per_peer", 16 << 20),
            half_open_per_peer: bounded("half_open_per_peer", 1 << 20),
            peers: bounded("peers", 1 << 20),
            sas: bounded("sas", 1 << 20),
            path_mtu_age: bounded("path_mtu_age", 86_400),
            fragmented_packets: bounded("fragmented_packets", 256),
            fragment_ms: bounded("fragment_ms", 60_000),
        };
        f.finish();
        draft
    }
}
