//! How a peer and we prove who we are: by a secret that both know, or by certificates.

use super::node::path;
use crate::config::read::{At, Fields, Span};
use crate::config::report::Problem;
use phalanx_ike::auth::{Credentials, Identity, Trust};
use phalanx_ike::crypto::Secret;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Longer files are none of these.
const LONGEST: u64 = 4 << 20;

#[derive(Clone)]
pub(in crate::config) enum ProofDraft {
    Secret(Secret),
    Certificate(Arc<Credentials>, Arc<Trust>),
}

impl ProofDraft {
    /// The identity that our certificate shows: the one that is written, or its subject.
    pub fn local_id(&self, written: Option<&At<Identity>>, f: &Fields<'_, '_>) -> Option<At<Identity>> {
        let ProofDraft::Certificate(credentials, _) = self else { return written.cloned() };
        let place = written.map_or_else(|| f.span.clone(), |id| id.span.clone());
        match credentials.identity(written.map(|id| &id.value)) {
            Ok(identity) => Some(At::new(identity, place)),
            Err(error) => {
                f.sink().push(Problem::error(format!("[[peer]]: `local_id`: {error}")).at(place, ""));
                None
            }
        }
    }
}

/// The proof, and whether a secret stands in this file.
pub(super) fn read(f: &mut Fields<'_, '_>, folder: &Path) -> (Option<At<ProofDraft>>, bool) {
    if !["certificate", "key", "ca"].iter().any(|key| f.has(key)) {
        let (secret, inline) = secret(f, folder);
        return (secret.map(|secret| secret.map(ProofDraft::Secret)), inline);
    }
    (certificates(f, folder), false)
}

fn certificates(f: &mut Fields<'_, '_>, folder: &Path) -> Option<At<ProofDraft>> {
    ["certificate", "key", "ca"].iter().for_each(|key| f.demand(key));
    for key in ["secret", "secret_file"] {
        if let Some(value) = f.raw(key) {
            f.sink().secret(value.span());
            let problem = Problem::error(format!("[[peer]]: `{key}` and a certificate are both given"));
            f.sink().push(problem.at(value.span(), ""));
        }
    }
    let [certificate, key, ca, crl] = ["certificate", "key", "ca", "crl"].map(|key| path(f, key, folder));
    let require_crl = f.optional::<bool>("require_crl").is_some_and(|r| r.value);
    let any_usage = f.optional::<bool>("any_extended_key_usage").is_some_and(|a| a.value);
    let pkcs1 = f.optional::<bool>("rsa_pkcs1").is_some_and(|p| p.value);
    let public = |file: &Option<At<PathBuf>>| contents(f, file.as_ref()?, false);
    let (chain, cas) = (public(&certificate), public(&ca));
    let crls = if crl.is_some() { public(&crl)? } else { Zeroizing::default() };
    let private = contents(f, key.as_ref()?, true);
    let (certificate, ca) = (certificate?, ca?);
    let wrong = |span: Span, error: String| f.sink().push(Problem::error(format!("[[peer]]: {error}")).at(span, ""));
    let credentials = Credentials::from_pem(&chain?, &private?);
    let credentials = credentials.map_err(|error| wrong(certificate.span.clone(), error.to_string())).ok()?;
    let trust = Trust::from_pem(&cas?, &crls).map_err(|error| wrong(ca.span, error.to_string())).ok()?;
    let credentials = if pkcs1 { credentials.with_pkcs1() } else { credentials };
    let trust = if require_crl { trust.require_crl() } else { trust };
    let trust = if any_usage { trust.any_extended_key_usage() } else { trust };
    Some(At::new(ProofDraft::Certificate(Arc::new(credentials), Arc::new(trust)), certificate.span))
}

/// The secret from `secret` or `secret_file`, and whether it stood in the configuration itself.
fn secret(f: &mut Fields<'_, '_>, folder: &Path) -> (Option<At<Secret>>, bool) {
    let inline = f.raw("secret");
    if let Some(value) = inline {
        f.sink().secret(value.span());
    }
    let file = path(f, "secret_file", folder);
    match (inline, file) {
        (Some(value), None) => match value.get_ref().as_str().filter(|text| !text.is_empty()) {
            Some(text) => (Some(At::new(Secret::from(text.as_bytes()), value.span())), true),
            None => {
                f.sink().push(Problem::error("`secret` must be a string in quotes, not empty").at(value.span(), ""));
                (None, true)
            }
        },
        (None, Some(file)) => {
            let bytes = contents(f, &file, true);
            let secret = bytes.and_then(|bytes| {
                // But for the end of its line.
                let end = bytes.iter().rposition(|b| !matches!(b, b'\n' | b'\r')).map_or(0, |last| last + 1);
                if end == 0 {
                    let problem = Problem::error(format!("the secret file {} is empty", file.value.display()));
                    f.sink().push(problem.at(file.span.clone(), ""));
                    return None;
                }
                Some(At::new(Secret::from(&bytes[..end]), file.span.clone()))
            });
            (secret, false)
        }
        (Some(value), Some(file)) => {
            let problem = Problem::error("`secret` and `secret_file` are both given").at(file.span, "");
            f.sink().push(problem.at(value.span(), "not shown"));
            (None, true)
        }
        (None, None) => {
            if !f.has("secret_file") {
                let problem =
                    Problem::error("`secret_file` (or `secret`, or `certificate`, `key` and `ca`) is missing");
                f.sink().push(problem.at(f.span.clone(), "here"));
            }
            (None, false)
        }
    }
}

/// What a file holds; with `private` not everybody may get at it (I8).
fn contents(f: &Fields<'_, '_>, file: &At<PathBuf>, private: bool) -> Option<Zeroizing<Vec<u8>>> {
    let shown = file.value.display();
    let read = || -> Result<Zeroizing<Vec<u8>>, Problem> {
        let cannot = |e: std::io::Error| Problem::error(format!("cannot read {shown}: {e}"));
        let meta = fs::metadata(&file.value).map_err(cannot)?;
        if private && meta.permissions().mode() & 0o007 != 0 {
            let problem = Problem::error(format!("everybody on this machine can get at {shown}"));
            return Err(problem.help(format!("chmod 600 {shown}")));
        }
        if meta.len() > LONGEST {
            return Err(Problem::error(format!("{shown} has {} bytes: that is none", meta.len())));
        }
        fs::read(&file.value).map(Zeroizing::new).map_err(cannot)
    };
    read().map_err(|problem| f.sink().push(problem.at(file.span.clone(), ""))).ok()
}
