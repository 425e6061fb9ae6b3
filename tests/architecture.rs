//! The layers of `src/lib.rs`, held by a test: a module uses only modules of lower layers.
//!
//! Also: files stay short enough to be read, and what belongs to one module is used nowhere else.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on ends here")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Modules by layer, lowest first. The order within a layer says nothing: siblings do not use
/// each other.
const LAYERS: [&[&str]; 9] = [
    &["error", "tensor"],
    &["telemetry", "config", "shared_memory", "stats"],
    &["protocol", "engine", "repository", "dataset", "store", "handoff"],
    &["scheduler", "monitor", "capture", "traffic", "governance"],
    &["registry"],
    &["rollout", "observe", "alert"],
    &["server", "console"],
    &["app"],
    &["cli"],
];

/// Lines that a file may have.
const LONGEST: usize = 500;

/// Words that only one module may use, and the module.
const OWNED: [(&str, &str); 5] = [
    // The exporter's histograms keep every sample until somebody scrapes: nobody may use them.
    ("register_histogram", "(no module)"),
    ("StatusCode", "server/reply.rs"),
    ("ArcSwap<LiveTable>", "registry/"),
    ("std::env::vars", "app/source.rs"),
    ("metrics_exporter_prometheus::", "telemetry/"),
];

fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                sources.push((path.strip_prefix(&root).unwrap().to_owned(), text));
            }
        }
    }
    sources.sort();
    sources
}

/// The module at the top of a path: `server` for `server/reply.rs`.
fn module(path: &Path) -> String {
    let first = path.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

fn layer(module: &str) -> usize {
    LAYERS
        .iter()
        .position(|modules| modules.contains(&module))
        .unwrap_or_else(|| panic!("module {module} has no layer: add it to LAYERS and to lib.rs"))
}

/// The modules that follow `crate::` in a text: `crate::a::...` and `crate::{a::..., b}`.
fn used(text: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (at, word) in text.match_indices("crate::") {
        // `$crate::` and names that end in `crate`.
        let before = text[..at].chars().next_back().unwrap_or(' ');
        if before.is_alphanumeric() || matches!(before, '_' | '$' | ':') {
            continue;
        }
        let rest = &text[at + word.len()..];
        let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 1;
            let mut item = String::new();
            for c in group.chars() {
                depth += i32::from(c == '{') - i32::from(c == '}');
                if depth == 0 || (depth == 1 && c == ',') {
                    let name = item.trim_start().chars().take_while(|&c| is_name(c));
                    used.insert(name.collect());
                    item.clear();
                } else {
                    item.push(c);
                }
                if depth == 0 {
                    break;
                }
            }
        } else {
            used.insert(rest.chars().take_while(|&c| is_name(c)).collect());
        }
    }
    used
}

#[test]
fn modules_use_only_lower_layers() {
    let mut edges = 0;
    for (path, text) in sources() {
        let own = module(&path);
        if matches!(own.as_str(), "lib" | "main") {
            continue;
        }
        for other in used(&text).into_iter().filter(|other| *other != own && !other.is_empty()) {
            edges += 1;
            assert!(
                layer(&other) < layer(&own),
                "{} uses {other}, which is not in a layer below {own}",
                path.display()
            );
        }
    }
    assert!(edges > 50, "only {edges} uses found: the test no longer reads them");
}

#[test]
fn lib_declares_the_modules_in_the_order_of_the_layers() {
    let (_, lib) = sources().into_iter().find(|(path, _)| path.ends_with("lib.rs")).unwrap();
    let declared: Vec<&str> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert!(declared.is_sorted_by_key(|module| layer(module)), "{declared:?}");
}

#[test]
fn files_are_short_and_words_stay_with_their_owners() {
    for (path, text) in sources() {
        let n_lines = text.lines().count();
        assert!(n_lines <= LONGEST, "{} has {n_lines} lines: split it by concept", path.display());
        for (word, owner) in OWNED {
            let is_owner = path.to_str().unwrap().starts_with(owner);
            assert!(
                is_owner || !text.contains(word),
                "{word} in {}, belongs to {owner}",
                path.display()
            );
        }
    }
}

#[test]
fn uses_are_found_in_every_form() {
    let text = "use crate::error::Code;\nuse crate::{tensor::Tensor, config};\nfn f() -> crate::engine::Plan { $crate::no::no }";
    assert_eq!(used(text).into_iter().collect::<Vec<_>>(), ["config", "engine", "error", "tensor"]);
}
