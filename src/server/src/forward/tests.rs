//! A leader, a node that passes clients on to it, and clients who speak to that node.

use super::*;
use crate::protocol::startup;
use crate::tls::Tls;
use base64::Engine as _;
use pgwire::messages::PgWireFrontendMessage;
use rustls::pki_types::{CertificateDer, ServerName};
use std::path::PathBuf;
use std::time::Duration;
use tidemark_common::config::Config;
use tidemark_common::network::{Listener, Network};
use tidemark_node::Engine;
use tidemark_node::network::{RealListener, RealNetwork};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;

const PLENTY: Duration = Duration::from_secs(60);

/// A folder that is removed when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let name = format!("tidemark-forward-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Both nodes: one listens for links, the other for clients.
struct Nodes {
    network: RealNetwork,
    leader: RealListener,
    follower: TcpListener,
}

impl Nodes {
    async fn new() -> Nodes {
        let network = RealNetwork::new(None).unwrap();
        let leader = network.listen_at("127.0.0.1:0").await.unwrap();
        let follower = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Nodes {
            network,
            leader,
            follower,
        }
    }

    /// A link from the one to the other.
    async fn link(&mut self) -> (Link, Link) {
        let address = self.leader.address().to_string();
        let (near, far) = tokio::join!(self.network.connect(&address), self.leader.accept());
        (near.unwrap(), far.unwrap())
    }

    /// A client, who says that it is at `from` if that is given; its passing on, which ends by
    /// itself; the link at the leader.
    async fn client(
        &mut self,
        from: Option<&str>,
    ) -> (TcpStream, tokio::task::JoinHandle<()>, Link) {
        let client = TcpStream::connect(self.follower.local_addr().unwrap()).await;
        let (socket, address) = self.follower.accept().await.unwrap();
        let address = from.map_or(address, |from| from.parse().unwrap());
        let (near, far) = self.link().await;
        let passes_on = tokio::spawn(to_leader(socket, address, near));
        (client.unwrap(), passes_on, far)
    }
}

fn hello(user: &str) -> Vec<u8> {
    let parameters = format!("user\0{user}\0database\0dev\0\0");
    let length = (parameters.len() + 8) as u32;
    [
        &length.to_be_bytes()[..],
        &[0, 3, 0, 0],
        parameters.as_bytes(),
    ]
    .concat()
}

fn query(text: &str) -> Vec<u8> {
    let length = (text.len() + 5) as u32;
    [b"Q", &length.to_be_bytes()[..], text.as_bytes(), b"\0"].concat()
}

/// The next message: its kind and what is in it.
async fn message(client: &mut (impl AsyncRead + Unpin)) -> Option<(char, Vec<u8>)> {
    let read = async {
        let kind = client.read_u8().await.ok()?;
        let length = client.read_u32().await.ok()?;
        let mut body = vec![0; length as usize - 4];
        client.read_exact(&mut body).await.ok()?;
        Some((kind.into(), body))
    };
    tokio::time::timeout(PLENTY, read).await.unwrap()
}

/// Messages up to one that the server is ready after, or to the end.
async fn answer(client: &mut (impl AsyncRead + Unpin)) -> Vec<(char, Vec<u8>)> {
    let mut all = Vec::new();
    while let Some(message) = message(client).await {
        let is_last = message.0 == 'Z';
        all.push(message);
        if is_last {
            break;
        }
    }
    all
}

fn kinds(messages: &[(char, Vec<u8>)]) -> String {
    messages.iter().map(|(kind, _)| *kind).collect()
}

async fn server(folder: &Folder) -> Arc<Server> {
    let config = Config {
        data_dir: folder.0.display().to_string(),
        workers: 1,
        ..Config::default()
    };
    let engine = Engine::open(&config).await.unwrap();
    Server::new(engine, config, None).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_over_a_link_is_as_one_of_the_leaders_own() {
    let folder = Folder::new("session");
    let (server, mut nodes) = (server(&folder).await, Nodes::new().await);
    let free = server.connections.available_permits();
    let (mut client, passes_on, link) = nodes.client(None).await;
    let serves = tokio::spawn(serve(server.clone(), link));
    client.write_all(&hello("root")).await.unwrap();
    let greeting = kinds(&answer(&mut client).await);
    assert!(
        greeting.starts_with('R') && greeting.ends_with("KZ"),
        "{greeting}"
    );
    assert!(server.sessions.bytes() > 0);

    // Where the client is, not where the link comes from.
    let address = client.local_addr().unwrap();
    let asks = "select client_addr, client_port from pg_stat_activity where pid = pg_backend_pid()";
    client.write_all(&query(asks)).await.unwrap();
    let rows = answer(&mut client).await;
    assert_eq!(kinds(&rows), "TDCZ");
    let row = String::from_utf8_lossy(&rows[1].1).into_owned();
    assert!(row.contains(&address.port().to_string()), "{row:?}");

    // Much, and read slowly at first; then a long statement.
    let much = "select repeat('x', 1000) from generate_series(1, 20000)";
    client.write_all(&query(much)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let rows = answer(&mut client).await;
    assert_eq!(rows.iter().filter(|(kind, _)| *kind == 'D').count(), 20_000);
    let long = format!("select length('{}')", "y".repeat(1_000_000));
    client.write_all(&query(&long)).await.unwrap();
    let rows = answer(&mut client).await;
    assert!(rows[1].1.ends_with(b"1000000"), "{:?}", rows[1]);

    // It leaves without a word.
    drop(client);
    passes_on.await.unwrap();
    serves.await.unwrap();
    assert_eq!(server.connections.available_permits(), free);
    assert_eq!(server.sessions.bytes(), 0);
    server.engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_in_is_settled_by_where_the_client_is() {
    let folder = Folder::new("address");
    let (server, mut nodes) = (server(&folder).await, Nodes::new().await);
    let (mut client, passes_on, link) = nodes.client(Some("192.0.2.7:5000")).await;
    let serves = tokio::spawn(serve(server.clone(), link));
    client.write_all(&hello("root")).await.unwrap();
    // It is asked for a password, though link and node are on the leader's machine.
    let (kind, body) = message(&mut client).await.unwrap();
    assert_eq!((kind, &body[..4]), ('R', &[0, 0, 0, 10][..]));
    drop(client);
    passes_on.await.unwrap();
    serves.await.unwrap();
    server.engine.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_hears_the_leaders_last_words() {
    let folder = Folder::new("farewell");
    let (server, mut nodes) = (server(&folder).await, Nodes::new().await);
    let (mut client, passes_on, link) = nodes.client(None).await;
    let serves = tokio::spawn(serve(server.clone(), link));
    client.write_all(&hello("root")).await.unwrap();
    answer(&mut client).await;
    let ends = "select pg_terminate_backend(pg_backend_pid())";
    client.write_all(&query(ends)).await.unwrap();
    let words = answer(&mut client).await;
    let (kind, last) = words.last().unwrap();
    assert_eq!(*kind, 'E');
    let last = String::from_utf8_lossy(last);
    assert!(last.contains("FATAL") && last.contains("57P01"), "{last}");
    // The node between them lets go of the client, who is still there.
    passes_on.await.unwrap();
    serves.await.unwrap();
    server.engine.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_client_is_left_when_its_leader_is_gone() {
    let mut nodes = Nodes::new().await;
    let (mut client, passes_on, link) = nodes.client(None).await;
    client.write_all(&hello("root")).await.unwrap();
    drop(link);
    passes_on.await.unwrap();
    assert_eq!(message(&mut client).await, None);
    // And when whoever passes it on stops.
    let (mut client, passes_on, link) = nodes.client(None).await;
    let (mut stream, _) = super::arrive(link).await.unwrap();
    passes_on.abort();
    assert_eq!(message(&mut client).await, None);
    let mut rest = Vec::new();
    let ends = tokio::time::timeout(PLENTY, stream.read_to_end(&mut rest));
    let _ = ends.await.unwrap();
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn a_link_that_tells_no_address_serves_nobody() {
    let mut nodes = Nodes::new().await;
    for first in [&b"select 1"[..], b"", b"\xff\xfe", b"127.0.0.1"] {
        let (mut near, far) = nodes.link().await;
        near.sender.send(Bytes::from(first)).await.unwrap();
        assert!(super::arrive(far).await.is_err(), "{first:?}");
    }
    let (near, far) = nodes.link().await;
    drop(near);
    assert!(super::arrive(far).await.is_err());
}

/// A certificate for `localhost`, and TLS with it for the doors.
fn certificate(folder: &Folder) -> (CertificateDer<'static>, Arc<Tls>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
    let file = |label: &str, der: &[u8]| {
        let path = folder.0.join(label);
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        let pem = format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n");
        std::fs::write(&path, pem).unwrap();
        path.display().to_string()
    };
    let config = Config {
        tls_cert: file("CERTIFICATE", made.cert.der()),
        tls_key: file("PRIVATE KEY", &made.signing_key.serialize_der()),
        ..Config::default()
    };
    (made.cert.der().clone(), Tls::new(&config).unwrap().unwrap())
}

fn connector(trusted: &CertificateDer<'static>, protocols: &[&[u8]]) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

/// Agrees on TLS with a client who speaks to `socket`, and repeats what it says then.
async fn greet<S: crate::stream::Arrival>(stream: S, tls: &Tls) -> bool {
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let arrived = startup::arrive(stream, address, Some(tls), PLENTY).await;
    let Some((mut wire, PgWireFrontendMessage::Startup(startup))) = arrived else {
        return false;
    };
    assert!(wire.get_ref().is_encrypted());
    let user = startup.parameters.get("user").unwrap().as_bytes();
    wire.get_mut().write_all(user).await.unwrap();
    wire.get_mut().shutdown().await.unwrap();
    true
}

async fn speak_tls(
    client: impl AsyncRead + AsyncWrite + Unpin,
    connector: &TlsConnector,
) -> io::Result<Vec<u8>> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut session = connector.connect(name, client).await?;
    session.write_all(&hello("ann")).await?;
    session.flush().await?;
    let mut answer = Vec::new();
    session.read_to_end(&mut answer).await?;
    Ok(answer)
}

const WANTS_GSS: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];
const WANTS_TLS: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

#[tokio::test]
async fn tls_is_agreed_on_with_the_leader() {
    let folder = Folder::new("tls");
    let (trusted, tls) = certificate(&folder);
    let mut nodes = Nodes::new().await;
    let asking = connector(&trusted, &[]);
    let (mut client, passes_on, link) = nodes.client(None).await;
    let asks = async {
        client.write_all(&WANTS_GSS).await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'N');
        client.write_all(&WANTS_TLS).await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'S');
        speak_tls(client, &asking).await.unwrap()
    };
    let (stream, _) = super::arrive(link).await.unwrap();
    let (answer, came) = tokio::join!(asks, greet(stream, &tls));
    assert!(came);
    assert_eq!(answer, b"ann");
    passes_on.await.unwrap();
}

#[tokio::test]
async fn tls_without_asking_names_what_is_meant() {
    let folder = Folder::new("direct");
    let (trusted, tls) = certificate(&folder);
    let mut nodes = Nodes::new().await;
    for (protocols, comes) in [(&[&b"postgresql"[..]][..], true), (&[], false)] {
        let connector = connector(&trusted, protocols);
        let (client, passes_on, link) = nodes.client(None).await;
        let (stream, _) = super::arrive(link).await.unwrap();
        let (answer, came) = tokio::join!(speak_tls(client, &connector), greet(stream, &tls));
        assert_eq!(came, comes);
        assert_eq!(answer.is_ok_and(|answer| answer == b"ann"), comes);
        passes_on.await.unwrap();
        // The same without a node between them.
        let client = TcpStream::connect(nodes.follower.local_addr().unwrap()).await;
        let (socket, _) = nodes.follower.accept().await.unwrap();
        let spoken = speak_tls(client.unwrap(), &connector);
        let (answer, came) = tokio::join!(spoken, greet(socket, &tls));
        assert_eq!(came, comes);
        assert_eq!(answer.is_ok_and(|answer| answer == b"ann"), comes);
    }
}

#[tokio::test]
async fn nothing_that_is_not_encrypted_gets_behind_a_request_for_tls() {
    let folder = Folder::new("stuffed");
    let (_, tls) = certificate(&folder);
    let mut nodes = Nodes::new().await;
    let (mut client, passes_on, link) = nodes.client(None).await;
    let sent = [&WANTS_TLS[..], &hello("root")].concat();
    client.write_all(&sent).await.unwrap();
    let (stream, _) = super::arrive(link).await.unwrap();
    assert!(!greet(stream, &tls).await);
    passes_on.await.unwrap();
}
