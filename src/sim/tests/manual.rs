//! Every ```` ```sql ```` block of the manual and of README runs, page by page, each page on a
//! server of its own and in the order of reading.
//!
//! A block marked `sql error` must end in an error; one marked `sql kafka` needs a broker and runs
//! only if `TIDEMARK_TEST_KAFKA` names one (`localhost:9092` in its text is replaced by that
//! address).

use crate::sql::root;
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
    let mut failures = Vec::new();
    for page in pages.iter().filter(|p| p.exists()) {
        let text = std::fs::read_to_string(page).expect("a page can be read");
        let found = examples(&text);
        if !found.is_empty() {
            failures.extend(run(found).await.into_iter().map(|f| {
                format!(
                    "{}:{f}",
                    page.strip_prefix(root()).unwrap_or(page).display()
                )
            }));
        }
    }
    assert!(
        failures.is_empty(),
        "examples failed:\n{}",
        failures.join("\n")
    );
}

async fn run(found: Vec<Example>) -> Vec<String> {
    let broker = std::env::var("TIDEMARK_TEST_KAFKA").ok();
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
        if example.is("kafka") && broker.is_none() {
            continue;
        }
        let statements = example.statements();
        for (i, statement) in statements.iter().enumerate() {
            let statement = statement.replace(
                "localhost:9092",
                broker.as_deref().unwrap_or("localhost:9092"),
            );
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
