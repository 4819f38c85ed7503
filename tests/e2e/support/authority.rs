//! Certificates of every kind, good and bad, made for a test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType, date_time_ymd,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// Who signs.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate for a client, and its key.
pub struct Papers {
    /// In DER.
    pub chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
    pem: String,
}

impl Papers {
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.serialize_der().into())
    }

    /// Writes `DIR/NAME.crt` and `.key`.
    pub fn write(&self, dir: &Path, name: &str) {
        let key = dir.join(format!("{name}.key"));
        fs::write(dir.join(format!("{name}.crt")), &self.pem).expect("written");
        fs::write(&key, self.key.serialize_pem()).expect("written");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("ours");
    }

    /// The number that nobody else may know.
    pub fn secret(&self) -> Vec<u8> {
        super::tls::secret(&self.key)
    }

    /// As `auth-cert` has it.
    pub fn fingerprint(&self) -> String {
        let digest = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
        let hash = digest.tls13().expect("it is of TLS 1.3").common.hash_provider.hash(&self.chain[0]);
        hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
    }
}

/// What is the matter with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Good,
    Expired,
    OtherName,
    SelfSigned,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Two of one name would be taken for each other until a signature does not fit.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        params.distinguished_name.push(DnType::CommonName, format!("authority {number}"));
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    /// Its own certificate, in DER.
    pub fn der(&self) -> Vec<u8> {
        self.0.der().to_vec()
    }

    /// Its own certificate.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A client's certificate: a name with an `@` is a mail address, the others are host names; without any the common name is
    /// `nameless`.
    pub fn client(&self, names: &[&str], kind: Kind) -> Papers {
        let hosts = names.iter().filter(|name| !name.contains('@')).map(|name| (*name).to_owned());
        let mut params = CertificateParams::new(hosts.collect::<Vec<_>>()).expect("names");
        let addresses = names.iter().filter(|name| name.contains('@'));
        let addresses = addresses.map(|name| SanType::Rfc822Name((*name).try_into().expect("ASCII")));
        params.subject_alt_names.extend(addresses);
        params.distinguished_name.push(DnType::CommonName, "nameless");
        if kind == Kind::Expired {
            (params.not_before, params.not_after) = (date_time_ymd(2019, 1, 1), date_time_ymd(2020, 1, 1));
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = match kind {
            Kind::SelfSigned => params.self_signed(&key),
            _ => params.signed_by(&key, &self.0),
        };
        let certificate = certificate.expect("a certificate");
        Papers { chain: vec![certificate.der().clone()], pem: certificate.pem(), key }
    }

    /// A server's settings, with a certificate of another authority for this name, that demand one of this.
    pub fn demanding_as(
        &self,
        other: &Self,
        name: &str,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ServerConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("a certificate");
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
        let papers = other.client(&[name], Kind::Good);
        let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions).expect("versions");
        let builder = builder.with_client_cert_verifier(verifier.expect("an authority"));
        Arc::new(builder.with_single_cert(papers.chain.clone(), papers.key()).expect("they belong together"))
    }

    /// `DIR/FILE.crt` and `.key` with a certificate for this name, for servers of others.
    pub fn files(&self, dir: &Path, file: &str, name: &str, kind: Kind) {
        let (certificate, key) = self.certify(name, kind);
        let path = dir.join(file).with_extension("key");
        fs::write(dir.join(file).with_extension("crt"), certificate.pem()).expect("written");
        fs::write(&path, key.serialize_pem()).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours");
    }

    fn certify(&self, name: &str, kind: Kind) -> (Certificate, KeyPair) {
        let name = if kind == Kind::OtherName { "elsewhere.example" } else { name };
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        if kind == Kind::Expired {
            (params.not_before, params.not_after) = (date_time_ymd(2019, 1, 1), date_time_ymd(2020, 1, 1));
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = match kind {
            Kind::SelfSigned => params.self_signed(&key),
            _ => params.signed_by(&key, &self.0),
        };
        (certificate.expect("a certificate"), key)
    }

    /// A server's settings, with a certificate for this name.
    pub fn server(&self, name: &str, kind: Kind) -> Arc<ServerConfig> {
        let (certificate, key) = self.certify(name, kind);
        let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
        Arc::new(builder.with_single_cert(chain, key).expect("they belong together"))
    }
}
