//! Which identities a configuration takes.

use std::{fmt, str::FromStr};

use super::{
    dn,
    identity::{Identity, IdentityError, same_host},
};

/// What a peer's identity has to be: one, or any of a kind. It says nothing about proof: who claims a fitting identity must
/// still prove it by its secret or certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum IdentityPattern {
    /// Anybody: `*`.
    Any,
    /// This one.
    Exactly(Identity),
    /// A host below a domain, at any depth: `*.example.org`.
    HostsBelow(String),
    /// A mail address of a host: `*@example.org`.
    MailOf(String),
    /// A distinguished name of which some values may be any: `O=Example, CN=*`.
    Name(Vec<u8>),
}

impl IdentityPattern {
    /// Whether an identity fits.
    pub fn matches(&self, identity: &Identity) -> bool {
        match (self, identity) {
            (Self::Any, _) => true,
            (Self::Exactly(own), other) => own.same_as(other),
            (Self::HostsBelow(domain), Identity::Fqdn(name)) => {
                let name = name.strip_suffix('.').unwrap_or(name);
                // both ASCII
                name.len().checked_sub(domain.len() + 1).is_some_and(|dot| {
                    dot > 0 && name.as_bytes()[dot] == b'.' && name[dot + 1..].eq_ignore_ascii_case(domain)
                })
            }
            (Self::MailOf(host), Identity::Rfc822(mail)) => {
                mail.rsplit_once('@').is_some_and(|(_, at)| same_host(at, host))
            }
            (Self::Name(pattern), Identity::DerDn(name)) => dn::fits(pattern, name),
            _ => false,
        }
    }

    /// How closely it says who: of several that fit, the one with the highest goes first.
    pub fn precision(&self) -> usize {
        match self {
            Self::Any => 0,
            Self::HostsBelow(text) | Self::MailOf(text) => text.len(),
            Self::Name(name) => name.len(),
            Self::Exactly(_) => usize::MAX,
        }
    }

    /// The identity, if it is one: what an initiator can ask for (IDr, RFC 7296 §2.15).
    pub fn exactly(&self) -> Option<&Identity> {
        match self {
            Self::Exactly(identity) => Some(identity),
            _ => None,
        }
    }
}

impl From<Identity> for IdentityPattern {
    fn from(identity: Identity) -> Self {
        Self::Exactly(identity)
    }
}

/// As an [`Identity`], with `*` as above.
impl FromStr for IdentityPattern {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        if text == "*" || text == "%any" {
            return Ok(Self::Any);
        }
        let identity: Identity = text.parse()?;
        let stars = |why| IdentityError::Text { text: text.to_owned(), why };
        match &identity {
            Identity::Fqdn(name) if name.contains('*') => match name.strip_prefix("*.") {
                Some(domain) if !domain.is_empty() && !domain.contains('*') => Ok(Self::HostsBelow(domain.to_owned())),
                _ => Err(stars("a * stands for the first part of a host name only: *.example.org")),
            },
            Identity::Rfc822(mail) if mail.contains('*') => match mail.strip_prefix("*@") {
                Some(host) if !host.is_empty() && !host.contains('*') => Ok(Self::MailOf(host.to_owned())),
                _ => Err(stars("a * stands for the whole mailbox only: *@example.org")),
            },
            Identity::DerDn(name) if dn::has_star(name) => Ok(Self::Name(name.clone())),
            _ => Ok(Self::Exactly(identity)),
        }
    }
}

impl fmt::Display for IdentityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exactly(identity) => identity.fmt(f),
            Self::HostsBelow(domain) => write!(f, "*.{domain}"),
            Self::MailOf(host) => write!(f, "*@{host}"),
            Self::Name(name) => f.write_str(&dn::text(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, identity: &str) -> bool {
        let pattern: IdentityPattern = pattern.parse().expect("a pattern");
        assert_eq!(pattern.to_string().parse(), Ok(pattern.clone()));
        pattern.matches(&identity.parse().expect("an identity"))
    }

    #[test]
    fn a_pattern_fits_its_kind_and_no_other() {
        for (pattern, yes, no) in [
            ("*", "10.0.0.1", ""),
            ("10.0.0.1", "10.0.0.1", "10.0.0.2"),
            ("host.example.org", "HOST.example.org", "other.example.org"),
            ("*.example.org", "a.b.Example.org", "example.org"),
            ("*.example.org", "a.example.org.", "aexample.org"),
            ("*.example.org", "a.example.org", "fqdn:.example.org"),
            ("*.example.org", "a.example.org", "a@b.example.org"),
            ("*@example.org", "carol@example.org", "carol@mail.example.org"),
            ("*@example.org", "carol@example.org", "example.org"),
            ("O=Example, CN=*", "O=Example, CN=carol", "O=Example"),
            ("key:carol", "key:carol", "carol"),
        ] {
            assert!(fits(pattern, yes), "{pattern} fits {yes}");
            assert!(no.is_empty() || !fits(pattern, no), "{pattern} does not fit {no}");
        }
    }

    #[test]
    fn stars_in_other_places_are_refused() {
        for text in ["a.*.example.org", "*", "*a.example.org", "*.", "*.*.org", "c*@example.org", "*@*"] {
            assert_eq!(text.parse::<IdentityPattern>().is_ok(), text == "*", "{text}");
        }
    }

    #[test]
    fn who_is_named_exactly_goes_before_who_is_one_of_many() {
        let precision = |text: &str| text.parse::<IdentityPattern>().expect("a pattern").precision();
        let order = ["*", "*.org", "*.example.org", "host.example.org"].map(precision);
        assert!(order.is_sorted_by(|a, b| a < b));
    }
}
