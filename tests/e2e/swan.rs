//! strongSwan in the client guest: a real IKE daemon on top of a real kernel's IPsec.

use crate::bed::{Bed, Gateway, Tunnel};
use std::fs;
use std::path::Path;
use std::process::Command;

/// strongSwan with one connection, `vip`, that has one child, `c`.
pub struct Swan<'a> {
    bed: &'a Bed,
}

/// The connection as `swanctl.conf` has it.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'a> {
    /// Proposals of IKE.
    pub ike: &'a str,
    /// Proposals of ESP, or of AH: `ah-` and then these.
    pub esp: &'a str,
    /// What the client calls itself.
    pub id: &'a str,
    /// How both prove who they are: `psk` or `pubkey`.
    pub auth: &'a str,
    /// Lines of `local`.
    pub local: &'a str,
    /// The secret.
    pub secret: &'a str,
    /// More lines of the connection.
    pub more: &'a str,
    /// More lines of the child.
    pub child: &'a str,
}

impl Connection<'_> {
    /// What fits the router's peer.
    pub const PLAIN: Connection<'static> = Connection {
        ike: "aes128gcm16-prfsha256-x25519",
        esp: "aes128gcm16-esn-noesn",
        id: "client.example",
        auth: "psk",
        local: "",
        secret: "swordfish, always",
        more: "",
        child: "",
    };

    fn text(&self, tunnel: &Tunnel) -> String {
        let Connection { ike, esp, id, auth, local, secret, more, child } = self;
        // Its route to the VIP has the inner address as its source.
        let local_at = match (tunnel.gateway, tunnel.outer) {
            (Gateway::None, 4) => "10.77.0.10",
            (Gateway::None, _) => "fd77::10",
            (_, 4) => "10.88.0.10",
            _ => "fd88::10",
        };
        let outer = if tunnel.outer == 4 { "10.77.0.100" } else { "fd77::100" };
        let selectors = match (tunnel.mode, tunnel.inner) {
            ("transport", _) => String::new(),
            (_, 4) => "local_ts = 10.99.0.10/32\n remote_ts = 10.77.0.100/32".to_owned(),
            _ => "local_ts = fd99::10/128\n remote_ts = fd77::100/128".to_owned(),
        };
        let mode = tunnel.mode;
        let (protocol, esp) = esp.strip_prefix("ah-").map_or(("esp", *esp), |ah| ("ah", ah));
        format!(
            "connections {{ vip {{ version = 2\n local_addrs = {local_at}\n remote_addrs = {outer}\n proposals = {ike}\n {more}\n\
             local {{ auth = {auth}\n id = {id}\n {local} }}\n remote {{ auth = {auth}\n id = vip.example }}\n\
             children {{ c {{ mode = {mode}\n {selectors}\n {protocol}_proposals = {esp}\n {child} }} }} }} }}\n\
             secrets {{ ike-1 {{ id-1 = {id}\n id-2 = vip.example\n secret = \"{secret}\" }} }}\n"
        )
    }
}

impl Swan<'_> {
    /// Starts it, or starts it anew.
    pub fn start<'a>(bed: &'a Bed, connection: &Connection) -> Swan<'a> {
        Swan::start_with(bed, connection, "")
    }

    /// The same, with further lines of `strongswan.conf`.
    pub fn start_with<'a>(bed: &'a Bed, connection: &Connection, charon: &str) -> Swan<'a> {
        Swan::start_as(bed, &connection.text(bed.tunnel()), charon)
    }

    /// Starts it with this `swanctl.conf` and further lines of `strongswan.conf`.
    pub fn start_as<'a>(bed: &'a Bed, swanctl: &str, charon: &str) -> Swan<'a> {
        let folder = bed.file("guest/swan");
        fs::create_dir_all(&folder).expect("the guest's folder");
        fs::write(folder.join("swanctl.conf"), swanctl).expect("its configuration");
        // It sends again after 0.5 s, and gives up after 8.
        fs::write(folder.join("charon.conf"), format!("retransmit_timeout = 0.5\nretransmit_tries = 4\n{charon}"))
            .expect("a file");
        bed.script("cluster.sh", &["client_swan"]);
        Swan { bed }
    }

    /// Gives the daemon that runs another connection of that name.
    pub fn reload(&self, connection: &Connection) {
        fs::write(self.bed.file("guest/swan/swanctl.conf"), connection.text(self.bed.tunnel())).expect("a file");
        self.ctl_ok("--load-conns");
    }

    /// The one that runs.
    pub fn of(bed: &Bed) -> Swan<'_> {
        Swan { bed }
    }

    /// What runs `swanctl` with these words in the guest.
    pub fn command(&self, words: &str) -> String {
        format!(". /run/swan/env; swanctl {words} --uri unix:///run/swan/vici")
    }

    /// `swanctl` with these words: its exit code and output.
    pub fn ctl(&self, words: &str) -> (i32, String) {
        self.bed.guest(&self.command(words))
    }

    /// The same, and it must succeed.
    pub fn ctl_ok(&self, words: &str) -> String {
        let (code, said) = self.ctl(words);
        assert_eq!(code, 0, "swanctl {words}: {said}");
        said
    }

    /// Sets the child up, and with it the IKE SA.
    pub fn initiate(&self) {
        self.ctl_ok("--initiate --child c --timeout 20");
    }

    /// What it says of its SAs.
    pub fn sas(&self) -> String {
        self.ctl_ok("--list-sas")
    }

    /// The daemon's log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.bed.file("guest/swan/log")).unwrap_or_default()
    }
}

/// Where the router's peer has a certificate, `vip-KIND.pem`: a CA, that certificate, and one for the client; with RSA those are for
/// TLS servers, as many guides make them.
pub fn authority(bed: &Bed) {
    let kind = bed.tunnel().peer.split_once("\"vip-").and_then(|(_, rest)| rest.split_once('.'));
    let Some((kind, _)) = kind else { return };
    let (swan, etc) = (bed.file("guest/swan"), bed.file("etc"));
    if kind == "chain" {
        return chain(&swan, &etc);
    }
    let usage = if kind == "rsa" { "--flag serverAuth" } else { "" };
    let script = format!(
        "set -e; umask 077; swan={}; cd {}; mkdir -p $swan/x509 $swan/x509ca $swan/private
         pki --gen --type {kind} --outform pem >ca-ike.key
         pki --self --ca --type {kind} --in ca-ike.key --dn 'O=Bed, CN=CA' --outform pem >ca-ike.pem
         for who in vip client; do
           pki --gen --type {kind} --outform pem >$who-{kind}.key
           pki --pub --type priv --in $who-{kind}.key | pki --issue --cacert ca-ike.pem --cakey ca-ike.key \
             --dn \"O=Bed, CN=$who.example\" --san $who.example {usage} --outform pem >$who-{kind}.pem
         done
         pki --signcrl --cacert ca-ike.pem --cakey ca-ike.key --outform pem >crl.pem
         cp ca-ike.pem $swan/x509ca/; cp client-{kind}.pem $swan/x509/client.pem; cp client-{kind}.key $swan/private/client.key",
        swan.display(),
        etc.display()
    );
    shell(&script);
}

/// RSA keys of 4096 bits, and a CA between that each end gets from the other.
fn chain(swan: &Path, etc: &Path) {
    shell(&format!(
        "set -e; umask 077; swan={}; cd {}; mkdir -p $swan/x509 $swan/x509ca $swan/private
         for who in root between vip client; do pki --gen --type rsa --size 4096 --outform pem >$who-chain.key & done; wait
         pki --self --ca --in root-chain.key --dn 'O=Bed, CN=Root' --outform pem >ca-ike.pem
         pki --pub --in between-chain.key | pki --issue --ca --cacert ca-ike.pem --cakey root-chain.key \
           --dn 'O=Bed, CN=Between' --outform pem >between.pem
         for who in vip client; do
           pki --pub --in $who-chain.key | pki --issue --cacert between.pem --cakey between-chain.key \
             --dn \"O=Bed, CN=$who.example\" --san $who.example --outform pem >$who-chain.pem
         done
         cp between.pem $swan/x509/; cp ca-ike.pem $swan/x509ca/
         cp client-chain.pem $swan/x509/client.pem; cp client-chain.key $swan/private/client.key
         cat between.pem >>vip-chain.pem",
        swan.display(),
        etc.display()
    ));
}

/// Another certificate for the client's key (ECDSA), with these options of `pki --issue`.
pub fn issue(bed: &Bed, options: &str) {
    shell(&format!(
        "set -e; cd {}; pki --pub --type priv --in client-ecdsa.key | pki --issue --cacert ca-ike.pem --cakey ca-ike.key \
         {options} --outform pem >{}/x509/client.pem",
        bed.file("etc").display(),
        bed.file("guest/swan").display()
    ));
}

/// The certificate that the client had at first is revoked from now on.
pub fn revoke(bed: &Bed) {
    shell(&format!(
        "set -e; cd {}; pki --signcrl --cacert ca-ike.pem --cakey ca-ike.key --reason key-compromise --cert client-ecdsa.pem \
         --outform pem >crl.pem; cp client-ecdsa.pem {}/x509/client.pem",
        bed.file("etc").display(),
        bed.file("guest/swan").display()
    ));
}

fn shell(script: &str) {
    let output = Command::new("bash").args(["-c", script]).output().expect("bash");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
