//! The sections as they were written, each field with its place; `None` is "absent or already reported".

mod ike;
mod machine;
mod natt;
mod node;
mod peer;
mod proof;
mod sa;
mod vip;

pub(super) use ike::IkeDraft;
pub(super) use machine::{CoreDraft, CoreRole, MemoryDraft, PortDraft};
pub(super) use natt::{KEEPALIVE_S, NattDraft};
pub(super) use node::{ClusterDraft, ClusterNodeDraft, LimitsDraft, NodeDraft};
pub(super) use peer::{ChildDraft, LifeDraft, PeerDraft};
pub(super) use proof::ProofDraft;
pub(super) use sa::{ActionDraft, FilterDraft, HalfDraft, SaDraft, SelectorsDraft};
pub(super) use vip::{DistributeDraft, PortsDraft, TargetsDraft, VipDraft};

use super::read::{At, Fields, Sink, Span};
use std::path::Path;
use toml::Spanned;
use toml::de::DeTable;

/// A whole file.
pub(super) struct Draft {
    pub node: NodeDraft,
    pub cluster: ClusterDraft,
    pub memory: MemoryDraft,
    pub limits: LimitsDraft,
    pub ike: IkeDraft,
    pub ports: Vec<PortDraft>,
    pub cores: Vec<CoreDraft>,
    pub vips: Vec<VipDraft>,
    pub peers: Vec<PeerDraft>,
    pub sas: Vec<SaDraft>,
    pub filters: Vec<FilterDraft>,
}

impl Draft {
    /// Reads what is there and reports what is not as it should be.
    pub fn read(tree: &Spanned<DeTable<'_>>, path: &Path, sink: &Sink) -> Draft {
        let folder = path.parent().unwrap_or(Path::new(""));
        let top = 0..tree.span().end.min(1);
        let mut file = Fields::new(sink, tree.get_ref(), "the file", top.clone());
        file.demand("node");
        file.demand("cluster");
        let draft = Draft {
            node: file.table("node", "[node]").map(|f| NodeDraft::read(f, folder)).unwrap_or_default(),
            cluster: file.table("cluster", "[cluster]").map(|f| ClusterDraft::read(f, folder)).unwrap_or_default(),
            memory: file.table("memory", "[memory]").map(MemoryDraft::read).unwrap_or_default(),
            limits: file.table("limits", "[limits]").map(LimitsDraft::read).unwrap_or_default(),
            ike: file.table("ike", "[ike]").map(|f| IkeDraft::read(f, folder)).unwrap_or_default(),
            ports: file.tables("port", "[[port]]").into_iter().map(PortDraft::read).collect(),
            cores: file.tables("core", "[[core]]").into_iter().map(CoreDraft::read).collect(),
            vips: file.tables("vip", "[[vip]]").into_iter().map(VipDraft::read).collect(),
            peers: file.tables("peer", "[[peer]]").into_iter().map(|f| PeerDraft::read(f, folder)).collect(),
            sas: file.tables("sa", "[[sa]]").into_iter().map(|f| SaDraft::read(f, folder)).collect(),
            filters: file.tables("filter", "[[filter]]").into_iter().map(FilterDraft::read).collect(),
        };
        file.finish();
        draft
    }

    /// This node's name.
    pub fn me(&self) -> Option<&str> {
        self.node.name.as_ref().map(|n| n.value.as_str())
    }
}

/// The text of an optional field.
pub(super) fn text(field: &Option<At<String>>) -> Option<&str> {
    field.as_ref().map(|f| f.value.as_str())
}

/// The place of an optional field, else of its table.
pub(super) fn place<T>(field: &Option<At<T>>, table: &Span) -> Span {
    field.as_ref().map_or_else(|| table.clone(), |f| f.span.clone())
}
