//! The client's side: what is demanded of a server's certificate, and what is noted of it where nothing is demanded.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::channel::Channel;
use crate::limits::SESSIONS_MAX;

/// Opens connections to servers. Cheap to clone; clones share what was learned to resume sessions.
///
/// The default one opens none, for worlds without cryptography.
#[derive(Clone, Default)]
pub struct Connector(Option<Configs>);

#[derive(Clone)]
struct Configs {
    trusting: Arc<ClientConfig>,
    /// None without any authority.
    verifying: Option<(Arc<ClientConfig>, Arc<WebPkiServerVerifier>)>,
}

/// Why no connection can be begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub String);

impl Connector {
    /// With these authorities' certificates; without any, no server can be verified.
    ///
    /// # Errors
    /// The library for the cryptography lacks what TLS 1.2 and 1.3 need.
    pub fn new(provider: Arc<CryptoProvider>, roots: RootCertStore) -> Result<Self, Refused> {
        let verifier = match roots.is_empty() {
            true => None,
            false => {
                let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
                Some(builder.build().map_err(|error| Refused(error.to_string()))?)
            }
        };
        let config = |judge: Arc<dyn ServerCertVerifier>| {
            let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
            let builder = builder.map_err(|error| Refused(error.to_string()))?.dangerous();
            let mut config = builder.with_custom_certificate_verifier(judge).with_no_client_auth();
            config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
            Ok::<_, Refused>(Arc::new(config))
        };
        let trusting = config(Arc::new(Anybody { provider: provider.clone() }))?;
        let verifying = match verifier {
            Some(verifier) => Some((config(verifier.clone())?, verifier)),
            None => None,
        };
        Ok(Self(Some(Configs { trusting, verifying })))
    }

    /// Begins a connection to the server of this name or address. With `verify` its certificate must be good for it.
    ///
    /// # Errors
    /// The name is none that a certificate can be for; nobody can be verified.
    pub fn connect(&self, name: &str, verify: bool) -> Result<Channel, Refused> {
        let config = if verify { self.verifying()?.0 } else { &self.configs()?.trusting };
        let connection = ClientConnection::new(config.clone(), server_name(name)?);
        Ok(Channel::of(connection.map_err(|error| Refused(error.to_string()))?.into()))
    }

    /// What [`Connector::connect`] with `verify` would have said of the certificate of a server that was not verified.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn judge(&self, channel: &Channel, name: &str) -> Result<(), Refused> {
        let (_, verifier) = self.verifying()?;
        let Some((own, others)) = channel.peer_chain().split_first() else {
            return Err(Refused("it has shown no certificate".to_owned()));
        };
        let verified = verifier.verify_server_cert(own, others, &server_name(name)?, &[], UnixTime::now());
        verified.map(|_| ()).map_err(|error| Refused(error.to_string()))
    }

    fn configs(&self) -> Result<&Configs, Refused> {
        self.0.as_ref().ok_or_else(|| Refused("this world has no cryptography".to_owned()))
    }

    fn verifying(&self) -> Result<(&Arc<ClientConfig>, &Arc<WebPkiServerVerifier>), Refused> {
        let verifying = self.configs()?.verifying.as_ref().map(|(config, verifier)| (config, verifier));
        verifying.ok_or_else(|| Refused("no authority's certificate is known to this server".to_owned()))
    }
}

fn server_name(name: &str) -> Result<ServerName<'static>, Refused> {
    ServerName::try_from(name.trim_end_matches('.').to_owned())
        .map_err(|_| Refused(format!("`{name}` is no name that a certificate can be for")))
}

/// Takes every certificate, but not a handshake that its key has not signed.
struct Anybody {
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Anybody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Anybody")
    }
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
