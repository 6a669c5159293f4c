//! The cluster's own certificate authority, and who a certificate says one is.
//!
//! A cluster has one authority, in one directory: `ca.pem` and `ca.key`, and `NAME.pem` and `NAME.key` for each node.
//! A node needs its own two and `ca.pem`. Keys are ECDSA P-256, readable by their owner alone; nothing is overwritten.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;
use x509_parser::pem::parse_x509_pem;
use zeroize::Zeroizing;

use crate::FabricError;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CA_DAYS: u32 = 3653;
const NODE_DAYS: u32 = 731;
/// Clocks of a cluster's nodes may differ by this when a certificate is new.
const EARLY: Duration = Duration::from_secs(60 * 60);

/// A certificate and its private key, as files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// PEM, readable by all.
    pub certificate: PathBuf,
    /// PEM, mode 0600.
    pub key: PathBuf,
}

/// Makes the cluster's authority in `dir`, which is made (mode 0700) if it is not there.
///
/// # Errors
/// [`FabricError::Exists`] when there is one already, [`FabricError::File`].
pub fn create_ca(dir: impl AsRef<Path>, cluster: &str) -> Result<Issued, FabricError> {
    let dir = dir.as_ref();
    let files = names(dir, "ca");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(FabricError::file(dir))?;
    let mut params = params(&format!("{cluster} cluster authority"), cluster, CA_DAYS);
    // It signs nodes, never another authority.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let wrong = |e: rcgen::Error| FabricError::Certificate { path: files.certificate.clone(), why: e.to_string() };
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(wrong)?;
    let certificate = params.self_signed(&key).map_err(wrong)?;
    write_pair(&files, &certificate.pem(), &key)?;
    Ok(files)
}

/// Makes the key and certificate of a node; the certificate's DNS name is who it is in the cluster.
///
/// # Errors
/// [`FabricError::NodeName`], [`FabricError::Exists`], [`FabricError::File`] (no authority in `dir`), [`FabricError::Certificate`].
pub fn issue(dir: impl AsRef<Path>, node: &str, addresses: &[IpAddr]) -> Result<Issued, FabricError> {
    let dir = dir.as_ref();
    check_node_name(node)?;
    let (authority, files) = (names(dir, "ca"), names(dir, node));
    let issuer = load_issuer(&authority)?;
    let wrong = |e: rcgen::Error| FabricError::Certificate { path: files.certificate.clone(), why: e.to_string() };
    let mut params = params(node, &cluster_of(&authority.certificate)?, NODE_DAYS);
    params.subject_alt_names = vec![SanType::DnsName(node.try_into().map_err(wrong)?)];
    params.subject_alt_names.extend(addresses.iter().map(|a| SanType::IpAddress(*a)));
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(wrong)?;
    let certificate = params.signed_by(&key, &issuer).map_err(wrong)?;
    write_pair(&files, &certificate.pem(), &key)?;
    Ok(files)
}

/// The node's name in a certificate file, to be compared with the configuration's.
///
/// # Errors
/// [`FabricError::File`], [`FabricError::Certificate`].
pub fn node_name(certificate: impl AsRef<Path>) -> Result<String, FabricError> {
    let path = certificate.as_ref();
    let wrong = |why: String| FabricError::Certificate { path: path.to_owned(), why };
    let text = fs::read(path).map_err(FabricError::file(path))?;
    let (_, pem) = parse_x509_pem(&text).map_err(|e| wrong(format!("not PEM: {e}")))?;
    peer_name(&pem.contents).map_err(wrong)
}

/// The one DNS name of a certificate in DER, which TLS has verified.
pub(crate) fn peer_name(der: &[u8]) -> Result<String, String> {
    let (_, certificate) = parse_x509_certificate(der).map_err(|e| format!("not a certificate: {e}"))?;
    let names = certificate.subject_alternative_name().map_err(|e| format!("bad names in the certificate: {e}"))?;
    let names = names.map_or(&[][..], |extension| &extension.value.general_names);
    let mut dns =
        names.iter().filter_map(|name| if let GeneralName::DNSName(name) = name { Some(*name) } else { None });
    match (dns.next(), dns.next()) {
        // Two names would be two identities, and the caller's choice which one.
        (Some(name), None) => Ok(name.to_owned()),
        (None, _) => Err("the certificate has no DNS name".to_owned()),
        (Some(_), Some(_)) => Err("the certificate has more than one DNS name".to_owned()),
    }
}

/// As in the configuration: one DNS label, so it compares as bytes do.
fn check_node_name(node: &str) -> Result<(), FabricError> {
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let label = (1..=63).contains(&node.len()) && !node.starts_with('-') && !node.ends_with('-');
    // `ca` would be the authority's own files.
    if node == "ca" || !label || !node.bytes().all(letter) {
        return Err(FabricError::NodeName(node.to_owned()));
    }
    Ok(())
}

fn names(dir: &Path, name: &str) -> Issued {
    Issued { certificate: dir.join(format!("{name}.pem")), key: dir.join(format!("{name}.key")) }
}

fn params(common_name: &str, cluster: &str, days: u32) -> CertificateParams {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, cluster);
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = (now - EARLY).into();
    params.not_after = (now + DAY * days).into();
    params
}

fn load_issuer(authority: &Issued) -> Result<Issuer<'static, KeyPair>, FabricError> {
    let read = |path: &Path| fs::read_to_string(path).map_err(FabricError::file(path));
    let certificate = read(&authority.certificate)?;
    let key = Zeroizing::new(read(&authority.key)?);
    let wrong = |path: &Path| {
        let path = path.to_owned();
        move |e: rcgen::Error| FabricError::Certificate { path, why: e.to_string() }
    };
    let key = KeyPair::from_pem(&key).map_err(wrong(&authority.key))?;
    Issuer::from_ca_cert_pem(&certificate, key).map_err(wrong(&authority.certificate))
}

/// The cluster that the authority is of.
fn cluster_of(certificate: &Path) -> Result<String, FabricError> {
    let wrong = |why: String| FabricError::Certificate { path: certificate.to_owned(), why };
    let text = fs::read(certificate).map_err(FabricError::file(certificate))?;
    let (_, pem) = parse_x509_pem(&text).map_err(|e| wrong(format!("not PEM: {e}")))?;
    let (_, parsed) = parse_x509_certificate(&pem.contents).map_err(|e| wrong(format!("not a certificate: {e}")))?;
    let organization = parsed.subject().iter_organization().next().and_then(|o| o.as_str().ok());
    Ok(organization.unwrap_or_default().to_owned())
}

/// The key first: a certificate without its key would be of no use, and would stand in the way.
fn write_pair(files: &Issued, certificate: &str, key: &KeyPair) -> Result<(), FabricError> {
    if files.certificate.symlink_metadata().is_ok() {
        return Err(FabricError::Exists(files.certificate.clone()));
    }
    write_new(&files.key, &Zeroizing::new(key.serialize_pem()), 0o600)?;
    write_new(&files.certificate, certificate, 0o644)
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), FabricError> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = opened.map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => FabricError::Exists(path.to_owned()),
        _ => FabricError::File { path: path.to_owned(), source: e },
    })?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(FabricError::file(path))
}
