//! HTTP: `/metrics` for Prometheus, `/health` (the process answers), `/ready` (reads are open), and
//! a status page at `/`.

use crate::Server;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use std::fmt::Write;
use std::sync::{Arc, OnceLock};

/// Set when the engine has opened.
pub type Slot = Arc<OnceLock<Arc<Server>>>;

/// The routes; until the slot is filled the node is healthy and not ready.
pub fn router(slot: Slot) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .route("/", get(status))
        .with_state(slot)
}

async fn metrics(State(slot): State<Slot>) -> impl IntoResponse {
    if let Some(server) = slot.get() {
        server.engine.observe();
    }
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        tidemark_common::metrics::render(),
    )
}

async fn ready(State(slot): State<Slot>) -> (StatusCode, &'static str) {
    if slot.get().is_some() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "starting\n")
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

async fn status(State(slot): State<Slot>) -> Html<String> {
    let mut page = String::from(
        "<!doctype html><meta charset=utf-8><title>Tidemark</title><meta http-equiv=refresh \
         content=5>\
         <style>body{font:14px \
         system-ui,sans-serif;margin:2rem;color:#222}table{border-collapse:collapse}\
         td,th{padding:.3rem .8rem;border-bottom:1px solid #ddd;text-align:left}</style>\
         <h1>Tidemark</h1>",
    );
    let Some(server) = slot.get() else {
        page.push_str("<p>Starting: state is being restored.");
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
    // Writing to a String cannot fail.
    let _ = write!(
        page,
        "<p>Version {} &middot; SQL on <code>{}</code> &middot; {} clients &middot; last \
         checkpoint: {}\
         <table><tr><th>Job<th>Kind<th>State<th>Progress<th>Rows\
          <th>Rows/s<th>Epoch<th>Memory<th>Error",
        env!("CARGO_PKG_VERSION"),
        escape(&server.config.sql),
        server.clients.list().len(),
        escape(&checkpoint)
    );
    for job in server.engine.jobs() {
        let _ = write!(
            page,
            "<tr><td>{}<td>{}<td>{}<td>{:.1}%<td>{}<td>{:.0}<td>{}<td>{}<td>{}",
            escape(&job.name),
            job.kind,
            job.state,
            job.progress,
            job.rows,
            job.rows_per_second,
            job.epoch,
            job.memory_bytes,
            escape(job.error.as_deref().unwrap_or_default())
        );
    }
    page.push_str("</table>");
    Html(page)
}
