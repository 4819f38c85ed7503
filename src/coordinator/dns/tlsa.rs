//! TLSA records of a host (RFC 6698), as far as DNSSEC vouches for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RData;
use ringpost_shard::Dane;

use super::super::network::is_secure;
use super::{Found, not_found, whole};
use crate::limits::TLSA_RECORDS;

/// What DNSSEC says of the certificate of a host whose names it vouches for (RFC 7672 §2.2), and for how long.
pub(super) async fn tlsa(vouching: &TokioResolver, host: &str, port: u16) -> (Dane, Duration) {
    let lookup = match vouching.tlsa_lookup(format!("_{port}._tcp.{}", whole(host))).await {
        Ok(lookup) => lookup,
        Err(error) => {
            return match not_found::<()>(&error) {
                Found::Failed(why) => (Dane::Failed(why), Duration::MAX),
                _ => (Dane::Absent, Duration::MAX),
            };
        }
    };
    let ttl = lookup.valid_until().saturating_duration_since(Instant::now());
    if !is_secure(lookup.answers()) {
        return (Dane::Insecure("the TLSA records of its host"), ttl);
    }
    let records = lookup.answers().iter().filter_map(|record| match &record.data {
        RData::TLSA(tlsa) => {
            let head = [u8::from(tlsa.cert_usage), u8::from(tlsa.selector), u8::from(tlsa.matching)];
            Some([&head[..], &tlsa.cert_data[..]].concat().into_boxed_slice())
        }
        _ => None,
    });
    let records: Arc<[Box<[u8]>]> = records.take(TLSA_RECORDS).collect();
    (if records.is_empty() { Dane::Absent } else { Dane::Records(records) }, ttl)
}
