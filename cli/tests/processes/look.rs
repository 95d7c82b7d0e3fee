//! `lakebed inspect` and `lakebed verify` as their user meets them: on directories that are well,
//! damaged, in use, or no node's. Neither changes a byte.

use crate::{
    common::{Scratch, fails, output, text},
    lone::Lone,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::{FileExt, MetadataExt, symlink},
    path::{Path, PathBuf},
};

/// A node with full segments and two snapshots.
fn lived() -> Lone {
    Lone::that(&["--snapshot-log-bytes", "1000000"], |connection| {
        for n in 0..600 {
            let value = [b'a' + (n % 26) as u8; 1000];
            redis::cmd("SET").arg(n % 40).arg(&value[..]).exec(connection).unwrap();
        }
    })
}

/// Everything that a look could change.
fn print(dir: &Path) -> BTreeMap<PathBuf, (i64, i64, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let own = fs::metadata(dir).unwrap();
    all.insert(dir.into(), (own.mtime(), own.mtime_nsec(), Vec::new()));
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let file = fs::metadata(&path).unwrap();
        all.insert(path.clone(), (file.mtime(), file.mtime_nsec(), fs::read(&path).unwrap()));
    }
    all
}

/// Runs it to this exit code, and reads what it says as one JSON object.
#[track_caller]
fn json(command: &str, dir: &Path, code: i32) -> Value {
    let output = output(&[command, text(dir), "--json"]);
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}{complaint}");
    serde_json::from_str(&said).unwrap()
}

#[test]
fn a_look_changes_nothing_and_tells_what_is_there() {
    let lone = lived();
    let before = print(lone.path());
    let inspected = json("inspect", lone.path(), 0);
    let verified = json("verify", lone.path(), 0);
    let told = output(&["inspect", text(lone.path())]);
    let summary = output(&["verify", text(lone.path())]);
    assert_eq!(print(lone.path()), before);

    assert_eq!(
        (&inspected["well"], &inspected["verdict"]["row"]),
        (&true.into(), &"ordinary".into())
    );
    assert_eq!(inspected["verdict"]["starts"], true);
    assert_eq!(inspected["hard_state"]["node"], 1);
    let hard = &inspected["hard_state"];
    for id in [&hard["cluster"], &hard["incarnation"], &hard["members"][0]["incarnation"]] {
        // A reader that keeps numbers as floating point would round it.
        assert!(id.as_str().is_some_and(|id| id.parse::<u64>().is_ok()), "{hard}");
    }
    let files = |of: &Value| -> Vec<String> {
        let all = of.as_array().unwrap().iter();
        all.map(|one| one["file"].as_str().unwrap().into()).collect()
    };
    for file in
        ["segments", "snapshots", "left_over"].iter().flat_map(|kind| files(&inspected[kind]))
    {
        assert!(before.contains_key(&lone.path().join(&file)), "{file}");
    }
    let kept: u64 = files(&inspected["segments"]).len() as u64;
    assert!(kept >= 2, "{inspected}");
    assert_eq!(files(&inspected["snapshots"]).len(), 2);
    let (first, last) = (&inspected["log"]["first"], &inspected["log"]["last"]["index"]);
    let entries = last.as_u64().unwrap() + 1 - first.as_u64().unwrap();
    assert_eq!(verified["verified"]["entries"], entries);
    let blocks = |one: &Value| one["blocks"].as_u64().unwrap();
    let blocks: u64 = inspected["snapshots"].as_array().unwrap().iter().map(blocks).sum();
    assert_eq!(verified["verified"]["blocks"], blocks);
    assert_eq!(inspected.get("verified"), None, "only a verification has read everything");

    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.starts_with("node         1 of cluster "), "{told}");
    assert!(told.contains("verdict      ordinary: "), "{told}");
    assert!(told.lines().all(|line| line.chars().count() <= 80), "{told}");
    let summary = String::from_utf8(summary.stdout).unwrap();
    assert!(summary.starts_with(&format!("nothing is wrong: {entries} entries")), "{summary}");

    // Nor does a look keep the node from starting.
    let node = lone.start();
    node.says("ready");
}

/// One byte in each structure, one at a time.
#[test]
fn a_damaged_byte_is_named() {
    const ALIGN: u64 = 4096;
    let lone = lived();
    let found = json("inspect", lone.path(), 0);
    let sealed = &found["segments"][0];
    assert_eq!(sealed["state"], "sealed");
    let snapshot = &found["snapshots"][1];
    let name = |of: &Value| of["file"].as_str().unwrap().to_string();
    let (segment, len) = (name(sealed), sealed["bytes"].as_u64().unwrap());
    let (saved, saved_len) = (name(snapshot), snapshot["bytes"].as_u64().unwrap());
    let image = fs::read(lone.path().join(&segment)).unwrap();
    // An entry, not the header, whose name begins with the same four letters.
    let mut places = image.windows(5).enumerate();
    let (entry, _) =
        places.find(|(_, bytes)| bytes.starts_with(b"LAKE") && bytes[4] != b'S').unwrap();
    let entry = entry as u64;
    let copies = [0u64, 64 << 10, 1 << 20, (1 << 20) + (64 << 10)];
    let mut cases = vec![
        (segment.clone(), 100, 0, "header A"),
        (segment.clone(), len - 2 * ALIGN + 100, len - 2 * ALIGN, "header B"),
        (segment.clone(), len - ALIGN + 20, len - ALIGN, "end record"),
        (segment.clone(), ALIGN + 45, ALIGN + 40, "the slot of entry"),
        (segment.clone(), entry + 20, entry, "entry"),
        (segment.clone(), entry + 70, entry, "entry"),
        (saved.clone(), 60, 0, "the header of a whole snapshot"),
        (saved.clone(), ALIGN + 2000, ALIGN, "block 0"),
        (saved.clone(), saved_len - ALIGN + 25, saved_len - ALIGN, "the footer"),
    ];
    cases.extend(copies.map(|at| ("hard-state".into(), at + 30, at, "hard state")));
    for (file, at, offset, expected) in cases {
        let path = lone.path().join(&file);
        flip(&path, at);
        let before = print(lone.path());
        let told = json("verify", lone.path(), 1);
        assert_eq!(print(lone.path()), before);
        assert_eq!(told["well"], false);
        let defects = told["defects"].as_array().unwrap();
        let [defect] = &defects[..] else { panic!("{file} at {at}: {defects:#?}") };
        let named = (&defect["file"], &defect["offset"]);
        assert_eq!(named, (&Value::from(file.clone()), &Value::from(offset)), "{defect}");
        let bytes = defect["bytes"].as_u64().unwrap();
        assert!((offset..offset + bytes).contains(&at), "{defect}");
        let said = defect["expected"].as_str().unwrap();
        assert!(said.contains(expected), "{file} at {at}: {defect}");
        assert!(!defect["found"].as_str().unwrap().is_empty());
        assert!(!defect["restart"].as_str().unwrap().is_empty());
        flip(&path, at);
    }
    json("verify", lone.path(), 0);

    let output = output(&["verify", text(lone.path())]);
    assert!(output.status.success());
    flip(&lone.path().join(&saved), ALIGN + 2000);
    let told = crate::common::output(&["verify", text(lone.path())]);
    let told = String::from_utf8(told.stdout).unwrap();
    for expected in
        [&*format!("{saved} at byte 4096 ("), "expected", "checksum", "1 record is wrong"]
    {
        assert!(told.contains(expected), "{told}");
    }
}

fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
}

/// What the look says of a directory that is beyond repair is what its node says.
#[test]
fn a_lost_hard_state_is_inspected_all_the_same() {
    let lone = Lone::new();
    lone.flip(&[0, 64 << 10, 1 << 20, (1 << 20) + (64 << 10)]);
    let found = json("inspect", lone.path(), 0);
    assert_eq!(
        (&found["verdict"]["row"], &found["verdict"]["starts"]),
        (&"hard-state-lost".into(), &false.into())
    );
    assert!(found["left_over"].as_array().unwrap().iter().any(|left| left["file"] == "log-1"));
    let verified = json("verify", lone.path(), 1);
    assert_eq!(verified["verdict"]["row"], "hard-state-lost");
    lone.is_refused(&["hard-state-lost"]);
}

/// It ended with `I/O error (errno 21)`, and told neither what to do nor what else was there.
#[test]
fn a_file_that_cannot_be_read_is_told_with_what_to_do_and_hides_nothing() {
    let lone = lived();
    let whole = json("inspect", lone.path(), 0);
    let segments = whole["segments"].as_array().unwrap();
    let file = segments.last().unwrap()["file"].as_str().unwrap();
    let (at, aside) = (lone.path().join(file), lone.path().join("aside"));
    // A mode is nothing to who may read all: what cannot be read by anybody stands in its place.
    let in_place: [(&dyn Fn(), &str); 2] = [
        (&|| fs::create_dir(&at).unwrap(), "Is a directory"),
        (&|| symlink("nowhere", &at).unwrap(), "No such file"),
    ];
    fs::rename(&at, &aside).unwrap();
    for (put, said) in in_place {
        put();
        for command in ["inspect", "verify"] {
            let expected = [file, said, "see to its owner", text(lone.path())];
            fails(&[command, text(lone.path())], 1, &expected);
            let told = json(command, lone.path(), 1);
            assert_eq!(
                (&told["well"], &told["verdict"]["row"], &told["verdict"]["starts"]),
                (&false.into(), &"unread".into(), &false.into())
            );
            let defects = told["defects"].as_array().unwrap();
            assert!(
                defects.iter().any(|defect| defect["file"] == file
                    && defect["found"].as_str().unwrap().contains(said))
            );
            assert_eq!(told["hard_state"]["node"], 1);
            let snapshot = whole["snapshots"][0]["file"].as_str().unwrap();
            assert!(told.to_string().contains(snapshot), "{told}");
        }
        // What it tells is what a start would do.
        lone.is_refused(&[file, said]);
        fs::remove_dir(&at).or_else(|_| fs::remove_file(&at)).unwrap();
    }
    fs::rename(&aside, &at).unwrap();
    assert_eq!(json("inspect", lone.path(), 0)["verdict"], whole["verdict"]);
    // One that nothing rests on keeps nobody from telling all the rest, and the node from starting.
    let spare = whole["left_over"]
        .as_array()
        .unwrap()
        .iter()
        .find_map(|left| left["file"].as_str().filter(|file| file.starts_with("spare-")));
    let spare = lone.path().join(spare.unwrap());
    fs::remove_file(&spare).unwrap();
    fs::create_dir(&spare).unwrap();
    let told = json("inspect", lone.path(), 1);
    assert_eq!((&told["segments"], &told["log"]), (&whole["segments"], &whole["log"]));
    lone.is_refused(&[text(&spare), "Is a directory"]);
}

#[test]
fn what_cannot_be_looked_at_is_told_with_what_to_do() {
    let scratch = Scratch::new();
    let at = |name: &str| scratch.path().join(name);
    fs::create_dir_all(at("empty")).unwrap();
    fs::create_dir_all(at("thesis")).unwrap();
    fs::write(at("thesis/chapter.tex"), "years of work").unwrap();
    fs::create_dir_all(at("newer")).unwrap();
    fs::write(at("newer/node"), "lakebed-node 2\n").unwrap();
    fs::create_dir_all(at("cluster/node-1")).unwrap();
    fs::write(at("cluster/node-1/node"), "lakebed-node 1\ncluster 1\ngroup 1\nnode 1\n").unwrap();
    fs::create_dir_all(at("spread/node-1")).unwrap();
    let groups = "{\"version\":1,\"groups\":2,\"is_formed\":true}";
    fs::write(at("spread/node-1/groups.json"), groups).unwrap();
    fs::write(at("file"), "").unwrap();
    for command in ["inspect", "verify"] {
        let refused = |name: &str, expected: &[&str]| {
            let path = at(name);
            fails(&[command, text(&path)], 1, &[&[text(&path)], expected].concat());
        };
        refused("empty", &["is empty: no node has lived there"]);
        refused("thesis", &["is no node's directory"]);
        refused("newer", &["layout 2", "use a newer version"]);
        let no_node = if command == "inspect" { "Not a directory" } else { "is no whole backup" };
        refused("file", &[no_node]);
        refused("nowhere", &["No such file"]);
        let one = format!("lakebed {command} {}", at("cluster/node-1").display());
        refused("cluster", &["holds 1 node", &one]);
        let one = format!("lakebed {command} {}", at("spread/node-1").display());
        refused("spread", &["holds 1 node", &one]);
        refused("cluster/node-1", &["has no node in it", "wiped"]);
        fails(&[command], 2, &["<DIR"]);
    }
    // As every look does that comes to something.
    let told = json("verify", &at("file"), 1);
    assert_eq!(told["well"], false);
    assert!(told["error"].as_str().is_some_and(|error| error.contains("is no whole backup")));
    fs::write(at("file.group-1"), "").unwrap();
    let path = at("file.group-1");
    fails(&["verify", text(&at("file"))], 1, &[text(&path), "was not looked at"]);
    assert!(!at("nowhere").exists());
    assert_eq!(fs::read_dir(at("empty")).unwrap().count(), 0);

    let lone = Lone::new();
    let node = lone.start();
    node.says("ready");
    let process = format!("locked by process {}", node.id());
    for command in ["inspect", "verify"] {
        fails(
            &[command, text(lone.path())],
            1,
            &["a node runs in this directory", &process, "lakebed status"],
        );
    }
}
