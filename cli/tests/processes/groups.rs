//! Keys over several groups, as processes: every acknowledged write outlives a node that is killed,
//! and the number of groups is the same for ever.

use crate::{
    cluster::{Cluster, NODES},
    common::{
        Patient, Process, Scratch, connect, done, eventually, fails, json, lakebed, local, output,
    },
    ports::ports,
};
use lakebed_kv::slots::{Slots, slot};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
};

const GROUPS: usize = 4;
const WRITERS: usize = 4;

fn wrap(command: Command) -> Command {
    command
}

fn group(key: &str) -> usize {
    Slots::over(GROUPS).group(slot(key.as_bytes()))
}

/// Every key of a scan from its beginning to its end.
fn scan(node: &mut Patient) -> BTreeSet<String> {
    let (mut cursor, mut found) = ("0".to_string(), BTreeSet::new());
    loop {
        let (next, keys): (String, Vec<String>) = node.ask(&["SCAN", &cursor, "COUNT", "50"]);
        found.extend(keys);
        if next == "0" {
            return found;
        }
        cursor = next;
    }
}

/// Writes keys of its own until it is told to stop; which of them were acknowledged.
fn write(mut node: Patient, writer: usize, stop: &AtomicBool) -> Vec<String> {
    let mut acknowledged = Vec::new();
    while !stop.load(Relaxed) {
        let key = format!("w{writer}-{}", acknowledged.len());
        // Asked until it is: whatever was not acknowledged before may be there as well.
        node.ask::<String>(&["SET", &key, &key]);
        acknowledged.push(key);
    }
    acknowledged
}

/// All nodes have applied the same in each group.
fn check_digests(cluster: &Cluster) {
    for group in (1..=GROUPS).map(|group| group.to_string()) {
        eventually("all nodes have applied the same", || {
            let digest = |n| -> (u64, String) {
                cluster.node(n).ask(&["LAKEBED", "GROUP", &group, "DIGEST"])
            };
            let all: Vec<_> = (0..u64::from(NODES)).map(digest).collect();
            all.iter().all(|one| *one == all[0])
        });
    }
}

#[test]
fn what_was_acknowledged_in_any_group_outlives_a_node_that_is_killed() {
    let mut cluster = Cluster::start(Scratch::new(), &["--groups", "4"], wrap);
    let stop = AtomicBool::new(false);
    let victim = NODES - 1;
    let acknowledged: Vec<String> = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (node, stop) = (cluster.node(writer as u64 % 2), &stop);
                scope.spawn(move || write(node, writer, stop))
            })
            .collect();
        let count = || cluster.node(0).ask::<u64>(&["DBSIZE"]);
        eventually("there are writes", || count() > 100);
        let id = cluster.nodes[usize::from(victim)].id();
        rustix::process::kill_process(id, rustix::process::Signal::KILL).unwrap();
        let before = count();
        eventually("two nodes go on in every group", || count() > before + 200);
        stop.store(true, Relaxed);
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    assert_eq!(acknowledged.iter().map(|key| group(key)).collect::<BTreeSet<_>>().len(), GROUPS);
    cluster.nodes[usize::from(victim)].ended();
    cluster.restart(victim);
    cluster.nodes[usize::from(victim)].says("ready");
    for n in 0..u64::from(NODES) {
        let mut node = cluster.node(n);
        for key in &acknowledged {
            assert_eq!(node.ask::<Option<String>>(&["GET", key]).as_ref(), Some(key), "node {n}");
        }
        let found = scan(&mut node);
        let missing: Vec<_> = acknowledged.iter().filter(|key| !found.contains(*key)).collect();
        assert!(missing.is_empty(), "a scan of node {n} misses {missing:?}");
        assert_eq!(node.ask::<usize>(&["DBSIZE"]), found.len());
    }
    check_digests(&cluster);
    // All of them at once: from the disk, and from nothing else.
    cluster.kill(0..NODES);
    (0..NODES).for_each(|n| cluster.restart(n));
    cluster.nodes.iter().for_each(|node| drop(node.says("ready")));
    let mut node = cluster.node(1);
    for key in &acknowledged {
        assert_eq!(node.ask::<Option<String>>(&["GET", key]).as_ref(), Some(key));
    }
}

#[test]
fn keys_of_several_groups_are_refused_together_and_tags_keep_them_together() {
    let cluster = Cluster::start(Scratch::new(), &["--groups", "4"], wrap);
    let mut node = cluster.node(0);
    let other = (0..).map(|n| format!("b{n}")).find(|key| group(key) != group("a")).unwrap();
    node.ask::<String>(&["SET", "a", "1"]);
    let mut connection = connect(cluster.clients).unwrap();
    for verb in ["MGET", "DEL", "EXISTS"] {
        let asked = redis::cmd(verb).arg("a").arg(&other).query::<redis::Value>(&mut connection);
        let error = asked.unwrap_err();
        assert_eq!(error.code(), Some("CROSSSLOT"), "{verb}: {error}");
    }
    node.ask::<String>(&["MSET", "{a}x", "2", "{a}y", "3"]);
    let found: Vec<String> = node.ask(&["MGET", "a", "{a}x", "{a}y"]);
    assert_eq!(found, ["1", "2", "3"]);
    let info: String = node.ask(&["INFO"]);
    assert!(info.contains("groups:4") && info.contains("\r\n# Groups\r\ngroup1:slots=0-4095,"));
}

/// The same command again until it is done: leaders may just have changed.
fn done_in_time(args: &[&str]) {
    let early = ["leader", "nobody leads", "not over", "not answer", "leads, and none"];
    eventually("it is done", || {
        let output = output(args);
        let complaint = String::from_utf8_lossy(&output.stderr);
        let is_early = early.iter().any(|early| complaint.contains(early));
        assert!(output.status.success() || is_early, "{args:?}: {complaint}");
        output.status.success()
    });
}

/// With each group one that hangs was waited for again, for 64 groups twenty minutes.
#[test]
fn a_node_that_does_not_answer_is_asked_once_for_all_groups() {
    let cluster = Cluster::start(Scratch::new(), &["--groups", "4"], wrap);
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let all = [0, 1, 2].map(|n| local(cluster.clients + n)).join(",");
    let all = format!("{},{all}", mute.local_addr().unwrap());
    let asked = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&asked);
    thread::spawn(move || {
        // Counted before it is let go of, which is what the command waits for.
        while let Ok(_client) = mute.accept() {
            counted.fetch_add(1, Relaxed);
        }
    });
    let listed = json(&["member", "list", &all]);
    assert_eq!(listed["groups"].as_array().map(Vec::len), Some(4), "{listed}");
    assert_eq!(asked.load(Relaxed), 1);
    // The list was taken for the name of one host.
    let told = json(&["groups", &all]);
    assert_eq!(told["groups"].as_array().map(Vec::len), Some(4), "{told}");
    fails(&["groups", "127.0.0.1:9,127.0.0.1:13"], 1, &["cannot ask 127.0.0.1:9:"]);
    fails(&["groups", "127.0.0.1:9,here"], 2, &["HOST:PORT"]);
}

/// Orders that name no group go to all of them; leaders are found among the nodes that are named.
#[test]
fn a_node_joins_all_groups_leads_them_and_another_leaves() {
    let mut cluster = Cluster::start(Scratch::new(), &["--groups", "2"], wrap);
    for n in 0..50 {
        cluster.node(0).ask::<String>(&["SET", &format!("key-{n}"), "value"]);
    }
    let (peers, clients) = (ports(1), ports(1));
    let address = local(peers);
    let mut fourth = cluster.join(3, peers, clients);
    let old: Vec<_> = (0..NODES).map(|n| local(cluster.clients + n)).collect();
    let all = format!("{},127.0.0.1:{clients}", old.join(","));
    // It knows of nobody, and so of nobody who is gone: that node 3 is no member it said of each group.
    let outside = local(clients);
    eventually("it can be asked", || output(&["status", &outside]).status.success());
    fails(&["member", "remove", &outside, "3"], 1, &["group 1: "]);
    fails(&["member", "list", &outside], 1, &["group 1: node 4 knows no members"]);
    done_in_time(&["member", "add", &old.join(","), "4", &address]);
    done_in_time(&["member", "promote", &all, "4", "--group", "2"]);
    // The first refusal was the end, and what was done before it was told to nobody who reads JSON.
    eventually("it leads the group that it votes in, and the other is told of", || {
        let handed = output(&["transfer", &all, "--to", "4", "--json"]);
        assert_eq!(handed.status.code(), Some(1));
        let told: Value = serde_json::from_slice(&handed.stdout).unwrap_or_default();
        let error = told["groups"][0]["error"].as_str().unwrap_or_default();
        error.contains("node 4 has no vote") && told["groups"][1]["leader"] == 4
    });
    done_in_time(&["member", "promote", &all, "4"]);
    let listed = json(&["member", "list", &all]);
    for group in listed["groups"].as_array().unwrap() {
        assert_eq!(group["members"].as_array().unwrap().len(), 4, "{listed}");
    }
    // Whoever leads some hands over what it leads.
    let handed = output(&["transfer", &old[0], "--to", "4"]);
    let complaint = String::from_utf8_lossy(&handed.stderr);
    assert!(handed.status.success() || complaint.contains("leads"), "{complaint}");
    let new = local(clients);
    eventually("the new node leads all groups", || {
        // A name may be gone with its node.
        output(&["transfer", &format!("gone.invalid:1,{all}"), "--to", "4"]);
        json(&["status", &new])["leads"] == 2
    });
    // Asked for what is so already, it is told so.
    let told = json(&["transfer", &all, "--to", "4"]);
    assert!(told["groups"].as_array().unwrap().iter().all(|group| group["leader"] == 4), "{told}");
    let groups = json(&["groups", &new]);
    let slots: Vec<_> = groups["groups"].as_array().unwrap().iter().map(|g| &g["slots"]).collect();
    assert_eq!(slots, [&serde_json::json!([0, 8191]), &serde_json::json!([8192, 16383])]);
    assert!(done(&["groups", &new]).starts_with("group 1    slots 0-8191, leader, term "));
    assert_eq!(json(&["status", &new, "--group", "2"])["role"], "leader");

    done_in_time(&["member", "remove", &all, "1"]);
    cluster.nodes[0].ended();
    assert!(cluster.nodes[0].errors().contains("no member of its cluster"), "it says why it ended");
    assert_eq!(Patient::new(clients).ask::<u64>(&["DBSIZE"]), 50);
    fourth.kill();
    fourth.ended();
    let fourth = cluster.join(3, peers, clients);
    fourth.says("ready");
    assert_eq!(Patient::new(clients).ask::<String>(&["GET", "key-7"]), "value");
    fails(&["member", "list", &new, "--group", "3"], 1, &["the groups of", "are 1 to 2"]);
}

/// Of the groups before the one that refuses nothing was told to whoever reads JSON.
#[test]
fn what_was_done_before_a_refusal_is_told_of_each_group() {
    let cluster = Cluster::start(Scratch::new(), &["--groups", "3"], wrap);
    let (peers, clients) = (ports(1), ports(1));
    let (address, outside) = (local(peers), local(clients));
    let _fourth = cluster.join(3, peers, clients);
    eventually("it can be asked", || output(&["status", &outside]).status.success());
    let all = [0, 1, 2].map(|n| local(cluster.clients + n)).join(",");
    done_in_time(&["member", "add", &all, "4", &address, "--group", "1"]);
    eventually("it votes in the group that it was added to", || {
        let promoted = output(&["member", "promote", &all, "4", "--json"]);
        assert_eq!(promoted.status.code(), Some(1));
        let complaint = String::from_utf8_lossy(&promoted.stderr);
        let told: Value = serde_json::from_slice(&promoted.stdout).unwrap_or_default();
        let groups = told["groups"].as_array().map(Vec::as_slice);
        let Some([first, second]) = groups else { return false };
        let votes = |member: &Value| member["id"] == 4 && member["votes"] == true;
        assert!(first["members"].as_array().unwrap().iter().any(votes), "{told}");
        assert_eq!((&first["group"], &second["group"]), (&1.into(), &2.into()));
        let error = second["error"].as_str().unwrap();
        assert!(complaint.contains(error), "{complaint}");
        error.starts_with("group 2: ") && error.contains("node 4 is no member")
    });
}

/// All groups are looked at, backed up and restored, each with files of its own.
#[test]
fn groups_are_inspected_backed_up_and_restored_together() {
    let mut cluster = Cluster::start(Scratch::new(), &["--groups", "2"], wrap);
    for n in 0..50 {
        cluster.node(0).ask::<String>(&["SET", &format!("key-{n}"), "value"]);
    }
    let address = local(cluster.clients);
    let snapshots = json(&["snapshot", &address]);
    assert_eq!(snapshots["groups"].as_array().unwrap().len(), 2, "{snapshots}");
    let scratch = Scratch::new();
    let file = scratch.path().join("backup").display().to_string();
    let told = done(&["backup", &address, &file]);
    for group in 1..=2 {
        let of = format!("group {group} of 2: {file}.group-{group}: ");
        assert!(told.contains(&of), "{told}");
    }
    fails(&["backup", &address, &file], 1, &["backup.group-1 exists already"]);
    let one = scratch.path().join("one").display().to_string();
    assert!(done(&["backup", &address, &one, "--group", "2"]).contains("group 2 of 2: "));

    cluster.kill(0..NODES);
    let dir = cluster.node_dir(0).display().to_string();
    assert!(done(&["inspect", &dir]).contains("group 2, "));
    assert_eq!(json(&["verify", &dir])["groups"].as_array().unwrap().len(), 2);

    let new = scratch.path().join("new").display().to_string();
    let (peer, resp) = (ports(1), ports(1));
    let (listen, clients) = (local(peer), local(resp));
    let peers = format!("1={listen}");
    let who = ["--dir", &new, "--id", "1", "--peers", &peers];
    let [restore, one] = [&file, &one].map(|file| [&["restore", file], &who[..]].concat());
    fails(&one, 1, &["is a backup of group 2 of 2", "are restored together", "call them NAME.gr"]);
    let told = done(&restore);
    assert!(told.contains("--groups 2 --listen"), "{told}");
    let serve = [&["serve", "--listen", &listen, "--resp", &clients], &who[..]].concat();
    let node = Process::start(&mut lakebed(&serve));
    node.says("ready");
    assert_eq!(Patient::new(resp).ask::<u64>(&["DBSIZE"]), 50);
}

#[test]
fn another_number_of_groups_is_refused_with_what_was_found() {
    let mut cluster = Cluster::start(Scratch::new(), &["--groups", "2"], wrap);
    cluster.kill(0..NODES);
    let dir = cluster.node_dir(0).display().to_string();
    let (peers, clients) = (ports(1), ports(1));
    let (listen, resp) = (local(peers), local(clients));
    let peers = format!("1={listen}");
    let serve = ["serve", "--id", "1", "--dir", &dir, "--listen", &listen, "--peers", &peers];
    let serve = [&serve[..], &["--resp", &resp]].concat();
    let with = |more: &[&str], code, expected: &[&str]| {
        fails(&[&serve[..], more].concat(), code, expected);
    };
    with(&["--groups", "4"], 1, &["--groups 4, but", "holds a node of 2", "leave --groups out"]);
    with(&["--groups", "1"], 1, &["--groups 1, but", "holds a node of 2"]);
    with(&["--groups", "65"], 2, &["65"]);
    with(&["--disk", "uring"], 2, &["--disk uring writes for one group"]);
    with(&["--tape", "somewhere"], 2, &["--tape records one engine"]);
    // A group that is lost is named, and does not begin anew.
    fs::rename(cluster.node_dir(0).join("group-2"), cluster.node_dir(0).join("lost")).unwrap();
    with(&[], 1, &["group-2 is gone, and was there", "put the folder back"]);
}

#[test]
fn up_spreads_keys_over_groups_and_remembers_how_many() {
    let dir = Scratch::new();
    let (clients, peers) = (ports(3).to_string(), ports(3).to_string());
    let path = dir.path().display().to_string();
    let up = ["up", "--dir", &path, "--port", &clients, "--peer-port", &peers];
    let quick = ["--heartbeat-ms", "50", "--election-ms", "200"];
    let up = [&up[..], &quick].concat();
    let mut process = Process::start(&mut lakebed(&[&up[..], &["--groups", "3"]].concat()));
    process.says("  the keys are spread over 3 groups");
    process.says("ready");
    let mut node = Patient::new(clients.parse().unwrap());
    for n in 0..30 {
        node.ask::<String>(&["SET", &format!("key-{n}"), "value"]);
    }
    process.kill();
    process.ended();
    fails(&[&up[..], &["--groups", "2"]].concat(), 2, &["--groups 2, but", "a cluster of 3"]);
    let process = Process::start(&mut lakebed(&up));
    process.says("node 1, group 1, found: ");
    process.says("ready");
    assert_eq!(Patient::new(clients.parse().unwrap()).ask::<u64>(&["DBSIZE"]), 30);
}

/// Each group has lost its quorum, and each is recovered; a command that was given before has
/// nothing left to do.
#[test]
fn a_survivor_goes_on_alone_in_every_group() {
    let mut cluster = Cluster::start(Scratch::new(), &["--groups", "4"], wrap);
    let keys: Vec<_> = (0..40).map(|n| format!("key-{n}")).collect();
    assert_eq!(keys.iter().map(|key| group(key)).collect::<BTreeSet<_>>().len(), GROUPS);
    let mut node = cluster.node(1);
    keys.iter().for_each(|key| node.ask(&["SET", key, key]));
    check_digests(&cluster);
    cluster.kill(0..NODES);
    let dir = cluster.node_dir(0);
    let dir = dir.to_str().unwrap();
    fails(&["recover", dir, "--force"], 1, &["group 1", "nobody is there to be asked"]);
    let third = format!("{dir}/group-3");
    let recover = |dir| output(&["recover", dir, "--force", "--yes", "--json"]);
    assert!(recover(&third).status.success());
    let all = recover(dir);
    assert!(all.status.success(), "{}", String::from_utf8_lossy(&all.stderr));
    let passed_over = String::from_utf8_lossy(&all.stderr);
    assert!(passed_over.contains("group 3: this node is its only voter already"), "{passed_over}");
    let all: Value = serde_json::from_slice(&all.stdout).unwrap();
    let made = all["groups"].as_array().unwrap().iter();
    let made: Vec<_> = made
        .map(|made| (made["group"].clone(), made["was_done"].clone(), made["epoch"].clone()))
        .collect();
    let of = |group: u64| match group {
        3 => (group.into(), true.into(), Value::Null),
        _ => (group.into(), false.into(), 1.into()),
    };
    assert_eq!(made, [1, 2, 3, 4].map(of));
    cluster.restart(0);
    let mut alone = cluster.node(0);
    for key in &keys {
        assert_eq!(alone.ask::<String>(&["GET", key]), *key);
        alone.ask::<String>(&["SET", key, "alone"]);
    }
}

/// Who looked for the leader of that group found the one that had left it, for as long as its process
/// had other groups, and every order ended there.
#[test]
fn a_group_that_has_ended_on_a_node_is_not_led_by_it() {
    let cluster = Cluster::start(Scratch::new(), &["--groups", "2"], wrap);
    let (all, two) = ([0, 1, 2].map(|n| local(cluster.clients + n)), Slots::over(2));
    let first = |at: &str| json(&["status", at])["groups"][0].clone();
    let leader = || (1..).zip(&all).find(|(_, at)| first(at)["role"] == "leader");
    let mut left = (0, "");
    eventually("the leader leaves a group", || {
        let Some((id, at)) = leader() else { return false };
        left = (id, at);
        let id = id.to_string();
        output(&["member", "remove", "--group", "1", at, &id]).status.success()
    });
    eventually("it has ended there", || first(left.1)["role"] == "follower");
    let ended = first(left.1);
    assert_eq!((&ended["ready"], &ended["leader"]), (&false.into(), &Value::Null), "{ended}");
    assert_eq!(ended["ended"], true, "{ended}");
    assert!(done(&["status", left.1]).contains(", 1 ended here"));
    let snapshots = output(&["snapshot", left.1]);
    let told = String::from_utf8_lossy(&snapshots.stderr).into_owned();
    assert!(!snapshots.status.success() && told.contains("error: group 1: "), "{told}");
    assert!(String::from_utf8_lossy(&snapshots.stdout).contains("group 2: snapshot "), "{told}");
    // It told to try again for ever, and is not about to stop.
    let key =
        (0..).map(|n| format!("k{n}")).find(|key| two.group(slot(key.as_bytes())) == 0).unwrap();
    let mut there = connect(cluster.clients + left.0 - 1).unwrap();
    for words in [&["GET", &key][..], &["SET", &key, "1"], &["LAKEBED", "GROUP", "1", "SNAPSHOT"]] {
        let mut command = redis::Cmd::new();
        command.arg(words);
        let error = command.query::<redis::Value>(&mut there).unwrap_err();
        assert_eq!(error.code(), Some("ENDED"), "{words:?}: {error}");
    }
    // The next order goes to who leads it now.
    let next = (left.0 % 3 + 1).to_string();
    eventually("another one takes orders", || {
        output(&["member", "remove", "--group", "1", &all.join(","), &next]).status.success()
    });
    // The last one hears of it when it has made itself leader.
    eventually("it is alone", || {
        let listed = json(&["member", "list", "--group", "1", &all.join(",")]);
        listed["groups"][0]["members"].as_array().is_some_and(|members| members.len() == 1)
    });
}

/// It waited for that group for ever, and never said that it serves the others.
#[test]
fn a_node_that_left_a_group_is_ready_with_the_others() {
    let mut cluster = Cluster::start(Scratch::new(), &["--groups", "2"], wrap);
    let all = [0, 1, 2].map(|n| local(cluster.clients + n)).join(",");
    done_in_time(&["member", "remove", "--group", "2", &all, "3"]);
    let third = local(cluster.clients + 2);
    let group = || json(&["status", &third])["groups"][1].clone();
    eventually("it has heard of it", || group()["ready"] == false);
    for _ in 0..2 {
        cluster.kill(2..3);
        cluster.restart(2);
        assert!(cluster.nodes[2].says("node 3, group 1").contains("found: "));
        cluster.nodes[2].says("ready");
    }
    cluster.node(2).ask::<String>(&["SET", "key-1", "value"]);
}

/// It was waited for, and the node never said that it serves the others.
#[test]
fn a_group_that_cannot_start_keeps_none_of_the_others_waiting() {
    let mut cluster = Cluster::start(Scratch::new(), &["--groups", "2"], wrap);
    cluster.kill(2..3);
    let state = cluster.node_dir(2).join("group-2/hard-state");
    let len = fs::metadata(&state).unwrap().len();
    fs::write(&state, vec![0x5a; len as usize]).unwrap();
    cluster.restart(2);
    cluster.nodes[2].says("ready");
    let third = local(cluster.clients + 2);
    let groups = json(&["status", &third])["groups"].clone();
    assert_eq!((&groups[0]["ended"], &groups[1]["ended"]), (&false.into(), &true.into()));
}

/// The first group that could not be looked at was the last that was told of.
#[test]
fn a_group_that_is_lost_hides_none_of_the_others() {
    let mut cluster = Cluster::start(Scratch::new(), &["--groups", "3"], wrap);
    cluster.kill(0..NODES);
    let dir = cluster.node_dir(0);
    fs::remove_dir_all(dir.join("group-2")).unwrap();
    let dir = dir.to_str().unwrap();
    for command in [&["verify", dir][..], &["inspect", dir], &["recover", dir, "--force", "--yes"]]
    {
        let output = output(&[command, &["--json"]].concat());
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{command:?}: {told}");
        assert!(told.contains("error: group 2: "), "{command:?}: {told}");
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let groups = found["groups"].as_array().unwrap();
        assert_eq!(groups.len(), 3, "{command:?}: {found}");
        assert!(groups[1]["error"].as_str().unwrap().contains("group-2"), "{found}");
        assert!(groups[0].get("error").is_none() && groups[2].get("error").is_none(), "{found}");
    }
    assert!(done(&["verify", &format!("{dir}/group-3")]).contains("nothing is wrong"));
}
