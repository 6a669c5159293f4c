//! Who somebody is: the ID payload, its text, its place in a certificate (RFC 7296 §3.5, RFC 4945 §3.1).

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use super::dn;

/// The longest identity that is taken from a peer, in bytes: a distinguished name may be long, but is kept for as long as its
/// IKE SA lives.
pub const MAX_IDENTITY: usize = 2048;

/// Who somebody is. Two are equal if their bytes are; [`Identity::same_as`] knows what does not matter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// ID_IPV4_ADDR.
    Ipv4(Ipv4Addr),
    /// ID_IPV6_ADDR.
    Ipv6(Ipv6Addr),
    /// ID_FQDN: a host name.
    Fqdn(String),
    /// ID_RFC822_ADDR: a mail address.
    Rfc822(String),
    /// ID_DER_ASN1_DN: a distinguished name, in DER.
    DerDn(Vec<u8>),
    /// ID_KEY_ID: bytes that mean something to both ends only.
    KeyId(Vec<u8>),
}

/// What is wrong with an identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// A type that we do not know.
    #[error("an identity of type {0} is not known here")]
    Type(u8),
    /// The bytes do not fit the type.
    #[error("not a valid {0}")]
    Content(&'static str),
    /// Longer than [`MAX_IDENTITY`].
    #[error("an identity of {0} bytes is too long")]
    Long(usize),
    /// A text that names no identity.
    #[error("{text:?} is no identity: {why}")]
    Text {
        /// The text.
        text: String,
        /// In words.
        why: &'static str,
    },
}

const ID_IPV4_ADDR: u8 = 1;
const ID_FQDN: u8 = 2;
const ID_RFC822_ADDR: u8 = 3;
const ID_IPV6_ADDR: u8 = 5;
const ID_DER_ASN1_DN: u8 = 9;
const ID_KEY_ID: u8 = 11;

impl Identity {
    /// Of an ID payload's body: type, three reserved bytes, data. The reserved bytes are skipped here, but AUTH covers them
    /// (RFC 7296 §2.15): keep the body.
    ///
    /// # Errors
    /// An unknown type, data that does not fit it.
    pub fn decode(body: &[u8]) -> Result<Self, IdentityError> {
        let (head, data) = body.split_first_chunk::<4>().ok_or(IdentityError::Content("ID payload"))?;
        if data.len() > MAX_IDENTITY {
            return Err(IdentityError::Long(data.len()));
        }
        match head[0] {
            ID_IPV4_ADDR => data.try_into().map(|a: [u8; 4]| Self::Ipv4(a.into())).map_err(|_| "IPv4 address"),
            ID_IPV6_ADDR => data.try_into().map(|a: [u8; 16]| Self::Ipv6(a.into())).map_err(|_| "IPv6 address"),
            ID_FQDN => printable(data).map(Self::Fqdn).ok_or("host name"),
            ID_RFC822_ADDR => printable(data).filter(|t| t.contains('@')).map(Self::Rfc822).ok_or("mail address"),
            ID_DER_ASN1_DN if dn::is_valid(data) => Ok(Self::DerDn(data.to_vec())),
            ID_DER_ASN1_DN => Err("distinguished name"),
            ID_KEY_ID if data.is_empty() => Err("key ID"),
            ID_KEY_ID => Ok(Self::KeyId(data.to_vec())),
            other => return Err(IdentityError::Type(other)),
        }
        .map_err(IdentityError::Content)
    }

    /// As an ID payload's body.
    pub fn encode(&self) -> Vec<u8> {
        let (id_type, data): (u8, &[u8]) = match self {
            Self::Ipv4(address) => (ID_IPV4_ADDR, &address.octets()),
            Self::Ipv6(address) => (ID_IPV6_ADDR, &address.octets()),
            Self::Fqdn(name) => (ID_FQDN, name.as_bytes()),
            Self::Rfc822(name) => (ID_RFC822_ADDR, name.as_bytes()),
            Self::DerDn(name) => (ID_DER_ASN1_DN, name),
            Self::KeyId(bytes) => (ID_KEY_ID, bytes),
        };
        [&[id_type, 0, 0, 0], data].concat()
    }

    /// Whether it is the same somebody: the case of host names does not matter, nor how a distinguished name writes its
    /// strings (RFC 5280 §7).
    pub fn same_as(&self, other: &Identity) -> bool {
        match (self, other) {
            (Self::Fqdn(a), Self::Fqdn(b)) => same_host(a, b),
            (Self::Rfc822(a), Self::Rfc822(b)) => same_mail(a, b),
            (Self::DerDn(a), Self::DerDn(b)) => dn::same(a, b),
            _ => self == other,
        }
    }
}

/// Whether two host names are one.
pub(super) fn same_host(a: &str, b: &str) -> bool {
    let bare = |name| str::strip_suffix(name, ".").unwrap_or(name);
    bare(a).eq_ignore_ascii_case(bare(b))
}

/// Whether two mail addresses are one: the host's case does not matter, the mailbox's does (RFC 5280 §7.5).
pub(super) fn same_mail(a: &str, b: &str) -> bool {
    match (a.rsplit_once('@'), b.rsplit_once('@')) {
        (Some((a, a_host)), Some((b, b_host))) => a == b && same_host(a_host, b_host),
        _ => false,
    }
}

/// A name of visible ASCII characters, so that it may be logged; RFC 7296 §3.5 forbids terminators.
fn printable(data: &[u8]) -> Option<String> {
    let visible = !data.is_empty() && data.iter().all(u8::is_ascii_graphic);
    visible.then(|| data.iter().map(|&byte| char::from(byte)).collect())
}

impl From<IpAddr> for Identity {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::Ipv4(address),
            IpAddr::V6(address) => Self::Ipv6(address),
        }
    }
}

/// As in a configuration: an address, `host.example.org`, `user@example.org`, `C=CH, O=Example, CN=host` (in the order of
/// the certificate), `key:text` or `key:0x0a1b`. `fqdn:`, `mail:` and `dn:` say what it is where it could be several.
impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let no = |why| IdentityError::Text { text: text.chars().take(80).collect(), why };
        if text.len() > MAX_IDENTITY {
            return Err(IdentityError::Long(text.len()));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(address.into());
        }
        let (kind, rest) = match text.split_once(':') {
            Some((kind @ ("fqdn" | "mail" | "dn" | "key"), rest)) => (kind, rest),
            _ if text.contains('=') => ("dn", text),
            _ if text.contains('@') => ("mail", text),
            _ => ("fqdn", text),
        };
        let name =
            || printable(rest.as_bytes()).ok_or(no("it is empty, or not all of its characters are visible ASCII"));
        match kind {
            "fqdn" => Ok(Self::Fqdn(name()?)),
            "mail" if !rest.contains('@') => Err(no("a mail address has an @")),
            "mail" => Ok(Self::Rfc822(name()?)),
            "dn" => match dn::encode(rest).map_err(no)? {
                name if name.len() > MAX_IDENTITY => Err(IdentityError::Long(name.len())),
                name => Ok(Self::DerDn(name)),
            },
            _ => match rest.strip_prefix("0x") {
                _ if rest.is_empty() => Err(no("it is empty")),
                Some(digits) => hex(digits).map(Self::KeyId).ok_or(no("hexadecimal digits come in pairs")),
                None => Ok(Self::KeyId(rest.as_bytes().to_vec())),
            },
        }
    }
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    let values: Option<Vec<u32>> = digits.chars().map(|c| c.to_digit(16)).collect();
    let values = values.filter(|values| !values.is_empty() && values.len().is_multiple_of(2))?;
    Some(values.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
}

/// As it may be read again by [`FromStr`]; a log may show it, whatever a peer sent.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv4(address) => address.fmt(f),
            Self::Ipv6(address) => address.fmt(f),
            Self::Fqdn(name) | Self::Rfc822(name) => f.write_str(name),
            Self::DerDn(name) => f.write_str(&dn::text(name)),
            Self::KeyId(bytes) => {
                f.write_str("key:0x")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Identity {
        text.parse().expect("an identity")
    }

    #[test]
    fn every_kind_of_text_is_an_identity_and_back() {
        for (text, id_type) in [
            ("10.1.2.3", 1),
            ("vpn.example.org", 2),
            ("carol@example.org", 3),
            ("2001:db8::7", 5),
            ("C=CH, O=Example, CN=carol", 9),
            ("key:0x00ff10", 11),
        ] {
            let identity = id(text);
            assert_eq!(identity.to_string(), text);
            assert_eq!(identity.encode()[0], id_type);
            assert_eq!(Identity::decode(&identity.encode()), Ok(identity));
        }
    }

    #[test]
    fn a_prefix_says_what_it_is() {
        assert_eq!(id("fqdn:10.1.2.3"), Identity::Fqdn("10.1.2.3".into()));
        assert_eq!(id("key:carol"), Identity::KeyId(b"carol".to_vec()));
        assert_eq!(id("mail:a=b@example.org"), Identity::Rfc822("a=b@example.org".into()));
        assert_eq!(id("dn:CN=carol@example.org"), id("CN=carol@example.org"));
    }

    #[test]
    fn texts_that_are_no_identity_say_why() {
        let why = |text: &str| text.parse::<Identity>().expect_err("no identity").to_string();
        assert_eq!(why(""), "\"\" is no identity: it is empty, or not all of its characters are visible ASCII");
        assert!(why("mail:carol").contains("an @"));
        assert!(why("key:0x123").contains("pairs"));
        assert!(why("key:").contains("empty"));
        assert!(why("X=carol").contains("attribute"));
        assert!(why(&"a".repeat(3000)).contains("too long"));
        assert!(
            why(&format!("O={}", "a".repeat(MAX_IDENTITY - 8))).contains("too long"),
            "in DER it is longer than as text"
        );
    }

    #[test]
    fn what_does_not_fit_its_type_is_refused() {
        let cases: [(&[u8], &str); 9] = [
            (&[], "not a valid ID payload"),
            (&[1, 0, 0, 0, 1, 2, 3], "not a valid IPv4 address"),
            (&[5, 0, 0, 0, 1, 2, 3, 4], "not a valid IPv6 address"),
            (&[2, 0, 0, 0], "not a valid host name"),
            (&[2, 0, 0, 0, b'a', b'\n'], "not a valid host name"),
            (&[3, 0, 0, 0, b'a'], "not a valid mail address"),
            (&[9, 0, 0, 0, 0x30, 1], "not a valid distinguished name"),
            (&[11, 0, 0, 0], "not a valid key ID"),
            (&[13, 0, 0, 0], "an identity of type 13 is not known here"),
        ];
        for (body, why) in cases {
            assert_eq!(Identity::decode(body).expect_err("refused").to_string(), why);
        }
        let long = [&[11, 0, 0, 0][..], &[7; MAX_IDENTITY + 1]].concat();
        assert_eq!(Identity::decode(&long), Err(IdentityError::Long(MAX_IDENTITY + 1)));
    }

    #[test]
    fn reserved_bytes_do_not_matter() {
        assert_eq!(Identity::decode(&[1, 7, 8, 9, 10, 0, 0, 1]), Ok(id("10.0.0.1")));
    }

    #[test]
    fn case_matters_only_in_a_mailbox() {
        assert!(id("VPN.example.org").same_as(&id("vpn.Example.org.")));
        assert!(id("carol@EXAMPLE.org").same_as(&id("carol@example.org")));
        assert!(!id("Carol@example.org").same_as(&id("carol@example.org")));
        assert!(id("O=Example,  CN=The Host").same_as(&id("O=EXAMPLE, CN=the  host")));
        assert!(!id("key:carol").same_as(&id("key:Carol")));
        assert!(!id("fqdn:10.0.0.1").same_as(&id("10.0.0.1")));
    }
}
