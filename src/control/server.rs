//! The endpoints behind the control socket: HTTP/1.1, JSON both ways, schemas in [`super::status`].
//!
//! ```text
//! GET  /v1/status                                   Status
//! GET  /v1/links                                    Links
//! GET  /v1/why-slow                                 WhySlow
//! GET  /v1/objects?filter=all|missing|failed&limit= Objects
//! GET  /v1/wait?synced=true&timeout=SECONDS         Status, as soon as it is SYNCED or the time is over
//! GET  /v1/inventory?offset=&limit=                 Inventory, or 422 of a node without a store
//! POST /v1/reload                                   ReloadReport, or 422 and nothing was changed
//! POST /v1/pause?peer=NAME, /v1/resume?peer=NAME    Pause, or 404 where the node has no such peer
//! POST /v1/drain                                    Drain: the node begins to end
//! GET  /v1/livez                                    {"live":true}: all loops turn; or 503 and which does not
//! ```
//!
//! Asks the node through [`Site`] only, on the control thread; it must be a tokio current-thread runtime
//! with I/O and time enabled. How connections are bounded and ended: [`super::connections`].

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State as Shared};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::answers::{
    Drain, ErrorBody, Inventory, Links, ObjectFilter, ObjectStatus, Objects, Pause, ReloadReport, Versioned, WhySlow,
};
use super::connections::converse_until;
use super::figures::Figures;
use super::socket::{ControlError, ControlSocket};
use super::status::{PeerStatus, Status};
use crate::limits;

/// What the control plane asks of a node. Called on the control thread, so each call is quick.
pub trait Site: Send + Sync + 'static {
    /// The node as it is now.
    fn status(&self) -> Status;
    /// Up to `limit` of the objects that `filter` admits, whichever they are, in the order of their names.
    fn objects(&self, filter: ObjectFilter, limit: usize) -> Vec<ObjectStatus>;
    /// Where the node fetches into, and up to `limit` of the objects that it knows its peers to have, in the order of
    /// their names, but for the first `offset`; `None` where it has no store.
    fn inventory(&self, offset: usize, limit: usize) -> Option<Inventory>;
    /// Everyone this node talks to, as in [`Site::status`].
    fn peers(&self) -> Vec<PeerStatus>;
    /// What is measured.
    fn figures(&self) -> Figures;
    /// Why the data plane makes no progress, where it should.
    fn stuck(&self) -> Option<String>;
    /// Why the node cannot do its work yet, or no more.
    fn unready(&self) -> Option<String>;
    /// Looks whether what is marked is still there, and answers when it has; no answer: there is nothing to look at.
    fn check(&self) -> oneshot::Receiver<()>;
    /// Reads the config file again and applies what can be applied, where and when the node does such things. An error
    /// changed nothing, and says what is wrong with the file and where; no answer: the node is ending.
    fn reload(&self) -> oneshot::Receiver<Result<ReloadReport, String>>;
    /// Begins nothing more with `peer` and ends what there is, or goes on with it; whether it was the other way before.
    /// An error: it is no peer of the node, whose peers it names.
    fn set_paused(&self, peer: &str, paused: bool) -> Result<bool, String>;
    /// Begins to end, as at a SIGTERM; returns at once.
    fn drain(&self);
}

impl ControlSocket {
    /// Answers for `site` until `shutdown` ends; then the socket file goes away.
    pub async fn serve(self, site: Arc<dyn Site>, shutdown: impl Future<Output = ()>) -> Result<(), ControlError> {
        converse_until(shutdown, self.served()?, |closing| router(App { site, closing })).await;
        Ok(())
    }
}

#[derive(Clone)]
struct App {
    site: Arc<dyn Site>,
    closing: watch::Receiver<bool>,
}

fn router(app: App) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/links", get(links))
        .route("/v1/why-slow", get(why_slow))
        .route("/v1/objects", get(objects))
        .route("/v1/inventory", get(inventory))
        .route("/v1/wait", get(wait))
        .route("/v1/reload", post(reload))
        .route("/v1/pause", post(pause))
        .route("/v1/resume", post(resume))
        .route("/v1/drain", post(drain))
        .route("/v1/livez", get(livez))
        .fallback(no_such_endpoint)
        .method_not_allowed_fallback(no_such_method)
        .with_state(app)
}

async fn status(Shared(app): Shared<App>) -> Json<Status> {
    Json(app.site.status())
}

async fn links(Shared(app): Shared<App>) -> Json<Versioned<Links>> {
    let Status { node, peers, clients, .. } = app.site.status();
    Json(Versioned::new(Links::SCHEMA, Links { node, peers, clients }))
}

async fn why_slow(Shared(app): Shared<App>) -> Json<Versioned<WhySlow>> {
    Json(Versioned::new(WhySlow::SCHEMA, app.site.status().into()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ObjectsQuery {
    #[serde(default)]
    filter: ObjectFilter,
    limit: Option<usize>,
}

async fn objects(
    Shared(app): Shared<App>,
    query: Result<Query<ObjectsQuery>, QueryRejection>,
) -> Result<Json<Versioned<Objects>>, Refusal> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(limits::CONTROL_OBJECTS_DEFAULT);
    check_limit(limit)?;
    // One more than asked for tells whether there are more.
    let mut objects = app.site.objects(query.filter, limit + 1);
    let truncated = objects.len() > limit;
    objects.truncate(limit);
    Ok(Json(Versioned::new(Objects::SCHEMA, Objects { objects, truncated })))
}

/// One answer tells of so many objects at most.
fn check_limit(limit: usize) -> Result<(), Refusal> {
    if limit > limits::CONTROL_OBJECTS_MAX {
        let error = format!("limit {limit} is more than the {} allowed", limits::CONTROL_OBJECTS_MAX);
        return Err(Refusal::bad_query(error));
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InventoryQuery {
    #[serde(default)]
    offset: usize,
    limit: usize,
}

async fn inventory(
    Shared(app): Shared<App>,
    query: Result<Query<InventoryQuery>, QueryRejection>,
) -> Result<Json<Versioned<Inventory>>, Refusal> {
    let Query(InventoryQuery { offset, limit }) = query?;
    check_limit(limit)?;
    // One more than asked for tells whether there are more.
    let Some(mut inventory) = app.site.inventory(offset, limit + 1) else {
        return Err(Refusal {
            code: StatusCode::UNPROCESSABLE_ENTITY,
            error: "this node has no store: it is an exchange, or serves sessions alone".to_owned(),
            hint: "ask a trader that replicates".to_owned(),
        });
    };
    inventory.truncated = inventory.objects.len() > limit;
    inventory.objects.truncate(limit);
    Ok(Json(Versioned::new(Inventory::SCHEMA, inventory)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WaitQuery {
    synced: bool,
    timeout: Option<f64>,
}

/// Answers at [`limits::CONTROL_WAIT_MAX`] at the latest, whatever was asked for: who wants to wait longer
/// looks at `state` and asks again.
async fn wait(
    Shared(mut app): Shared<App>,
    query: Result<Query<WaitQuery>, QueryRejection>,
) -> Result<Json<Status>, Refusal> {
    let Query(query) = query?;
    if !query.synced {
        return Err(Refusal::bad_query("synced=false: there is nothing else to wait for".to_owned()));
    }
    let longest = limits::CONTROL_WAIT_MAX;
    let patience = query
        .timeout
        .map_or(Ok(longest), Duration::try_from_secs_f64)
        .map_err(|error| Refusal::bad_query(format!("timeout is not a number of seconds: {error}")))?;
    let deadline = Instant::now() + patience.min(longest);
    let mut is_checked = false;
    loop {
        let status = app.site.status();
        if status.is_synced() && !is_checked {
            // What was removed a moment ago may not have been missed yet.
            is_checked = true;
            let _ = timeout(limits::CONTROL_CHECK_WITHIN, app.site.check()).await;
            continue;
        }
        let now = Instant::now();
        if status.is_synced() || now >= deadline || *app.closing.borrow() {
            return Ok(Json(status));
        }
        tokio::select! {
            () = sleep_until(deadline.min(now + limits::CONTROL_POLL_EVERY)) => {}
            _ = app.closing.changed() => {}
        }
    }
}

async fn reload(Shared(app): Shared<App>) -> Result<Json<Versioned<ReloadReport>>, Refusal> {
    let Ok(reloaded) = app.site.reload().await else {
        return Err(Refusal {
            code: StatusCode::SERVICE_UNAVAILABLE,
            error: "the node is ending".to_owned(),
            hint: "it reads the file when it starts again".to_owned(),
        });
    };
    match reloaded {
        Ok(report) => Ok(Json(Versioned::new(ReloadReport::SCHEMA, report))),
        Err(error) => Err(Refusal {
            code: StatusCode::UNPROCESSABLE_ENTITY,
            error,
            hint: "nothing was changed; correct the file and reload again".to_owned(),
        }),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PauseQuery {
    peer: String,
}

type PauseResult = Result<Json<Versioned<Pause>>, Refusal>;

async fn pause(Shared(app): Shared<App>, query: Result<Query<PauseQuery>, QueryRejection>) -> PauseResult {
    set_paused(&*app.site, query?.0.peer, true)
}

async fn resume(Shared(app): Shared<App>, query: Result<Query<PauseQuery>, QueryRejection>) -> PauseResult {
    set_paused(&*app.site, query?.0.peer, false)
}

fn set_paused(site: &dyn Site, peer: String, paused: bool) -> PauseResult {
    match site.set_paused(&peer, paused) {
        Ok(changed) => {
            Ok(Json(Versioned::new(Pause::SCHEMA, Pause { node: site.status().node, peer, paused, changed })))
        }
        Err(error) => Err(Refusal {
            code: StatusCode::NOT_FOUND,
            error,
            hint: "nothing was changed; supersyncctl status shows the peers".to_owned(),
        }),
    }
}

async fn drain(Shared(app): Shared<App>) -> Json<Versioned<Drain>> {
    app.site.drain();
    Json(Versioned::new(Drain::SCHEMA, Drain { node: app.site.status().node, stopped: false }))
}

async fn livez(Shared(app): Shared<App>) -> Result<Json<serde_json::Value>, Refusal> {
    match app.site.stuck() {
        None => Ok(Json(serde_json::json!({ "live": true }))),
        Some(error) => Err(Refusal {
            code: StatusCode::SERVICE_UNAVAILABLE,
            error,
            hint: "restart the daemon, and keep its log".to_owned(),
        }),
    }
}

async fn no_such_endpoint(method: Method, uri: Uri) -> Refusal {
    Refusal {
        code: StatusCode::NOT_FOUND,
        error: format!("no such endpoint: {method} {}", uri.path()),
        hint: "endpoints: GET /v1/status, /v1/links, /v1/why-slow, /v1/objects, /v1/inventory, /v1/wait, /v1/livez; \
               POST /v1/reload, /v1/pause, /v1/resume, /v1/drain. \
               Is this daemon older than its client?"
            .to_owned(),
    }
}

async fn no_such_method(method: Method, uri: Uri) -> Refusal {
    Refusal {
        code: StatusCode::METHOD_NOT_ALLOWED,
        error: format!("{method} does not go with {}", uri.path()),
        hint: "POST /v1/reload, /v1/pause, /v1/resume, /v1/drain; GET for all else".to_owned(),
    }
}

/// An answer that is not what was asked for.
struct Refusal {
    code: StatusCode,
    error: String,
    hint: String,
}

impl Refusal {
    fn bad_query(error: String) -> Self {
        let hint = "objects?filter=all|missing|failed&limit=COUNT, inventory?offset=COUNT&limit=COUNT, \
                    wait?synced=true&timeout=SECONDS, pause?peer=NAME, resume?peer=NAME"
            .to_owned();
        Self { code: StatusCode::BAD_REQUEST, error, hint }
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        Self::bad_query(rejection.body_text())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.code, Json(ErrorBody { error: self.error, hint: Some(self.hint) })).into_response()
    }
}
