//! Certificates as an administrator gives them: which ones a configuration needs, read from their files, with all that is
//! wrong with them in words. The keys are looked at by the keyholder, or, for `ringpost check`, here.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringpost_conf::{ActionKind, Config, Line, Pki, PkiSource, TlsMode};
use ringpost_tls::Certificate;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use crate::authorities;
use crate::ipc::keyholder::KeyPurpose;
use crate::keyholder::keys;
use crate::limits::{CERTIFICATE_BYTES, CERTIFICATE_ENDS_SOON, KEY_BYTES};

/// A certificate that listeners show, and the number of its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// What it is called.
    pub name: Name,
    /// Of a list: the name of its entry, by which it is chosen.
    pub listed: Option<String>,
    /// The chain in DER, the own certificate first.
    pub chain: Vec<Vec<u8>>,
    /// The key, as the keyholder knows it.
    pub key: u32,
}

/// How a listener names a certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Name {
    /// A `pki` of the configuration.
    Pki(String),
    /// The one that is made for this host, for nobody has given one.
    SelfSigned(String),
    /// A `pki` that a relay shows to servers. Its key signs no handshake of a listener.
    Client(String),
}

impl Name {
    /// What its key may sign.
    pub fn purpose(&self) -> KeyPurpose {
        match self {
            Self::Pki(_) | Self::SelfSigned(_) => KeyPurpose::TlsServer,
            Self::Client(_) => KeyPurpose::TlsClient,
        }
    }

    /// The `pki` of the configuration.
    pub fn pki(&self) -> Option<&str> {
        match self {
            Self::Pki(name) | Self::Client(name) => Some(name),
            Self::SelfSigned(_) => None,
        }
    }
}

/// The certificates of a listener, the default first; empty without TLS.
pub fn names(listener: &ringpost_conf::Listener) -> Vec<Name> {
    match listener.tls.mode {
        TlsMode::Off => Vec::new(),
        _ if listener.tls.pkis.is_empty() => vec![Name::SelfSigned(listener.hostname.clone())],
        _ => listener.tls.pkis.iter().cloned().map(Name::Pki).collect(),
    }
}

/// Where a certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// What it is called.
    pub name: Name,
    /// Of a list: the name of its entry.
    pub listed: Option<String>,
    /// The chain.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
    /// The line that says so.
    pub line: Line,
}

/// All that listeners, relays and the page of this configuration need, each once.
pub fn places(config: &Config, state: &Path) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    let shown = config.listeners.iter().flat_map(|listener| {
        let names = names(listener).into_iter();
        names.map(|name| (name, listener.line.clone()))
    });
    let relays = config.actions.iter().filter_map(|action| match &action.kind {
        ActionKind::Relay(relay) => Some((Name::Client(relay.pki.clone()?), action.line.clone())),
        _ => None,
    });
    let page = config.http.iter().filter_map(|http| Some((Name::Pki(http.pki.clone()?), http.line.clone())));
    for (name, line) in shown.chain(relays).chain(page) {
        if places.iter().any(|place| place.name == name) {
            continue;
        }
        match &name {
            Name::Pki(pki) | Name::Client(pki) => {
                let declared = config.pkis.iter().find(|declared| declared.name == *pki);
                let Some(declared) = declared else { continue };
                places.extend(of_pki(declared, &name));
            }
            Name::SelfSigned(hostname) => {
                let (cert, key) = self_signed(state, hostname);
                places.push(Place { name, listed: None, cert, key, line });
            }
        }
    }
    places
}

/// Where the certificates of a `pki` are. Those of tables that must be asked are nowhere yet.
fn of_pki(pki: &Pki, name: &Name) -> Vec<Place> {
    let place = |listed: Option<&String>, cert: &Path, key: &Path| Place {
        name: name.clone(),
        listed: listed.cloned(),
        cert: cert.to_owned(),
        key: key.to_owned(),
        line: pki.line.clone(),
    };
    match &pki.source {
        PkiSource::Files { cert, key } => vec![place(None, cert, key)],
        PkiSource::Listed(pairs) => pairs.iter().map(|pair| place(Some(&pair.name), &pair.cert, &pair.key)).collect(),
        PkiSource::Table(_) => Vec::new(),
    }
}

/// Where the self-signed certificate of this host is kept.
fn self_signed(state: &Path, hostname: &str) -> (PathBuf, PathBuf) {
    let dir = state.join("tls");
    (dir.join(format!("{hostname}.crt")), dir.join(format!("{hostname}.key")))
}

/// Reads a chain from a file in PEM.
///
/// # Errors
/// Names the file, says what is wrong with it, and what to do.
pub fn read(path: &Path) -> Result<(Vec<Vec<u8>>, Certificate), String> {
    let chain = chain(path, "certificate")?;
    let certificate = Certificate::parse(chain.clone());
    let certificate = certificate.map_err(|failure| format!("certificate {}: {failure}", path.display()))?;
    Ok((chain, certificate))
}

/// Certificates of a file in PEM, at least one; the file is a `kind`.
///
/// # Errors
/// Names the file, says what is wrong with it, and what to do.
pub fn chain(path: &Path, kind: &str) -> Result<Vec<Vec<u8>>, String> {
    let named = |why: &dyn std::fmt::Display| format!("{kind} {}: {why}", path.display());
    let text = read_bounded(path, CERTIFICATE_BYTES).map_err(|why| named(&why))?;
    let mut chain = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| named(&format_args!("its PEM is damaged: {error}")))?;
        chain.push(certificate.to_vec());
    }
    if chain.is_empty() {
        let why = "there is no certificate in it (PEM, `-----BEGIN CERTIFICATE-----`)\n  `openssl x509 -inform der` makes \
                   PEM of one in DER";
        return Err(named(&why));
    }
    Ok(chain)
}

/// Whether this is the key of that certificate.
///
/// # Errors
/// Says what to do.
pub fn belong(certificate: &Certificate, public_key: &[u8], place: &Place) -> Result<(), String> {
    if certificate.public_key() == public_key {
        return Ok(());
    }
    Err(format!(
        "key {} does not belong to certificate {}\n  one of the two is an old file, or the chain does not begin with the \
         server's own certificate",
        place.key.display(),
        place.cert.display()
    ))
}

/// What an administrator should know of the time for which `what` is valid.
pub fn remark(certificate: &Certificate, what: &str, now: SystemTime) -> Option<String> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs() as i64;
    let left = certificate.not_after() - now;
    let days = left.unsigned_abs() / 86_400;
    if now < certificate.not_before() {
        return Some(format!("{what} is not valid yet: look at the clock of this machine"));
    }
    if left < 0 {
        return Some(format!("{what} has expired {days} days ago: renew it, clients may refuse it"));
    }
    let soon = left < CERTIFICATE_ENDS_SOON.as_secs() as i64;
    soon.then(|| format!("{what} expires in {days} days: renew it"))
}

/// What `ringpost check` finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The line that names the files.
    pub line: Line,
    /// What, and what to do.
    pub text: String,
    /// A server does not start with it.
    pub is_error: bool,
}

/// Looks at every certificate and key that a `pki` names, and at every `ca`, whether used or not.
pub fn examine(config: &Config, now: SystemTime) -> Vec<Finding> {
    let mut findings = Vec::new();
    for pki in &config.pkis {
        let places = of_pki(pki, &Name::Pki(pki.name.clone()));
        let outcomes: Vec<_> = places.iter().map(|place| (place, pair(place))).collect();
        // A server starts with those of a list that are good, if there is one.
        let some_are_good = outcomes.iter().any(|(_, outcome)| outcome.is_ok());
        for (place, outcome) in outcomes {
            let line = place.line.clone();
            match outcome {
                Ok(certificate) => {
                    let remark = remark(&certificate, &of_file(place), now);
                    findings.extend(remark.map(|text| Finding { line, text, is_error: false }));
                }
                Err(why) if place.listed.is_some() => {
                    findings.push(Finding { line, text: of_entry(place, &why, false), is_error: !some_are_good });
                }
                Err(text) => findings.push(Finding { line, text, is_error: true }),
            }
        }
    }
    findings.extend(authorities::read(config).err().into_iter().flatten());
    findings
}

fn pair(place: &Place) -> Result<Certificate, String> {
    let (_, certificate) = read(&place.cert)?;
    let text = read_bounded(&place.key, KEY_BYTES);
    let public_key = text.and_then(|text| keys::public_key(&keys::parse(&text)?));
    let public_key = public_key.map_err(|why| of_key(place, &why))?;
    belong(&certificate, &public_key, place)?;
    Ok(certificate)
}

/// What is wrong with an entry of a list, and what is shown for it meanwhile: what `is_kept` from before, or nothing of its own.
pub fn of_entry(place: &Place, why: &str, is_kept: bool) -> String {
    let (pki, entry) = (place.name.pki().unwrap_or_default(), place.listed.as_deref().unwrap_or_default());
    let meanwhile = match is_kept {
        true => "the one that was in use before stays; mend the files, and the new one is taken up by itself",
        false => "the others of the list are used; mend the files, and it is taken up by itself",
    };
    format!("pki {pki}: entry {entry}: {}; {meanwhile}", why.replace("\n  ", "; "))
}

/// A certificate by its file.
pub fn of_file(place: &Place) -> String {
    format!("certificate {}", place.cert.display())
}

/// The one that stays for an entry of a list, whose files hold another.
pub fn of_kept(place: &Place) -> String {
    let (pki, entry) = (place.name.pki().unwrap_or_default(), place.listed.as_deref().unwrap_or_default());
    format!("pki {pki}: entry {entry}: the certificate that stays in use")
}

/// What is wrong with a key, with its file.
pub fn of_key(place: &Place, why: &str) -> String {
    format!("key {}: {why}", place.key.display())
}

fn read_bounded(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("it has more than {bytes_max} bytes"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(dir: &Path, name: &str) -> Place {
        let mut key = Vec::new();
        let certificate = keys::make("mx.example", &mut key).unwrap();
        let place = Place {
            name: Name::Pki(name.into()),
            listed: None,
            cert: dir.join(format!("{name}.crt")),
            key: dir.join(format!("{name}.key")),
            line: Line::built_in(),
        };
        std::fs::write(&place.cert, &certificate).unwrap();
        std::fs::write(&place.key, key).unwrap();
        place
    }

    #[test]
    fn a_pair_is_read_and_a_mixed_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (written(dir.path(), "one"), written(dir.path(), "two"));
        assert_eq!(pair(&one).unwrap().names(), ["mx.example"]);
        let why = pair(&Place { key: two.key, ..one.clone() }).unwrap_err();
        assert!(why.contains("two.key does not belong to certificate") && why.contains("one.crt\n  one of"), "{why}");
        let why = pair(&Place { cert: one.key.clone(), ..one.clone() }).unwrap_err();
        assert!(why.contains("one.key: there is no certificate in it"), "{why}");
        let why = pair(&Place { key: one.cert.clone(), ..one.clone() }).unwrap_err();
        assert!(why.contains("one.crt: there is no private key in it"), "{why}");
        let why = pair(&Place { key: dir.path().join("none"), ..one.clone() }).unwrap_err();
        assert!(why.contains("none: No such file"), "{why}");
    }

    #[test]
    fn the_end_of_validity_is_told_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let place = written(dir.path(), "one");
        let (_, certificate) = read(&place.cert).unwrap();
        let at = |days: i64| {
            let seconds = certificate.not_after() + days * 86_400 + 3600;
            remark(&certificate, &of_file(&place), UNIX_EPOCH + Duration::from_secs(seconds as u64))
        };
        assert_eq!(at(-22), None);
        assert!(at(-21).unwrap().contains("one.crt expires in 20 days: renew it"));
        assert!(at(3).unwrap().contains("has expired 3 days ago"));
        assert!(remark(&certificate, &of_file(&place), UNIX_EPOCH).unwrap().contains("not valid yet"));
    }
}
