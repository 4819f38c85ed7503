//! Two ends in memory: which certificates are believed, and what the bytes between them are.

mod support;

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use ringpost_tls::{Channel, Connector};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::PrivateKeyDer;
use rustls::{RootCertStore, ServerConfig, ServerConnection};

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

struct World {
    connector: Connector,
    server: Arc<ServerConfig>,
}

impl World {
    /// A server called `mx.example`, and a client that knows who has signed for it, or nobody.
    fn new(known: bool) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(vec!["mx.example".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
        let mut roots = RootCertStore::empty();
        if known {
            roots.add(authority.der().clone()).unwrap();
        }
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let server = builder.with_no_client_auth().with_single_cert(vec![own.der().clone()], key).unwrap();
        Self { connector: Connector::new(provider(), roots).unwrap(), server: Arc::new(server) }
    }

    /// Shakes hands.
    fn meet(&self, client: Channel) -> Result<(Channel, ServerConnection), String> {
        support::shake(client, ServerConnection::new(self.server.clone()).unwrap())
    }
}

#[test]
fn a_good_certificate_is_verified_and_one_for_another_name_is_not() {
    let world = World::new(true);
    let (client, _) = world.meet(world.connector.connect("mx.example", true).unwrap()).unwrap();
    assert_eq!(client.secured().unwrap().version, "TLS1.3");
    // A dot at the end is the DNS's business.
    world.meet(world.connector.connect("mx.example.", true).unwrap()).unwrap();
    let refused = world.meet(world.connector.connect("other.example", true).unwrap()).err().unwrap();
    assert!(refused.contains("certificate"), "{refused}");
}

#[test]
fn what_is_not_verified_is_judged_afterwards() {
    let world = World::new(true);
    let (client, _) = world.meet(world.connector.connect("other.example", false).unwrap()).unwrap();
    assert!(world.connector.judge(&client, "other.example").is_err());
    assert!(world.connector.judge(&client, "mx.example").is_ok());
    let stranger = World::new(false);
    let (client, _) = stranger.meet(stranger.connector.connect("mx.example", false).unwrap()).unwrap();
    let doubt = stranger.connector.judge(&client, "mx.example").unwrap_err();
    assert!(doubt.0.contains("no authority"), "{doubt:?}");
    assert!(stranger.connector.connect("mx.example", true).is_err(), "nobody can be verified");
    assert!(Connector::default().connect("mx.example", false).is_err());
    assert!(world.connector.connect("two words", false).is_err());
}

#[test]
fn sessions_are_taken_up_again_with_the_same_demand() {
    let world = World::new(true);
    for verify in [true, false] {
        let (first, _) = world.meet(world.connector.connect("mx.example", verify).unwrap()).unwrap();
        assert!(!first.secured().unwrap().resumed, "a session of the other kind is not taken up");
        let (second, _) = world.meet(world.connector.connect("mx.example", verify).unwrap()).unwrap();
        assert!(second.secured().unwrap().resumed);
        assert!(world.connector.judge(&second, "mx.example").is_ok(), "its certificate is remembered");
    }
}

#[test]
fn bytes_go_both_ways_in_pieces_of_any_size_and_nonsense_is_an_error() {
    use std::io::{Read, Write};
    let world = World::new(true);
    let (mut client, mut server) = world.meet(world.connector.connect("mx.example", true).unwrap()).unwrap();
    let text: Vec<u8> = (0..100_000_u32).map(|number| number as u8).collect();
    let mut wire = Vec::new();
    client.send(&text, &mut wire);
    let (mut at_server, mut left) = (Vec::new(), &wire[..]);
    while !left.is_empty() {
        server.read_tls(&mut left).unwrap();
        server.process_new_packets().unwrap();
        // What it has for now; then it would block.
        let _ = server.reader().read_to_end(&mut at_server);
    }
    assert_eq!(at_server, text);
    server.writer().write_all(&text[..5000]).unwrap();
    server.send_close_notify();
    let mut wire = Vec::new();
    while server.wants_write() {
        server.write_tls(&mut wire).unwrap();
    }
    let mut plain = Vec::new();
    for piece in wire.chunks(7) {
        client.receive(piece, &mut plain).unwrap();
    }
    assert_eq!((plain.as_slice(), client.peer_has_closed()), (&text[..5000], true));
    let mut client = world.connector.connect("mx.example", false).unwrap();
    assert!(client.receive(b"250 ok\r\n250 ok\r\n", &mut Vec::new()).is_err());
}
