//! A root zone of a test's own, signed by Knot and served by it, and certificates for its hosts.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs as library;
use rustls::pki_types::PrivateKeyDer;

use super::ports;
use super::wait::wait_until;

/// The beginning of every zone.
const HEAD: &str = "$TTL 60\n@ SOA ns.test. admin.test. 1 60 60 60 60\n@ NS ns.test.\n";

/// Knot, until it is dropped.
pub struct SignedZone {
    address: SocketAddr,
    anchor: String,
    child: Child,
}

impl SignedZone {
    /// Signs `root` and serves it; `unsigned` are zones below it, by name, that are not. `forged` says what is replaced in the
    /// signed text. A zone in `missing` is one that the server should have and has not.
    pub fn serve(dir: &Path, root: &str, unsigned: &[(&str, &str)], missing: &[&str], forged: &[(&str, &str)]) -> Self {
        let dir = dir.join("knot");
        for each in ["", "keys", "run", "signed"] {
            fs::create_dir_all(dir.join(each)).expect("created");
        }
        let write = |name: &str, text: &str| fs::write(dir.join(name), text).expect("written");
        write("root.zone", &format!("{HEAD}ns.test. A 127.0.0.1\n{root}"));
        let (at, address) = (dir.display(), SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free())));
        let common = format!("database:\n  storage: {at}/keys\nserver:\n  rundir: {at}/run\n");
        write(
            "sign.conf",
            &format!(
                "{common}policy:\n  - id: all\n    algorithm: ecdsap256sha256\n    single-type-signing: on\nzone:\n  \
                 - domain: .\n    storage: {at}\n    file: root.zone\n    dnssec-signing: on\n    dnssec-policy: all\n"
            ),
        );
        let done = Command::new("kzonesign").args(["-c", "sign.conf", "-o", "signed", "."]).current_dir(&dir).output();
        let done = done.expect("kzonesign runs (Debian: knot-dnssecutils)");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let mut signed = fs::read_to_string(dir.join("signed/root.zone")).expect("signed");
        let key = signed.lines().find_map(|line| line.split_once("\tDNSKEY\t257 ")).expect("a key").1.to_owned();
        for (from, to) in forged {
            assert!(signed.contains(from), "{from} in\n{signed}");
            signed = signed.replace(from, to);
        }
        write("signed/root.zone", &signed);
        let zone = |name: &str, storage: &str, file: &str| {
            format!("  - domain: {name}\n    storage: {at}{storage}\n    file: {file}\n")
        };
        let mut zones = zone(".", "/signed", "root.zone");
        for (name, text) in unsigned {
            write(&format!("{name}zone"), &format!("$ORIGIN {name}\n{HEAD}{text}"));
            zones += &zone(name, "", &format!("{name}zone"));
        }
        missing.iter().for_each(|name| zones += &zone(name, "", "nowhere"));
        let listen = format!("  listen: {}@{}\n", address.ip(), address.port());
        write("serve.conf", &format!("{common}{listen}zone:\n{zones}"));
        let log = File::create(dir.join("log")).expect("created");
        let mut knot = Command::new("/usr/sbin/knotd");
        knot.args(["-c", "serve.conf"]).current_dir(&dir).stdout(log.try_clone().expect("descriptors")).stderr(log);
        let child = knot.spawn().expect("knotd runs (Debian: knot)");
        let zone = Self { address, anchor: format!(". IN DNSKEY 257 {key}"), child };
        wait_until("knotd answers", Duration::from_secs(30), || answers(address));
        zone
    }

    /// What `--dns` reads, so that a server asks this one and believes its keys.
    pub fn seam(&self) -> String {
        format!("$SERVER {}\n$ANCHOR {}\n", self.address, self.anchor)
    }
}

impl Drop for SignedZone {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a question about the root's SOA is answered with a record.
fn answers(address: SocketAddr) -> bool {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("set");
    let question = [0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 1];
    let mut answer = [0; 512];
    socket.send_to(&question, address).is_ok() && socket.recv(&mut answer).is_ok_and(|len| len > 12 && answer[7] > 0)
}

/// A certificate that nobody but its holder has signed.
pub struct OwnCertificate {
    pub server: Arc<ServerConfig>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl OwnCertificate {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate").der().clone();
        let builder = ServerConfig::builder_with_provider(Arc::new(library::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
        let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let server = builder.with_single_cert(vec![certificate.clone()], private).expect("they belong together");
        Self { server: Arc::new(server), certificate: certificate.to_vec(), key: key.subject_public_key_info() }
    }

    /// Presentation of a record for it, by the digest of its key: `3 1 1 …`.
    pub fn by_key(&self, usage: u8) -> String {
        format!("{usage} 1 1 {}", hex(digest(&SHA256, &self.key).as_ref()))
    }

    /// The same with the certificate itself: `3 0 0 …`.
    pub fn whole(&self) -> String {
        format!("3 0 0 {}", hex(&self.certificate))
    }
}

/// As zone files have it.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
