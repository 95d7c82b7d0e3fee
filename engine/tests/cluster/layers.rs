//! Modules only look down (ARCHITECTURE.md): read from the sources, so that an import that points
//! up fails here and not in a review.

use std::{fs, path::Path};

/// Modules that everything may use and that use nothing but each other.
const GROUND: &[&str] =
    &["action", "config", "entry", "event", "file", "le", "marks", "membership", "status", "types"];

/// What each part may name of the crate beside the ground.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("message", &[]),
    ("codec", &["message"]),
    ("disk", &["storage"]),
    ("storage", &["disk"]),
    ("raft", &["message", "storage"]),
    ("state_machine", &[]),
];

/// Which of the treaty's plain values consensus may name.
const TREATY_VALUES: &[&str] = &["Identity", "ReadBack", "Reader", "Recovered"];

/// The sources of a module without their tests, as (path, text).
fn sources(part: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (file, folder) = (root.join(format!("{part}.rs")), root.join(part));
    let mut found = Vec::new();
    if file.exists() {
        found.push(file);
    }
    if folder.exists() {
        let files = fs::read_dir(folder).expect("a folder of sources can be listed");
        found.extend(files.map(|entry| entry.expect("an entry").path()).filter(|path| {
            path.extension().is_some_and(|extension| extension == "rs")
                && path.file_stem().is_none_or(|stem| stem != "tests")
        }));
    }
    assert!(!found.is_empty(), "no module {part}");
    let read = |path: std::path::PathBuf| {
        let text = fs::read_to_string(&path).expect("a source file can be read");
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let code: Vec<_> =
            code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        (path.display().to_string(), code.join("\n"))
    };
    found.into_iter().map(read).collect()
}

/// The modules named after `crate::`, in use lists too.
fn named(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => names.extend(heads_of(list)),
            None => names.push(word(rest)),
        }
    }
    names.retain(|name| name.starts_with(char::is_lowercase));
    names
}

/// The first word of each element of a use list, up to its closing brace.
fn heads_of(list: &str) -> Vec<String> {
    let (mut depth, mut heads, mut fresh) = (0, Vec::new(), true);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            c if fresh && !c.is_whitespace() => {
                heads.push(word(&list[at..]));
                fresh = false;
            }
            _ => {}
        }
    }
    heads
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn modules_only_look_down() {
    for (part, allowed) in MAY_NAME {
        for (path, code) in sources(part) {
            for name in named(&code) {
                let down = name == *part
                    || allowed.contains(&name.as_str())
                    || GROUND.contains(&name.as_str());
                assert!(down, "{path} names crate::{name}");
            }
        }
    }
    for part in GROUND {
        for (path, code) in sources(part) {
            for name in named(&code) {
                assert!(GROUND.contains(&name.as_str()), "{path} names crate::{name}");
            }
        }
    }
}

#[test]
fn consensus_takes_plain_values_of_the_treaty_only() {
    for (path, code) in sources("raft") {
        for (at, _) in code.match_indices("storage::") {
            let rest = &code[at + "storage::".len()..];
            let names = match rest.strip_prefix('{') {
                Some(list) => heads_of(list),
                None => vec![word(rest)],
            };
            for name in names {
                assert!(TREATY_VALUES.contains(&name.as_str()), "{path} names storage::{name}");
            }
        }
        assert!(!code.contains("crate::file"), "{path} names files");
    }
}

#[test]
fn a_look_up_would_be_seen() {
    let code =
        "use crate::{\n    disk::segment::{Slot, X},\n    types::Term,\n};\ncrate::raft::a();";
    assert_eq!(named(code), ["disk", "types", "raft"]);
}
