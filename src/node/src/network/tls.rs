//! TLS between nodes: version 1.3, with a certificate that a node makes for itself when it starts.
//! It tells nobody who the node is; what the session exports is what proofs are bound to.

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{
    CipherSuite, ClientConfig, ConnectionCommon, DigitallySignedStruct, ServerConfig,
    SignatureScheme,
};
use std::io;
use std::sync::Arc;
use tidemark_common::{Error, Result};
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// The name in every certificate, which nobody looks at.
const NAME: &str = "tidemark";
/// The label of what is exported for proofs.
const EXPORTER: &[u8] = b"EXPORTER-tidemark-cluster";

/// What a session asks the system for at a time: rustls itself asks for 4 KiB.
const READ_BYTES: usize = 128 << 10;

/// What a session speaks over.
pub type Socket = BufReader<TcpStream>;

/// Makes sessions.
pub struct Tls {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

/// What the two ends of a session have in common, and nobody else: one occasion for each of them
/// to prove something.
pub struct Occasions {
    /// For the end that connects.
    pub connects: [u8; 32],
    /// For the end that listens.
    pub listens: [u8; 32],
}

impl Tls {
    /// With a new certificate.
    pub fn new() -> Result<Tls> {
        let made = rcgen::generate_simple_self_signed([NAME.to_string()]).map_err(broken)?;
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let mut provider = rustls::crypto::ring::default_provider();
        // Secure as the longer key is, the shorter one costs less.
        let suites = &mut provider.cipher_suites;
        suites.sort_by_key(|s| s.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
        let provider = Arc::new(provider);
        let mut listens = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(broken)?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .map_err(broken)?;
        // A session is for one link: none is taken up again.
        listens.send_tls13_tickets = 0;
        let mut connects = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(broken)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_no_client_auth();
        connects.resumption = Resumption::disabled();
        connects.enable_sni = false;
        Ok(Tls {
            acceptor: Arc::new(listens).into(),
            connector: Arc::new(connects).into(),
        })
    }

    /// A session with who connected.
    pub async fn accept(&self, socket: TcpStream) -> io::Result<(TlsStream<Socket>, Occasions)> {
        let socket = BufReader::with_capacity(READ_BYTES, socket);
        let stream = self.acceptor.accept(socket).await?;
        let occasions = occasions(stream.get_ref().1).map_err(io::Error::other)?;
        Ok((stream.into(), occasions))
    }

    /// A session with who listens.
    pub async fn connect(&self, socket: TcpStream) -> io::Result<(TlsStream<Socket>, Occasions)> {
        let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
        let socket = BufReader::with_capacity(READ_BYTES, socket);
        let stream = self.connector.connect(name, socket).await?;
        let occasions = occasions(stream.get_ref().1).map_err(io::Error::other)?;
        Ok((stream.into(), occasions))
    }
}

fn broken(e: impl std::fmt::Display) -> Error {
    Error::internal(format!("TLS between nodes: {e}"))
}

/// RFC 8446, section 7.5.
fn occasions<T>(session: &ConnectionCommon<T>) -> Result<Occasions, rustls::Error> {
    let export = |role: &[u8]| session.export_keying_material([0; 32], EXPORTER, Some(role));
    Ok(Occasions {
        connects: export(b"connects")?,
        listens: export(b"listens")?,
    })
}

/// Takes every certificate, from who has its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
