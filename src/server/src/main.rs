//! The binary `tidemark`: reads its settings, opens the engine, opens the doors, waits for a
//! signal; or makes or restores a backup, which needs none of that.
//!
//! What goes wrong before the doors are open ends the process with one line on stderr and exit code
//! 1.

// Not a part of what is simulated.
#![allow(clippy::disallowed_methods)]

use clap::Parser;
use std::net::SocketAddr;
use std::sync::Arc;
use tidemark_common::config::Config;
use tidemark_common::network::Link;
use tidemark_common::{Error, ErrorKind, Result, machine};
use tidemark_node::cluster::Doorway;
use tidemark_node::network::{RealNetwork, SECRET_VARIABLE, Secret};
use tidemark_node::{CatalogChange, Engine, Services, StoreHealth};
use tidemark_plan::{ROOT, Role};
use tidemark_server::cli::{Cli, Command, Start};
use tidemark_server::http::Slot;
use tidemark_server::lanes::Lanes;
use tidemark_server::tls::{Tls, TlsListener};
use tidemark_server::{Server, auth, backup, forward, http, protocol};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

fn main() {
    match Cli::parse().into_command() {
        Command::Start(start) => start_node(*start),
        Command::Backup(words) => finish(backup::back_up(&words)),
        Command::Restore(words) => finish(backup::restore(&words)),
    }
}

fn start_node(start: Start) {
    let first_password = start.makes_first_password();
    let config = start.into_config().unwrap_or_else(|e| fail(&e));
    let structured = start_logging().unwrap_or_else(|e| fail(&e));
    let runtime = runtime();
    if let Err(e) = runtime.block_on(run(config, structured, first_password)) {
        fail(&e);
    }
    // Reads of a source and merges of files may still be under way; they hold nothing that must be
    // saved, and must not meet a runtime that ends.
    std::process::exit(0);
}

fn runtime() -> Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("tidemark")
        .thread_stack_size(tidemark_common::STACK_BYTES)
        .enable_all()
        .build();
    runtime.unwrap_or_else(|e| fail(&Error::from(e)))
}

/// Does what a command without a server says.
fn finish(work: impl Future<Output = Result<()>>) {
    start_logging().unwrap_or_else(|e| fail(&e));
    if let Err(e) = runtime().block_on(work) {
        fail(&e);
    }
}

fn fail(error: &Error) -> ! {
    eprintln!(
        "tidemark: {error}{}{}",
        error.detail().map(|d| format!(". {d}")).unwrap_or_default(),
        error
            .hint()
            .map(|h| format!(" ({})", h.trim_end_matches('.')))
            .unwrap_or_default()
    );
    std::process::exit(1);
}

/// Text on stderr, or JSON with `TIDEMARK_LOG_FORMAT=json`; says whether it is JSON. `TIDEMARK_LOG`
/// filters, `info` by default.
fn start_logging() -> Result<bool> {
    use std::io::IsTerminal;
    let bad = |what: String| Error::user(tidemark_common::SqlState::INVALID_PARAMETER, what);
    let filter = std::env::var("TIDEMARK_LOG")
        .ok()
        .filter(|f| !f.is_empty())
        .unwrap_or_else(|| "info".into());
    let filter = tracing_subscriber::EnvFilter::try_new(&filter)
        .map_err(|e| bad(format!("TIDEMARK_LOG={filter}: {e}")))?;
    let structured = match std::env::var("TIDEMARK_LOG_FORMAT")
        .unwrap_or_else(|_| "text".into())
        .to_lowercase()
        .as_str()
    {
        "json" => true,
        "text" => false,
        other => return Err(bad(format!("TIDEMARK_LOG_FORMAT={other}: json or text"))),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if structured {
        builder.json().flatten_event(true).init();
    } else {
        builder
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal())
            .init();
    }
    Ok(structured)
}

async fn bind(what: &str, address: &str, flag: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|e| {
        let reason = if e.kind() == std::io::ErrorKind::AddrInUse {
            "the address is in use".into()
        } else {
            e.to_string()
        };
        Error::new(
            ErrorKind::Unavailable,
            tidemark_common::SqlState::IO_ERROR,
            format!("cannot listen for {what} on {address}: {reason}"),
        )
        .with_hint(format!("Choose another with --{flag}."))
    })
}

async fn run(config: Config, structured: bool, first_password: bool) -> Result<()> {
    let tls = Tls::new(&config)?;
    // Ports first: a second node on this machine is told at once, before it waits for the data
    // folder.
    let sql = bind("SQL", &config.sql, "sql").await?;
    let web = bind("HTTP", &config.http, "http").await?;
    let slot = Slot::default();
    let store = Arc::new(StoreHealth::default());
    let doorway = Doorway::default();
    let router = http::router(slot.clone(), store.clone(), doorway.clone());
    let service = router.into_make_service_with_connect_info::<http::Peer>();
    let web_tls = tls.clone();
    tokio::spawn(async move {
        let served = match web_tls {
            None => axum::serve(web, service).await,
            Some(tls) => axum::serve(TlsListener::new(web, tls), service).await,
        };
        if let Err(e) = served {
            tracing::error!(error = %e, "HTTP stopped");
        }
    });
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let started = std::time::Instant::now();
    let services = Services {
        health: store,
        network: Some(Arc::new(RealNetwork::new(cluster_secret(&config)?)?)),
        doorway: doorway.clone(),
        ..Services::default()
    };
    // Until this node leads, whoever comes is passed on to the one that does.
    let engine = tokio::select! {
        engine = Engine::open_with(&config, services) => engine?,
        () = accept(&sql, |socket, client| {
            tokio::spawn(pass_on(socket, client, doorway.clone(), tls.clone()));
            Ok(())
        }) => return Ok(()),
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let password = match first_password {
        true => make_first_password(&engine).await?,
        false => None,
    };
    if let Err(refused) = auth::check_doors(&config, &engine.catalog()) {
        engine.shutdown().await?;
        return Err(refused);
    }
    if let Some(tls) = tls.clone() {
        reload_on_hangup(tls)?;
    }
    let lanes = Lanes::start()?;
    let server = Server::new(engine.clone(), config.clone(), tls)?;
    let _ = slot.set(server.clone());
    let jobs = engine.jobs().len();
    let seconds = started.elapsed().as_secs_f64();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"), sql = %config.sql, http = %config.http,
        data_dir = %config.data_dir, jobs, seconds, "ready"
    );
    if !structured {
        banner(&config);
    }
    if let Some(password) = password {
        eprintln!("  password  {password}  (of root; it is shown this once)\n");
    }
    tokio::spawn(serve_passed_on(doorway.handed_on(), server.clone()));
    tokio::select! {
        () = accept(&sql, |socket, client| {
            let server = server.clone();
            lanes.give(socket, move |socket| {
                protocol::counted(&server, protocol::serve(server.clone(), socket, client))
            })
        }) => {}
        _ = terminate.recv() => tracing::info!("SIGTERM: taking a last checkpoint"),
        _ = interrupt.recv() => tracing::info!("interrupted: taking a last checkpoint"),
    }
    machine::told_to_end();
    engine.shutdown().await?;
    tracing::info!("stopped");
    Ok(())
}

/// The secret that the nodes of the cluster share, if there is one.
fn cluster_secret(config: &Config) -> Result<Option<Secret>> {
    match std::env::var(SECRET_VARIABLE) {
        Ok(secret) if !secret.is_empty() => Secret::new(secret.as_bytes()).map(Some),
        _ if config.cluster_secret_file.is_empty() => Ok(None),
        _ => Secret::read(&config.cluster_secret_file).map(Some),
    }
}

/// Passes a client on to the node that leads, if that is another one.
async fn pass_on(socket: TcpStream, client: SocketAddr, doorway: Doorway, tls: Option<Arc<Tls>>) {
    match doorway.to_leader().await {
        Some(Ok(link)) => forward::to_leader(socket, client, link).await,
        Some(Err(error)) => {
            tracing::debug!(%client, %error, "a client is turned away");
            protocol::turn_away(socket, client, tls).await;
        }
        None => protocol::turn_away(socket, client, tls).await,
    }
}

/// Serves the clients whom other nodes pass on.
async fn serve_passed_on(mut links: mpsc::Receiver<Link>, server: Arc<Server>) {
    while let Some(link) = links.recv().await {
        tokio::spawn(forward::serve(server.clone(), link));
    }
}

/// Gives `root` a password that nobody guesses, and lets it log in, if it has none that it comes in
/// with.
async fn make_first_password(engine: &Engine) -> Result<Option<String>> {
    let mut root = engine.catalog().role(ROOT).unwrap_or(Role::new(ROOT));
    if !auth::is_kept_out(&root) {
        tracing::info!("root has a password already");
        return Ok(None);
    }
    let password = auth::random_password()?;
    root.verifier = Some(auth::Verifier::of(&password)?.text());
    (root.login, root.valid_until) = (true, None);
    let role = Box::new(root);
    let changes = vec![CatalogChange::AlterRole { role }];
    engine.change_catalog(changes, false).await?;
    Ok(Some(password))
}

/// Reads certificate and key again whenever SIGHUP comes.
fn reload_on_hangup(tls: Arc<Tls>) -> Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            match tls.reload() {
                Ok(()) => tracing::info!("SIGHUP: certificate and key were read again"),
                Err(e) => tracing::error!(error = %e, "SIGHUP: the certificate stays as it was"),
            }
        }
    });
    Ok(())
}

fn banner(config: &Config) {
    // Who listens everywhere is reached here, too; psql takes an IPv6 address without its brackets.
    let (host, port) = reachable(&config.sql);
    let (web, web_port) = reachable(&config.http);
    eprintln!(
        "\nTidemark {} is ready\n\n  connect   psql -h {} -p {port} -d dev -U root\n  status    \
         http://{web}:{web_port}/\n  metrics   http://{web}:{web_port}/metrics\n  data      {}\n",
        env!("CARGO_PKG_VERSION"),
        host.trim_matches(['[', ']']),
        config.data_dir
    );
}

/// Host and port at which this machine's clients find an address.
fn reachable(address: &str) -> (&str, &str) {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    match host {
        "0.0.0.0" => ("127.0.0.1", port),
        "[::]" => ("[::1]", port),
        other => (other, port),
    }
}

/// Hands the clients that come to `give`, for ever.
async fn accept(
    listener: &TcpListener,
    give: impl Fn(TcpStream, SocketAddr) -> std::io::Result<()>,
) {
    loop {
        let given = listener.accept().await.and_then(|(socket, client)| {
            let _ = socket.set_nodelay(true);
            give(socket, client)
        });
        if let Err(e) = given {
            // Out of file descriptors: wait for some client to leave.
            tracing::warn!(error = %e, "a connection could not be accepted");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
}
