//! The resolvers that names are asked of. Twice: as they answer, for clients' names and the hosts that an administrator has
//! named, and with DNSSEC validated here, for mail exchangers (RFC 7672 §2).
//!
//! Not every resolver passes on what that needs, and mail must go out behind such a one, too: it is tried once, by the root's
//! keys. Once that has gone well it is never given up again, so that nobody can have DANE forgotten by losing answers.

use std::fmt::Display;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::dnssec::TrustAnchors;
use hickory_resolver::proto::rr::{Record, RecordType};
use hickory_resolver::{ResolverBuilder, TokioResolver};
use tokio::sync::Mutex;

use crate::limits::{RESOLVER_CACHE, VOUCHING_AGAIN};

/// What is said to the administrator.
pub type Say = Arc<dyn Fn(&dyn Display) + Send + Sync>;

/// The resolvers.
pub struct Network {
    /// As they answer.
    pub plain: TokioResolver,
    vouching: TokioResolver,
    /// They pass on what DNSSEC needs.
    able: AtomicBool,
    /// When they were last found not to.
    unable: Mutex<Option<Instant>>,
    say: Say,
}

impl Network {
    /// Those of `/etc/resolv.conf`, and the root keys that are built in. Must be called within the tokio runtime.
    ///
    /// # Errors
    /// That file cannot be used.
    pub fn system(say: Say) -> Result<Self, String> {
        let builder = || TokioResolver::builder_tokio().map_err(|error| error.to_string());
        Self::new([builder()?, builder()?], None, say)
    }

    /// The one at this address alone, and these root keys (`. IN DNSKEY …`, a line each). Must be called within the runtime.
    ///
    /// # Errors
    /// The keys cannot be read.
    pub fn at(server: SocketAddr, anchors: &str, say: Say) -> Result<Self, String> {
        let anchors = TrustAnchors::from_str(anchors).map_err(|error| format!("$ANCHOR: {error}"))?;
        let builder = || {
            let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
            connections.iter_mut().for_each(|connection| connection.port = server.port());
            let server = NameServerConfig::new(server.ip(), true, connections);
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        Self::new([builder(), builder()], Some(Arc::new(anchors)), say)
    }

    fn new(
        [mut plain, mut vouching]: [ResolverBuilder<TokioRuntimeProvider>; 2],
        anchors: Option<Arc<TrustAnchors>>,
        say: Say,
    ) -> Result<Self, String> {
        let options = plain.options_mut();
        options.cache_size = RESOLVER_CACHE;
        // Whatever `resolv.conf` says: more hosts fit into an answer, and fewer questions are asked twice (RFC 6891).
        options.edns0 = true;
        let options = vouching.options_mut();
        options.cache_size = RESOLVER_CACHE;
        options.validate = true;
        // Signatures are larger than what fits without, and sometimes than what UDP carries.
        options.edns0 = true;
        options.try_tcp_on_error = true;
        if let Some(anchors) = anchors {
            vouching = vouching.with_trust_anchor(anchors);
        }
        let build = |builder: ResolverBuilder<_>| builder.build().map_err(|error: NetError| error.to_string());
        let (plain, vouching) = (build(plain)?, build(vouching)?);
        Ok(Self { plain, vouching, able: AtomicBool::new(false), unable: Mutex::new(None), say })
    }

    /// The resolver whose answers are validated; `None`: there is no way to.
    pub async fn vouching(&self) -> Option<&TokioResolver> {
        if self.able.load(Ordering::Relaxed) {
            return Some(&self.vouching);
        }
        let mut unable = self.unable.lock().await;
        if unable.is_some_and(|since| since.elapsed() < VOUCHING_AGAIN) {
            return None;
        }
        // Another one who waited for the lock may have found out.
        if self.able.load(Ordering::Relaxed) {
            return Some(&self.vouching);
        }
        let why = match self.vouching.lookup(".", RecordType::DNSKEY).await {
            Ok(lookup) if is_secure(lookup.answers()) => {
                self.able.store(true, Ordering::Relaxed);
                return Some(&self.vouching);
            }
            Ok(_) => "the root's keys are not signed by those that are trusted".to_owned(),
            Err(error) => error.to_string(),
        };
        if unable.is_none() {
            (self.say)(&format_args!(
                "the resolvers do not pass on what DNSSEC needs ({why}): mail exchangers are not verified by DANE, and \
                 mail that must be (`tls dane`) waits; a resolver that validates, such as unbound, is the remedy"
            ));
        }
        *unable = Some(Instant::now());
        None
    }
}

/// Whether DNSSEC vouches for all of an answer. Signatures themselves are not signed.
pub fn is_secure(records: &[Record]) -> bool {
    let mut records = records.iter().filter(|record| record.record_type() != RecordType::RRSIG).peekable();
    records.peek().is_some() && records.all(|record| record.proof.is_secure())
}
