//! Certificates made for a test, a client that makes handshakes, and OpenSSL's own.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, KeyPair, RsaKeySize, SignatureAlgorithm};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned, SupportedProtocolVersion,
};

use super::authority::Papers;

/// A certificate and its key.
pub struct Pair {
    pub key: PathBuf,
    /// The certificate in DER.
    pub der: Vec<u8>,
    /// The number that nobody else may know.
    pub secret: Vec<u8>,
}

/// A day.
pub type Date = (i32, u8, u8);

/// The day that comes after so many.
pub fn in_days(days: u64) -> Date {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() / 86_400 + days;
    let output = Command::new("date").args(["-u", "+%Y %-m %-d", "-d", &format!("@{}", since * 86_400)]).output();
    let text = String::from_utf8(output.expect("date").stdout).expect("UTF-8");
    let parts: Vec<i32> = text.split_whitespace().map(|part| part.parse().expect("a number")).collect();
    (parts[0], parts[1] as u8, parts[2] as u8)
}

/// Bytes of a P-256 private key, and where they are in what `rcgen` writes: RFC 5915 in RFC 5208, `04 20` in front.
const SECRET_BYTES: usize = 32;

/// A self-signed pair `DIR/NAME.crt` and `.key` for these hosts.
pub fn pair(dir: &Path, name: &str, hosts: &[&str], kind: &'static SignatureAlgorithm) -> Pair {
    pair_until(dir, name, hosts, kind, (2050, 1, 1))
}

/// The same, valid until then.
pub fn pair_until(dir: &Path, name: &str, hosts: &[&str], kind: &'static SignatureAlgorithm, until: Date) -> Pair {
    let pair = match kind == &rcgen::PKCS_RSA_SHA256 {
        true => KeyPair::generate_rsa_for(kind, RsaKeySize::_2048).expect("a key"),
        false => KeyPair::generate_for(kind).expect("a key"),
    };
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).expect("names");
    params.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
    let made = params.self_signed(&pair).expect("a certificate");
    let (cert, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
    fs::write(&cert, made.pem()).expect("written");
    fs::write(&key, pair.serialize_pem()).expect("written");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("ours");
    Pair { key, der: made.der().to_vec(), secret: secret(&pair) }
}

/// The number that nobody else may know.
pub fn secret(pair: &KeyPair) -> Vec<u8> {
    let der = pair.serialize_der();
    let at = der.windows(2).position(|window| window == [4, SECRET_BYTES as u8]).map_or(0, |at| at + 2);
    der[at..at + SECRET_BYTES].to_vec()
}

/// Takes any certificate, and nothing that is not signed with its key.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// What a client of tests is: it takes any certificate, and resumes nothing.
pub fn config() -> Arc<ClientConfig> {
    config_of(None, rustls::DEFAULT_VERSIONS)
}

/// The same with a certificate of its own, and of these versions.
pub fn config_of(papers: Option<&Papers>, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions);
    let builder = builder.expect("versions").dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider)));
    let mut config = match papers {
        None => builder.with_no_client_auth(),
        Some(papers) => {
            builder.with_client_auth_cert(papers.chain.clone(), papers.key()).expect("they belong together")
        }
    };
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

/// A connection that is encrypted, and speaks as it is told.
pub struct Encrypted(StreamOwned<ClientConnection, TcpStream>);

impl Encrypted {
    /// STARTTLS after EHLO.
    pub fn start(address: SocketAddr, name: &str) -> std::io::Result<Self> {
        Self::start_as(address, name, config())
    }

    /// The same, as such a client.
    pub fn start_as(address: SocketAddr, name: &str, config: Arc<ClientConfig>) -> std::io::Result<Self> {
        let mut stream = connect(address)?;
        for said in ["", "EHLO client.example\r\n", "STARTTLS\r\n"] {
            stream.write_all(said.as_bytes())?;
            let reply = lines(&mut stream)?;
            if !reply.starts_with('2') {
                return Err(std::io::Error::other(reply));
            }
        }
        Self::shake(stream, name, config)
    }

    /// TLS from the first byte; the greeting has been read.
    pub fn at_once(address: SocketAddr, name: &str) -> std::io::Result<Self> {
        Self::at_once_as(address, name, config())
    }

    /// The same, as such a client.
    pub fn at_once_as(address: SocketAddr, name: &str, config: Arc<ClientConfig>) -> std::io::Result<Self> {
        let mut encrypted = Self::shake(connect(address)?, name, config)?;
        assert!(encrypted.reply()?.starts_with("220 "));
        Ok(encrypted)
    }

    /// TLS from the next byte on a connection on which something has been said; the greeting has been read.
    pub fn behind(stream: TcpStream, name: &str) -> std::io::Result<Self> {
        let mut encrypted = Self::shake(stream, name, config())?;
        assert!(encrypted.reply()?.starts_with("220 "));
        Ok(encrypted)
    }

    fn shake(mut stream: TcpStream, name: &str, config: Arc<ClientConfig>) -> std::io::Result<Self> {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut connection = ClientConnection::new(config, name).map_err(std::io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(Self(StreamOwned::new(connection, stream)))
    }

    /// A command and its reply.
    pub fn say(&mut self, command: &str) -> String {
        self.try_say(command).expect("a reply")
    }

    /// As [`Encrypted::say`], for a server that may have hung up.
    pub fn try_say(&mut self, command: &str) -> std::io::Result<String> {
        self.0.write_all(format!("{command}\r\n").as_bytes())?;
        self.reply()
    }

    /// A message; the reply to its end.
    pub fn submit(&mut self, from: &str, to: &str, text: &str) -> String {
        assert!(self.say("EHLO client.example").starts_with("250"));
        assert!(self.say(&format!("MAIL FROM:<{from}>")).starts_with("250"));
        let reply = self.say(&format!("RCPT TO:<{to}>"));
        assert!(reply.starts_with("250"), "{reply}");
        assert!(self.say("DATA").starts_with("354"));
        self.say(&format!("{text}\r\n."))
    }

    /// The next reply.
    pub fn reply(&mut self) -> std::io::Result<String> {
        lines(&mut self.0)
    }

    /// The certificate that was shown, in DER.
    pub fn shown(&self) -> Vec<u8> {
        self.0.conn.peer_certificates().expect("one")[0].to_vec()
    }

    /// What only the two ends of this connection know (RFC 9266).
    pub fn binding(&self) -> [u8; 32] {
        self.0.conn.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", None).expect("a handshake was made")
    }

    /// The server has said in order that no more comes.
    pub fn ends_in_order(&mut self) -> bool {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).is_ok() && rest.is_empty()
    }
}

fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One reply, all its lines; nothing behind it is read.
fn lines(stream: &mut impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        let is_last = line.get(3) != Some(&b'-');
        text.push_str(&String::from_utf8_lossy(&line));
        if is_last {
            return Ok(text);
        }
    }
}

/// What `openssl s_client ARGS` prints, with a short dialogue after the handshake.
pub fn openssl(address: SocketAddr, args: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &address.to_string(), "-crlf", "-ign_eof"]).args(args);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("openssl");
    // Small letters: capital ones at the start of a line are orders to the program.
    // It ends by itself where the handshake fails.
    let _ = child.stdin.take().expect("piped").write_all(b"ehlo client.example\nquit\n");
    let output = child.wait_with_output().expect("it ends");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
