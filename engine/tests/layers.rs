//! Modules only look down, and so do crates; and the engine knows nothing of the system that it runs on
//! (ARCHITECTURE.md). What clippy finds is in `engine/clippy.toml`; here is what it cannot.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The vocabulary: its modules may know each other, and every module may know them.
const GROUND: [&str; 14] = [
    "action",
    "backup",
    "change",
    "config",
    "entry",
    "event",
    "file",
    "marks",
    "membership",
    "report",
    "state_machine",
    "status",
    "types",
    "wall",
];

/// Each other module, and those that it may know beside the ground.
const LAYERS: [(&str, &[&str]); 17] = [
    ("le", &[]),
    ("small", &[]),
    ("session", &["le"]),
    ("codec", &["le", "message"]),
    ("message", &["codec", "le"]),
    ("inspect", &["codec", "message"]),
    ("disk", &["le"]),
    ("storage", &["disk", "le"]),
    ("raft", &["codec", "le", "message", "storage"]),
    ("engine", &["codec", "message", "raft", "storage"]),
    ("contract", &["engine"]),
    ("host", &["codec", "contract", "engine"]),
    ("tape", &["engine", "le"]),
    ("files", &[]),
    ("conformance", &["contract", "engine"]),
    ("fuzzing", &["codec", "disk", "engine", "host", "le", "session", "tape"]),
    ("ground", &["le"]),
];

/// Each crate of the workspace, and those of them that it may depend on.
const CRATES: [(&str, &[&str]); 7] = [
    ("engine", &[]),
    ("sim", &["lakebed"]),
    ("explore", &["lakebed"]),
    ("kv", &["lakebed"]),
    ("runtime", &["lakebed"]),
    ("scenarios", &["lakebed", "lakebed-kv", "lakebed-sim"]),
    ("cli", &["lakebed", "lakebed-kv", "lakebed-runtime", "lakebed-scenarios", "lakebed-sim"]),
];

/// What is of the system among std's modules: to name one is to be able to read a clock, a file or a variable.
const SYSTEM: [&str; 8] = ["env", "fs", "io", "net", "os", "path", "process", "thread"];

/// Those who may know the system, and why.
const OUTSIDE: [(&str, &str); 3] = [
    ("files", "a disk for drivers: it performs what the engine asks for"),
    (
        "conformance",
        "it has threads, clocks and directories of its own around the driver that it checks",
    ),
    ("disk/golden", "a test's, built for nobody else: it reads the golden bytes"),
];

/// What cannot be in a function of state, time and events.
const FOREIGN: [&str; 10] = [
    "async",
    "await",
    "disallowed_methods",
    "disallowed_types",
    "eprint",
    "eprintln",
    "extern",
    "print",
    "println",
    "rustix",
];

#[test]
fn the_engine_knows_nothing_of_the_system() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for path in sources(&source).into_iter().chain([source.join("lib.rs")]) {
        let module = path.strip_prefix(&source).unwrap().with_extension("");
        if !OUTSIDE.iter().any(|(outside, _)| module.starts_with(outside)) {
            let names = foreign_names(&production_code(&path));
            wrong.extend(names.into_iter().map(|name| format!("{}: {name}", path.display())));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn modules_only_look_down() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for path in sources(&source) {
        let module = module_of(&path, &source);
        let allowed = allowed(&module);
        for named in named_modules(&production_code(&path)) {
            if named != module && !GROUND.contains(&&*named) && !allowed.contains(&&*named) {
                wrong.push(format!("{}: {module} must not know {named}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn crates_only_look_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut wrong = Vec::new();
    for (name, allowed) in CRATES {
        let manifest = fs::read_to_string(root.join(name).join("Cargo.toml")).unwrap();
        let (_, after) = manifest.split_once("\n[dependencies]").unwrap_or_default();
        let dependencies = after.split("\n[").next().unwrap_or_default();
        let ours = dependencies.lines().filter_map(|line| line.split(['.', ' ', '=']).next());
        for dependency in ours.filter(|dependency| dependency.starts_with("lakebed")) {
            if !allowed.contains(&dependency) {
                wrong.push(format!("{name} must not depend on {dependency}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn allowed(module: &str) -> &'static [&'static str] {
    let module = if GROUND.contains(&module) { "ground" } else { module };
    let layer = LAYERS.iter().find(|(name, _)| *name == module);
    layer.unwrap_or_else(|| panic!("{module} has no place among the layers")).1
}

/// All sources but the root and tests.
fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && name != "tests" {
            found.append(&mut sources(&path));
        } else if name.ends_with(".rs") && !["lib.rs", "tests.rs"].contains(&name) {
            found.push(path);
        }
    }
    found
}

fn module_of(path: &Path, source: &Path) -> String {
    let below = path.strip_prefix(source).unwrap().components().next().unwrap();
    below.as_os_str().to_str().unwrap().trim_end_matches(".rs").into()
}

/// Without comments, and without the tests at the end.
fn production_code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Every module that is named behind `crate::`, alone or in braces.
fn named_modules(code: &str) -> BTreeSet<String> {
    let behind = code.split("crate::").skip(1);
    behind.flat_map(first_names).map(|name| module_that_has(&name)).collect()
}

/// What does not belong into the engine.
fn foreign_names(code: &str) -> BTreeSet<String> {
    let of_std = code.split("std::").skip(1).flat_map(first_names);
    let of_system = of_std.filter(|name| SYSTEM.contains(&&**name));
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let words = code.split(|c| !is_word(c)).filter(|word| FOREIGN.contains(word));
    let numbers = code.split(|c| !is_word(c) && c != '.').filter(|token| is_float(token));
    of_system
        .map(|name| format!("std::{name}"))
        .chain(words.chain(numbers).map(String::from))
        .collect()
}

/// Whether it is a literal like `1.5`, `1e9` or `1f64`, where clippy finds no type that is named.
fn is_float(token: &str) -> bool {
    let is_number = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    let (whole, part) = token.split_once('.').unwrap_or((token, ""));
    let (number, exponent) = whole.split_once(['e', 'E']).unwrap_or((whole, ""));
    let is_suffixed = whole.ends_with("f32") || whole.ends_with("f64");
    let has_exponent =
        is_number(exponent) && number.chars().all(|c| c.is_ascii_digit() || c == '_');
    is_number(token) && !token.starts_with("0x") && (is_number(part) || is_suffixed || has_exponent)
}

/// The first name of each path in a use-tree.
fn first_names(tree: &str) -> Vec<String> {
    let mut names = vec![String::new()];
    let mut depth = 0;
    let mut within_name = true;
    for c in tree.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => {
                names.push(String::new());
                within_name = true;
                continue;
            }
            c if c.is_alphanumeric() || c == '_' => {
                if within_name {
                    names.last_mut().unwrap().push(c);
                }
                continue;
            }
            c if c.is_whitespace() => continue,
            _ => within_name = false,
        }
        if depth <= 0 {
            break;
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// The root's own names are those of the modules they come from.
fn module_that_has(name: &str) -> String {
    match name {
        "Engine" => "engine".into(),
        "Core" => "contract".into(),
        name if name.starts_with(char::is_uppercase) => "types".into(),
        name => name.into(),
    }
}

#[test]
fn use_trees_are_read() {
    let code = "use crate::{Action, disk::{Head, codec}, le}; crate::raft::x(); use crate::Engine;";
    let named: Vec<String> = named_modules(code).into_iter().collect();
    assert_eq!(named, ["disk", "engine", "le", "raft", "types"]);
}

#[test]
fn foreign_names_are_found() {
    let found = |code| foreign_names(code).into_iter().collect::<Vec<_>>();
    let code = "use std::{fmt, io::{self, Read}, time::Duration}; ::std::env::var(\"A\");";
    assert_eq!(found(code), ["std::env", "std::io"]);
    assert_eq!(found("async move { x.await; println!() }"), ["async", "await", "println"]);
    assert_eq!(found("x * 1.5 + 2f64 - 1e9 / 0.1_f32"), ["0.1_f32", "1.5", "1e9", "2f64"]);
    let own =
        "x.0.1 + 0x1e9 + 7usize; (0..10).map(|n| 1.max(n)); fs::f(); self.awaits(os); std::fmt";
    assert_eq!(found(own), [""; 0]);
}
