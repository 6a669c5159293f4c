//! What a node can be told to do: `POST /v1/action` with a JSON object such as `{"action": "target-drain", "node": "t1"}`.
//!
//! A new action is a variant here, an arm in `node/actions.rs` and a command in `cli`.

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// Where actions are posted.
pub const PATH: &str = "/v1/action";

/// An order to the node. Who may open the socket may give it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Action {
    /// No new connections for a target; those that it has go on (R24).
    TargetDrain(OneTarget),
    /// It gets its share of new connections again.
    TargetResume(OneTarget),
    /// Nobody serves the VIP until it is brought up again, or its router restarts.
    VipDown(OneVip),
    /// Serves it again.
    VipUp(OneVip),
    /// Deletes a static SA in both directions, at its router and on all targets (R6).
    SaDelete(OneSa),
    /// Begins with a peer.
    IkeInitiate(OnePeer),
    /// New keys.
    IkeRekey(OneIke),
    /// Ends something of IKE; its peer is told.
    IkeTerminate(OneIke),
    /// Reads the configuration again, as SIGHUP does.
    Reload,
}

/// A VIP of the router that is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneVip {
    /// Its name, address or number.
    pub vip: String,
}

/// An SA of the router that is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneSa {
    /// Its tunnel, or the SPI or id of one of its directions.
    pub sa: String,
}

/// A peer of the router that is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnePeer {
    /// Its name.
    pub peer: String,
    /// One of its children; none: all.
    #[serde(default)]
    pub child: Option<String>,
}

/// Something of IKE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneIke {
    /// The id of an IKE SA, the number of a child, or the name of a peer.
    pub sa: String,
}

/// A target, for one VIP or for all that it serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OneTarget {
    /// Its name; none: the node that is asked, as a target.
    pub node: Option<String>,
    /// Name, address or number of a VIP; none: all.
    pub vip: Option<String>,
}

/// It was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// What, in a sentence.
    pub done: String,
    /// What the operator should know besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// An order on its way to the control core.
#[derive(Debug)]
pub struct Demand {
    /// What is to be done.
    pub action: Action,
    /// Where the answer goes: what was done, or why not and what to do about it. Then nothing was changed.
    pub reply: oneshot::Sender<Result<Done, String>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_reads_as_it_is_written_down_and_nothing_else_does() {
        let drain = Action::TargetDrain(OneTarget { node: Some("t1".into()), vip: None });
        let read = |text: &str| serde_json::from_str::<Action>(text).map_err(|e| e.to_string());
        assert_eq!(read(r#"{"action": "target-drain", "node": "t1"}"#), Ok(drain.clone()));
        assert_eq!(read(&serde_json::to_string(&drain).unwrap()), Ok(drain));
        assert_eq!(read(r#"{"action": "target-resume"}"#), Ok(Action::TargetResume(OneTarget::default())));
        assert!(read(r#"{"action": "dance"}"#).unwrap_err().contains("target-drain"));
        assert!(read(r#"{"action": "target-drain", "vpi": "web"}"#).unwrap_err().contains("vpi"));
        assert_eq!(read(r#"{"action": "reload"}"#), Ok(Action::Reload));
        assert_eq!(read(r#"{"action": "vip-down", "vip": "web"}"#), Ok(Action::VipDown(OneVip { vip: "web".into() })));
        assert!(read("{}").unwrap_err().contains("action"));
    }
}
