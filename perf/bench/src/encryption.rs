//! TLS of the load tools: a client that believes everybody and checks nothing, for the server is what is measured; and the
//! sink's side, with a certificate from files. Bytes in, bytes out; no sockets here.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, ServerConfig, ServerConnection, SignatureScheme,
    SupportedProtocolVersion,
};

use crate::limits::SESSIONS_KEPT;

/// Settings of a client; with `resume` it comes back with the tickets that it was given.
///
/// # Errors
/// The library lacks what the version needs.
pub fn client(versions: &[&'static SupportedProtocolVersion], resume: bool) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions);
    let builder = builder.map_err(|error| error.to_string())?;
    let mut config =
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Unconcerned(provider))).with_no_client_auth();
    config.resumption = if resume { Resumption::in_memory_sessions(SESSIONS_KEPT) } else { Resumption::disabled() };
    Ok(Arc::new(config))
}

/// Settings of a server with these files.
///
/// # Errors
/// Says which file is wrong, and how.
pub fn server(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, String> {
    let told = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let chain = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| told(cert, &error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| told(key, &error))?;
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let config = builder.with_no_client_auth().with_single_cert(chain, private).map_err(|error| told(key, &error))?;
    Ok(Arc::new(config))
}

/// The sink's side of an encrypted connection.
#[derive(Debug)]
pub struct Encryption {
    connection: ServerConnection,
    /// For the wire.
    out: Vec<u8>,
}

impl Encryption {
    /// Nothing has come yet.
    ///
    /// # Errors
    /// The settings are no good.
    pub fn new(config: &Arc<ServerConfig>) -> Result<Box<Self>, String> {
        let mut connection = ServerConnection::new(config.clone()).map_err(|error| error.to_string())?;
        connection.set_buffer_limit(None);
        Ok(Box::new(Self { connection, out: Vec::new() }))
    }

    /// Takes bytes from the wire and appends what was in them to `plain`.
    ///
    /// # Errors
    /// The connection is over.
    pub fn receive(&mut self, mut wire: &[u8], plain: &mut Vec<u8>) -> Result<(), Error> {
        while !wire.is_empty() {
            self.connection.read_tls(&mut wire).map_err(|error| Error::General(error.to_string()))?;
            let state = self.connection.process_new_packets()?;
            let start = plain.len();
            plain.resize(start + state.plaintext_bytes_to_read(), 0);
            let read = self.connection.reader().read_exact(&mut plain[start..]);
            read.map_err(|error| Error::General(error.to_string()))?;
        }
        Ok(())
    }

    /// Encrypts `plain`, which is empty then; gives what waits for the wire, of which the caller takes off what has left.
    pub fn send(&mut self, plain: &mut Vec<u8>) -> &mut Vec<u8> {
        self.connection.writer().write_all(plain).expect("its buffer has no limit");
        plain.clear();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut self.out).expect("a Vec takes everything");
        }
        &mut self.out
    }
}

/// Believes every certificate and every signature.
#[derive(Debug)]
struct Unconcerned(Arc<CryptoProvider>);

impl ServerCertVerifier for Unconcerned {
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
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
