"""`sslmode=verify-full` of psql, psycopg, asyncpg and pgjdbc: the certificate's authority and the server's name are checked, and the password is asked for."""

import asyncio
import os
import ssl
import subprocess
from pathlib import Path

import asyncpg
import psycopg
import pytest

from harness import Tidemark, eventually

PGJDBC = "org.postgresql:postgresql:42.7.7"
CACHE = Path.home() / ".cache" / "tidemark" / "pgjdbc"
PASSWORD = "correct horse"

# Prints the answer, or the error's text.
JDBC = """
import java.sql.*;
public class Verify {
  public static void main(String[] a) throws Exception {
    try (Connection c = DriverManager.getConnection(a[0], "root", a[1]); PreparedStatement s = c.prepareStatement("SELECT 40 + ?::int")) {
      s.setInt(1, 2);
      ResultSet r = s.executeQuery();
      r.next();
      System.out.println("answer " + r.getInt(1));
    } catch (SQLException e) {
      for (Throwable t = e; t != null; t = t.getCause()) System.out.println("refused " + t.getMessage());
    }
  }
}
"""


def openssl(*words):
    subprocess.run(["openssl", *words], check=True, capture_output=True)


def authority(folder, name):
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", f"/CN={name}", "-addext", "basicConstraints=critical,CA:TRUE")
    return cert, key


@pytest.fixture(scope="module")
def tls(folder):
    """A server whose certificate of `localhost` is signed by `ca`; `other` is an authority that it does not know."""
    here = folder / "tls"
    here.mkdir()
    ca, ca_key = authority(here, "ca")
    other, _ = authority(here, "other")
    cert, key, request, extensions = here / "server.crt", here / "server.key", here / "server.csr", here / "server.ext"
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request, "-subj", "/CN=localhost")
    extensions.write_text("subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n")
    openssl("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "2", "-extfile", extensions, "-out", cert)
    server = Tidemark(here / "server")
    server.start(wait=False, tls_cert=cert, tls_key=key)
    eventually(lambda: "is ready" in server.log_path.read_text(), 30)
    with psycopg.connect(host="localhost", port=server.port, dbname="dev", user="root", sslmode="require", autocommit=True) as root:
        root.execute(f"ALTER USER root PASSWORD '{PASSWORD}'")
    yield server, ca, other
    server.kill()


def psql(server, host, ca):
    text = f"host={host} port={server.port} dbname=dev user=root sslmode=verify-full sslrootcert={ca} connect_timeout=15"
    done = subprocess.run(["psql", text, "-XqAtc", "SELECT 40 + 2"], capture_output=True, text=True, timeout=60, env={**os.environ, "PGPASSWORD": PASSWORD})
    return f"answer {done.stdout.strip()}" if done.returncode == 0 else f"refused {done.stderr}"


def libpq(server, host, ca):
    try:
        with psycopg.connect(host=host, port=server.port, dbname="dev", user="root", password=PASSWORD, sslmode="verify-full", sslrootcert=ca, connect_timeout=15) as connection:
            return f"answer {connection.execute('SELECT 40 + %s::int', [2]).fetchone()[0]}"
    except psycopg.OperationalError as error:
        return f"refused {error}"


def python(server, host, ca):
    async def ask():
        connection = await asyncpg.connect(f"postgres://root@{host}:{server.port}/dev?sslmode=verify-full&sslrootcert={ca}", password=PASSWORD, timeout=15)
        try:
            return f"answer {await connection.fetchval('SELECT 40 + $1::int', 2)}"
        finally:
            await connection.close()

    try:
        return asyncio.run(ask())
    except ssl.SSLError as error:
        return f"refused {error}"


def jdbc(server, host, ca):
    jar = CACHE / f"postgresql-{PGJDBC.rsplit(':', 1)[1]}.jar"
    if not jar.exists():
        subprocess.run(["mvn", "-q", "-B", "dependency:copy", f"-Dartifact={PGJDBC}", f"-DoutputDirectory={CACHE}"], check=True, capture_output=True, timeout=300)
    source = server.folder / "Verify.java"
    source.write_text(JDBC)
    url = f"jdbc:postgresql://{host}:{server.port}/dev?sslmode=verify-full&sslrootcert={ca}&loginTimeout=15"
    done = subprocess.run(["java", "-cp", jar, source, url, PASSWORD], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("driver", [psql, libpq, python, jdbc])
def test_the_server_is_who_it_says(tls, driver):
    server, ca, other = tls
    assert driver(server, "localhost", ca) == "answer 42"
    # An authority that did not sign it; and a name that it does not have.
    assert driver(server, "localhost", other).startswith("refused")
    assert driver(server, "127.0.0.1", ca).startswith("refused")
