//! Whom a client's certificate is for: the names in it that rules and logins may go by.

use rustls::crypto::CryptoProvider;
use rustls::crypto::hash::HashAlgorithm;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::limits::{SUBJECT_NAME_BYTES_MAX, SUBJECT_NAMES_MAX};

/// The names of a certificate's subject. Nothing in them can end a word of a log or of a header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// Mail addresses (RFC 5280 §4.2.1.6), as they are written.
    pub addresses: Vec<String>,
    /// All names, in the order in which they are looked for: mail addresses, host names in lower case, the common name where
    /// there is neither, and `sha256:` with the certificate's hash in hexadecimal digits.
    pub names: Vec<String>,
}

impl Subject {
    /// Reads the names of a certificate. What is no printable ASCII is left out: nobody could name it.
    pub(crate) fn of(certificate: &CertificateDer<'_>, provider: &CryptoProvider) -> Self {
        let mut subject = Self::default();
        if let Ok((_, parsed)) = X509Certificate::from_der(certificate) {
            subject.read(&parsed);
        }
        subject.names.extend(fingerprint(certificate, provider));
        subject
    }

    fn read(&mut self, certificate: &X509Certificate<'_>) {
        let found = certificate.subject_alternative_name().ok().flatten();
        let names = found.iter().flat_map(|extension| &extension.value.general_names).take(SUBJECT_NAMES_MAX);
        let mut hosts = Vec::new();
        for name in names {
            match name {
                GeneralName::RFC822Name(address) if is_word(address) => self.addresses.push((*address).to_owned()),
                GeneralName::DNSName(host) if is_word(host) => hosts.push(host.to_ascii_lowercase()),
                _ => {}
            }
        }
        self.names.extend(self.addresses.iter().cloned().chain(hosts));
        if self.names.is_empty() {
            let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
            self.names.extend(common.filter(|name| is_word(name)).take(1).map(str::to_owned));
        }
    }

    /// What it is called in a log.
    pub fn called(&self) -> &str {
        self.names.first().map_or("nobody", String::as_str)
    }
}

/// Printable, and nothing that quotes or brackets.
fn is_word(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_graphic() && !b"\"'\\<>(),;".contains(&byte);
    !name.is_empty() && name.len() <= SUBJECT_NAME_BYTES_MAX && name.bytes().all(allowed)
}

/// `sha256:` and hexadecimal digits in lower case; the library that is linked has that hash, for TLS needs it.
fn fingerprint(certificate: &CertificateDer<'_>, provider: &CryptoProvider) -> Option<String> {
    let hashes = provider.cipher_suites.iter().map(|suite| match suite {
        rustls::SupportedCipherSuite::Tls12(suite) => suite.common.hash_provider,
        rustls::SupportedCipherSuite::Tls13(suite) => suite.common.hash_provider,
    });
    let sha256 = hashes.into_iter().find(|hash| hash.algorithm() == HashAlgorithm::SHA256)?;
    let digits: String = sha256.hash(certificate).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Some(format!("sha256:{digits}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_break_out_is_no_name() {
        for good in ["app@poolp.org", "a.example", "Fred", "*.example"] {
            assert!(is_word(good), "{good}");
        }
        for bad in ["", "a b", "a\"b", "a\r\nb", "<a@b>", "ä.example", "a,b", &"x".repeat(SUBJECT_NAME_BYTES_MAX + 1)]
        {
            assert!(!is_word(bad), "{bad}");
        }
    }
}
