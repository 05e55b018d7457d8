//! A server process under test: the binary that `cargo build --release` made, on free ports, with a
//! temporary data folder.
//!
//! Killing it is `kill -9`: what it answered before must be there afterwards. The process dies with
//! its handle, also when a test panics.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tidemark_common::{Error, Result, SqlState};

/// How long a start may take, recovery included.
const START_SECONDS: u64 = 60;
/// How long SIGTERM may take.
const STOP_SECONDS: u64 = 20;

/// A running server. Dropping it kills the process and removes its folder.
pub struct Server {
    binary: PathBuf,
    folder: TempDir,
    ports: [u16; 3],
    workers: usize,
    child: Child,
}

/// How a server ends before it starts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// `kill -9`.
    Killed,
    /// SIGTERM: it checkpoints and leaves.
    Asked,
}

impl Server {
    /// Starts a server with `workers` workers and waits until it answers queries.
    pub fn start(workers: usize) -> Result<Server> {
        let binary = binary()?;
        let folder = tempfile::Builder::new()
            .prefix("tidemark-test-")
            .tempdir()?;
        let ports = free_ports()?;
        let child = spawn(&binary, folder.path(), ports, workers)?;
        let mut server = Server {
            binary,
            folder,
            ports,
            workers,
            child,
        };
        server.wait_ready()?;
        Ok(server)
    }

    /// Ends the process and starts it again on the same data, ports and, unless given, number of
    /// workers.
    pub fn restart(&mut self, ending: Ending, workers: Option<usize>) -> Result<()> {
        match ending {
            Ending::Killed => self.kill(),
            Ending::Asked => self.terminate()?,
        }
        self.workers = workers.unwrap_or(self.workers);
        self.child = spawn(&self.binary, self.folder.path(), self.ports, self.workers)?;
        self.wait_ready()
    }

    /// Port of the PostgreSQL door.
    pub fn sql_port(&self) -> u16 {
        self.ports[0]
    }

    /// The body of a GET request, if its status is 200.
    pub fn get(&self, path: &str) -> Option<String> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.ports[1]));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.starts_with("HTTP/1.1 200").then(|| body.to_string())
    }

    /// The end of what the server has logged.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read(self.folder.path().join("server.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    fn wait_ready(&mut self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(START_SECONDS);
        loop {
            if self.get("/ready").is_some() {
                return Ok(());
            }
            let failed = |what: String, log: String| {
                Err(Error::unavailable(
                    SqlState::CONNECTION_FAILURE,
                    format!("{what}; it logged:\n{log}"),
                ))
            };
            if let Some(status) = self.child.try_wait()? {
                return failed(
                    format!("the server ended with {status} while starting"),
                    self.log_tail(),
                );
            }
            if Instant::now() > end {
                return failed(
                    format!("the server was not ready within {START_SECONDS} seconds"),
                    self.log_tail(),
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn terminate(&mut self) -> Result<()> {
        Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status()?;
        let end = Instant::now() + Duration::from_secs(STOP_SECONDS);
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait()? {
                return match status.success() {
                    true => Ok(()),
                    false => Err(Error::internal(format!(
                        "the server ended with {status} when asked to; it logged:\n{}",
                        self.log_tail()
                    ))),
                };
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill();
        Err(Error::internal(format!(
            "the server did not end within {STOP_SECONDS} seconds of SIGTERM; it logged:\n{}",
            self.log_tail()
        )))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The server's binary beside the folder of this test's own.
fn binary() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let folder = test
        .parent()
        .and_then(Path::parent)
        .unwrap_or(Path::new("."));
    let binary = folder.join("tidemark");
    match binary.exists() {
        true => Ok(binary),
        false => Err(Error::internal(format!(
            "{} is missing: build the workspace first, with the same profile",
            binary.display()
        ))),
    }
}

fn free_ports() -> Result<[u16; 3]> {
    // Held together, so that they differ; free again when this returns.
    let listeners = [
        TcpListener::bind("127.0.0.1:0")?,
        TcpListener::bind("127.0.0.1:0")?,
        TcpListener::bind("127.0.0.1:0")?,
    ];
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

fn spawn(binary: &Path, folder: &Path, ports: [u16; 3], workers: usize) -> Result<Child> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.join("server.log"))?;
    let mut command = Command::new(binary);
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDEMARK_"))
    {
        command.env_remove(name);
    }
    for (flag, port) in ["--sql", "--http", "--rpc"].iter().zip(ports) {
        command.arg(flag).arg(format!("127.0.0.1:{port}"));
    }
    command
        .arg("--data-dir")
        .arg(folder.join("data"))
        .arg("--workers")
        .arg(workers.to_string());
    Ok(command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?)
}
