//! Fetching a policy (RFC 8461 §3.3): one GET to the domain's own host, verified by the system's authorities. Nobody is
//! followed elsewhere, and no more is read than a policy can have.

use std::net::SocketAddr;
use std::sync::{Arc, RwLock};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use ringpost_shard::MxAnswer;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::super::dns::{self, Names};
use crate::encryption;
use crate::limits::{STS_ADDRESSES, STS_FILE_BYTES};

/// The way to web servers.
pub struct Web {
    port: u16,
    /// `None`: no authority's word is known.
    tls: RwLock<Option<Arc<ClientConfig>>>,
}

impl Web {
    /// They are at this port, and these authorities vouch for them.
    pub fn new(port: u16, roots: RootCertStore) -> Self {
        Self { port, tls: RwLock::new(encryption::web(roots)) }
    }

    /// From now on these do.
    pub fn trust(&self, roots: RootCertStore) {
        *self.tls.write().expect("nobody panics with it") = encryption::web(roots);
    }

    /// The policy of a domain, as its server has it.
    ///
    /// # Errors
    /// It cannot be had, and why.
    pub async fn fetch(&self, names: &Arc<Names>, domain: &str) -> Result<Vec<u8>, String> {
        let host = format!("mta-sts.{domain}");
        let tls = self.tls.read().expect("nobody panics with it").clone();
        let tls = TlsConnector::from(tls.ok_or("no authority's certificate is known to this server")?);
        let addresses = match dns::addresses(names, &host, None).await {
            MxAnswer::Hosts { hosts, .. } => hosts.into_iter().flat_map(|host| host.addresses),
            MxAnswer::NullMx | MxAnswer::NoSuchDomain => return Err(format!("{host} has no address")),
            MxAnswer::Temporary(why) => return Err(why),
        };
        let mut why = format!("{host} has no address");
        for address in addresses.take(STS_ADDRESSES) {
            match self.fetch_from(&tls, &host, SocketAddr::new(address, self.port)).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => why = format!("https://{host}[{address}]:{}: {error}", self.port),
            }
        }
        Err(why)
    }

    async fn fetch_from(&self, tls: &TlsConnector, host: &str, address: SocketAddr) -> Result<Vec<u8>, String> {
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        let stream = tls.connect(name, stream).await.map_err(|error| error.to_string())?;
        let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.map_err(|error| error.to_string())?;
        // It ends with what is sent and read here.
        let carrying = tokio::spawn(connection);
        let request = Request::get("/.well-known/mta-sts.txt").header(HOST, host).header(USER_AGENT, "ringpost");
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        // RFC 8461 §3.3: other answers, and other places that they name, are no policy.
        if response.status() != StatusCode::OK {
            return Err(format!("the answer is {}", response.status()));
        }
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.trim().to_ascii_lowercase().starts_with("text/plain") {
            return Err(format!("the answer is of the type '{}', not text/plain", kind.escape_default()));
        }
        let body = Limited::new(response.into_body(), STS_FILE_BYTES as usize).collect().await;
        let bytes = body.map_err(|error| error.to_string())?.to_bytes().to_vec();
        carrying.abort();
        Ok(bytes)
    }
}
