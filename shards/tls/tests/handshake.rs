//! A server of ours and a client of rustls, in memory: versions, certificates by name and kind, tickets, and what goes wrong.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use ringpost_tls::{Certificate, Channel, Failure, Fault, Flight, Hello, KeyId, Offer, Secured, Server, Signs, Terms};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::sign::SigningKey;
use rustls::{ClientConfig, ClientConnection, RootCertStore, SignatureScheme, SupportedProtocolVersion};

/// Keys by number, as the other process has them.
#[derive(Debug, Default)]
struct Holder {
    keys: Mutex<BTreeMap<KeyId, Arc<dyn SigningKey>>>,
    asked: AtomicUsize,
}

impl Signs for Holder {
    fn sign(&self, key: KeyId, scheme: SignatureScheme, transcript: &[u8]) -> Result<Vec<u8>, String> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        assert!(transcript.len() <= ringpost_tls::limits::TRANSCRIPT_BYTES_MAX);
        let keys = self.keys.lock().unwrap();
        let key = keys.get(&key).ok_or("the keyholder does not answer")?;
        let signer = key.choose_scheme(&[scheme]).ok_or("not with this key")?;
        signer.sign(transcript).map_err(|error| error.to_string())
    }
}

struct World {
    holder: Arc<Holder>,
    offer: Offer,
    roots: RootCertStore,
}

impl World {
    fn new() -> Self {
        Self { holder: Arc::default(), offer: Offer::new(), roots: RootCertStore::empty() }
    }

    fn with(mut self, names: &[&str], kind: &'static rcgen::SignatureAlgorithm) -> Self {
        let pair = match kind == &rcgen::PKCS_RSA_SHA256 {
            true => KeyPair::generate_rsa_for(kind, rcgen::RsaKeySize::_2048).unwrap(),
            false => KeyPair::generate_for(kind).unwrap(),
        };
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = CertificateParams::new(names).unwrap().self_signed(&pair).unwrap();
        self.roots.add(made.der().clone()).unwrap();
        let certificate = Certificate::parse(vec![made.der().to_vec()]).unwrap();
        let der = PrivateKeyDer::try_from(pair.serialize_der()).unwrap();
        let key = aws_lc_rs::sign::any_supported_type(&der).unwrap();
        assert_eq!(key.public_key().unwrap().as_ref(), certificate.public_key(), "the same form in both places");
        let mut keys = self.holder.keys.lock().unwrap();
        let id = KeyId(keys.len() as u32);
        keys.insert(id, key);
        drop(keys);
        self.offer.add(&certificate, id, self.holder.clone());
        self
    }

    fn server(&mut self) -> Server {
        server(std::mem::take(&mut self.offer))
    }

    fn client(&self) -> ClientConfig {
        client(&self.roots, aws_lc_rs::default_provider(), rustls::DEFAULT_VERSIONS)
    }
}

fn server(offer: Offer) -> Server {
    Server::new(
        Arc::new(aws_lc_rs::default_provider()),
        offer,
        aws_lc_rs::Ticketer::new().unwrap(),
        &Terms::default(),
        None,
    )
    .unwrap()
}

fn client(
    roots: &RootCertStore,
    provider: CryptoProvider,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(versions).unwrap();
    builder.with_root_certificates(roots.clone()).with_no_client_auth()
}

/// Both sides of a finished handshake.
struct Met {
    channel: Channel,
    client: ClientConnection,
    /// Steps that another thread would have taken.
    flights: usize,
}

impl Met {
    fn secured(&self) -> Secured {
        self.channel.secured().expect("finished")
    }

    /// The names in the certificate that was shown.
    fn shown(&self) -> Vec<String> {
        let chain = self.client.peer_certificates().unwrap();
        Certificate::parse(vec![chain[0].to_vec()]).unwrap().names().to_vec()
    }

    fn shown_algorithm(&self) -> ringpost_tls::Algorithm {
        let chain = self.client.peer_certificates().unwrap();
        Certificate::parse(vec![chain[0].to_vec()]).unwrap().algorithm()
    }
}

fn said(client: &mut ClientConnection) -> Vec<u8> {
    let mut wire = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut wire).unwrap();
    }
    wire
}

fn hear(client: &mut ClientConnection, mut wire: &[u8]) -> Result<(), rustls::Error> {
    while !wire.is_empty() {
        client.read_tls(&mut wire).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}

/// Shakes hands, with pieces of `piece` bytes towards the server.
fn meet(server: &Server, config: &ClientConfig, name: &str, piece: usize) -> Result<Met, Failure> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config.clone()), name).unwrap();
    let mut hello = Hello::new();
    let mut flight = None;
    for part in said(&mut client).chunks(piece) {
        assert!(flight.is_none(), "a whole message is a whole message");
        flight = hello.receive(part, server).map_err(|refused| refused.failure)?;
    }
    let mut flights = 1;
    let mut channel = flight.expect("the client has said all").complete().map_err(|refused| refused.failure)?;
    loop {
        let mut out = Vec::new();
        channel.take_output(&mut out);
        hear(&mut client, &out).map_err(|error| Failure::ours(format!("client: {error}")))?;
        if !channel.is_handshaking() && !client.is_handshaking() {
            return Ok(Met { channel, client, flights });
        }
        for part in said(&mut client).chunks(piece) {
            channel = match Flight::again(channel, part) {
                Ok(flight) => {
                    flights += 1;
                    flight.complete().map_err(|refused| refused.failure)?
                }
                Err(mut channel) => {
                    channel.receive(part, &mut Vec::new())?;
                    channel
                }
            };
        }
    }
}

#[test]
fn both_versions_carry_bytes_both_ways_in_any_pieces() {
    let mut world = World::new().with(&["mx.example"], &PKCS_ECDSA_P256_SHA256);
    let server = world.server();
    for (version, expected) in [(&rustls::version::TLS13, "TLS1.3"), (&rustls::version::TLS12, "TLS1.2")] {
        for piece in [1, 7, 100_000] {
            let config = client(&world.roots, aws_lc_rs::default_provider(), &[version]);
            let mut met = meet(&server, &config, "mx.example", piece).unwrap();
            let secured = met.secured();
            assert_eq!((secured.version, secured.server_name.as_deref()), (expected, Some("mx.example")));
            // The client would rather have 256 bits: the server chooses.
            assert!(!secured.resumed && secured.bits == 128 && !secured.cipher.contains("TLS13"), "{secured:?}");
            let long: Vec<u8> = (0..100_000_u32).map(|number| number as u8).collect();
            std::io::Write::write_all(&mut met.client.writer(), b"EHLO x\r\n").unwrap();
            let mut plain = Vec::new();
            for part in said(&mut met.client).chunks(piece) {
                met.channel.receive(part, &mut plain).unwrap();
            }
            assert_eq!(plain, b"EHLO x\r\n");
            let mut wire = Vec::new();
            met.channel.send(&long, &mut wire);
            met.channel.close(&mut wire);
            let mut heard = Vec::new();
            let mut wire = &wire[..];
            while !wire.is_empty() {
                met.client.read_tls(&mut wire).unwrap();
                met.client.process_new_packets().unwrap();
                // It ends in order: an end without a word would be an error here.
                let mut buffer = [0; 20_000];
                while let Ok(count) = std::io::Read::read(&mut met.client.reader(), &mut buffer) {
                    if count == 0 {
                        break;
                    }
                    heard.extend_from_slice(&buffer[..count]);
                }
            }
            assert!(heard == long, "{} of {} bytes", heard.len(), long.len());
            met.client.send_close_notify();
            met.channel.receive(&said(&mut met.client), &mut Vec::new()).unwrap();
            assert!(met.channel.peer_has_closed());
        }
    }
}

#[test]
fn the_name_that_is_asked_for_chooses_and_the_first_is_the_default() {
    let mut world = World::new()
        .with(&["a.example"], &PKCS_ECDSA_P256_SHA256)
        .with(&["*.b.example", "b.example"], &PKCS_ED25519)
        .with(&["x.b.example"], &PKCS_ECDSA_P384_SHA384);
    let server = world.server();
    let config = world.client();
    for (name, shown) in [
        ("a.example", "a.example"),
        ("A.Example", "a.example"),
        ("b.example", "*.b.example"),
        ("y.b.example", "*.b.example"),
        ("x.b.example", "x.b.example"),
    ] {
        let met = meet(&server, &config, name, 100_000).unwrap();
        assert_eq!(met.shown()[0], shown, "{name}");
    }
    // Unknown, two labels below the star, or no name at all: the default, in which the client does not find the name.
    for name in ["c.example", "z.y.b.example", "192.0.2.1"] {
        let failure = meet(&server, &config, name, 100_000).map(|_| ()).unwrap_err();
        assert!(failure.text.contains("certificate not valid for name"), "{name}: {failure}");
        assert!(failure.text.contains("a.example"), "{name}: {failure}");
    }
}

#[test]
fn ecdsa_is_preferred_and_rsa_is_there_for_those_who_know_nothing_else() {
    use ringpost_tls::Algorithm;
    let mut world =
        World::new().with(&["mx.example"], &rcgen::PKCS_RSA_SHA256).with(&["mx.example"], &PKCS_ECDSA_P256_SHA256);
    let server = world.server();
    let met = meet(&server, &world.client(), "mx.example", 100_000).unwrap();
    assert_eq!(met.shown_algorithm(), Algorithm::EcdsaP256);
    let mut old = aws_lc_rs::default_provider();
    old.cipher_suites
        .retain(|suite| suite.suite().as_str().is_some_and(|name| name.contains("RSA") && !name.contains("ECDSA")));
    let config = client(&world.roots, old, &[&rustls::version::TLS12]);
    let met = meet(&server, &config, "mx.example", 100_000).unwrap();
    assert_eq!(met.shown_algorithm(), Algorithm::Rsa);
    assert!(met.secured().cipher.starts_with("TLS_ECDHE_RSA_"), "{:?}", met.secured());
}

#[test]
fn tickets_of_one_server_are_good_for_another_and_need_no_signature() {
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let mut world = World::new().with(&["mx.example"], &PKCS_ECDSA_P256_SHA256);
        let server = world.server();
        let mut config = client(&world.roots, aws_lc_rs::default_provider(), &[version]);
        config.resumption = Resumption::in_memory_sessions(8);
        assert!(!meet(&server, &config, "mx.example", 100_000).unwrap().secured().resumed);
        let asked = world.holder.asked.load(Ordering::Relaxed);
        let met = meet(&server.clone(), &config, "mx.example", 3).unwrap();
        assert!(met.secured().resumed, "{version:?}");
        assert_eq!(world.holder.asked.load(Ordering::Relaxed), asked, "nobody was asked to sign");
    }
}

#[test]
fn a_client_that_must_begin_again_has_its_signature_made_elsewhere_too() {
    let mut world = World::new().with(&["mx.example"], &PKCS_ECDSA_P256_SHA256);
    let mut ours = aws_lc_rs::default_provider();
    ours.kx_groups.retain(|group| group.name() == rustls::NamedGroup::secp384r1);
    let offer = std::mem::take(&mut world.offer);
    let server =
        Server::new(Arc::new(ours), offer, aws_lc_rs::Ticketer::new().unwrap(), &Terms::default(), None).unwrap();
    let met = meet(&server, &world.client(), "mx.example", 100_000).unwrap();
    assert_eq!(met.secured().version, "TLS1.3");
    assert!(met.flights >= 2, "the second answer has the signature");
}

#[test]
fn failures_say_whose_fault_they_are() {
    let mut world = World::new().with(&["mx.example"], &PKCS_ECDSA_P256_SHA256);
    let server = world.server();
    // Somebody speaks something else.
    let refused = Hello::new().receive(b"EHLO client.example\r\nMAIL FROM:<>\r\n", &server).map(|_| ()).unwrap_err();
    assert_eq!(refused.failure.fault, Fault::Peer);
    assert_eq!(refused.failure.text, "what came is not TLS");
    // Nothing that we can sign with.
    let mut rsa_only = aws_lc_rs::default_provider();
    rsa_only.cipher_suites.retain(|suite| suite.suite().as_str().is_some_and(|name| name.contains("_RSA_")));
    let config = client(&world.roots, rsa_only, &[&rustls::version::TLS12]);
    let failure = meet(&server, &config, "mx.example", 100_000).map(|_| ()).unwrap_err();
    assert_eq!(failure.fault, Fault::Peer, "{failure}");
    // The keyholder is gone, and the client is told that the handshake has failed.
    world.holder.keys.lock().unwrap().clear();
    let name = ServerName::try_from("mx.example").unwrap();
    let mut client = ClientConnection::new(Arc::new(world.client()), name).unwrap();
    let flight = Hello::new().receive(&said(&mut client), &server).unwrap_or_else(|_| panic!()).unwrap();
    let refused = flight.complete().map(|_| ()).unwrap_err();
    assert_eq!(refused.failure, Failure::key("the keyholder does not answer"));
}

#[test]
fn certificates_that_cannot_be_used_say_why() {
    let failure = |chain: Vec<Vec<u8>>| Certificate::parse(chain).map(|_| ()).unwrap_err().text;
    assert_eq!(failure(vec![]), "it has no certificate");
    assert_eq!(failure(vec![b"nonsense".to_vec()]), "it is not an X.509 certificate");
    let pair = KeyPair::generate().unwrap();
    let made = CertificateParams::new(vec!["Mx.Example".to_owned()]).unwrap().self_signed(&pair).unwrap();
    let good = made.der().to_vec();
    assert_eq!(failure(vec![good.clone(), vec![0]]), "certificate 2 of the chain: it is not an X.509 certificate");
    assert_eq!(failure(vec![[&good[..], b"x"].concat()]), "there is something behind the certificate");
    assert!(failure(vec![good.clone(); 11]).contains("at most 10"));
    let certificate = Certificate::parse(vec![good]).unwrap();
    assert_eq!(certificate.names(), ["mx.example"]);
    assert!(certificate.not_before() < certificate.not_after());
}
