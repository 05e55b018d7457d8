//! HTTP: `/metrics` for Prometheus, `/health` (the process answers), `/ready` (reads are open and
//! the checkpoint store works, or clients are passed on to another node), and a status page at `/`.
//!
//! Metrics and the status page tell names of jobs and their errors. From another machine they ask,
//! as SQL does, for the name and password of a user that may log in (`Authorization: Basic`).

use crate::tls::TlsListener;
use crate::{Server, cluster};
use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::serve::IncomingStream;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tidemark_node::cluster::Doorway;
use tidemark_node::{JobStatus, StoreHealth, StoreTrouble};
use tokio::net::TcpListener;

/// Set when the engine has opened.
pub type Slot = Arc<OnceLock<Arc<Server>>>;

/// How long a running node stays ready while its checkpoint store fails: one slow answer is no
/// reason to send clients elsewhere.
const STORE_GRACE: Duration = Duration::from_secs(5);

/// What the status page tells of a job.
const JOB_COLUMNS: [&str; 9] = [
    "Job", "Kind", "State", "Progress", "Rows", "Rows/s", "Epoch", "Memory", "Error",
];

/// The address that a request comes from.
#[derive(Clone, Copy)]
pub struct Peer(IpAddr);

impl Connected<IncomingStream<'_, TcpListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Peer {
        Peer(stream.remote_addr().ip())
    }
}

impl Connected<IncomingStream<'_, TlsListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Peer {
        let address: &SocketAddr = stream.remote_addr();
        Peer(address.ip())
    }
}

/// What `/ready` and the status page look at.
#[derive(Clone)]
struct Readiness {
    slot: Slot,
    store: Arc<StoreHealth>,
    doorway: Doorway,
}

/// The routes; until the slot is filled the node is healthy, and ready only if another one leads.
/// `store` tells, also before that, whether the checkpoint store answers, and `doorway` who leads.
pub fn router(slot: Slot, store: Arc<StoreHealth>, doorway: Doorway) -> Router {
    let readiness = Readiness {
        slot: slot.clone(),
        store,
        doorway,
    };
    Router::new()
        .route("/metrics", get(metrics))
        .route("/", get(status).with_state(readiness.clone()))
        .route_layer(from_fn_with_state(readiness.clone(), admit))
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready).with_state(readiness))
        .with_state(slot)
}

/// Lets a request from another machine pass if it says who sends it.
async fn admit(
    State(Readiness { slot, doorway, .. }): State<Readiness>,
    ConnectInfo(Peer(from)): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    if !from.to_canonical().is_loopback() {
        let Some(server) = slot.get() else {
            // Who may look is known where the catalog is.
            let reason = match doorway.leader() {
                Some(leader) => format!("node {} leads the cluster: ask there", leader.member),
                None => "starting".into(),
            };
            return unready(reason).into_response();
        };
        let (gate, catalog) = (&server.gate, server.engine.catalog());
        let admitted = match basic(request.headers()) {
            _ if gate.is_near(from) => true,
            Some((user, password)) => gate.admits(&catalog, from, &user, &password).await,
            None => false,
        };
        if !admitted {
            let asked = [(header::WWW_AUTHENTICATE, "Basic realm=\"tidemark\"")];
            let told = "the name and password of a user are needed\n";
            return (StatusCode::UNAUTHORIZED, asked, told).into_response();
        }
    }
    next.run(request).await
}

/// The name and the password that a request has.
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let given = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, given) = given.split_once(' ')?;
    let given = BASE64.decode(given.trim()).ok()?;
    let given = String::from_utf8(given).ok()?;
    let (user, password) = given.split_once(':')?;
    let is_basic = scheme.eq_ignore_ascii_case("basic");
    is_basic.then(|| (user.to_string(), password.to_string()))
}

async fn metrics(State(slot): State<Slot>) -> impl IntoResponse {
    if let Some(server) = slot.get() {
        server.engine.observe();
        crate::memory::observe(server);
    }
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        tidemark_common::metrics::render(),
    )
}

async fn ready(State(readiness): State<Readiness>) -> (StatusCode, String) {
    let trouble = readiness.store.trouble();
    if let (None, Some(leader)) = (readiness.slot.get(), readiness.doorway.leader()) {
        let told = format!("ready: node {} leads\n", leader.member);
        return (StatusCode::OK, told);
    }
    match (readiness.slot.get(), trouble) {
        (None, None) => unready("starting".into()),
        (None, Some(trouble)) => unready(format!("starting: {}", told(&trouble))),
        (Some(_), Some(trouble)) if trouble.since.elapsed() > STORE_GRACE => {
            unready(format!("queries are answered, but {}", told(&trouble)))
        }
        _ => (StatusCode::OK, "ready\n".into()),
    }
}

fn unready(reason: String) -> (StatusCode, String) {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n"))
}

fn told(trouble: &StoreTrouble) -> String {
    format!(
        "waiting for the checkpoint store for {} s: {}",
        trouble.since.elapsed().as_secs(),
        trouble.error
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// A table of the status page, whose values are text.
fn table(page: &mut String, head: &[&str], rows: Vec<Vec<Option<String>>>) {
    page.push_str("<table><tr>");
    head.iter().for_each(|name| page.extend(["<th>", name]));
    for row in rows {
        page.push_str("<tr>");
        for value in row {
            page.push_str("<td>");
            page.push_str(&escape(&value.unwrap_or_default()));
        }
    }
    page.push_str("</table>");
}

async fn status(State(readiness): State<Readiness>) -> Html<String> {
    let mut page = String::from(
        "<!doctype html><meta charset=utf-8><title>Tidemark</title><meta http-equiv=refresh \
         content=5>\
         <style>body{font:14px \
         system-ui,sans-serif;margin:2rem;color:#222}table{border-collapse:collapse}\
         td,th{padding:.3rem .8rem;border-bottom:1px solid #ddd;text-align:left}</style>\
         <h1>Tidemark</h1>",
    );
    let Some(server) = readiness.slot.get() else {
        if let Some(leader) = readiness.doorway.leader() {
            // Writing to a String cannot fail.
            let _ = write!(
                page,
                "<p>Node {} leads the cluster: its page, at <code>{}</code>, tells of the work.",
                leader.member,
                escape(&leader.addresses.http)
            );
            return Html(page);
        }
        page.push_str("<p>Starting: state is being restored. <a href=/ready>More</a>");
        return Html(page);
    };
    let checkpoint = server.engine.checkpoints().last().map_or_else(
        || "none yet".into(),
        |c| {
            format!(
                "epoch {}, {} bytes in {} files, {} ms",
                c.epoch, c.bytes, c.files, c.duration_ms
            )
        },
    );
    let _ = write!(
        page,
        "<p>Version {} &middot; SQL on <code>{}</code> &middot; {} clients &middot; last \
         checkpoint: {}",
        env!("CARGO_PKG_VERSION"),
        escape(&server.config.sql),
        server.commons.clients.list().len(),
        escape(&checkpoint)
    );
    let job = |job: JobStatus| {
        let values = [
            job.name.clone(),
            job.kind.into(),
            job.state.into(),
            format!("{:.1}%", job.progress),
            job.rows.to_string(),
            format!("{:.0}", job.rows_per_second),
            job.epoch.to_string(),
            job.memory_bytes.to_string(),
            job.error.unwrap_or_default(),
        ];
        values.map(Some).to_vec()
    };
    let jobs = server.engine.jobs().into_iter().map(job).collect();
    table(&mut page, &JOB_COLUMNS, jobs);
    if server.engine.membership().has_others() {
        page.push_str("<h2>Nodes</h2>");
        table(&mut page, &cluster::COLUMNS, cluster::nodes(server).await);
    }
    Html(page)
}
