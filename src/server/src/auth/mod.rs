//! Who comes in: roles with a password prove that they know it ([`scram`]), wherever they come
//! from; a role without one comes from this machine only. What an address that others reach asks
//! for before a node listens there is in [`check_doors`].

pub mod privileges;
mod scram;

pub use scram::{Verifier, random_password};

use crate::codec::Wire;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use parking_lot::Mutex;
use pgwire::api::{ClientInfo, PgWireConnectionState};
use pgwire::messages::startup::{Authentication, PasswordMessageFamily};
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use std::collections::HashMap;
use std::net::{IpAddr, ToSocketAddrs};
use std::time::{Duration, Instant};
use tidemark_common::config::Config;
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::{Catalog, Object, Privilege, Role};

/// How long the answer to the first wrong password takes; each further one takes twice as long.
const FIRST_DELAY: Duration = Duration::from_millis(250);
const LONGEST_DELAY: Duration = Duration::from_secs(8);
/// For how long a wrong password counts.
const REMEMBERED: Duration = Duration::from_secs(300);
/// The one that there is.
const DATABASE: &str = "dev";
/// Addresses whose wrong passwords are counted.
const ADDRESSES_MAX: usize = 10_000;

/// Counts wrong passwords by address, so that guessing takes long.
#[derive(Default)]
pub struct Guesses(Mutex<HashMap<IpAddr, (u32, Instant)>>);

impl Guesses {
    /// One more wrong password; answers how long to wait before the client is told.
    fn wrong(&self, from: IpAddr) -> Duration {
        let (mut counts, now) = (self.0.lock(), Instant::now());
        counts.retain(|_, (_, last)| now.duration_since(*last) < REMEMBERED);
        if counts.len() >= ADDRESSES_MAX && !counts.contains_key(&from) {
            return LONGEST_DELAY;
        }
        let (count, last) = counts.entry(from).or_insert((0, now));
        (*count, *last) = (*count + 1, now);
        let doubled = 1 << (*count - 1).min(16);
        (FIRST_DELAY * doubled).min(LONGEST_DELAY)
    }

    fn right(&self, from: IpAddr) {
        self.0.lock().remove(&from);
    }
}

/// What a node needs to find out who comes in.
pub struct Gate {
    /// Wrong passwords.
    guesses: Guesses,
    /// Of this process alone: what it tells those whom it does not know.
    secret: String,
    /// Whether roles without password may come in from anywhere.
    insecure: bool,
}

impl Gate {
    /// Of a node with this configuration.
    pub fn new(config: &Config) -> Result<Gate> {
        Ok(Gate {
            guesses: Guesses::default(),
            secret: random_password()?,
            insecure: config.insecure,
        })
    }

    /// Whether clients at an address are asked for a password only where their role has one.
    pub fn is_near(&self, address: IpAddr) -> bool {
        address.to_canonical().is_loopback() || self.insecure
    }

    /// Whether a name and a password that were sent as they are, in a request, are those of a role
    /// that may log in. A wrong one is answered late.
    pub async fn admits(&self, catalog: &Catalog, from: IpAddr, user: &str, given: &str) -> bool {
        let comes_in = |role: &Role| may_log_in(catalog, role, DATABASE).is_ok();
        let role = catalog.role(user).filter(comes_in);
        let known = role.and_then(|role| Verifier::parse(role.verifier.as_deref()?));
        let verifier = known.unwrap_or_else(|| Verifier::of_nobody(user, self.secret.as_bytes()));
        let given = given.to_string();
        // Thousands of rounds: not on a thread that serves others.
        let fits = tokio::task::spawn_blocking(move || verifier.fits(&given)).await;
        if fits.unwrap_or(false) {
            self.guesses.right(from);
            return true;
        }
        tracing::warn!(target: "audit", user, address = %from, "HTTP request refused");
        tokio::time::sleep(self.guesses.wrong(from)).await;
        false
    }
}

/// Finds out whether a client is who it says, and may come into a database; `Err` is to be told to
/// it, `None` one that has left. Who does not prove who it is learns nothing of roles and
/// databases.
///
/// Errors: `28P01` for a wrong password, `28000` for a role that may not come in, `3D000` for an
/// unknown database, `42501` for one that the role may not connect to.
pub async fn admit(
    gate: &Gate,
    catalog: &Catalog,
    wire: &mut Wire,
    user: &str,
    database: &str,
) -> Option<Result<()>> {
    let from = wire.codec().0.client_info.socket_addr().ip();
    let role = catalog.role(user);
    let near = gate.is_near(from);
    let verifier = role.as_ref().and_then(|role| role.verifier.as_deref());
    let nobody_has_one = !catalog.roles.values().any(|r| r.verifier.is_some());
    let admitted = match (&role, verifier) {
        (Some(role), None) if near && (role.login || nobody_has_one) => {
            may_log_in(catalog, role, database)
        }
        (None, _) if near && nobody_has_one => Err(no_role(user)),
        _ => {
            let known = verifier.and_then(Verifier::parse);
            let nobody = || Verifier::of_nobody(user, gate.secret.as_bytes());
            match prove(wire, known.unwrap_or_else(nobody)).await? {
                Ok(true) => {
                    gate.guesses.right(from);
                    role.as_ref().map_or_else(
                        || Err(wrong_password(user)),
                        |role| may_log_in(catalog, role, database),
                    )
                }
                Ok(false) => Err(wrong_password(user)),
                Err(error) => Err(error),
            }
        }
    };
    match &admitted {
        Ok(()) => tracing::info!(target: "audit", user, address = %from, "logged in"),
        Err(error) => {
            let state = error.state().0;
            let reason = error.message();
            tracing::warn!(target: "audit", user, address = %from, state, reason, "login refused");
            if error.state() == SqlState("28P01") {
                tokio::time::sleep(gate.guesses.wrong(from)).await;
            }
        }
    }
    Some(admitted)
}

/// Whether the password of a role does not count any more.
fn is_over(role: &Role) -> bool {
    let over = |until: i64| until <= tidemark_common::machine::micros();
    role.verifier.is_some() && role.valid_until.is_some_and(over)
}

/// Whether nobody comes in as this role from elsewhere, whatever password is given.
pub fn is_kept_out(role: &Role) -> bool {
    role.verifier.is_none() || !role.login || is_over(role)
}

/// Of who has proven that it is that role.
fn may_log_in(catalog: &Catalog, role: &Role, database: &str) -> Result<()> {
    if is_over(role) {
        return Err(wrong_password(&role.name));
    }
    if !role.login {
        let message = format!("role \"{}\" is not permitted to log in", role.name);
        return Err(Error::user(SqlState("28000"), message));
    }
    if database != DATABASE {
        let message = format!("database \"{database}\" does not exist");
        return Err(Error::user(SqlState("3D000"), message)
            .with_hint("The database is \"dev\": connect with `-d dev`."));
    }
    if !catalog.may(&role.name, Privilege::Connect, &Object::Database) {
        let message = "permission denied for database \"dev\"";
        return Err(Error::user(SqlState("42501"), message)
            .with_detail("User does not have CONNECT privilege."));
    }
    Ok(())
}

fn no_role(name: &str) -> Error {
    let message = format!("role \"{name}\" does not exist");
    Error::user(SqlState("28000"), message)
        .with_hint("The user of a new server is \"root\": connect with `-U root`.")
}

fn wrong_password(user: &str) -> Error {
    let message = format!("password authentication failed for user \"{user}\"");
    Error::user(SqlState("28P01"), message)
}

/// The exchange; `None` if the client leaves.
async fn prove(wire: &mut Wire, verifier: Verifier) -> Option<Result<bool>> {
    let info = &mut wire.codec_mut().0.client_info;
    info.set_state(PgWireConnectionState::AuthenticationInProgress);
    let offered = Authentication::SASL(vec![scram::MECHANISM.into()]);
    let message = answer(wire, offered).await?;
    let first = match message.into_sasl_initial_response() {
        Ok(first) => first,
        Err(_) => return Some(Err(no_exchange())),
    };
    if first.auth_method != scram::MECHANISM {
        return Some(Err(no_exchange()));
    }
    let begun = scram::Exchange::begin(verifier, first.data.as_deref().unwrap_or_default());
    let (exchange, text) = match begun {
        Ok(begun) => begun,
        Err(error) => return Some(Err(error)),
    };
    let message = answer(wire, Authentication::SASLContinue(Bytes::from(text))).await?;
    let last = match message.into_sasl_response() {
        Ok(last) => last,
        Err(_) => return Some(Err(no_exchange())),
    };
    match exchange.end(&last.data) {
        Ok(Some(text)) => {
            let end = Authentication::SASLFinal(Bytes::from(text));
            let sent = wire.feed(PgWireBackendMessage::Authentication(end)).await;
            sent.ok()?;
            Some(Ok(true))
        }
        Ok(None) => Some(Ok(false)),
        Err(error) => Some(Err(error)),
    }
}

fn no_exchange() -> Error {
    let message = "a SCRAM-SHA-256 message was expected";
    Error::user(SqlState("08P01"), message)
}

/// Sends a message of the exchange and waits for its answer.
async fn answer(wire: &mut Wire, message: Authentication) -> Option<PasswordMessageFamily> {
    let sent = wire.send(PgWireBackendMessage::Authentication(message));
    sent.await.ok()?;
    match wire.next().await?.ok()? {
        PgWireFrontendMessage::PasswordMessageFamily(message) => Some(message),
        _ => None,
    }
}

/// Whether others than this machine reach an address.
fn is_public(address: &str) -> bool {
    match address.to_socket_addrs() {
        Ok(mut found) => found.any(|a| !a.ip().is_loopback()),
        // It cannot be listened at, and says so itself.
        Err(_) => false,
    }
}

/// Whether a node may listen where it is told to: where others reach it, clients must have a
/// password and a way on which nobody reads it.
///
/// Errors: `28000` with what is missing.
pub fn check_doors(config: &Config, catalog: &Catalog) -> Result<()> {
    let doors = [("sql", &config.sql), ("http", &config.http)];
    let Some((door, address)) = doors.iter().find(|(_, address)| is_public(address)) else {
        return Ok(());
    };
    if config.insecure {
        return Ok(());
    }
    let users = catalog.roles.values().any(|r| r.verifier.is_some());
    let missing = match (users, config.tls_cert.is_empty()) {
        (true, false) => return Ok(()),
        (false, true) => "no user has a password, and there is no TLS certificate",
        (false, false) => "no user has a password",
        (true, true) => "there is no TLS certificate",
    };
    let message = format!("others reach {door} address {address}, but {missing}");
    let mut hints = Vec::new();
    if !users {
        hints.push("--first-password makes a password for root and shows it once");
    }
    if config.tls_cert.is_empty() {
        hints.push("--tls-cert and --tls-key name a certificate and its key");
    }
    hints.push("--insecure lets everybody in, and everybody on the way read along");
    Err(Error::user(SqlState("28000"), message).with_hint(hints.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guessing_takes_longer_each_time() {
        let guesses = Guesses::default();
        let (one, other): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let delays: Vec<u128> = (0..7).map(|_| guesses.wrong(one).as_millis()).collect();
        assert_eq!(delays, [250, 500, 1000, 2000, 4000, 8000, 8000]);
        assert_eq!(guesses.wrong(other), FIRST_DELAY);
        guesses.right(one);
        assert_eq!(guesses.wrong(one), FIRST_DELAY);
    }

    #[test]
    fn an_address_for_others_asks_for_users_and_a_certificate() {
        let mut config = Config::default();
        let mut catalog = Catalog::default();
        check_doors(&config, &catalog).unwrap();
        config.sql = "0.0.0.0:4566".into();
        let missing = |config: &Config, catalog: &Catalog| {
            check_doors(config, catalog)
                .unwrap_err()
                .message()
                .to_string()
        };
        assert_eq!(
            missing(&config, &catalog),
            "others reach sql address 0.0.0.0:4566, but no user has a password, and there is no \
             TLS certificate"
        );
        config.tls_cert = "server.crt".into();
        assert!(missing(&config, &catalog).ends_with("but no user has a password"));
        let mut root = Role::new("root");
        root.verifier = Some(Verifier::of("x").unwrap().text());
        catalog.roles.insert("root".into(), root);
        check_doors(&config, &catalog).unwrap();
        config.tls_cert.clear();
        assert!(missing(&config, &catalog).ends_with("but there is no TLS certificate"));
        config.insecure = true;
        check_doors(&config, &catalog).unwrap();
    }
}
