//! Reports that are posted to web servers (RFC 8460 §5.4): what waits, when each is tried, and when it is given up (§5.5). All
//! of it is kept with what was counted, so that it outlives a restart.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use hyper::Uri;
use hyper::body::Bytes;
use serde::{Deserialize, Serialize};

use super::super::dns::Names;
use super::super::https::{Asked, Web};
use crate::limits::{
    TLSRPT_PLACES, TLSRPT_POST, TLSRPT_POST_AGAIN, TLSRPT_POST_AGAIN_MAX, TLSRPT_POST_FOR, TLSRPT_POSTS,
    TLSRPT_POSTS_AT_ONCE, TLSRPT_URL_BYTES,
};

/// A report that one web server is to have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Post {
    /// Whom it is about.
    pub domain: String,
    /// Where it goes.
    pub url: String,
    /// The file that it is in.
    pub file: String,
    /// When it is tried next, in seconds since 1970.
    due: u64,
    /// When it was tried first.
    first: Option<u64>,
    /// How often it was.
    attempts: u32,
}

impl Post {
    /// Whether it is this file for this server.
    fn is(&self, url: &str, file: &str) -> bool {
        self.url == url && self.file == file
    }
}

/// Those that wait.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Posts(Vec<Post>);

/// What becomes of a report that could not be posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is tried again, and was not before.
    FirstDelay,
    /// It is tried again.
    Later,
    /// Its time is over.
    GivenUp,
}

impl Posts {
    /// Adds those places of a report that are web servers, to be tried from `due` on. False: there is no room for all.
    #[must_use]
    pub fn add(&mut self, domain: &str, file: &str, places: &[String], due: u64) -> bool {
        for url in places.iter().filter(|place| Target::parse(place).is_some()).take(TLSRPT_PLACES) {
            if self.0.len() >= TLSRPT_POSTS {
                return false;
            }
            // Named twice, or a day that was ended twice: the file is the newer one.
            if self.0.iter().any(|one| one.is(url, file)) {
                continue;
            }
            let (domain, url, file) = (domain.to_owned(), url.clone(), file.to_owned());
            self.0.push(Post { domain, url, file, due, first: None, attempts: 0 });
        }
        true
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those whose turn it is, as many as are tried at once; those that have waited longest first.
    pub fn due(&self, now: u64) -> Vec<Post> {
        let mut due: Vec<&Post> = self.0.iter().filter(|post| post.due <= now).collect();
        due.sort_by_key(|post| post.due);
        due.into_iter().take(TLSRPT_POSTS_AT_ONCE).cloned().collect()
    }

    /// A report has arrived, or cannot any more.
    pub fn remove(&mut self, post: &Post) {
        self.0.retain(|one| !one.is(&post.url, &post.file));
    }

    /// A report has not arrived at its server.
    pub fn put_off(&mut self, post: &Post, now: u64) -> Fate {
        let Some(at) = self.0.iter().position(|one| one.is(&post.url, &post.file)) else {
            return Fate::Later;
        };
        let one = &mut self.0[at];
        let first = *one.first.get_or_insert(now);
        one.attempts = one.attempts.saturating_add(1);
        let doublings = (one.attempts - 1).min(16);
        let pause = (TLSRPT_POST_AGAIN.as_secs() << doublings).min(TLSRPT_POST_AGAIN_MAX.as_secs());
        one.due = now.saturating_add(pause);
        // Also where the clock was set back: it would be tried for ever.
        if one.due > first.saturating_add(TLSRPT_POST_FOR.as_secs()) || first > now {
            self.0.swap_remove(at);
            return Fate::GivenUp;
        }
        if self.0[at].attempts == 1 { Fate::FirstDelay } else { Fate::Later }
    }
}

/// Posts a report of this directory.
///
/// # Errors
/// The server has not taken it, and why; or it cannot be read.
pub async fn post(dir: &Path, names: &Arc<Names>, web: &Web, post: &Post) -> Result<(), String> {
    let target = Target::parse(&post.url).ok_or("that is no place that a report is posted to")?;
    let path = dir.join(&post.file);
    let packed = tokio::task::spawn_blocking(move || std::fs::read(path)).await.map_err(|error| error.to_string())?;
    let packed = Bytes::from(packed.map_err(|error| format!("{}: {error}", post.file))?);
    let posted = Some(("application/tlsrpt+gzip", &packed));
    // What it has to say beyond the status is for nobody here.
    let asked = Asked { host: &target.host, port: target.port, path: &target.path, posted, answer_bytes: None };
    match tokio::time::timeout(TLSRPT_POST, web.ask(names, asked)).await {
        Ok(heard) => heard.map(drop),
        Err(_) => Err(format!("there is no answer within {} s", TLSRPT_POST.as_secs())),
    }
}

/// A web server of somebody's, and what is asked of it.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    host: String,
    port: Option<u16>,
    path: String,
}

impl Target {
    /// Of a URL with `https:` and a host that has a name. `None`: it is none that a report is posted to.
    fn parse(url: &str) -> Option<Self> {
        let uri: Uri = Some(url).filter(|url| url.len() <= TLSRPT_URL_BYTES)?.parse().ok()?;
        let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
        let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
        let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.' || byte == b'_';
        let is_name = host.contains('.') && host.bytes().all(good) && host.parse::<IpAddr>().is_err();
        // A port that is not a number is no port.
        let port = authority.port_u16().filter(|port| *port > 0);
        let is_whole = authority.as_str().contains(':') == port.is_some();
        if scheme != "https" || !is_name || !is_whole || authority.as_str().contains('@') {
            return None;
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Some(Self { host, port, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_web_servers_with_a_name() {
        let target = |host: &str, port, path: &str| Some(Target { host: host.into(), port, path: path.into() });
        assert_eq!(
            Target::parse("https://Reports.example/v1/tls?x=%2C"),
            target("reports.example", None, "/v1/tls?x=%2C")
        );
        assert_eq!(Target::parse("https://a.example:8443"), target("a.example", Some(8443), "/"));
        let long = format!("https://a.example/{}", "x".repeat(TLSRPT_URL_BYTES));
        for wrong in [
            "",
            "mailto:a@b.example",
            "http://a.example/",
            "ftp://a.example/",
            "https:///x",
            "https://localhost/x",
            "https://127.0.0.1/x",
            "https://[::1]/x",
            "https://user@a.example/",
            "https://a.example:0/",
            "https://a.example:x/",
            "https://a.example:99999/",
            "https://a example/",
            "https://a.example/\r\nX: y",
            "/x",
            &long,
        ] {
            assert_eq!(Target::parse(wrong), None, "{wrong}");
        }
    }

    fn places(urls: &[&str]) -> Vec<String> {
        urls.iter().map(|url| (*url).to_owned()).collect()
    }

    #[test]
    fn a_report_is_tried_for_a_day_and_then_given_up() {
        let mut posts = Posts::default();
        assert!(posts.add("d.example", "f", &places(&["mailto:a@b.example", "https://d.example/x"]), 1000));
        assert_eq!((posts.due(999).len(), posts.due(1000).len()), (0, 1));
        let (mut now, mut fates, mut tries) = (1000, Vec::new(), Vec::new());
        while let Some(post) = posts.due(now).into_iter().next() {
            tries.push(now);
            fates.push(posts.put_off(&post, now));
            now = posts.0.first().map_or(now, |post| post.due);
            assert!(posts.is_empty() || posts.due(now - 1).is_empty());
        }
        assert_eq!(tries[..4], [1000, 1300, 1900, 3100], "at first soon, then ever later");
        assert!(tries.windows(2).all(|two| two[1] - two[0] <= TLSRPT_POST_AGAIN_MAX.as_secs()));
        assert!(tries.last().unwrap() - 1000 > 20 * 3600 && tries.last().unwrap() - 1000 <= 24 * 3600, "{tries:?}");
        let (last, before) = fates.split_last().unwrap();
        assert_eq!((*last, before[0]), (Fate::GivenUp, Fate::FirstDelay));
        assert!(before[1..].iter().all(|fate| *fate == Fate::Later) && posts.is_empty());
    }

    #[test]
    fn what_waits_is_kept_and_bounded() {
        let mut posts = Posts::default();
        let many: Vec<String> = (0..TLSRPT_PLACES + 3).map(|number| format!("https://w{number}.example/")).collect();
        assert!(posts.add("d.example", "f", &many, 5));
        assert_eq!(posts.0.len(), TLSRPT_PLACES, "of one domain");
        assert!(posts.add("d.example", "f", &many[..1], 9) && posts.0.len() == TLSRPT_PLACES, "it waits already");
        let post = posts.due(5).remove(0);
        assert_eq!(posts.put_off(&post, 7), Fate::FirstDelay);
        let text = serde_json::to_string(&posts).unwrap();
        let again: Posts = serde_json::from_str(&text).unwrap();
        assert_eq!(again.0, posts.0);
        posts.remove(&post);
        assert_eq!(posts.0.len(), TLSRPT_PLACES - 1);
        for number in 0..TLSRPT_POSTS {
            let has_room = posts.add("d.example", &format!("f{number}"), &many[..1], number as u64);
            assert_eq!(has_room, number < TLSRPT_POSTS - (TLSRPT_PLACES - 1), "{number}");
        }
        assert_eq!(posts.due(u64::MAX).len(), TLSRPT_POSTS_AT_ONCE);
        assert!(posts.due(u64::MAX).iter().all(|post| post.due <= TLSRPT_POSTS_AT_ONCE as u64), "the oldest first");
        // A clock that was set back keeps nothing for ever.
        let post = posts.due(u64::MAX).remove(0);
        posts.put_off(&post, 2000);
        let was = posts.0.len();
        let post = posts.0.iter().find(|one| one.first.is_some()).unwrap().clone();
        assert_eq!((posts.put_off(&post, 10), posts.0.len()), (Fate::GivenUp, was - 1));
    }
}
