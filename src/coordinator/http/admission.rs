//! Who may see the page, and what of it: `http … auth` and `only`. Passwords are judged like those of mail clients, at the same
//! pace; one that was right is believed for a while, since a page that asks every second must not cost a hash each time.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use aws_lc_rs::{digest, hmac};
use axum::http::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ringpost_conf::{Config, Users};
use ringpost_shard::{Guard, Login, Origin, Verdict};
use ringpost_smtp::server::{Proof, Secret};
use tokio::sync::Semaphore;

use crate::coordinator::Coordinator;
use crate::limits::{PAGE_CREDENTIALS_BYTES, PAGE_JUDGED, PAGE_LOGIN_BELIEVED, PAGE_LOGINS_KEPT};
use crate::passwords;

/// What is known of visitors, for one configuration.
pub struct Admission {
    /// So that nothing that is kept here means anything elsewhere.
    salt: Option<hmac::Key>,
    known: Mutex<Option<Known>>,
    /// For logins that are judged.
    places: Semaphore,
}

/// Of one configuration: the next may have other users.
struct Known {
    config: Arc<Config>,
    guard: Option<Arc<Guard>>,
    /// Marks of logins that were right, the oldest first, and until when they are believed.
    right: VecDeque<(hmac::Tag, Instant)>,
}

impl Admission {
    /// Nobody is known.
    pub fn new() -> Self {
        let salt = passwords::nonce::<{ digest::SHA256_OUTPUT_LEN }>();
        Self {
            salt: salt.map(|salt| hmac::Key::new(hmac::HMAC_SHA256, &salt)),
            known: Mutex::default(),
            places: Semaphore::new(PAGE_JUDGED),
        }
    }

    /// Who is asked with this configuration; `None`: everybody may see it.
    fn guard(&self, config: &Arc<Config>) -> Option<Arc<Guard>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.as_ref().is_some_and(|known| Arc::ptr_eq(&known.config, config)) {
            let table = config.http.as_ref().and_then(|http| http.auth.clone());
            let guard = table.map(|table| Arc::new(Guard::of_users(&Users::Table(table), config).0));
            *known = Some(Known { config: config.clone(), guard, right: VecDeque::new() });
        }
        known.as_ref().and_then(|known| known.guard.clone())
    }

    fn mark(&self, credentials: &str) -> Option<hmac::Tag> {
        self.salt.as_ref().map(|salt| hmac::sign(salt, credentials.as_bytes()))
    }

    fn is_right(&self, mark: &hmac::Tag) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = known.as_mut() else { return false };
        let now = Instant::now();
        while known.right.front().is_some_and(|(_, until)| *until <= now) {
            known.right.pop_front();
        }
        known.right.iter().any(|(one, _)| one.as_ref() == mark.as_ref())
    }

    fn remember(&self, config: &Arc<Config>, mark: hmac::Tag) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = known.as_mut().filter(|known| Arc::ptr_eq(&known.config, config)) else { return };
        known.right.push_back((mark, Instant::now() + PAGE_LOGIN_BELIEVED));
        if known.right.len() > PAGE_LOGINS_KEPT {
            known.right.pop_front();
        }
    }
}

/// Whether this path is shown.
pub fn is_shown(config: &Config, path: &str) -> bool {
    let Some(http) = &config.http else { return false };
    let has = |part: &str| http.only.is_empty() || http.only.iter().any(|shown| shown == part);
    match path {
        "/" => has("page"),
        "/metrics" => has("metrics"),
        "/health" | "/ready" => has("health"),
        // The page shows what it gets from there.
        path if path.starts_with("/api/") => has("api") || has("page"),
        _ => true,
    }
}

/// Whether this visitor may see it.
///
/// # Errors
/// The response that says no.
pub async fn admit(coordinator: &Coordinator, from: SocketAddr, headers: &HeaderMap) -> Result<(), Response> {
    let (config, admission) = (coordinator.config(), &coordinator.admission);
    let Some(guard) = admission.guard(&config) else { return Ok(()) };
    let Some(credentials) = headers.get(AUTHORIZATION).and_then(basic) else { return Err(refused()) };
    let mark = admission.mark(credentials.reveal());
    if mark.as_ref().is_some_and(|mark| admission.is_right(mark)) {
        return Ok(());
    }
    let Some((user, password)) = credentials.reveal().split_once(':') else { return Err(refused()) };
    // Those who read their mail must not wait for the visitors of the page.
    let Ok(_place) = admission.places.try_acquire() else {
        return Err(later(StatusCode::SERVICE_UNAVAILABLE, "too many log in at once\n"));
    };
    let proof = Proof::Password { user: user.to_owned(), password: Secret::new(password.to_owned()) };
    let login = Login { from: Origin::Host(from.ip()), book: guard.book(user), proof, binding: None, proceeding: None };
    match coordinator.logins.judge(&coordinator.tables(), login).await {
        Verdict::Accepted { .. } => {
            mark.into_iter().for_each(|mark| admission.remember(&config, mark));
            Ok(())
        }
        Verdict::Refused | Verdict::Challenge { .. } => Err(refused()),
        Verdict::Failed => {
            Err(later(StatusCode::SERVICE_UNAVAILABLE, "nobody can say now whether the password is right\n"))
        }
        Verdict::TooMany => Err(later(StatusCode::TOO_MANY_REQUESTS, "too many wrong passwords\n")),
    }
}

/// `Basic` (RFC 7617 §2): user and password with a colon between. None are as long as what is not even looked at.
fn basic(header: &HeaderValue) -> Option<Secret> {
    if header.len() > PAGE_CREDENTIALS_BYTES {
        return None;
    }
    let (scheme, text) = header.to_str().ok()?.split_once(' ')?;
    let bytes = scheme.eq_ignore_ascii_case("Basic").then(|| STANDARD.decode(text.trim()).ok())??;
    String::from_utf8(bytes).ok().map(Secret::new)
}

fn refused() -> Response {
    let challenge = [(WWW_AUTHENTICATE, r#"Basic realm="ringpost", charset="UTF-8""#)];
    (StatusCode::UNAUTHORIZED, challenge, "who are you?\n").into_response()
}

fn later(status: StatusCode, text: &'static str) -> Response {
    (status, [(RETRY_AFTER, "5")], text).into_response()
}

#[cfg(test)]
mod tests {
    use ringpost_conf::Quickstart;

    use super::*;

    fn config(only: &[&str]) -> Config {
        let mut config = Config::quickstart(std::path::Path::new("/x"), &Quickstart::default());
        config.http.as_mut().unwrap().only = only.iter().map(|part| (*part).to_owned()).collect();
        config
    }

    #[test]
    fn only_says_which_parts_are_shown() {
        let shown = |only: &[&str]| {
            let config = config(only);
            let paths = ["/", "/metrics", "/health", "/ready", "/api/v1/stats"];
            paths.into_iter().filter(|path| is_shown(&config, path)).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(shown(&[]), "/ /metrics /health /ready /api/v1/stats");
        assert_eq!(shown(&["metrics", "health"]), "/metrics /health /ready");
        assert_eq!(shown(&["page"]), "/ /api/v1/stats");
        assert_eq!(shown(&["api"]), "/api/v1/stats");
    }

    #[test]
    fn credentials_are_read_as_rfc_7617_has_them() {
        let read = |text: &str| {
            let found = basic(&HeaderValue::from_str(text).unwrap())?;
            Some(found.reveal().to_owned())
        };
        assert_eq!(read("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==").as_deref(), Some("Aladdin:open sesame"));
        assert_eq!(read("basic  dGVzdDoxMjPCow==").as_deref(), Some("test:123£"));
        let long = format!("Basic {}", "QUFB".repeat(PAGE_CREDENTIALS_BYTES / 4));
        assert_eq!(read(&long), None, "too long");
        for none in ["Basic", "Bearer QWxhZGRpbg==", "Basic %%%", "Basic /w=="] {
            assert_eq!(read(none), None, "{none}");
        }
    }

    #[test]
    fn a_login_is_believed_until_the_configuration_changes_and_only_so_many_are() {
        let (admission, first) = (Admission::new(), Arc::new(config(&[])));
        assert!(admission.guard(&first).is_none());
        let mark = |text: &str| admission.mark(text).unwrap();
        admission.remember(&first, mark("a:b"));
        assert!(admission.is_right(&mark("a:b")) && !admission.is_right(&mark("a:c")));
        for number in 0..PAGE_LOGINS_KEPT {
            admission.remember(&first, mark(&format!("u{number}:p")));
        }
        assert!(!admission.is_right(&mark("a:b")) && admission.is_right(&mark("u0:p")));
        let next = Arc::new(config(&[]));
        admission.guard(&next);
        assert!(!admission.is_right(&mark("u0:p")));
        admission.remember(&first, mark("late:x"));
        assert!(!admission.is_right(&mark("late:x")), "it was judged by what is not in force any more");
    }
}
