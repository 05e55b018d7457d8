//! Every ```` ```sql ```` block of the manual and of README runs, page by page, each page on a
//! server of its own and in the order of reading.
//!
//! A block marked `sql error` must end in an error; one marked `sql kafka` needs a broker, which
//! `TIDEMARK_TEST_KAFKA` names (`localhost:9092` in its text is replaced by that address). Without
//! the variable such blocks are skipped, and the test says how many; if
//! `TIDEMARK_TEST_KAFKA_REQUIRED` is set, as `make test` does, it fails instead.

use crate::sql::root;
use std::io::Write;
use std::path::PathBuf;
use tidemark_sim::client::Session;
use tidemark_sim::manual::{Example, examples};
use tidemark_sim::server::Server;

#[tokio::test(flavor = "multi_thread")]
async fn every_example_runs() {
    let mut pages: Vec<PathBuf> = std::fs::read_dir(root().join("docs"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "md"))
        .collect();
    pages.push(root().join("README.md"));
    pages.sort();
    let broker = std::env::var("TIDEMARK_TEST_KAFKA").ok();
    let required = std::env::var_os("TIDEMARK_TEST_KAFKA_REQUIRED").is_some();
    assert!(
        broker.is_some() || !required,
        "TIDEMARK_TEST_KAFKA names no broker, and one is required"
    );
    let (mut failures, mut skipped) = (Vec::new(), 0);
    for page in pages.iter().filter(|p| p.exists()) {
        let text = std::fs::read_to_string(page).expect("a page can be read");
        let mut found = examples(&text);
        if broker.is_none() {
            let all = found.len();
            found.retain(|example| !example.is("kafka"));
            skipped += all - found.len();
        }
        if !found.is_empty() {
            failures.extend(run(found, broker.as_deref()).await.into_iter().map(|f| {
                format!(
                    "{}:{f}",
                    page.strip_prefix(root()).unwrap_or(page).display()
                )
            }));
        }
    }
    if skipped > 0 {
        // Past the capture of a test's output: a test that passes must say so, too.
        let said = writeln!(
            std::io::stderr(),
            "SKIPPED {skipped} examples of the manual: TIDEMARK_TEST_KAFKA names no broker"
        );
        said.expect("standard error can be written");
    }
    assert!(
        failures.is_empty(),
        "examples failed:\n{}",
        failures.join("\n")
    );
}

async fn run(found: Vec<Example>, broker: Option<&str>) -> Vec<String> {
    let server = match Server::start(2) {
        Ok(server) => server,
        Err(e) => return vec![e.to_string()],
    };
    let session = match Session::connect(server.sql_port()).await {
        Ok(session) => session,
        Err(e) => return vec![e.to_string()],
    };
    let mut failures = Vec::new();
    for example in found {
        let statements = example.statements();
        for (i, statement) in statements.iter().enumerate() {
            let statement = statement.replace("localhost:9092", broker.unwrap_or("localhost:9092"));
            let refused = example.is("error") && i + 1 == statements.len();
            match session.run(&statement).await {
                Ok(_) if refused => failures.push(format!(
                    "{}: should be refused, but runs:\n{statement}",
                    example.line
                )),
                Err(e) if !refused => failures.push(format!("{}: {e}\n{statement}", example.line)),
                _ => {}
            }
        }
    }
    failures
}
