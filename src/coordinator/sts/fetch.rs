//! Fetching a policy (RFC 8461 §3.3): one GET to the domain's own host.

use std::sync::Arc;

use super::super::dns::Names;
use super::super::https::{Asked, Web};
use crate::limits::STS_FILE_BYTES;

/// The policy of a domain, as its server has it.
///
/// # Errors
/// It cannot be had, and why.
pub async fn fetch(web: &Web, names: &Arc<Names>, domain: &str) -> Result<Vec<u8>, String> {
    let host = format!("mta-sts.{domain}");
    let (path, answer_bytes) = ("/.well-known/mta-sts.txt", Some(STS_FILE_BYTES as usize));
    let heard = web.ask(names, Asked { host: &host, port: None, path, posted: None, answer_bytes }).await?;
    // Other answers, and other places that they name, are no policy.
    if heard.status != 200 {
        return Err(format!("the answer of {host} is {}", heard.status));
    }
    if !heard.kind.starts_with("text/plain") {
        return Err(format!("the answer of {host} is of the type '{}', not text/plain", heard.kind.escape_default()));
    }
    Ok(heard.text.to_vec())
}
