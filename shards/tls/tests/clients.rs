//! Clients with and without certificates, in memory: what a server notes of them, whom it takes, what it asks again.

use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType, date_time_ymd};
use ringpost_tls::{
    Certificate, Channel, Clients, Connector, Demand, Failure, Flight, Hello, KeyId, Offer, Secured, Server, Shown,
    Signs, Terms, Version,
};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::server::ProducesTickets;
use rustls::sign::SigningKey;
use rustls::{ClientConfig, ClientConnection, RootCertStore, SignatureScheme};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn roots(authority: &Authority) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    roots
}

/// Keys by number, and whether they are asked for by the thread that takes flights.
#[derive(Debug, Default)]
struct Holder(Mutex<Vec<Arc<dyn SigningKey>>>);

impl Signs for Holder {
    fn sign(&self, key: KeyId, scheme: SignatureScheme, transcript: &[u8]) -> Result<Vec<u8>, String> {
        let key = self.0.lock().unwrap()[key.0 as usize].clone();
        key.choose_scheme(&[scheme]).unwrap().sign(transcript).map_err(|error| error.to_string())
    }
}

/// A certificate of this authority whose key the holder has.
fn offer(holder: &Arc<Holder>, authority: &Authority, name: &str) -> Offer {
    let key = KeyPair::generate().unwrap();
    let made = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, authority).unwrap();
    let mut keys = holder.0.lock().unwrap();
    let id = KeyId(keys.len() as u32);
    let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    keys.push(aws_lc_rs::sign::any_supported_type(&der).unwrap());
    let mut offer = Offer::new();
    offer.add(&Certificate::parse(vec![made.der().to_vec()]).unwrap(), id, holder.clone());
    offer
}

fn server(clients: Option<Clients>, tickets: &Arc<dyn ProducesTickets>) -> Server {
    let own = offer(&Arc::default(), &authority("servers"), "mx.example");
    Server::new(provider(), own, tickets.clone(), &Terms::default(), clients).unwrap()
}

fn tickets() -> Arc<dyn ProducesTickets> {
    aws_lc_rs::Ticketer::new().unwrap()
}

/// A client that takes any server, with a certificate for these names.
fn client(by: Option<(&Authority, &[&str])>, until: i32) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(anyone::Anyone(provider())));
    let Some((authority, names)) = by else { return builder.with_no_client_auth() };
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "Fred");
    params.not_before = date_time_ymd(2019, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    params.subject_alt_names = names
        .iter()
        .map(|name| match name.contains('@') {
            true => SanType::Rfc822Name((*name).try_into().unwrap()),
            false => SanType::DnsName((*name).try_into().unwrap()),
        })
        .collect();
    let key = KeyPair::generate().unwrap();
    let made = params.signed_by(&key, authority).unwrap();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    builder.with_client_auth_cert(vec![made.der().clone()], key).unwrap()
}

mod anyone {
    use super::*;
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, UnixTime};
    use rustls::{DigitallySignedStruct, Error};

    #[derive(Debug)]
    pub struct Anyone(pub Arc<CryptoProvider>);

    impl ServerCertVerifier for Anyone {
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
}

/// Shakes hands; what the server says of it.
fn meet(server: &Server, config: &ClientConfig) -> Result<Secured, Failure> {
    let name = ServerName::try_from("mx.example").unwrap();
    let mut client = ClientConnection::new(Arc::new(config.clone()), name).unwrap();
    let mut wire = Vec::new();
    client.write_tls(&mut wire).unwrap();
    let flight = Hello::new().receive(&wire, server).map_err(|refused| refused.failure)?;
    let mut channel = flight.unwrap().complete().map_err(|refused| refused.failure)?;
    for _ in 0..4 {
        let (mut out, mut back) = (Vec::new(), Vec::new());
        channel.take_output(&mut out);
        let mut out = &out[..];
        while !out.is_empty() {
            client.read_tls(&mut out).unwrap();
            client.process_new_packets().map_err(|error| Failure::ours(format!("client: {error}")))?;
        }
        while client.wants_write() {
            client.write_tls(&mut back).unwrap();
        }
        channel.receive(&back, &mut Vec::new())?;
    }
    server.secured(&channel)
}

#[test]
fn what_is_shown_is_noted_and_what_is_required_is_demanded() {
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let clients = |demand| Some(Clients::new(provider(), roots(&ours), demand).unwrap());
    let names: &[&str] = &["App@poolp.org", "App.Example.org"];
    let (noting, requiring) =
        (server(clients(Demand::Noted), &tickets()), server(clients(Demand::Required), &tickets()));
    let unasked = server(None, &tickets());

    let good = client(Some((&ours, names)), 2100);
    let Shown::Good(subject) = meet(&noting, &good).unwrap().client else { panic!() };
    assert_eq!(subject.addresses, ["App@poolp.org"]);
    assert_eq!(subject.names[..2], ["App@poolp.org", "app.example.org"]);
    assert!(subject.names[2].strip_prefix("sha256:").is_some_and(|digits| digits.len() == 64), "{subject:?}");
    assert_eq!((subject.names.len(), subject.called()), (3, "App@poolp.org"));
    assert!(matches!(meet(&requiring, &good).unwrap().client, Shown::Good(_)));
    assert_eq!(meet(&unasked, &good).unwrap().client, Shown::NotAsked);

    let nameless = client(Some((&ours, &[])), 2100);
    let Shown::Good(subject) = meet(&noting, &nameless).unwrap().client else { panic!() };
    assert_eq!((subject.called(), subject.addresses.len()), ("Fred", 0));

    assert_eq!(meet(&noting, &client(None, 2100)).unwrap().client, Shown::Nothing);
    let refused = meet(&requiring, &client(None, 2100)).unwrap_err();
    assert_eq!(refused, Failure::peer("the client has shown no certificate"));
    for bad in [client(Some((&theirs, names)), 2100), client(Some((&ours, names)), 2020)] {
        let Shown::Bad { subject, .. } = meet(&noting, &bad).unwrap().client else { panic!() };
        assert_eq!(subject.called(), "App@poolp.org");
        assert!(meet(&requiring, &bad).unwrap_err().text.starts_with("invalid peer certificate: "));
    }
    assert!(Clients::new(provider(), RootCertStore::empty(), Demand::Noted).is_err(), "nobody could be verified");
}

#[test]
fn a_ticket_is_good_only_where_the_same_is_asked() {
    let ours = authority("ours");
    let tickets = tickets();
    let clients = |demand| Some(Clients::new(provider(), roots(&ours), demand).unwrap());
    let servers =
        [server(None, &tickets), server(clients(Demand::Noted), &tickets), server(clients(Demand::Required), &tickets)];
    for (first, one) in servers.iter().enumerate() {
        for (second, other) in servers.iter().enumerate() {
            let mut good = client(Some((&ours, &["a.example"])), 2100);
            good.resumption = Resumption::in_memory_sessions(8);
            assert!(!meet(one, &good).unwrap().resumed);
            let met = meet(other, &good).unwrap();
            assert_eq!(met.resumed, first == second, "{first} then {second}");
            assert_eq!(matches!(met.client, Shown::Good(_)), second > 0, "what was shown is remembered");
        }
    }
}

/// A connector of ours and a server of ours.
fn relay(connector: &Connector, server: &Server) -> Result<(Secured, usize), Failure> {
    let mut ours = connector.connect("mx.example", false).map_err(|refused| Failure::ours(refused.0))?;
    let mut wire = Vec::new();
    ours.take_output(&mut wire);
    let flight = Hello::new().receive(&wire, server).map_err(|refused| refused.failure)?.unwrap();
    let mut theirs = flight.complete().map_err(|refused| refused.failure)?;
    let mut flights = 0;
    for _ in 0..4 {
        let mut wire = Vec::new();
        theirs.take_output(&mut wire);
        ours = match Flight::again(ours, &wire) {
            Ok(flight) => {
                flights += 1;
                flight.complete().map_err(|refused| refused.failure)?
            }
            Err(mut channel) => {
                channel.receive(&wire, &mut Vec::new())?;
                channel
            }
        };
        let mut wire = Vec::new();
        ours.take_output(&mut wire);
        theirs.receive(&wire, &mut Vec::new())?;
    }
    Ok((settled(&theirs, server)?, flights))
}

fn settled(channel: &Channel, server: &Server) -> Result<Secured, Failure> {
    server.secured(channel)
}

#[test]
fn relays_show_a_certificate_and_its_key_is_asked_for_elsewhere() {
    let ours = authority("ours");
    let server = server(Some(Clients::new(provider(), roots(&ours), Demand::Required).unwrap()), &tickets());
    for without in [Version::Tls12, Version::Tls13] {
        let terms = Terms { without: vec![without], suites: Vec::new() };
        let own = offer(&Arc::default(), &ours, "relay.example");
        let connector = Connector::with(provider(), RootCertStore::empty(), &terms, own).unwrap();
        assert!(connector.signs());
        let (secured, flights) = relay(&connector, &server).unwrap();
        let Shown::Good(subject) = &secured.client else { panic!("{secured:?}") };
        assert_eq!(subject.called(), "relay.example");
        assert!(flights >= 1, "the step that signs is taken elsewhere");
    }
    let bare = Connector::new(provider(), RootCertStore::empty()).unwrap();
    assert!(!bare.signs() && relay(&bare, &server).is_err());
}

/// Its greeting may come in the same segment as its part of the handshake.
#[test]
fn what_a_server_says_at_once_is_not_lost() {
    let ours = authority("ours");
    let server = server(Some(Clients::new(provider(), roots(&ours), Demand::Required).unwrap()), &tickets());
    for without in [Version::Tls12, Version::Tls13] {
        let terms = Terms { without: vec![without], suites: Vec::new() };
        let own = offer(&Arc::default(), &ours, "relay.example");
        let connector = Connector::with(provider(), RootCertStore::empty(), &terms, own).unwrap();
        let mut client = connector.connect("mx.example", false).unwrap();
        let (mut wire, mut heard) = (Vec::new(), Vec::new());
        client.take_output(&mut wire);
        let flight = Hello::new().receive(&wire, &server).unwrap_or_else(|_| panic!()).unwrap();
        let mut theirs = flight.complete().unwrap_or_else(|_| panic!());
        let mut has_greeted = false;
        for _ in 0..4 {
            let mut wire = Vec::new();
            theirs.take_output(&mut wire);
            if !theirs.is_handshaking() && !has_greeted {
                theirs.send(b"220 mx.example\r\n", &mut wire);
                has_greeted = true;
            }
            client = match Flight::again(client, &wire) {
                Ok(flight) => flight.complete().unwrap_or_else(|refused| panic!("{}", refused.failure)),
                Err(mut channel) => {
                    channel.receive(&wire, &mut heard).unwrap();
                    channel
                }
            };
            client.take_early(&mut heard);
            let mut wire = Vec::new();
            client.take_output(&mut wire);
            theirs.receive(&wire, &mut Vec::new()).unwrap();
        }
        assert_eq!(String::from_utf8_lossy(&heard), "220 mx.example\r\n", "without {without:?}");
    }
}

#[test]
fn terms_leave_what_they_name() {
    let own = || offer(&Arc::default(), &authority("servers"), "mx.example");
    let of = |terms: &Terms| Server::new(provider(), own(), tickets(), terms, None);
    let suites =
        |names: &[&str]| Terms { without: Vec::new(), suites: names.iter().map(|name| (*name).to_owned()).collect() };
    let met = meet(&of(&suites(&["TLS_CHACHA20_POLY1305_SHA256"])).unwrap(), &client(None, 2100)).unwrap();
    assert_eq!((met.version, met.cipher.as_str()), ("TLS1.3", "TLS_CHACHA20_POLY1305_SHA256"));
    let old = suites(&["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]);
    let met = meet(&of(&old).unwrap(), &client(None, 2100)).unwrap();
    assert_eq!((met.version, met.bits), ("TLS1.2", 128));
    let nothing = Terms { without: vec![Version::Tls12], ..old };
    assert!(of(&nothing).is_err());
    assert!(of(&suites(&["TLS_RSA_WITH_AES_128_CBC_SHA"])).unwrap_err().text.contains("has no TLS_RSA_WITH"));
}
