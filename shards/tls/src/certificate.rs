//! A certificate chain of ours, as far as it must be understood: names, kind of key, end of validity.

use rustls::SignatureScheme;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::failure::Failure;
use crate::limits::CHAIN_MAX;

/// Kinds of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// ECDSA on P-256.
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// ECDSA on P-521.
    EcdsaP521,
    /// Ed25519.
    Ed25519,
    /// RSA.
    Rsa,
}

impl Algorithm {
    /// Signatures that such a key can make, the best first.
    pub fn schemes(self) -> &'static [SignatureScheme] {
        match self {
            Self::EcdsaP256 => &[SignatureScheme::ECDSA_NISTP256_SHA256],
            Self::EcdsaP384 => &[SignatureScheme::ECDSA_NISTP384_SHA384],
            Self::EcdsaP521 => &[SignatureScheme::ECDSA_NISTP521_SHA512],
            Self::Ed25519 => &[SignatureScheme::ED25519],
            // PSS is what TLS 1.3 takes, and the shortest hash of it costs least; PKCS#1 is for TLS 1.2 alone.
            Self::Rsa => &[
                SignatureScheme::RSA_PSS_SHA256,
                SignatureScheme::RSA_PSS_SHA384,
                SignatureScheme::RSA_PSS_SHA512,
                SignatureScheme::RSA_PKCS1_SHA256,
                SignatureScheme::RSA_PKCS1_SHA384,
                SignatureScheme::RSA_PKCS1_SHA512,
            ],
        }
    }
}

/// A chain, the own certificate first.
#[derive(Clone, Debug)]
pub struct Certificate {
    chain: Vec<CertificateDer<'static>>,
    names: Vec<String>,
    algorithm: Algorithm,
    public_key: Vec<u8>,
    not_before: i64,
    not_after: i64,
}

impl Certificate {
    /// Reads a chain of certificates in DER.
    ///
    /// # Errors
    /// Says what is wrong with it; the fault is ours.
    pub fn parse(chain: Vec<Vec<u8>>) -> Result<Self, Failure> {
        if chain.len() > CHAIN_MAX {
            return Err(Failure::ours(format!("a chain of {} certificates; at most {CHAIN_MAX}", chain.len())));
        }
        let first = chain.first().ok_or_else(|| Failure::ours("it has no certificate"))?;
        for (number, other) in chain.iter().enumerate().skip(1) {
            parse(other).map_err(|why| Failure::ours(format!("certificate {} of the chain: {why}", number + 1)))?;
        }
        let own = parse(first).map_err(Failure::ours)?;
        let names = own.subject_alternative_name().ok().flatten().map(|found| &found.value.general_names);
        let names = names.into_iter().flatten().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        });
        let validity = own.validity();
        let (names, public_key) = (names.collect(), own.public_key().raw.to_vec());
        let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        let algorithm = algorithm(&own)?;
        let chain = chain.into_iter().map(CertificateDer::from).collect();
        Ok(Self { chain, names, algorithm, public_key, not_before, not_after })
    }

    /// The host names that it is for, in lower case; `*.` in front stands for one label.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The kind of its key.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its public key, as `SubjectPublicKeyInfo` in DER (RFC 5280 §4.1.2.7).
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// When it begins to be valid, in seconds since 1970.
    pub fn not_before(&self) -> i64 {
        self.not_before
    }

    /// When it ends, in seconds since 1970.
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, String> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err("there is something behind the certificate".to_owned()),
        Err(_) => Err("it is not an X.509 certificate".to_owned()),
    }
}

/// RFC 5480 §2.1.1, RFC 8410 §3, RFC 3279 §2.3.1.
fn algorithm(certificate: &X509Certificate<'_>) -> Result<Algorithm, Failure> {
    let key = &certificate.public_key().algorithm;
    let curve = || key.parameters.as_ref().and_then(|any| any.as_oid().ok()).map(|oid| oid.to_id_string());
    match key.algorithm.to_id_string().as_str() {
        "1.2.840.113549.1.1.1" => Ok(Algorithm::Rsa),
        "1.3.101.112" => Ok(Algorithm::Ed25519),
        "1.2.840.10045.2.1" => match curve().as_deref() {
            Some("1.2.840.10045.3.1.7") => Ok(Algorithm::EcdsaP256),
            Some("1.3.132.0.34") => Ok(Algorithm::EcdsaP384),
            Some("1.3.132.0.35") => Ok(Algorithm::EcdsaP521),
            _ => Err(Failure::ours("its key is on a curve that TLS does not use here: P-256, P-384 and P-521 are")),
        },
        _ => Err(Failure::ours("its key is of an unknown kind: RSA, ECDSA and Ed25519 are known")),
    }
}
