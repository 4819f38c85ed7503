//! The page, and what monitoring reads. Nothing here changes anything, and the page asks no other host for anything. Whether
//! it is encrypted, and who may see what of it, is as the configuration in force says: `door.rs`, `admission.rs`.

mod admission;
mod door;
mod secure;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::get;
use ringpost_perf::openmetrics::{self, Format};
use ringpost_perf::report::Report;
use tokio::net::TcpListener;

pub use self::admission::Admission;
use self::door::{Door, Visitor};
use super::Coordinator;

const PAGE: &str = include_str!("page.html");

/// Serves until the engine ends.
pub async fn serve(listener: TcpListener, coordinator: Arc<Coordinator>) {
    let log = coordinator.log.clone();
    let routes = Router::new()
        .route("/", get(page))
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/api/v1/stats", get(stats))
        .layer(from_fn_with_state(coordinator.clone(), guard))
        .with_state(coordinator.clone());
    let routes = routes.into_make_service_with_connect_info::<Visitor>();
    if let Err(error) = axum::serve(Door::open(listener, coordinator), routes).await {
        log.warn(&format_args!("page: {error}"));
    }
}

/// Lets through what the configuration shows, to whom it shows it.
async fn guard(
    State(coordinator): State<Arc<Coordinator>>,
    ConnectInfo(Visitor { from, is_encrypted }): ConnectInfo<Visitor>,
    request: Request,
    next: Next,
) -> Response {
    // One that came before a reload has asked for it: nobody may be made to send a password on it.
    if !is_encrypted && coordinator.config().http.as_ref().is_some_and(|http| http.pki.is_some()) {
        return (StatusCode::FORBIDDEN, [(CONNECTION, "close")], "encrypted connections only\n").into_response();
    }
    if let Err(refusal) = admission::admit(&coordinator, from, request.headers()).await {
        return refusal;
    }
    if !admission::is_shown(&coordinator.config(), request.uri().path()) {
        return StatusCode::NOT_FOUND.into_response();
    }
    next.run(request).await
}

/// The page with a nonce of its own: a script that came in by whatever way does not know it, and does not run.
async fn page() -> Response {
    let nonce = nonce();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let headers = [
        (CONTENT_SECURITY_POLICY, policy),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".into()),
        (REFERRER_POLICY, "no-referrer".into()),
        (CACHE_CONTROL, "no-store".into()),
    ];
    (headers, Html(PAGE.replace("{{nonce}}", &nonce))).into_response()
}

async fn ready(State(coordinator): State<Arc<Coordinator>>) -> (StatusCode, String) {
    match coordinator.shards.not_ready().await {
        None => (StatusCode::OK, "ready\n".into()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn metrics(State(coordinator): State<Arc<Coordinator>>, headers: HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
    let format = Format::accepted(accept);
    let snapshot = coordinator.shards.snapshot().await;
    ([(CONTENT_TYPE, format.content_type())], openmetrics::render(&snapshot, format)).into_response()
}

async fn stats(State(coordinator): State<Arc<Coordinator>>) -> Response {
    let report = Report::new(&*coordinator.shards.snapshot().await);
    ([(CACHE_CONTROL, "no-store")], Json(report)).into_response()
}

/// 128 bits that nobody can foretell: the standard library's hash keys come from the system's random source.
fn nonce() -> String {
    let word = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", word(), word())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_asks_nobody_else_and_all_its_scripts_have_the_nonce() {
        assert_eq!(PAGE.matches("<script").count(), PAGE.matches("<script nonce=\"{{nonce}}\">").count());
        assert_eq!(PAGE.matches("<style").count(), PAGE.matches("<style nonce=\"{{nonce}}\">").count());
        for foreign in ["src=\"http", "href=\"http", "url(", "@import", "style=\"", "onclick", "innerHTML"] {
            assert!(!PAGE.contains(foreign), "{foreign}");
        }
        assert_ne!(nonce(), nonce());
        assert_eq!(nonce().len(), 32);
    }
}
