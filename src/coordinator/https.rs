//! The way to web servers of others: one request to the host that is meant, verified by the system's authorities. Nobody is
//! followed elsewhere, no more is read than was expected, and hosts of inner networks are left alone, whoever names them.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, RwLock};

use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use ringpost_address::Network;
use ringpost_shard::{MxAnswer, is_reachable};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::dns::{self, Names};
use crate::encryption;
use crate::limits::WEB_ADDRESSES;

/// The port that is meant by a URL which names none.
const PORT: u16 = 443;

/// The way to web servers.
pub struct Web {
    /// Where [`PORT`] is.
    port: u16,
    /// `None`: no authority's word is known.
    tls: RwLock<Option<Arc<ClientConfig>>>,
    /// Networks that are not public in which servers may be; `None`: they may be anywhere.
    inner: RwLock<Option<Vec<Network>>>,
}

/// What is asked of a server.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Its name, which its certificate must have.
    pub host: &'a str,
    /// Its port, if that is not the usual one.
    pub port: Option<u16>,
    /// What follows in the URL, with the slash in front.
    pub path: &'a str,
    /// What is posted, and its type; `None`: GET.
    pub posted: Option<(&'a str, &'a Bytes)>,
    /// The most bytes that the answer may have; `None`: nobody reads it.
    pub answer_bytes: Option<usize>,
}

/// An answer with a status of 2xx.
#[derive(Debug)]
pub struct Heard {
    /// The status.
    pub status: u16,
    /// `Content-Type`, in small letters.
    pub kind: String,
    /// The text, if it was to be read.
    pub text: Bytes,
}

impl Web {
    /// Port 443 is at this one, and these authorities vouch for servers. `inner`: networks that are not public in which they may
    /// be; `None`: they may be anywhere.
    pub fn new(port: u16, roots: RootCertStore, inner: Option<Vec<Network>>) -> Self {
        Self { port, tls: RwLock::new(encryption::web(roots)), inner: RwLock::new(inner) }
    }

    /// From now on these vouch for servers.
    pub fn trust(&self, roots: RootCertStore) {
        *self.tls.write().expect("nobody panics with it") = encryption::web(roots);
    }

    /// From now on servers may be in these networks.
    pub fn allow(&self, inner: Option<Vec<Network>>) {
        *self.inner.write().expect("nobody panics with it") = inner;
    }

    /// Asks the addresses of a host until one answers as it should. Who waits for this limits its time.
    ///
    /// # Errors
    /// None has, and why not the last of them.
    pub async fn ask(&self, names: &Arc<Names>, asked: Asked<'_>) -> Result<Heard, String> {
        let Asked { host, port, .. } = asked;
        let tls = self.tls.read().expect("nobody panics with it").clone();
        let tls = TlsConnector::from(tls.ok_or("no authority's certificate is known to this server")?);
        let addresses: Vec<IpAddr> = match dns::addresses(names, host, None).await {
            MxAnswer::Hosts { hosts, .. } => hosts.into_iter().flat_map(|host| host.addresses).collect(),
            MxAnswer::NullMx | MxAnswer::NoSuchDomain => return Err(format!("{host} has no address")),
            MxAnswer::Temporary(why) => return Err(why),
        };
        // A test moves all ports by the same.
        let port = port.map_or(self.port, |port| port.saturating_add(self.port - PORT));
        let mut why = format!("{host} has no address");
        for address in addresses.into_iter().take(WEB_ADDRESSES) {
            if !self.may_reach(address) {
                why = format!(
                    "{host}[{address}] has no public address; where that is right, `mta allow-exchangers` has to name its network"
                );
                continue;
            }
            match ask_at(&tls, SocketAddr::new(address, port), asked).await {
                Ok(heard) => return Ok(heard),
                Err(error) => why = format!("https://{host}[{address}]:{port}: {error}"),
            }
        }
        Err(why)
    }

    fn may_reach(&self, address: IpAddr) -> bool {
        let inner = self.inner.read().expect("nobody panics with it");
        inner.as_deref().is_none_or(|inner| is_reachable(address, inner))
    }
}

async fn ask_at(tls: &TlsConnector, address: SocketAddr, asked: Asked<'_>) -> Result<Heard, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let name = ServerName::try_from(asked.host.to_owned()).map_err(|error| error.to_string())?;
    let stream = tls.connect(name, stream).await.map_err(|error| error.to_string())?;
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| error.to_string())?;
    // It ends with what is sent and read here, at the latest when nobody waits any more.
    let _carried = AbortOnDrop(tokio::spawn(async move { drop(connection.await) }));
    let response = sender.send_request(request(asked)?).await.map_err(|error| error.to_string())?;
    let status = response.status();
    if !status.is_success() {
        return Err(format!("the answer is {status}"));
    }
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.trim().to_ascii_lowercase();
    let text = match asked.answer_bytes {
        None => Bytes::new(),
        Some(most) => {
            let body = Limited::new(response.into_body(), most).collect().await;
            body.map_err(|error| error.to_string())?.to_bytes()
        }
    };
    Ok(Heard { status: status.as_u16(), kind, text })
}

fn request(asked: Asked<'_>) -> Result<Request<Full<Bytes>>, String> {
    let Asked { host, port, path, posted, .. } = asked;
    let host = port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let (request, body) = match posted {
        None => (Request::get(path), Bytes::new()),
        Some((kind, body)) => (Request::post(path).header(CONTENT_TYPE, kind), body.clone()),
    };
    let request = request.header(HOST, host).header(USER_AGENT, "ringpost");
    request.body(Full::new(body)).map_err(|error| error.to_string())
}

/// A task that ends with whoever waits for it.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
