//! Distinguished names: text to DER and back, and when two are one (RFC 5280 §7.1).

use x509_parser::{
    der_parser::asn1_rs::Tag,
    prelude::FromDer,
    x509::{AttributeTypeAndValue, X509Name},
};

/// Text and OID of what names are made of (RFC 4514 §3, RFC 4519, PKCS #9), the usual text first.
const ATTRIBUTES: [(&str, &[u8]); 20] = [
    ("CN", &[0x55, 4, 3]),
    ("SN", &[0x55, 4, 4]),
    ("serialNumber", &[0x55, 4, 5]),
    ("C", &[0x55, 4, 6]),
    ("L", &[0x55, 4, 7]),
    ("ST", &[0x55, 4, 8]),
    ("S", &[0x55, 4, 8]),
    ("street", &[0x55, 4, 9]),
    ("O", &[0x55, 4, 10]),
    ("OU", &[0x55, 4, 11]),
    ("T", &[0x55, 4, 12]),
    ("title", &[0x55, 4, 12]),
    ("postalCode", &[0x55, 4, 17]),
    ("GN", &[0x55, 4, 42]),
    ("initials", &[0x55, 4, 43]),
    ("E", EMAIL),
    ("emailAddress", EMAIL),
    ("DC", DOMAIN),
    ("UID", &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1]),
    ("unstructuredName", &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 2]),
];
const EMAIL: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1];
const DOMAIN: &[u8] = &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25];
const COUNTRY: &[u8] = &[0x55, 4, 6];

/// More relative names than anybody has: comparing stays cheap.
const MAX_PARTS: usize = 64;

/// In a pattern: any value.
const ANY: &str = "*";

fn parse(der: &[u8]) -> Option<X509Name<'_>> {
    let (rest, name) = X509Name::from_der(der).ok()?;
    (rest.is_empty() && name.iter_rdn().take(MAX_PARTS + 1).count() <= MAX_PARTS).then_some(name)
}

/// Whether it is one whole name.
pub(super) fn is_valid(der: &[u8]) -> bool {
    parse(der).is_some()
}

/// Whether two names are one: the same parts in the same order, whose strings differ in case, blanks and type at most.
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    compare(a, b, false)
}

/// Whether a name fits a pattern: as [`same`], where a value `*` fits any.
pub(super) fn fits(pattern: &[u8], name: &[u8]) -> bool {
    compare(pattern, name, true)
}

/// Whether a part's whole value is a star.
pub(super) fn has_star(name: &[u8]) -> bool {
    parse(name).is_some_and(|name| name.iter_attributes().any(|part| string(part).is_some_and(|value| value == ANY)))
}

fn compare(pattern: &[u8], name: &[u8], any: bool) -> bool {
    let (Some(a), Some(b)) = (parse(pattern), parse(name)) else { return false };
    a.iter_rdn().count() == b.iter_rdn().count()
        && a.iter_rdn().zip(b.iter_rdn()).all(|(a, b)| {
            a.iter().count() == b.iter().count() && a.iter().zip(b.iter()).all(|(a, b)| same_part(a, b, any))
        })
}

fn same_part(a: &AttributeTypeAndValue, b: &AttributeTypeAndValue, any: bool) -> bool {
    a.attr_type() == b.attr_type()
        && match (string(a), string(b)) {
            (Some(pattern), _) if any && pattern == ANY => true,
            (Some(a), Some(b)) => folded(&a).eq(folded(&b)),
            (None, None) => a.attr_value().tag() == b.attr_value().tag() && a.as_slice() == b.as_slice(),
            _ => false,
        }
}

/// A part's value, if it is text.
fn string(part: &AttributeTypeAndValue) -> Option<String> {
    let bytes = part.as_slice();
    match part.attr_value().tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString | Tag::VisibleString => {
            str::from_utf8(bytes).ok().map(str::to_owned)
        }
        // Taken for Latin-1, as everybody does.
        Tag::T61String => Some(bytes.iter().map(|&byte| char::from(byte)).collect()),
        Tag::BmpString => {
            let (units, rest) = bytes.as_chunks();
            let units: Vec<u16> = units.iter().map(|unit| u16::from_be_bytes(*unit)).collect();
            String::from_utf16(&units).ok().filter(|_| rest.is_empty())
        }
        _ => None,
    }
}

/// Without case and with one blank where there are several.
fn folded(text: &str) -> impl Iterator<Item = char> {
    let words = text.split_whitespace().enumerate();
    words.flat_map(|(n, word)| (n > 0).then_some(' ').into_iter().chain(word.chars().flat_map(char::to_lowercase)))
}

/// A name as `C=CH, O=Example, CN=host`: in the order of its parts, as OpenSSL and strongSwan show it. Whatever is in it,
/// the text has visible characters and blanks only.
pub(super) fn text(der: &[u8]) -> String {
    let Some(name) = parse(der) else { return "(not a distinguished name)".to_owned() };
    let parts = name.iter_rdn().map(|parts| parts.iter().map(part_text).collect::<Vec<_>>().join(" + "));
    parts.collect::<Vec<_>>().join(", ")
}

fn part_text(part: &AttributeTypeAndValue) -> String {
    let oid = part.attr_type();
    let known = ATTRIBUTES.iter().find(|(_, bytes)| *bytes == oid.as_bytes());
    let name = known.map_or_else(|| oid.to_id_string(), |(text, _)| (*text).to_owned());
    let Some(value) = string(part) else {
        let digits: String = part.as_slice().iter().map(|byte| format!("{byte:02x}")).collect();
        return format!("{name}=#{digits}");
    };
    let mut out = name + "=";
    for c in value.chars() {
        match c {
            ',' | '+' | '\\' => out.extend(['\\', c]),
            c if c.is_control() || ('\u{200b}'..='\u{206f}').contains(&c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// DER of such a text: parts with `,` between them, a backslash in front of a comma or plus that belongs to a value.
///
/// # Errors
/// In words what is wrong.
pub(super) fn encode(text: &str) -> Result<Vec<u8>, &'static str> {
    let mut name = Vec::new();
    let parts = split(text);
    if parts.len() > MAX_PARTS {
        return Err("it has too many parts");
    }
    for part in &parts {
        let (key, value) = part.split_once('=').ok_or("each part of a distinguished name has a =")?;
        let known = ATTRIBUTES.iter().find(|(text, _)| text.eq_ignore_ascii_case(key.trim()));
        let (_, oid) = known.ok_or("an attribute of a distinguished name is one of CN, O, OU, C, ST, L, DC, E, UID, serialNumber, SN, GN, T, street, postalCode")?;
        let value = value.trim();
        if value.is_empty() {
            return Err("a part of a distinguished name has no value");
        }
        // RFC 5280 §A.1.
        let tag = match *oid {
            COUNTRY if value != ANY => Tag::PrintableString,
            EMAIL | DOMAIN if value.is_ascii() => Tag::Ia5String,
            _ => Tag::Utf8String,
        };
        let both = [tlv(Tag::Oid, oid), tlv(tag, value.as_bytes())].concat();
        name.extend(constructed(Tag::Set, &constructed(Tag::Sequence, &both)));
    }
    let der = constructed(Tag::Sequence, &name);
    if is_valid(&der) { Ok(der) } else { Err("it has a character that its attribute does not allow") }
}

/// The parts between commas, without backslashes.
fn split(text: &str) -> Vec<String> {
    let (mut parts, mut part, mut chars) = (Vec::new(), String::new(), text.chars());
    while let Some(c) = chars.next() {
        match c {
            '\\' => part.extend(chars.next()),
            ',' => parts.push(std::mem::take(&mut part)),
            c => part.push(c),
        }
    }
    parts.push(part);
    parts
}

fn constructed(tag: Tag, content: &[u8]) -> Vec<u8> {
    let mut der = tlv(tag, content);
    der[0] |= 0x20;
    der
}

fn tlv(tag: Tag, content: &[u8]) -> Vec<u8> {
    let len = content.len().to_be_bytes();
    let len = &len[len.iter().position(|&byte| byte != 0).unwrap_or(len.len() - 1)..];
    let mut der = vec![tag.0 as u8]; // universal tags below 31
    if len.len() > 1 || len[0] >= 0x80 {
        der.push(0x80 | len.len() as u8);
    }
    der.extend_from_slice(len);
    der.extend_from_slice(content);
    der
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_becomes_the_der_that_openssl_writes() {
        // openssl req -subj '/C=CH/CN=a' -utf8
        let expected = [
            0x30, 0x19, 0x31, 0x0b, 0x30, 0x09, 0x06, 0x03, 0x55, 0x04, 0x06, 0x13, 0x02, b'C', b'H', 0x31, 0x0a, 0x30,
            0x08, 0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 0x01, b'a',
        ];
        assert_eq!(encode("C=CH, CN=a").as_deref(), Ok(&expected[..]));
    }

    #[test]
    fn long_values_have_long_lengths() {
        for len in [1, 100, 127, 128, 200, 255, 256, 1000] {
            let text = format!("O={}", "x".repeat(len));
            assert_eq!(super::text(&encode(&text).expect("a name")), text);
        }
    }

    #[test]
    fn commas_in_values_survive() {
        let name = encode(r"O=Example\, Inc., CN=a\+b").expect("a name");
        assert_eq!(text(&name), r"O=Example\, Inc., CN=a\+b");
        assert_eq!(encode(&text(&name)), Ok(name));
    }

    #[test]
    fn the_type_of_a_string_does_not_matter() {
        let utf8 = encode("CN=Carol").expect("a name");
        let mut printable = utf8.clone();
        let at = printable.iter().rposition(|&byte| byte == 0x0c).expect("a UTF8String");
        printable[at] = 0x13;
        assert!(same(&utf8, &printable));
        assert_ne!(utf8, printable);
    }

    #[test]
    fn order_number_and_kind_of_parts_matter() {
        let name = |text| encode(text).expect("a name");
        assert!(!same(&name("O=a, CN=b"), &name("CN=b, O=a")));
        assert!(!same(&name("O=a, CN=b"), &name("O=a")));
        assert!(!same(&name("O=a"), &name("OU=a")));
        assert!(!same(&name("O=*"), &name("O=a")), "a star is one in patterns only");
    }

    #[test]
    fn a_star_fits_any_value_of_its_part() {
        let name = |text| encode(text).expect("a name");
        assert!(fits(&name("C=*, O=Example, CN=*"), &name("C=CH, O=example, CN=carol")));
        assert!(!fits(&name("O=Example, CN=*"), &name("O=Other, CN=carol")));
        assert!(!fits(&name("CN=*"), &name("O=Example, CN=carol")));
        assert!(!fits(&name("CN=carol"), &name("CN=*")), "a peer cannot send a pattern");
    }

    #[test]
    fn control_characters_do_not_reach_a_log() {
        let name = tlv(Tag::Utf8String, "a\x1b[2J\u{202e}b".as_bytes());
        let part = constructed(Tag::Sequence, &[tlv(Tag::Oid, &[0x55, 4, 3]), name].concat());
        let der = constructed(Tag::Sequence, &constructed(Tag::Set, &part));
        assert_eq!(text(&der), "CN=a\u{fffd}[2J\u{fffd}b");
    }
}
