//! What isolated keys are measured against: the engine's own shard, with its listener, sessions and journal, but the private
//! key in this process and the signature made at once, on the shard. For measurements alone; the server cannot do this.
//!
//! `in_process ADDRESS STATE CERT KEY`: STARTTLS at ADDRESS, until it is killed.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;

use ringpost_conf::expand::{Told, User};
use ringpost_conf::tables::ServiceKind;
use ringpost_conf::{Config, Quickstart};
use ringpost_io::ring::{self, RingMesh, RingRuntime};
use ringpost_io::{Mailbox, Sender};
use ringpost_shard::{
    Ask, Forwarding, HandOver, Handed, Handover, Letter, MxAnswer, NameAnswer, Order, Said, Servers, Start, UserRecord,
    World,
};
use ringpost_tls::{Certificate, Channel, Flight, KeyId, Offer, Rejected, Server, Signs, Terms};
use rustls::SignatureScheme;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::SigningKey;

/// As in the server.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The key, where it should not be.
#[derive(Debug)]
struct Here(Arc<dyn SigningKey>);

impl Signs for Here {
    fn sign(&self, _: KeyId, scheme: SignatureScheme, transcript: &[u8]) -> Result<Vec<u8>, String> {
        let signer = self.0.choose_scheme(&[scheme]).ok_or("the key makes no such signatures")?;
        signer.sign(transcript).map_err(|error| error.to_string())
    }
}

/// Nobody knows anything; but signatures are to be had.
struct Alone;

impl Ask for Alone {
    async fn exchangers(&self, _: &str, _: Option<u16>) -> MxAnswer {
        MxAnswer::Temporary("no coordinator".into())
    }

    async fn addresses(&self, _: &str, _: Option<u16>) -> MxAnswer {
        MxAnswer::Temporary("no coordinator".into())
    }

    async fn client_name(&self, _: IpAddr) -> NameAnswer {
        NameAnswer::None
    }

    async fn look_up(&self, _: &str, _: ServiceKind, _: Vec<String>) -> Said {
        Said::Failed("no coordinator".into())
    }

    async fn user(&self, _: &str) -> Said {
        Said::Failed("no coordinator".into())
    }

    async fn list(&self, _: &Path) -> Told {
        Told::NotFound
    }

    fn can_sign(&self) -> bool {
        true
    }

    async fn sign(&self, flight: Flight) -> Result<Channel, Rejected> {
        flight.complete()
    }
}

impl HandOver for Alone {
    type Text = Vec<u8>;

    fn text(&self) -> std::io::Result<Vec<u8>> {
        Ok(Vec::new())
    }

    async fn deliver(&self, _: Handover, _: Vec<u8>) -> Handed {
        Handed::temporary((4, 3, 0), "no supervisor")
    }

    async fn forward(&self, _: UserRecord) -> Forwarding {
        Forwarding::NotThere
    }

    async fn list(&self, _: UserRecord, _: PathBuf) -> Forwarding {
        Forwarding::NotThere
    }
}

/// The real ring, and nobody else.
struct Lonely;

impl World for Lonely {
    type R = RingRuntime;
    type M = RingMesh<Letter>;
    type A = Alone;
    type H = Alone;
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, state, cert, key] = &words[..] else {
        eprintln!("in_process ADDRESS STATE CERT KEY");
        return ExitCode::FAILURE;
    };
    match run(address, Path::new(state), Path::new(cert), Path::new(key)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("in_process: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(address: &str, state: &Path, cert: &Path, key: &Path) -> Result<(), Box<dyn std::error::Error>> {
    ring::warm_up()?;
    let address: SocketAddr = address.parse()?;
    let quickstart = Quickstart { listen: vec![address], page: None };
    let config = Arc::new(Config::quickstart(state, &quickstart));
    let servers = Servers { listeners: Arc::new([Some(server(cert, key)?)]), ..Servers::default() };
    let socket = OwnedFd::from(TcpListener::bind(address)?);
    let (_orders, mailbox): (Sender<Order>, _) = Mailbox::new(8);
    let mut given = Some((socket, mailbox, state.to_owned()));
    let threads = ring::run_shards(&ring::Options::default(), |_| {
        let (socket, orders, state) = given.take().expect("there is one shard");
        let (config, servers) = (config.clone(), servers.clone());
        move |runtime: RingRuntime, mesh: RingMesh<Letter>| async move {
            let listener = runtime.listener(socket).map_err(|error| error.to_string())?;
            let start = Start::<Lonely> {
                runtime,
                mesh,
                ask: Alone,
                hand: Alone,
                connector: Default::default(),
                own: User { name: "nobody".into(), uid: 65_534, gid: 65_534, home: "/".into(), in_table: false },
                listeners: vec![(listener, 0)],
                config,
                servers,
                state,
                near: None,
                hostname: "in-process.invalid".into(),
                orders,
                limits: Default::default(),
                events: Rc::new(|_| ()),
                counters: Default::default(),
                backscatter: Default::default(),
                ready: Box::new(|opened| {
                    // What went wrong is the end of the shard, too.
                    let _ = opened;
                }),
                plant: Default::default(),
            };
            ringpost_shard::run(start).await.map_err(|error| error.to_string())
        }
    })?;
    for thread in threads {
        thread.join().map_err(|_| "the shard has panicked")??;
    }
    Ok(())
}

fn server(cert: &Path, key: &Path) -> Result<Server, Box<dyn std::error::Error>> {
    let chain = CertificateDer::pem_file_iter(cert)?.map(|der| der.map(|der| der.to_vec()));
    let certificate = Certificate::parse(chain.collect::<Result<_, _>>()?).map_err(|failure| failure.text)?;
    let key = aws_lc_rs::sign::any_supported_type(&PrivateKeyDer::from_pem_file(key)?)?;
    let mut offer = Offer::new();
    offer.add(&certificate, KeyId(0), Arc::new(Here(key)));
    let provider = Arc::new(aws_lc_rs::default_provider());
    Ok(Server::new(provider, offer, aws_lc_rs::Ticketer::new()?, &Terms::default(), None)
        .map_err(|failure| failure.text)?)
}
