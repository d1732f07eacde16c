//! What `control.http` serves, to this host alone: a page to look at, metrics, health. Nothing can be changed through
//! it.
//!
//! ```text
//! GET /         the page: one HTML file, which follows /events
//! GET /events   server-sent events: first `history`, then a Status of supersync.status/1 each second; 503: too many read them
//! GET /metrics  OpenMetrics 1.0, or the older text format for those who accept only that
//! GET /livez    200: all loops turn; 503 and which does not
//! GET /readyz   200: the node listens, or dials, and its store has been scanned; 503 and what is not so
//! ```
//!
//! A browser on this host may be told by any page to ask us: so there is no answer to a request that names another host
//! than this one (what a name that was made to point here would do), none that a page of another origin may read, and
//! the page itself may load nothing and talk to nobody but its daemon.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Request, State as Shared};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::sse::{Event, Sse};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use futures_util::stream::{Stream, unfold};
use rand::RngExt as _;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::connections::converse_until;
use super::figures::Format;
use super::server::Site;
use super::socket::{ControlError, ControlSocket};
use super::status::PeerStatus;
use crate::limits;

/// Stands in the page where the number goes that tells its own script and style from others.
const NONCE: &str = "{nonce}";
const PAGE: &str = include_str!("page.html");

/// The page's door: bound, and not yet served.
#[derive(Debug)]
pub struct HttpDoor(Door);

#[derive(Debug)]
enum Door {
    Loopback(SocketAddr, TcpListener),
    Socket(ControlSocket),
}

impl HttpDoor {
    /// Listens on `address`, which is one of loopback.
    pub fn loopback(address: SocketAddr) -> Result<Self, ControlError> {
        debug_assert!(address.ip().is_loopback(), "{address} is not of loopback");
        let bind = || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(Door::Loopback(listener.local_addr()?, listener))
        };
        bind().map(Self).map_err(|source| ControlError::Listen { address, source })
    }

    /// Listens on a unix socket at `path`, under the rules of [`ControlSocket::bind`].
    pub fn socket(path: &Path) -> Result<Self, ControlError> {
        ControlSocket::bind(path).map(|socket| Self(Door::Socket(socket)))
    }

    /// Where it listens, with the port that the kernel chose for port 0; `None` on a unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.0 {
            Door::Loopback(address, _) => Some(*address),
            Door::Socket(_) => None,
        }
    }

    /// Answers for `site` until `shutdown` ends.
    pub async fn serve(self, site: Arc<dyn Site>, shutdown: impl Future<Output = ()>) -> Result<(), ControlError> {
        let history = Arc::new(Mutex::new(History::default()));
        let readers = Arc::new(Semaphore::new(limits::PAGE_READERS_MAX));
        let app = |closing| App {
            site: Arc::clone(&site),
            history: Arc::clone(&history),
            readers: Arc::clone(&readers),
            closing,
        };
        let recording = record(Arc::clone(&site), Arc::clone(&history));
        match self.0 {
            Door::Loopback(address, listener) => {
                let failed = |source| ControlError::Listen { address, source };
                let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
                tokio::select! {
                    () = converse_until(shutdown, listener, |closing| router(app(closing))) => Ok(()),
                    never = recording => match never {},
                }
            }
            Door::Socket(socket) => {
                tokio::select! {
                    () = converse_until(shutdown, socket.served()?, |closing| router(app(closing))) => Ok(()),
                    never = recording => match never {},
                }
            }
        }
    }
}

impl fmt::Display for HttpDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Door::Loopback(address, _) => write!(f, "http://{address}/"),
            Door::Socket(socket) => socket.path().display().fmt(f),
        }
    }
}

#[derive(Clone)]
struct App {
    site: Arc<dyn Site>,
    history: Arc<Mutex<History>>,
    /// Places of those who read events.
    readers: Arc<Semaphore>,
    closing: watch::Receiver<bool>,
}

fn router(app: App) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/events", get(events))
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .fallback(no_such_page)
        .method_not_allowed_fallback(only_get)
        .layer(middleware::from_fn(guard))
        .with_state(app)
}

// -- who may ask
// -------------------------------------------------------------------------------------------------------

/// Refuses who asks for another host than this one, and forbids others to make use of an answer.
async fn guard(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or_default());
    let mut response = match host {
        Some(host) if is_this_host(host) => next.run(request).await,
        _ => {
            let told = "this is answered for localhost only: ask for http://localhost:PORT/, from another host through \
                        `ssh -L PORT:127.0.0.1:PORT HOST`\n";
            (StatusCode::FORBIDDEN, told).into_response()
        }
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    let nothing = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(nothing);
    response
}

/// Whether a `Host` header names this host: any port, for it may be reached through a tunnel.
fn is_this_host(host: &str) -> bool {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let name = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

// -- what is answered
// --------------------------------------------------------------------------------------------------

async fn page() -> Response {
    let nonce = format!("{:032x}", rand::rng().random::<u128>());
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let html = Html(PAGE.replace(NONCE, &nonce));
    ([(header::CONTENT_SECURITY_POLICY, policy)], html).into_response()
}

async fn metrics(Shared(app): Shared<App>, headers: HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let format = accepted.map_or(Format::OpenMetrics, Format::accepted);
    match app.site.figures().write(format) {
        Ok(text) => ([(header::CONTENT_TYPE, format.content_type())], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn livez(Shared(app): Shared<App>) -> Response {
    health(app.site.stuck())
}

async fn readyz(Shared(app): Shared<App>) -> Response {
    health(app.site.stuck().or_else(|| app.site.unready()))
}

fn health(trouble: Option<String>) -> Response {
    match trouble {
        None => "ok\n".into_response(),
        Some(trouble) => (StatusCode::SERVICE_UNAVAILABLE, format!("{trouble}\n")).into_response(),
    }
}

async fn no_such_page(uri: Uri) -> Response {
    let told = format!("there is no {} here: /, /metrics, /livez, /readyz, /events\n", uri.path());
    (StatusCode::NOT_FOUND, told).into_response()
}

async fn only_get(method: Method) -> Response {
    let told = format!("{method}: this can be looked at with GET, and not be changed; supersyncctl has commands\n");
    (StatusCode::METHOD_NOT_ALLOWED, told).into_response()
}

/// What a stream of events goes on with.
struct Telling {
    app: App,
    every: Interval,
    began: bool,
    /// Held until its reader is gone.
    _place: OwnedSemaphorePermit,
}

async fn events(Shared(app): Shared<App>) -> Result<Sse<impl Stream<Item = Result<Event, axum::Error>>>, Response> {
    let Ok(place) = Arc::clone(&app.readers).try_acquire_owned() else {
        let told = format!("{} read events already, which is as many as may\n", limits::PAGE_READERS_MAX);
        return Err((StatusCode::SERVICE_UNAVAILABLE, told).into_response());
    };
    let mut every = interval(limits::PAGE_EVERY);
    // Who reads slowly is told less often.
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Ok(Sse::new(unfold(Telling { app, every, began: false, _place: place }, tell)))
}

async fn tell(mut telling: Telling) -> Option<(Result<Event, axum::Error>, Telling)> {
    if !std::mem::replace(&mut telling.began, true) {
        let event = Event::default().event("history").json_data(&*lock(&telling.app.history));
        return Some((event, telling));
    }
    tokio::select! {
        _ = telling.every.tick() => {}
        _ = telling.app.closing.wait_for(|closing| *closing) => return None,
    }
    let event = Event::default().json_data(telling.app.site.status());
    Some((event, telling))
}

// -- history
// -----------------------------------------------------------------------------------------------------------

/// How fast the links were, lately.
#[derive(Debug, Default, Serialize)]
struct History {
    links: BTreeMap<String, BTreeMap<u32, VecDeque<[f64; 2]>>>,
}

impl History {
    /// Notes the links' rates now; those that are no more are forgotten.
    fn note(&mut self, peers: &[PeerStatus]) {
        self.links.retain(|name, _| peers.iter().any(|peer| peer.name == *name));
        for peer in peers {
            let links = self.links.entry(peer.name.clone()).or_default();
            links.retain(|number, _| peer.links.iter().any(|link| link.number == *number));
            for link in &peer.links {
                let rates = links.entry(link.number).or_default();
                if rates.len() == limits::PAGE_HISTORY_MAX {
                    rates.pop_front();
                }
                rates.push_back([link.rate_in.round(), link.rate_out.round()]);
            }
        }
    }
}

async fn record(site: Arc<dyn Site>, history: Arc<Mutex<History>>) -> Infallible {
    let mut every = interval(limits::PAGE_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let peers = site.peers();
        lock(&history).note(&peers);
    }
}

fn lock(history: &Mutex<History>) -> std::sync::MutexGuard<'_, History> {
    history.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_host_are_answered() {
        let check = |host: &str, expected: bool| assert_eq!(is_this_host(host), expected, "{host:?}");
        for host in ["localhost", "localhost:7190", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:8080", "127.1.2.3:9"] {
            check(host, true);
        }
        for host in ["[::1]", "[::1]:7190"] {
            check(host, true);
        }
        for host in ["", ":", ":7190", "evil.example", "evil.example:7190", "localhost.evil.example", "10.1.1.5:7190"] {
            check(host, false);
        }
        for host in ["127.0.0.1.evil.example", "127.0.0.1:", "localhost:x", "0.0.0.0:7190", "[::]:7190", "[fd00::1]"] {
            check(host, false);
        }
    }

    #[test]
    fn a_reader_that_accepts_the_older_format_alone_is_given_it() {
        let check = |accept: &str, expected| assert_eq!(Format::accepted(accept), expected, "{accept}");
        check("*/*", Format::OpenMetrics);
        check("text/html,application/xhtml+xml,*/*;q=0.8", Format::OpenMetrics);
        check("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3", Format::OpenMetrics);
        check("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", Format::Prometheus);
    }
}
