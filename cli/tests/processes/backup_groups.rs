//! The number of groups in a backup: where each key is depends on it, so a backup says it, and
//! whatever does not fit it is refused.

use crate::{
    common::{Patient, Process, Scratch, done, fails, json, lakebed, local, text},
    ports::ports,
    room::finds_no_room,
};
use lakebed::{ClusterId, Member, Membership, NodeId};
use lakebed_kv::slots::{Slots, slot};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A node that is a cluster alone, and what is taken from it.
struct Store {
    scratch: Scratch,
    /// Of nodes: for peers, and for clients.
    peers: u16,
    clients: u16,
}

impl Store {
    fn new() -> Self {
        Self { scratch: Scratch::new(), peers: ports(1), clients: ports(1) }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Serves from this directory, with as many groups as the flags say.
    fn serve(&self, dir: &str, flags: &[&str]) -> Process {
        Process::start(&mut lakebed(&strs(&self.flags("serve", dir, flags))))
    }

    fn flags(&self, command: &str, dir: &str, more: &[&str]) -> Vec<String> {
        let peers = format!("1={}", local(self.peers));
        let (dir, listen, resp) = (self.at(dir), local(self.peers), local(self.clients));
        let mut all = vec![command, "--id", "1", "--dir", text(&dir), "--peers", &peers];
        if command == "serve" {
            all.extend(["--listen", &listen, "--resp", &resp]);
        }
        all.extend(more);
        all.into_iter().map(String::from).collect()
    }

    fn node(&self) -> Patient {
        Patient::new(self.clients)
    }

    /// Backs a store up that holds this, in so many groups, and is stopped then.
    fn backed_up(&self, name: &str, groups: &str, keys: &[(String, String)]) -> PathBuf {
        let mut node =
            self.serve(&format!("{name}-node"), &["--groups", groups, "--cluster", name]);
        node.says("ready");
        keys.iter().for_each(|(key, value)| self.node().ask(&["SET", key, value]));
        let file = self.at(name);
        let told = json(&["backup", &local(self.clients), text(&file)]);
        let of = told["groups"].as_array().map_or(&told, |all| all.last().unwrap());
        let count = groups.parse::<u32>().unwrap();
        let says = if count == 1 { &told["groups"] } else { &of["groups"] };
        assert_eq!(says, count, "{told}");
        node.kill();
        node.ended();
        file
    }

    #[track_caller]
    fn refuses(&self, dir: &str, args: &[&str], expected: &[&str]) {
        fails(&strs(&self.flags("restore", dir, args)), 1, expected);
    }

    fn restores(&self, dir: &str, args: &[&str]) -> serde_json::Value {
        json(&strs(&self.flags("restore", dir, args)))
    }
}

fn strs(flags: &[String]) -> Vec<&str> {
    flags.iter().map(String::as_str).collect()
}

fn few() -> Vec<(String, String)> {
    (0..40).map(|n| (format!("key-{n}"), n.to_string())).collect()
}

#[test]
fn a_backup_says_of_how_many_groups_it_is_and_no_other_number_is_taken() {
    let store = Store::new();
    let (four, one) = (store.backed_up("four", "4", &few()), store.backed_up("one", "1", &few()));
    let (file, of_one) = (text(&four), text(&one));
    let first = format!("{file}.group-1");
    store.refuses(
        "new",
        &[file, "--groups", "2"],
        &[
            "--groups 2, but",
            "four.group-1 is a backup \
        of group 1 of 4",
            "leave --groups out",
        ],
    );
    store.refuses("new", &[&first], &["group 1 of 4", "restored together", "name ", "four, which"]);
    store.refuses("new", &[&first, "--groups", "1"], &["group 1 of 4", "restored together"]);
    store.refuses(
        "new",
        &[of_one, "--groups", "4"],
        &[
            "--groups 4, but",
            "one is a backup of group \
        1 of 1",
            "leave --groups out",
        ],
    );
    store.refuses("new", &[text(&store.at("none"))], &["none: No such file", "none.group-1"]);
    // Which it is not known to lack: it was said to.
    let below = store.at("four.group-1/below");
    for asked in [&[][..], &["--groups", "4"]] {
        let flags = [&[text(&below)], asked].concat();
        store.refuses("new", &flags, &["four.group-1/below", ": Not a directory"]);
    }
    // It was told to give the name that it had given.
    fs::copy(store.at("four.group-2"), &four).unwrap();
    let hidden = "four.group-1 and those that follow: give it another name";
    store.refuses("new", &[file], &["four is a backup of group 2 of 4", hidden]);
    fs::remove_file(&four).unwrap();

    // Files that were mixed up.
    let mix = |name: &str, files: [&Path; 4]| {
        for (group, file) in (1..).zip(files) {
            fs::copy(file, store.at(&format!("{name}.group-{group}"))).unwrap();
        }
        store.at(name)
    };
    let other = store.backed_up("other", "4", &few());
    let [a, b, c, d] = [1, 2, 3, 4].map(|n| store.at(&format!("four.group-{n}")));
    let stranger = store.at("other.group-3");
    assert!(other.with_extension("group-3").exists());
    let swapped = mix("swapped", [&a, &c, &b, &d]);
    let strange = mix("strange", [&a, &b, &stranger, &d]);
    let mixed = mix("mixed", [&a, &b, &c, &one]);
    let lacking = mix("lacking", [&a, &b, &c, &d]);
    fs::remove_file(store.at("lacking.group-3")).unwrap();
    for (name, expected) in [
        (&swapped, ["swapped.group-2 is a backup of group 3 of 4", "group 2 belongs"]),
        (&strange, ["strange.group-3 of cluster", "of one store"]),
        (&mixed, ["group 1 of 4", "mixed.group-4 is a backup of group 1 of 1"]),
        (&lacking, ["lacking.group-3 is missing", "a store of 4 groups"]),
    ] {
        store.refuses("new", &[text(name)], &expected);
        fails(&["verify", text(name)], 1, &expected);
    }
    assert!(!store.at("new").exists(), "nothing was made");

    // It is whole, and it goes on with as many as there were.
    let verified = json(&["verify", file]);
    let groups: Vec<_> =
        verified["backup"].as_array().unwrap().iter().map(|b| &b["group"]).collect();
    assert_eq!(groups, [1, 2, 3, 4]);
    assert_eq!(json(&["verify", of_one])["backup"][0]["groups"], 1);
    let made = store.restores("new", &[file]);
    assert_eq!(made["groups"][3]["groups"], 4, "{made}");
    let inspected = json(&["inspect", text(&store.at("new"))]);
    assert_eq!(inspected["groups"][2]["snapshots"][0]["groups"], 4, "{inspected}");
    store.serve("new", &[]).says("the keys are spread over 4 groups");
    // Said where it is to be found, and a directory of it alone will do.
    fs::create_dir(store.at("shelf")).unwrap();
    mix("shelf/four", [&a, &b, &c, &d]);
    store.restores("more", &[text(&store.at("shelf"))]);
    let node = store.serve("more", &[]);
    node.says("ready");
    assert_eq!(store.node().ask::<u64>(&["DBSIZE"]), 40);
    assert_eq!(store.node().ask::<String>(&["GET", "key-7"]), "7");
}

/// As backups are that were taken before there was a place for the number.
#[test]
fn a_backup_that_says_no_number_is_believed_whoever_restores_it() {
    let store = Store::new();
    let two = store.backed_up("two", "2", &few());
    let member = Member { id: NodeId(1), incarnation: 0, address: "nowhere:1".into() };
    let members = Arc::new(Membership::of([member]));
    let old = store.at("old");
    for group in ["group-1", "group-2"] {
        let file = two.with_extension(group);
        let backup = lakebed_runtime::read_backup(&file, |_, _| ()).unwrap();
        assert_eq!(backup.groups, 2);
        let (dir, name) = (store.at(&format!("silent-{group}")), backup.at);
        let backup = lakebed::Backup { groups: 0, ..backup };
        let who = (ClusterId(77), NodeId(1));
        lakebed_runtime::restore(&dir, who, Arc::clone(&members), (&file, backup), |_, _| ())
            .unwrap();
        let snapshot = dir.join(format!("snapshot-{}-{}", name.index, name.term));
        fs::copy(snapshot, old.with_extension(group)).unwrap();
    }
    let old = text(&old);
    store.refuses("new", &[old], &["old.group-1 does not say", "give --groups 2"]);
    store.refuses("new", &[old, "--groups", "3"], &["old.group-3 is missing"]);
    let verified = json(&["verify", old]);
    assert_eq!((&verified["backup"][1]["groups"], &verified["well"]), (&0.into(), &true.into()));
    store.restores("new", &[old, "--groups", "2"]);
    // From here on it is known.
    let inspected = json(&["inspect", text(&store.at("new"))]);
    assert_eq!(inspected["groups"][0]["snapshots"][0]["groups"], 2, "{inspected}");
    let node = store.serve("new", &[]);
    node.says("ready");
    assert_eq!(store.node().ask::<u64>(&["DBSIZE"]), 40);
}

/// The groups that were there were of the old peers, those that came of the new ones.
#[track_caller]
fn refuses_another_node(store: &Store, file: &Path) {
    let dir = store.at("new");
    let begun = "beginning of node 1 of cluster";
    let members = format!("(1={})", local(store.peers));
    for (id, peers, cluster) in [
        ("1", "1=elsewhere:1", "fresh"),
        ("2", "1=here:1,2=there:2", "fresh"),
        ("1", &format!("1={}", local(store.peers)), "other"),
    ] {
        let asked = format!("asked for is node {id} of cluster");
        let restore = ["restore", text(file), "--dir", text(&dir), "--cluster", cluster];
        fails(
            &[&restore[..], &["--id", id, "--peers", peers]].concat(),
            1,
            &[begun, &members, &asked, &format!("({peers})"), "as they were given"],
        );
    }
    // As an earlier version left it.
    let path = store.at("new/groups.json");
    let kept = fs::read_to_string(&path).unwrap();
    let mut old: serde_json::Value = serde_json::from_str(&kept).unwrap();
    old.as_object_mut().unwrap().remove("restoring_as").unwrap();
    fs::write(&path, old.to_string()).unwrap();
    let again = [text(file), "--cluster", "fresh"];
    store.refuses("new", &again, &["groups.json does not say of which", "remove it first"]);
    fs::write(&path, kept).unwrap();
}

/// Cut short at its first file, a restore was refused for ever: that file was in the way.
#[test]
fn a_restore_of_groups_that_was_cut_short_at_its_first_file_is_repeated() {
    let store = Store::new();
    let two = store.backed_up("two", "2", &few());
    let new = store.at("new");
    fs::create_dir_all(new.join("lost+found")).unwrap();
    fs::write(new.join("groups.json.part"), "{").unwrap();
    // Two that were given at once both said that they had made it.
    let other = fs::File::create(new.join("LOCK")).unwrap();
    other.lock().unwrap();
    store.refuses("new", &[text(&two)], &["locked: another restore is at work there"]);
    drop(other);
    assert!(!new.join("groups.json").exists());
    store.restores("new", &[text(&two)]);
    let node = store.serve("new", &[]);
    node.says("ready");
    assert_eq!(store.node().ask::<u64>(&["DBSIZE"]), 40);
}

/// The second group finds no room: what there is starts nothing, or that group would begin empty.
/// The next try does what is left.
#[test]
fn a_restore_of_groups_that_was_cut_short_is_refused_and_repeated() {
    let (store, second) =
        (Store::new(), |key: &str| Slots::over(2).group(slot(key.as_bytes())) == 1);
    let heavy = (0..200).map(|n| (format!("key-{n}"), "x".repeat(40_000)));
    let heavy: Vec<_> = heavy.filter(|(key, _)| second(key)).collect();
    let two = store.backed_up("two", "2", &heavy);
    let other = store.backed_up("other", "2", &few());
    let named = |file| [file, "--cluster", "fresh"];
    let restore = store.flags("restore", "new", &named(text(&two)));
    finds_no_room(&strs(&restore), 3000, &["group-2", "no room left"]);
    assert!(store.at("new/group-1/hard-state").exists());
    assert!(!store.at("new/group-2/hard-state").exists());
    let serve = store.flags("serve", "new", &["--cluster", "fresh"]);
    fails(&strs(&serve), 1, &["was not restored to the end", "give `lakebed restore` again"]);
    store.refuses("new", &named(text(&other)), &["beginning of a node", "made of this backup"]);
    refuses_another_node(&store, &two);
    store.restores("new", &named(text(&two)));
    store.refuses("new", &named(text(&two)), &["holds a node already"]);
    let node = store.serve("new", &["--cluster", "fresh"]);
    node.says("ready");
    assert_eq!(store.node().ask::<usize>(&["DBSIZE"]), heavy.len());
    fs::create_dir(store.at("thesis")).unwrap();
    fs::write(store.at("thesis/chapter.tex"), "years of work").unwrap();
    store.refuses("thesis", &[text(&two)], &["chapter.tex is in the way", "empty directory"]);
    assert_eq!(fs::read_dir(store.at("thesis")).unwrap().count(), 1, "not even a lock is left");
}

/// It said to begin a new cluster with it, which `restore` refuses.
#[test]
fn of_one_group_of_several_nothing_is_said_to_begin() {
    let store = Store::new();
    let node = store.serve("node", &["--groups", "2"]);
    node.says("ready");
    let (at, file) = (local(store.clients), store.at("second"));
    let told = done(&["backup", &at, text(&file), "--group", "2"]);
    assert!(told.contains("lakebed restore` takes all 2 groups of a store"), "{told}");
    assert!(!told.contains("to begin a new cluster"), "{told}");
    store.refuses("new", &[text(&file)], &["group 2 of 2", "restored together"]);
}
