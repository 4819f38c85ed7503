//! TXT records, in which domains tell about their policies.

use hickory_resolver::proto::rr::RData;

use super::{Found, Names, found, listed, not_found, whole};
use crate::limits::LOOKUP;

/// What TXT records of a name are.
pub enum Texts {
    /// These, each put together of its strings (RFC 7208 §3.3).
    Found(Vec<String>),
    /// There is none.
    None,
    /// That cannot be known now.
    Failed,
}

/// TXT records of a name.
pub async fn texts(names: &Names, name: &str) -> Texts {
    match tokio::time::timeout(LOOKUP, lookup(names, name)).await {
        Ok(Found::Records(texts, _)) => Texts::Found(texts),
        Ok(Found::NoRecords | Found::NoName) => Texts::None,
        Ok(Found::Failed(_)) | Err(_) => Texts::Failed,
    }
}

async fn lookup(names: &Names, name: &str) -> Found<String> {
    match names {
        Names::Network(network) => match network.plain.txt_lookup(whole(name)).await {
            Ok(lookup) => {
                let texts = lookup.answers().iter().filter_map(|record| match &record.data {
                    RData::TXT(text) => Some(String::from_utf8_lossy(&text.txt_data.concat()).into_owned()),
                    _ => None,
                });
                found(texts.collect(), lookup.valid_until())
            }
            Err(error) => not_found(&error),
        },
        Names::Zone(zone) => match zone.get(name) {
            None => Found::NoName,
            Some(records) if records.fails => Found::Failed("SERVFAIL".into()),
            Some(records) => listed(records.texts.iter().cloned()),
        },
        Names::Nowhere(why) => Found::Failed(why.clone()),
    }
}
