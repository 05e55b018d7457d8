//! Two nodes on this machine, and those who are none.

use super::*;
use crate::network::frames;
use crate::network::tls::{Socket, Tls};
use bytes::{Bytes, BytesMut};
use std::time::Duration;
use tidemark_common::network::FRAME_BYTES_MAX;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::TlsStream;

const PLENTY: Duration = Duration::from_secs(60);
const NO_TLS: &str = "it speaks no TLS: it has no cluster secret, or is no node";
const ONLY_TLS: &str = "it speaks TLS: it has a cluster secret, and this node has none";
const ANOTHER: &str = "its cluster secret is another one";

fn network(secret: Option<&str>) -> RealNetwork {
    let secret = secret.map(|text| Secret::new(text.as_bytes()).unwrap());
    RealNetwork::new(secret).unwrap()
}

fn guarded() -> RealNetwork {
    network(Some("a secret of all nodes"))
}

async fn listen(network: &RealNetwork) -> (RealListener, String) {
    let listener = network.listen_at("127.0.0.1:0").await.unwrap();
    let address = listener.address().to_string();
    (listener, address)
}

/// Both ends of a link: of who connected, and of who was called.
async fn linked(network: &RealNetwork) -> (Link, Link) {
    let (mut listener, address) = listen(network).await;
    let (connected, accepted) = tokio::join!(network.connect(&address), listener.accept());
    (connected.unwrap(), accepted.unwrap())
}

/// Why a node is turned away by another.
async fn refused(by: &RealNetwork, who: &RealNetwork) -> Error {
    let (_listener, address) = listen(by).await;
    let error = who.connect(&address).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    error
}

/// Why a node that listens turns away a connection, which speaks as `other` does.
async fn turned_away<F: Future>(by: &RealNetwork, other: impl FnOnce(TcpStream) -> F) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).await;
    let (accepted, _) = listener.accept().await.unwrap();
    let agreed = by.handshake.agree(accepted, Role::Listens);
    let (agreed, _) = tokio::join!(agreed, other(socket.unwrap()));
    agreed.err().unwrap().to_string()
}

fn frame(length: usize, salt: usize) -> Bytes {
    (0..length).map(|i| (i * 31 + salt) as u8).collect()
}

#[tokio::test]
async fn frames_arrive_whole_in_order_and_both_ways() {
    for network in [network(None), guarded()] {
        let (one, other) = linked(&network).await;
        let lengths = [0, 1, 10 << 20, 7, 16 << 10, 65_536, 100_000, 0, 3];
        let send = async |mut link: Link| {
            let (mut sender, mut receiver) = (link.sender, link.receiver);
            let sends = async {
                for (i, length) in lengths.into_iter().cycle().take(45).enumerate() {
                    sender.send(frame(length, i)).await.unwrap();
                }
                drop(sender);
            };
            let receives = async {
                for (i, length) in lengths.into_iter().cycle().take(45).enumerate() {
                    let got = receiver.receive().await.unwrap().unwrap();
                    assert!(got == frame(length, i), "frame {i}");
                }
                assert_eq!(receiver.receive().await.unwrap(), None);
                assert_eq!(receiver.receive().await.unwrap(), None);
            };
            tokio::join!(sends, receives);
            link.peer.clear();
        };
        tokio::join!(send(one), send(other));
    }
}

#[tokio::test]
async fn one_direction_may_end_before_the_other() {
    for network in [network(None), guarded()] {
        let (one, mut other) = linked(&network).await;
        let mut receiver = one.receiver;
        drop(one.sender);
        assert_eq!(other.receiver.receive().await.unwrap(), None);
        other.sender.send(frame(100, 1)).await.unwrap();
        assert_eq!(receiver.receive().await.unwrap().unwrap(), frame(100, 1));
        drop(other);
        assert_eq!(receiver.receive().await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_link_may_be_dropped_anywhere() {
    let (one, mut other) = linked(&guarded()).await;
    std::thread::spawn(move || drop(one)).join().unwrap();
    assert_eq!(other.receiver.receive().await.unwrap(), None);
}

#[tokio::test]
async fn a_link_whose_other_end_is_gone_is_broken() {
    let (one, other) = linked(&guarded()).await;
    drop(other);
    let mut sender = one.sender;
    let sends = async { while sender.send(frame(100_000, 0)).await.is_ok() {} };
    machine::timeout(PLENTY, sends).await.unwrap();
    let error = sender.send(frame(1, 0)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains(&one.peer), "{error}");
}

/// What is at one end of a stream of bytes, and the stream.
fn half(room: usize) -> (Link, DuplexStream) {
    let (near, far) = tokio::io::duplex(room);
    let (read, write) = tokio::io::split(near);
    (
        frames::link(read, write, BytesMut::new(), "there".into()),
        far,
    )
}

#[tokio::test]
async fn a_frame_that_is_too_large_is_refused_at_both_ends() {
    let (mut link, mut far) = half(1 << 20);
    let large = Bytes::from(vec![0; FRAME_BYTES_MAX + 1]);
    let error = link.sender.send(large).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    // Nothing of it was sent.
    link.sender.send(Bytes::from_static(b"ab")).await.unwrap();
    let mut sent = [0; 6];
    far.read_exact(&mut sent).await.unwrap();
    assert_eq!(&sent, b"\x02\0\0\0ab");
    far.write_all(&(FRAME_BYTES_MAX as u32 + 1).to_le_bytes())
        .await
        .unwrap();
    for _ in 0..2 {
        let error = link.receiver.receive().await.unwrap_err();
        assert!(error.message().starts_with("the link to there broke: "));
    }
}

#[tokio::test]
async fn memory_grows_with_what_arrives() {
    let (mut link, mut far) = half(1 << 20);
    far.write_all(&(FRAME_BYTES_MAX as u32).to_le_bytes())
        .await
        .unwrap();
    far.write_all(&[7; 1000]).await.unwrap();
    let waits = machine::timeout(Duration::from_millis(50), link.receiver.receive());
    assert!(waits.await.is_none());
    drop(far);
    let error = link.receiver.receive().await.unwrap_err();
    assert!(
        error.message().ends_with("it ended within a frame"),
        "{error}"
    );
}

#[tokio::test]
async fn a_receive_that_is_dropped_loses_nothing() {
    let (mut link, mut far) = half(16);
    let sends = async {
        for i in 0..50 {
            let frame = frame(i * 7 % 40, i);
            let bytes = [&(frame.len() as u32).to_le_bytes()[..], &frame].concat();
            for byte in bytes {
                far.write_all(&[byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
        }
    };
    let receives = async {
        for i in 0..50 {
            let got = loop {
                // Polled once, and dropped.
                let waits = link.receiver.receive();
                match futures::FutureExt::now_or_never(waits) {
                    Some(got) => break got.unwrap().unwrap(),
                    None => tokio::task::yield_now().await,
                }
            };
            assert_eq!(got, frame(i * 7 % 40, i));
        }
    };
    tokio::join!(sends, receives);
}

#[tokio::test]
async fn a_send_that_is_dropped_breaks_the_link() {
    let (mut link, far) = half(16);
    let sent = machine::timeout(Duration::from_millis(20), link.sender.send(frame(100, 0)));
    assert!(sent.await.is_none());
    let error = link.sender.send(frame(1, 0)).await.unwrap_err();
    assert!(error.message().ends_with("a frame was not sent to its end"));
    let (read, write) = tokio::io::split(far);
    let mut other = frames::link(read, write, BytesMut::new(), "here".into());
    drop(link);
    assert!(other.receiver.receive().await.is_err());
}

#[tokio::test]
async fn who_has_another_secret_is_turned_away_and_both_ends_say_so() {
    let (here, other) = (guarded(), network(Some("a secret of other nodes")));
    let error = refused(&here, &other).await;
    assert!(
        error.message().starts_with("no link to the node at 127."),
        "{error}"
    );
    assert!(error.message().ends_with(ANOTHER), "{error}");
    assert_eq!(error.state(), SqlState("28000"));
    let calls = |socket| other.handshake.agree(socket, Role::Connects);
    assert_eq!(turned_away(&here, calls).await, ANOTHER);
}

#[tokio::test]
async fn who_has_no_secret_and_who_has_one_tell_each_other() {
    let (with, without) = (guarded(), network(None));
    let error = refused(&with, &without).await;
    assert!(error.message().ends_with(ONLY_TLS), "{error}");
    let error = refused(&without, &with).await;
    assert!(error.message().ends_with(NO_TLS), "{error}");
    let calls = |socket| without.handshake.agree(socket, Role::Connects);
    assert_eq!(turned_away(&with, calls).await, NO_TLS);
    let calls = |socket| with.handshake.agree(socket, Role::Connects);
    assert_eq!(turned_away(&without, calls).await, ONLY_TLS);
}

#[tokio::test]
async fn strangers_are_turned_away_and_hold_up_nobody() {
    for network in [network(None), guarded()] {
        let (mut listener, address) = listen(&network).await;
        // They say nothing, while a node comes in.
        let mut silent = Vec::new();
        for _ in 0..20 {
            silent.push(TcpStream::connect(&address).await.unwrap());
        }
        let mut noisy = Vec::new();
        for noise in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            &[0; 4000],
            b"TIDEMARX0000",
            b"\x16",
        ] {
            let mut stranger = TcpStream::connect(&address).await.unwrap();
            stranger.write_all(noise).await.unwrap();
            noisy.push(stranger);
        }
        let (connected, accepted) = tokio::join!(network.connect(&address), listener.accept());
        let (mut connected, mut accepted) = (connected.unwrap(), accepted.unwrap());
        connected.sender.send(frame(9, 9)).await.unwrap();
        let got = accepted.receiver.receive().await.unwrap();
        assert_eq!(got.unwrap(), frame(9, 9));
        // All of them find their connections closed; those who say nothing after a while.
        for mut stranger in noisy.into_iter().chain(silent) {
            let mut answer = Vec::new();
            let ends = machine::timeout(PLENTY, stranger.read_to_end(&mut answer));
            let _ = ends.await.unwrap();
            assert!(answer.len() < 100, "{answer:?}");
        }
        let more = machine::timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(more.is_none(), "a stranger came in");
    }
}

#[tokio::test]
async fn a_listener_that_is_dropped_listens_no_more() {
    let network = guarded();
    let (listener, address) = listen(&network).await;
    drop(listener);
    let gone = async { while TcpStream::connect(&address).await.is_ok() {} };
    machine::timeout(PLENTY, gone).await.unwrap();
    let error = network.connect(&address).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(error.state(), SqlState::CONNECTION_FAILURE);
}

#[tokio::test]
async fn who_speaks_another_version_is_told_and_tells() {
    let newer = async |mut socket: TcpStream| {
        socket.write_all(b"TIDEMARK\x07\x01\0\0").await.unwrap();
        let mut told = Vec::new();
        socket.read_to_end(&mut told).await.unwrap();
        assert_eq!(told, b"TIDEMARK\x01\0\0\0");
    };
    let expected = "it speaks version 263 of the protocol between nodes, and this node version 1";
    assert_eq!(turned_away(&network(None), newer).await, expected);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let network = network(None);
    let answers = async { newer(listener.accept().await.unwrap().0).await };
    let (connected, ()) = tokio::join!(network.connect(&address), answers);
    let error = connected.err().unwrap();
    assert!(error.message().ends_with(expected), "{error}");
    assert!(error.hint().is_some());
}

/// Passes on so many bytes.
async fn pass_on(
    from: &mut TlsStream<Socket>,
    to: &mut TlsStream<Socket>,
    count: usize,
) -> Vec<u8> {
    let mut bytes = vec![0; count];
    from.read_exact(&mut bytes).await.unwrap();
    to.write_all(&bytes).await.unwrap();
    to.flush().await.unwrap();
    bytes
}

/// It has a session with each of two nodes, and passes on what they say.
async fn stand_between(between: TcpListener, address: String) {
    let tls = Tls::new().unwrap();
    let (mut one, _) = tls.accept(between.accept().await.unwrap().0).await.unwrap();
    let socket = TcpStream::connect(address).await.unwrap();
    let (mut other, _) = tls.connect(socket).await.unwrap();
    let greeting = pass_on(&mut one, &mut other, 12).await;
    assert_eq!(pass_on(&mut other, &mut one, 12).await, greeting);
    pass_on(&mut one, &mut other, 32).await;
    assert_eq!(
        pass_on(&mut other, &mut one, 1).await,
        [0],
        "the proof is none here"
    );
}

#[tokio::test]
async fn who_stands_between_two_nodes_is_found_out() {
    let network = guarded();
    let (mut listener, address) = listen(&network).await;
    let between = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let there = between.local_addr().unwrap().to_string();
    let stands = stand_between(between, address);
    let (connected, ()) = tokio::join!(network.connect(&there), stands);
    assert!(connected.err().unwrap().message().ends_with(ANOTHER));
    let more = machine::timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(more.is_none());
}

/// Says yes to whatever it is sent, and repeats it as its own proof.
async fn say_yes(listener: TcpListener) {
    let tls = Tls::new().unwrap();
    let (mut session, _) = tls
        .accept(listener.accept().await.unwrap().0)
        .await
        .unwrap();
    session.write_all(b"TIDEMARK\x01\0\0\0\x01").await.unwrap();
    session.flush().await.unwrap();
    let mut heard = [0; 12 + 32];
    session.read_exact(&mut heard).await.unwrap();
    session.write_all(&heard[12..]).await.unwrap();
    session.flush().await.unwrap();
    let _ = session.read(&mut heard).await;
}

#[tokio::test]
async fn a_proof_is_good_for_one_role_only() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let network = guarded();
    let (connected, ()) = tokio::join!(network.connect(&address), say_yes(listener));
    assert!(connected.err().unwrap().message().ends_with(ANOTHER));
}

#[tokio::test]
async fn without_a_secret_others_are_not_listened_to_nor_called() {
    let without = network(None);
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:4568"] {
        let listened = without.listen(address).await.err().unwrap();
        let connected = without.connect(address).await.err().unwrap();
        for error in [listened, connected] {
            assert_eq!(error.kind(), ErrorKind::User);
            assert_eq!(error.state(), SqlState::INVALID_PARAMETER);
            let expected = format!("others reach {address}, but there is no cluster secret");
            assert_eq!(error.message(), expected);
            assert!(error.hint().unwrap().contains("cluster_secret_file"));
        }
    }
    guarded().listen("0.0.0.0:0").await.unwrap();
    let (_listener, address) = listen(&without).await;
    let taken = without.listen(&address).await.err().unwrap();
    let expected = format!("cannot listen for nodes on {address}: the address is in use");
    assert_eq!(taken.message(), expected);
}
