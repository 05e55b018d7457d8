//! The house rules, held by tests: which crate may lean on which, how files look, that the
//! commented configuration is the code's, that README shows the whole house.

use crate::sql::root;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use tidemark_common::config::Config;

/// The crates in walking order: each may depend only on crates above its own row.
const CRATES: [&str; 14] = [
    "common",
    "values",
    "plan",
    "changelog",
    "state",
    "connector",
    "planner",
    "operator",
    "control",
    "worker",
    "node",
    "query",
    "server",
    "sim",
];

/// Heavy dependencies, and the only crate that may have each.
const OWNED: [(&str, &str); 6] = [
    ("rdkafka", "connector"),
    ("datafusion", "query"),
    ("pgwire", "server"),
    ("axum", "server"),
    ("parquet", "state"),
    ("object_store", "state"),
];

/// The width of code and comments: rustfmt leaves alone what it cannot break.
const COLUMNS_MAX: usize = 100;
const LINES_MAX: usize = 900;
const TEST_LINES_MAX: usize = 1500;

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
}

/// Dependencies by crate, both without the prefix `tidemark-` where they are ours.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = metadata();
    let name = |v: &Value| v["name"].as_str().unwrap_or_default().to_string();
    let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
    packages
        .iter()
        .map(|p| {
            (
                name(p),
                p["dependencies"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(name)
                    .collect(),
            )
        })
        .collect()
}

#[test]
fn crates_lean_on_rows_above() {
    let found = dependencies();
    let ours: BTreeSet<String> = CRATES.iter().map(|c| format!("tidemark-{c}")).collect();
    assert_eq!(
        found.keys().cloned().collect::<BTreeSet<_>>(),
        ours,
        "the workspace's members are the table's crates"
    );
    let row = |package: &str| {
        CRATES
            .iter()
            .position(|c| package.strip_prefix("tidemark-") == Some(*c))
    };
    for (package, dependencies) in &found {
        for dependency in dependencies {
            if let Some(below) = row(dependency) {
                assert!(
                    Some(below) < row(package),
                    "{package} may not depend on {dependency}: it is not above it in the table of \
                     crates"
                );
            }
            if let Some((name, owner)) = OWNED.iter().find(|(name, _)| name == dependency) {
                assert_eq!(
                    package,
                    &format!("tidemark-{owner}"),
                    "{name} belongs to {owner} alone"
                );
            }
        }
    }
}

#[test]
fn modules_import_one_way() {
    for name in CRATES {
        let imports = module_imports(&root().join("src").join(name).join("src"));
        let mut left = imports.clone();
        // Whoever imports nothing that is left goes; what stays imports itself.
        while let Some(leaf) = left.iter().find_map(|(module, imported)| {
            let stays = |i: &String| i != module && left.contains_key(i);
            (!imported.iter().any(stays)).then(|| module.clone())
        }) {
            left.remove(&leaf);
        }
        assert!(
            left.is_empty(),
            "modules of src/{name} import each other in a circle, or from one: {left:#?}"
        );
    }
}

/// The modules that each module of a crate imports by `crate::`, also where the crate's first page
/// passes on what they have; a module is a file of the crate's folder with the folder of its name.
fn module_imports(folder: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let passed_on = passed_on(&code_of(&folder.join("lib.rs")));
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in files(folder, "rs") {
        let inside = path.strip_prefix(folder).unwrap_or(&path);
        let first = inside.iter().next().unwrap_or_default().to_string_lossy();
        let module = first.trim_end_matches(".rs").to_string();
        let is_test = path.ends_with("tests.rs") || inside.iter().any(|part| part == "tests");
        if is_test || ["lib", "main", "testing", "measure"].contains(&module.as_str()) {
            continue;
        }
        let code = code_of(&path);
        let paths = code.split("crate::").skip(1).flat_map(listed);
        let names = paths.map(name_at).map(|name| match passed_on.get(name) {
            Some(module) => module.clone(),
            None => name.to_string(),
        });
        imports.entry(module).or_default().extend(names);
    }
    imports
}

/// The lines of a file that are neither comments nor its tests.
fn code_of(path: &Path) -> String {
    let text = read(path);
    let code = text.split("#[cfg(test)]\nmod tests {").next();
    let lines = code.unwrap_or_default().lines();
    let code = lines.filter(|line| !line.trim_start().starts_with("//"));
    code.collect::<Vec<_>>().join("\n")
}

/// By name what `pub use module::name;` passes on, and of which module it is.
fn passed_on(root: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let public = root.split("pub use ").skip(1);
    for line in public.chain(root.split("pub(crate) use ").skip(1)) {
        let Some((module, rest)) = line.split_once("::") else {
            continue;
        };
        let paths = listed(rest.split(';').next().unwrap_or_default());
        for path in paths {
            let name = path.rsplit([':', ' ']).next().unwrap_or(path);
            found.insert(name_at(name).to_string(), module.to_string());
        }
    }
    found
}

/// The items of a list in braces that a text begins with; else the text.
fn listed(text: &str) -> Vec<&str> {
    let Some(list) = text.strip_prefix('{') else {
        return vec![text];
    };
    let (mut depth, mut from, mut items) = (0, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                items.push(list[from..at].trim());
                from = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    items.retain(|item| !item.is_empty());
    items
}

/// The name that a text begins with.
fn name_at(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

#[test]
fn versions_are_chosen_in_the_workspace() {
    for name in CRATES {
        let text = read(&root().join("src").join(name).join("Cargo.toml"));
        let mut section = "";
        for line in text.lines() {
            if line.starts_with('[') {
                section = line;
            } else if section.contains("dependencies") && line.contains('=') {
                assert!(
                    line.contains("workspace = true"),
                    "src/{name}/Cargo.toml: {line}: versions and features are chosen in the \
                     workspace's Cargo.toml"
                );
            }
        }
    }
}

#[test]
fn files_explain_themselves_and_stay_small() {
    let mut wrong = Vec::new();
    // Split, so that this file does not hold what it looks for. A test may be left out with a
    // reason (a measurement), not without.
    let banned = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("dbg", "!("),
        concat!("#[", "ignore]"),
    ];
    for path in sources() {
        let text = read(&path);
        let name = path
            .strip_prefix(root())
            .unwrap_or(&path)
            .display()
            .to_string();
        if !text.starts_with("//!") {
            wrong.push(format!("{name} does not open with //!"));
        }
        let is_test = name.contains("/tests/") || name.ends_with("tests.rs");
        let (lines, most) = (
            text.lines().count(),
            if is_test { TEST_LINES_MAX } else { LINES_MAX },
        );
        if lines > most {
            wrong.push(format!("{name} has {lines} lines, more than {most}"));
        }
        for (i, line) in text.lines().enumerate() {
            // A raw string cannot be continued on the next line.
            if line.chars().count() > COLUMNS_MAX && !line.contains("r#\"") {
                wrong.push(format!(
                    "{name}:{} is wider than {COLUMNS_MAX} columns",
                    i + 1
                ));
            }
            if let Some(word) = banned.iter().find(|word| line.contains(*word)) {
                wrong.push(format!("{name}:{} has {word}", i + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_commented_configuration_is_the_default() {
    let text = read(&root().join("config/default.toml"));
    assert_eq!(
        Config::from_toml(&text).expect("config/default.toml is read"),
        Config::default()
    );
    let lines: Vec<&str> = text.lines().collect();
    let mut keys = BTreeSet::new();
    for (i, line) in lines.iter().enumerate() {
        if let Some((key, _)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
            keys.insert(key.trim().to_string());
            assert!(
                i > 0 && lines[i - 1].starts_with("# "),
                "config/default.toml: {} has no comment",
                key.trim()
            );
        }
    }
    let expected: BTreeSet<String> = serde_json::to_value(Config::default())
        .expect("a configuration is data")
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, _)| k.clone())
        .collect();
    assert_eq!(
        keys, expected,
        "config/default.toml shows every setting, and no other"
    );
}

#[test]
fn readme_shows_the_whole_house() {
    let text = read(&root().join("README.md"));
    for name in CRATES {
        assert!(
            text.contains(&format!("src/{name}")),
            "README.md does not show src/{name}"
        );
    }
    for page in pages() {
        let name = page
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .to_string();
        assert!(
            name == "index.md" || read(&root().join("docs/index.md")).contains(&name),
            "docs/index.md does not lead to {name}"
        );
    }
}

#[test]
fn links_of_the_manual_lead_somewhere() {
    let mut wrong = Vec::new();
    for page in pages().into_iter().chain([root().join("README.md")]) {
        let text = read(&page);
        for target in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split([')', '#', ' ']).next())
        {
            let folder = page.parent().unwrap_or(Path::new("."));
            if !target.is_empty() && !target.contains("://") && !folder.join(target).exists() {
                wrong.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "links that lead nowhere:\n{}",
        wrong.join("\n")
    );
}

/// The crates that a simulation runs: time, threads and the end of the process they ask of their
/// machine (`clippy.toml` bans the same).
const SIMULATED: [&str; 5] = ["state", "operator", "control", "worker", "node"];

/// What they do not call.
const OF_THE_MACHINE: [&str; 11] = [
    "Instant::now",
    "SystemTime::now",
    "thread::sleep",
    "thread::spawn",
    "thread::Builder",
    "process::exit",
    "tokio::spawn",
    "tokio::time",
    "task::spawn_blocking",
    "Handle::current",
    "Condvar",
];

#[test]
fn simulated_crates_ask_their_machine() {
    let mut wrong = Vec::new();
    for path in SIMULATED.map(|name| files(&root().join("src").join(name).join("src"), "rs")) {
        for path in path {
            let of_tests = path.iter().any(|part| part == "tests");
            let name = path.file_stem().unwrap_or_default();
            if of_tests || ["tests", "testing", "measure"].iter().any(|n| name == *n) {
                continue;
            }
            let text = read(&path);
            let code = text.split("#[cfg(test)]\nmod tests {").next();
            for (at, line) in code.unwrap_or_default().lines().enumerate() {
                if OF_THE_MACHINE.iter().any(|call| line.contains(call)) {
                    wrong.push(format!("{}:{}: {}", path.display(), at + 1, line.trim()));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "ask `tidemark_common::machine`:\n{}",
        wrong.join("\n")
    );
}

fn pages() -> Vec<PathBuf> {
    files(&root().join("docs"), "md")
}

fn sources() -> Vec<PathBuf> {
    files(&root().join("src"), "rs")
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => found.extend(files(&path, extension)),
            false if path.extension().is_some_and(|e| e == extension) => found.push(path),
            false => {}
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
