//! DANE for SMTP (RFC 7672): a server is who it must be if its certificate is one that TLSA records of its host name. That
//! DNSSEC vouches for the records is the caller's to know.
//!
//! A record is its RDATA (RFC 6698 §2.1): usage, selector, matching type, one octet each, and the data.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, Error, OtherError, RootCertStore};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::judge::Judge;
use crate::limits::{CHAIN_MAX, TLSA_MAX};

/// A digest of some bytes.
pub type Digest = fn(&[u8]) -> Vec<u8>;

/// The digests that records may be made with (RFC 6698 §2.1.3).
#[derive(Clone, Copy, Debug)]
pub struct Digests {
    /// Matching type 1.
    pub sha256: Digest,
    /// Matching type 2.
    pub sha512: Digest,
}

/// DANE-TA: an authority that has signed the certificate.
const AUTHORITY: u8 = 2;
/// DANE-EE: the certificate itself.
const ITSELF: u8 = 3;

/// Whether a record says something that can be held against a certificate. Of the usages, SMTP knows 2 and 3 alone (RFC 7672
/// §3.1.3).
pub fn is_usable(record: &[u8]) -> bool {
    Record::parse(record).is_some()
}

/// Whether the server's name matters for this record: RFC 7672 §3.1.1 and §3.1.2.
pub fn needs_name(record: &[u8]) -> bool {
    Record::parse(record).is_some_and(|record| record.usage == AUTHORITY)
}

/// A record that is usable.
#[derive(Clone, Debug)]
struct Record {
    usage: u8,
    /// The public key alone, not the whole certificate.
    key_alone: bool,
    matching: u8,
    data: Vec<u8>,
}

impl Record {
    fn parse(record: &[u8]) -> Option<Self> {
        let [usage, selector, matching, data @ ..] = record else { return None };
        let fits = match matching {
            0 => !data.is_empty(),
            1 => data.len() == 32,
            2 => data.len() == 64,
            _ => false,
        };
        let known = matches!(*usage, AUTHORITY | ITSELF) && *selector <= 1;
        let key_alone = *selector == 1;
        (fits && known).then(|| Self { usage: *usage, key_alone, matching: *matching, data: data.to_vec() })
    }

    fn is_of(&self, certificate: &CertificateDer<'_>, digests: &Digests) -> bool {
        let parsed;
        let chosen = if self.key_alone {
            let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
            parsed = certificate;
            parsed.public_key().raw
        } else {
            certificate
        };
        match self.matching {
            0 => chosen == self.data,
            1 => (digests.sha256)(chosen) == self.data,
            _ => (digests.sha512)(chosen) == self.data,
        }
    }
}

/// Judges a certificate by TLSA records.
pub(crate) struct Pinned {
    records: Vec<Record>,
    /// Another name, beside the one that is connected to, that an authority may vouch for (RFC 7672 §3.2.2).
    also: Option<ServerName<'static>>,
    digests: Digests,
    provider: Arc<CryptoProvider>,
}

/// The certificate is not one of those that are named. Travels through rustls, which has no word for it.
#[derive(Debug, thiserror::Error)]
#[error("DANE: {0}")]
pub(crate) struct Unmatched(String);

impl Pinned {
    /// By those of the records that are usable. `None`: none is.
    pub(crate) fn new(
        records: &[Box<[u8]>],
        also: Option<ServerName<'static>>,
        digests: Digests,
        provider: Arc<CryptoProvider>,
    ) -> Option<Self> {
        let records: Vec<Record> = records.iter().take(TLSA_MAX).filter_map(|record| Record::parse(record)).collect();
        (!records.is_empty()).then_some(Self { records, also, digests, provider })
    }

    /// The chain ends with an authority that a record names, and the server's certificate is for one of the names.
    fn is_vouched_for(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), String> {
        let mut roots = RootCertStore::empty();
        for record in self.records.iter().filter(|record| record.usage == AUTHORITY) {
            for other in others.iter().take(CHAIN_MAX).filter(|other| record.is_of(other, &self.digests)) {
                // One that cannot be an authority is not one.
                let _ = roots.add(other.clone().into_owned());
            }
            if record.matching == 0 && !record.key_alone {
                let _ = roots.add(CertificateDer::from(record.data.clone()));
            }
        }
        if roots.is_empty() {
            return Err("the server's certificate is not one that the TLSA records of its host name".to_owned());
        }
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone());
        let verifier = builder.build().map_err(|error| error.to_string())?;
        let mut wrong = None;
        for name in [Some(name), self.also.as_ref()].into_iter().flatten() {
            match verifier.verify_server_cert(own, others, name, &[], now) {
                Ok(_) => return Ok(()),
                Err(error) => wrong = wrong.or(Some(error)),
            }
        }
        Err(wrong.map_or_else(|| "the server has no name".to_owned(), |error| error.to_string()))
    }
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pinned").field("records", &self.records).finish_non_exhaustive()
    }
}

impl Judge for Pinned {
    fn judge(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let mut itself = self.records.iter().filter(|record| record.usage == ITSELF);
        // RFC 7672 §3.1.1: neither its names nor its dates count then.
        if itself.any(|record| record.is_of(own, &self.digests)) {
            return Ok(());
        }
        let vouched = self.is_vouched_for(own, others, name, now);
        vouched.map_err(|why| CertificateError::Other(OtherError(Arc::new(Unmatched(why)))).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_that_say_nothing_are_not_usable() {
        let record = |head: [u8; 3], len: usize| [&head[..], &vec![7; len]].concat();
        for usable in [([3, 1, 1], 32), ([2, 0, 2], 64), ([3, 0, 0], 900)] {
            assert!(is_usable(&record(usable.0, usable.1)), "{usable:?}");
        }
        // Of the Web's authorities; unknown selector, matching type, usage; digests of other lengths; no data.
        let others =
            [([0, 0, 1], 32), ([1, 1, 1], 32), ([3, 2, 1], 32), ([3, 1, 3], 32), ([4, 1, 1], 32), ([3, 1, 1], 31)];
        for unusable in others.into_iter().chain([([2, 1, 2], 32), ([3, 1, 0], 0)]) {
            assert!(!is_usable(&record(unusable.0, unusable.1)), "{unusable:?}");
        }
        assert!(!is_usable(&[3, 1]));
        assert!(needs_name(&record([2, 1, 1], 32)) && !needs_name(&record([3, 1, 1], 32)));
    }
}
