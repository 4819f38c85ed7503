//! `protocols` and `ciphers`: which versions of TLS and which cipher suites there are, and how lists name them.

use std::fmt;

/// A version of TLS that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsVersion {
    /// TLS 1.2.
    V12,
    /// TLS 1.3.
    V13,
}

/// A cipher suite that the server has.
#[derive(PartialEq, Eq, Hash)]
pub struct Cipher {
    /// Its name in the registry of the IANA.
    pub name: &'static str,
    /// OpenSSL's name for it; for those of TLS 1.3 LibreSSL's.
    other_name: &'static str,
    /// The version that it belongs to.
    pub version: TlsVersion,
    /// Words of OpenSSL's lists that mean it, among others.
    groups: &'static [&'static str],
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Cipher {
    /// All of them, the preferred first: those of TLS 1.3 by what they cost, those of TLS 1.2 as OpenSSL's lists have them.
    pub const ALL: [Self; 9] = [
        Self::new("TLS_AES_128_GCM_SHA256", "AEAD-AES128-GCM-SHA256", V13, &["AES", "AES128", "AESGCM"]),
        Self::new("TLS_AES_256_GCM_SHA384", "AEAD-AES256-GCM-SHA384", V13, &["AES", "AES256", "AESGCM"]),
        Self::new("TLS_CHACHA20_POLY1305_SHA256", "AEAD-CHACHA20-POLY1305-SHA256", V13, &["CHACHA20"]),
        Self::new("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384", V12, EC_AES256),
        Self::new("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256", V12, EC_AES128),
        Self::new("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305", V12, EC_CHACHA20),
        Self::new("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "ECDHE-RSA-AES256-GCM-SHA384", V12, RSA_AES256),
        Self::new("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256", V12, RSA_AES128),
        Self::new("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-RSA-CHACHA20-POLY1305", V12, RSA_CHACHA20),
    ];

    const fn new(
        name: &'static str,
        other_name: &'static str,
        version: TlsVersion,
        groups: &'static [&'static str],
    ) -> Self {
        Self { name, other_name, version, groups }
    }

    /// Whether a word of a list names this one and no other.
    pub(crate) fn is_named(&self, word: &str) -> bool {
        word.eq_ignore_ascii_case(self.name) || word.eq_ignore_ascii_case(self.other_name)
    }

    /// Whether a word of a list means it, be it by name or as one of many.
    pub(crate) fn is_meant(&self, word: &str) -> bool {
        let of_old = self.version == V12;
        self.is_named(word)
            || ALL_OF_THEM.iter().any(|all| all.eq_ignore_ascii_case(word))
            || self.groups.iter().any(|group| group.eq_ignore_ascii_case(word))
            || of_old && EPHEMERAL.iter().any(|group| group.eq_ignore_ascii_case(word))
    }

    /// Its names.
    pub(crate) fn names(&self) -> [&'static str; 2] {
        [self.name, self.other_name]
    }

    /// Words that mean several.
    pub(crate) const WORDS: &'static [&'static str] = &[
        "ALL", "DEFAULT", "HIGH", "SECURE", "COMPAT", "LEGACY", "ECDHE", "EECDH", "kECDHE", "kEECDH", "TLSv1.2",
        "AEAD", "ECDSA", "aECDSA", "aRSA", "AES", "AES128", "AES256", "AESGCM", "CHACHA20",
    ];
}

use TlsVersion::{V12, V13};

/// Words for all that a server has.
const ALL_OF_THEM: &[&str] = &["ALL", "DEFAULT", "HIGH", "SECURE", "COMPAT", "LEGACY"];
/// Words for those of TLS 1.2.
const EPHEMERAL: &[&str] = &["ECDHE", "EECDH", "kECDHE", "kEECDH", "TLSv1.2", "AEAD"];
const EC_AES256: &[&str] = &["ECDSA", "aECDSA", "AES", "AES256", "AESGCM"];
const EC_AES128: &[&str] = &["ECDSA", "aECDSA", "AES", "AES128", "AESGCM"];
const EC_CHACHA20: &[&str] = &["ECDSA", "aECDSA", "CHACHA20"];
const RSA_AES256: &[&str] = &["aRSA", "AES", "AES256", "AESGCM"];
const RSA_AES128: &[&str] = &["aRSA", "AES", "AES128", "AESGCM"];
const RSA_CHACHA20: &[&str] = &["aRSA", "CHACHA20"];
