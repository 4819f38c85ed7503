//! MTA-STS (RFC 8461): what a domain demands of those who send it mail, read from its web server and kept, in memory and on
//! disk, for as long as the domain says: who keeps a policy away from us later does not make it forgotten.

mod fetch;
mod text;

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use ringpost_shard::{Mode, Policy, PolicyKind};
use serde::{Deserialize, Serialize};

use self::text::Text;
use super::dns::{Names, Texts, texts};
use super::https::Web;
use super::network::Say;
use super::tlsrpt::{Reports, Session};
use crate::clock::unix;
use crate::durable;
use crate::limits::{STS_AGAIN, STS_FETCH, STS_FILE_BYTES, STS_POLICIES, STS_REFRESH};

/// The policies that are known.
pub struct Policies {
    names: Arc<Names>,
    web: Arc<Web>,
    dir: PathBuf,
    known: Mutex<HashMap<String, Kept>>,
    /// Domains whose policy could not be fetched, and when.
    failed: Mutex<HashMap<String, Instant>>,
    reports: Arc<Reports>,
    say: Say,
}

/// A policy as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// Of the TXT record that it was fetched for.
    id: String,
    /// Seconds since 1970.
    fetched: u64,
    text: Text,
}

impl Kept {
    fn is_current(&self, now: u64) -> bool {
        now.saturating_sub(self.fetched) < self.text.max_age
    }

    /// RFC 8461 §3.3: it is fetched again well before its end, though nothing has changed.
    fn wants_refresh(&self, now: u64) -> bool {
        let age = now.saturating_sub(self.fetched);
        age > self.text.max_age / 2 && age > STS_REFRESH.as_secs()
    }
}

impl Policies {
    /// Those that were kept in this directory, which is made when there is one to keep.
    pub fn new(names: Arc<Names>, dir: PathBuf, web: Arc<Web>, reports: Arc<Reports>, say: Say) -> Self {
        let mut known = HashMap::new();
        let now = unix();
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten().take(STS_POLICIES * 2) {
            let Some(domain) = entry.file_name().to_str().map(str::to_owned) else { continue };
            let small = entry.metadata().is_ok_and(|data| data.is_file() && data.len() <= STS_FILE_BYTES * 4);
            let kept = small.then(|| fs::read(entry.path()).ok()).flatten();
            match kept.and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok()) {
                Some(kept) if kept.is_current(now) && known.len() < STS_POLICIES => {
                    known.insert(domain, kept);
                }
                // What is over, or was never whole, is in nobody's way.
                _ => {
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
        Self { names, web, dir, known: Mutex::new(known), failed: Mutex::default(), reports, say }
    }

    /// What a domain demands. The caller asks once for a domain at a time.
    pub async fn policy(&self, domain: &str) -> Option<Policy> {
        if !is_plain(domain) {
            return None;
        }
        let kept = self.known.lock().expect("nobody panics with it").get(domain).cloned();
        let kept = kept.filter(|kept| kept.is_current(unix()));
        let id = match texts(&self.names, &format!("_mta-sts.{domain}")).await {
            Texts::Found(texts) => text::id(&texts),
            // RFC 8461 §5.1: a policy holds though its record is gone, or nobody tells.
            Texts::None | Texts::Failed => None,
        };
        let current = match (id, kept) {
            (Some(id), Some(kept)) if kept.id == id && !kept.wants_refresh(unix()) => Some(kept),
            (Some(id), kept) => self.fetch(domain, id).await.or(kept),
            (None, kept) => kept,
        };
        let text = current?.text;
        let mode = match text.mode {
            text::Mode::Enforce => Mode::Enforce,
            text::Mode::Testing => Mode::Testing,
            text::Mode::None => return None,
        };
        Some(Policy { mode, patterns: text.patterns })
    }

    /// The policy as the web server has it now; `None`: it cannot be had, which is not tried again for a while.
    async fn fetch(&self, domain: &str, id: String) -> Option<Kept> {
        let lately = |failed: &Instant| failed.elapsed() < STS_AGAIN;
        if self.failed.lock().expect("nobody panics with it").get(domain).is_some_and(lately) {
            return None;
        }
        let fetched = tokio::time::timeout(STS_FETCH, fetch::fetch(&self.web, &self.names, domain)).await;
        let late = || Err(format!("there is no answer within {} s", STS_FETCH.as_secs()));
        let fetched = fetched.unwrap_or_else(|_| late());
        let fault = if fetched.is_ok() { "sts-policy-invalid" } else { "sts-policy-fetch-error" };
        match fetched.and_then(|bytes| Text::parse(&bytes)) {
            Ok(text) => {
                let kept = Kept { id, fetched: unix(), text };
                self.keep(domain, kept.clone()).await;
                Some(kept)
            }
            Err(why) => {
                let (kind, failure) = (PolicyKind::Sts, Some(fault));
                self.reports.note(&Session { domain, kind, host: "", addresses: None, failure });
                (self.say)(&format_args!("the MTA-STS policy of {domain} cannot be used: {why}"));
                let mut failed = self.failed.lock().expect("nobody panics with it");
                if failed.len() >= STS_POLICIES {
                    failed.retain(|_, when| lately(when));
                }
                if failed.len() < STS_POLICIES {
                    failed.insert(domain.to_owned(), Instant::now());
                }
                None
            }
        }
    }

    async fn keep(&self, domain: &str, kept: Kept) {
        let (path, dir) = (self.dir.join(domain), self.dir.clone());
        let bytes = serde_json::to_vec(&kept).expect("text and numbers");
        let mut over = None;
        {
            let mut known = self.known.lock().expect("nobody panics with it");
            if known.len() >= STS_POLICIES && !known.contains_key(domain) {
                let end = |kept: &Kept| kept.fetched.saturating_add(kept.text.max_age);
                over = known.iter().min_by_key(|(_, kept)| end(kept)).map(|(domain, _)| domain.clone());
                over.iter().for_each(|domain| drop(known.remove(domain)));
            }
            known.insert(domain.to_owned(), kept);
        }
        let over = over.map(|domain| self.dir.join(domain));
        let written = tokio::task::spawn_blocking(move || {
            over.iter().for_each(|path| drop(fs::remove_file(path)));
            match fs::create_dir(&dir) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            durable::replace(&path, 0o600, &bytes)
        });
        if let Ok(Err(error)) = written.await {
            (self.say)(&format_args!("{}: MTA-STS policies are not kept: {error}", self.dir.display()));
        }
    }
}

/// Of names that a web server can have, and a file.
fn is_plain(domain: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    domain.len() <= 200 && !domain.starts_with(['.', '-']) && domain.contains('.') && domain.bytes().all(good)
}
