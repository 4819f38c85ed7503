//! Two ends in memory: which certificates TLSA records make good.

mod support;

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, SHA512, digest};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PublicKeyData, date_time_ymd};
use ringpost_tls::{Connector, Digests};
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, ServerConfig, ServerConnection};

/// A server whose certificate is out of date and for `mx.example`, or good and for this name; signed by an authority that no
/// system knows, whose certificate it shows.
struct World {
    connector: Connector,
    server: Arc<ServerConfig>,
    own: Vec<u8>,
    own_key: Vec<u8>,
    authority: Vec<u8>,
    authority_key: Vec<u8>,
}

impl World {
    fn new(name: &str, expired: bool, shows_authority: bool) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        if expired {
            (params.not_before, params.not_after) = (date_time_ymd(2019, 1, 1), date_time_ymd(2020, 1, 1));
        }
        let own = params.signed_by(&key, &authority).unwrap();
        let mut chain: Vec<CertificateDer<'static>> = vec![own.der().clone()];
        chain.extend(shows_authority.then(|| authority.der().clone()));
        let crypto: Arc<CryptoProvider> = Arc::new(provider::default_provider());
        let builder = ServerConfig::builder_with_provider(crypto.clone()).with_safe_default_protocol_versions();
        let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let server = builder.unwrap().with_no_client_auth().with_single_cert(chain, private).unwrap();
        let digests = Digests {
            sha256: |bytes| digest(&SHA256, bytes).as_ref().to_vec(),
            sha512: |bytes| digest(&SHA512, bytes).as_ref().to_vec(),
        };
        Self {
            connector: Connector::new(crypto, RootCertStore::empty()).unwrap().with_digests(digests),
            server: Arc::new(server),
            own: own.der().to_vec(),
            own_key: key.subject_public_key_info(),
            authority: authority.der().to_vec(),
            authority_key: authority.key().subject_public_key_info(),
        }
    }

    /// Shakes hands, as a client of `mx.example` that has these records.
    fn meet(&self, also: Option<&str>, records: &[Vec<u8>]) -> Result<(), String> {
        let records: Vec<Box<[u8]>> = records.iter().map(|record| record.clone().into()).collect();
        let client = self.connector.connect_pinned("mx.example", also, &records).map_err(|refused| refused.0)?;
        support::shake(client, ServerConnection::new(self.server.clone()).unwrap()).map(drop)
    }
}

fn sha256(of: &[u8]) -> Vec<u8> {
    digest(&SHA256, of).as_ref().to_vec()
}

fn sha512(of: &[u8]) -> Vec<u8> {
    digest(&SHA512, of).as_ref().to_vec()
}

fn record(usage: u8, selector: u8, matching: u8, data: &[u8]) -> Vec<u8> {
    [&[usage, selector, matching], data].concat()
}

#[test]
fn a_certificate_that_is_named_itself_needs_neither_name_nor_dates() {
    let world = World::new("elsewhere.example", true, true);
    let good = [
        record(3, 0, 0, &world.own),
        record(3, 1, 0, &world.own_key),
        record(3, 0, 1, &sha256(&world.own)),
        record(3, 1, 1, &sha256(&world.own_key)),
        record(3, 0, 2, &sha512(&world.own)),
        record(3, 1, 2, &sha512(&world.own_key)),
    ];
    for record in &good {
        world.meet(None, std::slice::from_ref(record)).unwrap_or_else(|why| panic!("{:?}: {why}", &record[..3]));
    }
    let wrong = record(3, 1, 1, &sha256(b"another key"));
    let why = world.meet(None, std::slice::from_ref(&wrong)).unwrap_err();
    assert!(why.contains("not one that the TLSA records"), "{why}");
    world.meet(None, &[wrong, good[3].clone()]).expect("one of them is enough");
    let swapped = record(3, 0, 1, &sha256(&world.own_key));
    world.meet(None, &[swapped]).expect_err("the selector says what the digest is of");
}

#[test]
fn an_authority_that_is_named_must_have_signed_for_the_name() {
    let world = World::new("mx.example", false, true);
    let good = [
        record(2, 0, 0, &world.authority),
        record(2, 0, 1, &sha256(&world.authority)),
        record(2, 1, 1, &sha256(&world.authority_key)),
        record(2, 1, 2, &sha512(&world.authority_key)),
    ];
    for record in &good {
        world.meet(None, std::slice::from_ref(record)).unwrap_or_else(|why| panic!("{:?}: {why}", &record[..3]));
    }
    world.meet(None, &[record(2, 1, 1, &sha256(b"another authority"))]).expect_err("it has not signed");
    let elsewhere = World::new("example.org", false, true);
    let named = [record(2, 1, 1, &sha256(&elsewhere.authority_key))];
    let why = elsewhere.meet(None, &named).unwrap_err();
    assert!(why.contains("DANE"), "{why}");
    elsewhere.meet(Some("example.org"), &named).expect("RFC 7672 §3.2.2: the domain's own name will do");
    let late = World::new("mx.example", true, true);
    late.meet(None, &[record(2, 1, 1, &sha256(&late.authority_key))]).expect_err("an authority's word has an end");
    let hidden = World::new("mx.example", false, false);
    hidden.meet(None, &[record(2, 1, 1, &sha256(&hidden.authority_key))]).expect_err("it is not in the chain");
    hidden.meet(None, &[record(2, 0, 0, &hidden.authority)]).expect("it is in the record");
}

#[test]
fn without_a_usable_record_nothing_is_begun() {
    let world = World::new("mx.example", false, true);
    let why = world.meet(None, &[record(1, 1, 1, &sha256(&world.own_key)), vec![3, 1]]).unwrap_err();
    assert!(why.contains("no TLSA record of the host is usable"), "{why}");
}
