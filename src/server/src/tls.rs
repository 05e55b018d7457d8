//! TLS for SQL and HTTP: certificate and key from files, read again on SIGHUP. Connections that are
//! open keep the certificate that they began with.

use axum::serve::Listener;
use parking_lot::RwLock;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tidemark_common::config::Config;
use tidemark_common::{Error, Result, SqlState};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a client of HTTP may take to agree on a key.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Clients of HTTP that are waited for at a time.
const WAITING_MAX: usize = 64;

/// What clients of SQL who begin with TLS, unasked, say that they mean.
pub const SQL_PROTOCOL: &[u8] = b"postgresql";

/// What both doors speak TLS with.
pub struct Tls {
    cert: String,
    key: String,
    client_ca: String,
    current: RwLock<Acceptors>,
}

#[derive(Clone)]
struct Acceptors {
    sql: TlsAcceptor,
    http: TlsAcceptor,
}

impl Tls {
    /// As the configuration says; `None` if it names no certificate.
    ///
    /// Errors: `22023` with the file that cannot be read, or is no certificate or key.
    pub fn new(config: &Config) -> Result<Option<Arc<Tls>>> {
        if config.tls_cert.is_empty() {
            return Ok(None);
        }
        let files = [&config.tls_cert, &config.tls_key, &config.tls_client_ca];
        let [cert, key, client_ca] = files.map(String::clone);
        let current = RwLock::new(acceptors(&cert, &key, &client_ca)?);
        Ok(Some(Arc::new(Tls {
            cert,
            key,
            client_ca,
            current,
        })))
    }

    /// Reads the files again; what was read before stays if they cannot be.
    pub fn reload(&self) -> Result<()> {
        let read = acceptors(&self.cert, &self.key, &self.client_ca)?;
        *self.current.write() = read;
        Ok(())
    }

    /// What a client of SQL meets.
    pub fn sql(&self) -> TlsAcceptor {
        self.current.read().sql.clone()
    }
}

fn wrong(file: &str, what: impl std::fmt::Display) -> Error {
    Error::user(SqlState::INVALID_PARAMETER, format!("{file}: {what}"))
}

fn certificates(file: &str) -> Result<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_file_iter(file).map_err(|e| wrong(file, e))?;
    let all: Vec<_> = all.collect::<Result<_, _>>().map_err(|e| wrong(file, e))?;
    match all.is_empty() {
        true => Err(wrong(file, "there is no certificate in PEM form")),
        false => Ok(all),
    }
}

fn acceptors(cert: &str, key: &str, client_ca: &str) -> Result<Acceptors> {
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| wrong(key, e))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::internal(e.to_string()))?;
    let builder = if client_ca.is_empty() {
        builder.with_no_client_auth()
    } else {
        let mut roots = RootCertStore::empty();
        for one in certificates(client_ca)? {
            roots.add(one).map_err(|e| wrong(client_ca, e))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
        builder.with_client_cert_verifier(verifier.build().map_err(|e| wrong(client_ca, e))?)
    };
    let plain = builder
        .with_single_cert(certificates(cert)?, private)
        .map_err(|e| wrong(cert, e))?;
    let speaking = |protocol: &[u8]| {
        let mut config = plain.clone();
        config.alpn_protocols = vec![protocol.to_vec()];
        TlsAcceptor::from(Arc::new(config))
    };
    Ok(Acceptors {
        sql: speaking(SQL_PROTOCOL),
        http: speaking(b"http/1.1"),
    })
}

/// HTTP's clients, those with whom a key was agreed on.
pub struct TlsListener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    local: std::io::Result<SocketAddr>,
}

impl TlsListener {
    /// Those that come to `listener`.
    pub fn new(listener: TcpListener, tls: Arc<Tls>) -> TlsListener {
        let local = listener.local_addr();
        let (sender, ready) = mpsc::channel(WAITING_MAX);
        tokio::spawn(async move {
            let mut listener = listener;
            // Each by itself: one that says nothing holds up nobody.
            while let Ok(place) = sender.clone().reserve_owned().await {
                let (socket, peer) = Listener::accept(&mut listener).await;
                let acceptor = tls.current.read().http.clone();
                tokio::spawn(async move {
                    let agreed = acceptor.accept(socket);
                    if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, agreed).await {
                        place.send((stream, peer));
                    }
                });
            }
        });
        TlsListener { ready, local }
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(client) => client,
            // Nobody accepts any more: the node leaves.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        let local = self.local.as_ref();
        local.copied().map_err(|e| e.kind().into())
    }
}
