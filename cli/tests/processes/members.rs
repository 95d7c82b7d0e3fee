//! `lakebed member`, `lakebed transfer` and `serve --join` as their user meets them: nodes come, vote,
//! lead, and go, while clients write.

use crate::{
    cluster::Cluster,
    common::{Patient, Scratch, connect, done, eventually, fails, json, lakebed, local, output},
    ports::ports,
};
use rustix::process::Signal;
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

fn wrap(command: Command) -> Command {
    command
}

/// The same with the address of each of the three in the place of `@`, until the one that leads has
/// done it.
#[track_caller]
fn done_by_leader(cluster: &Cluster, args: &[&str]) -> String {
    done_by_one_of(&[0, 1, 2].map(|n| cluster.clients + n), args)
}

#[track_caller]
fn done_by_one_of(clients: &[u16], args: &[&str]) -> String {
    let mut told = String::new();
    eventually("the leader does it", || {
        clients.iter().any(|port| {
            let address = local(*port);
            let at = |arg: &&str| if *arg == "@" { address.clone() } else { (*arg).to_owned() };
            let args: Vec<String> = args.iter().map(at).collect();
            let output = output(&args.iter().map(String::as_str).collect::<Vec<_>>());
            told = String::from_utf8(output.stdout).unwrap();
            let complaint = String::from_utf8_lossy(&output.stderr);
            let early = ["leader", "does a node serve there", "not over", "not answer"];
            let is_early = early.iter().any(|early| complaint.contains(early));
            assert!(output.status.success() || is_early, "{args:?}: {complaint}");
            output.status.success()
        })
    });
    told
}

fn leader(cluster: &Cluster) -> u64 {
    let info: String = cluster.node(1).ask(&["INFO"]);
    let line = info.lines().find_map(|line| line.strip_prefix("leader:"));
    line.and_then(|id| id.parse().ok()).unwrap_or(0)
}

#[test]
fn a_node_joins_votes_leads_and_another_one_leaves() {
    let mut cluster = Cluster::start(Scratch::new(), &[], wrap);
    for n in 0..100_u64 {
        cluster.node(n).ask::<String>(&["SET", &format!("key-{n}"), &format!("value-{n}")]);
    }
    let (peers, clients) = (ports(1), ports(1));
    // It is known by its name from then on, whatever that stands for.
    let address = format!("localhost:{peers}");
    let mut fourth = cluster.join(3, peers, clients);
    let told = done_by_leader(&cluster, &["member", "add", "@", "4", &address]);
    assert!(told.contains("learner"), "{told}");
    let told = done_by_leader(&cluster, &["member", "promote", "@", "4"]);
    assert!(told.contains("node 4 votes"), "{told}");
    assert_eq!(Patient::new(clients).ask::<String>(&["GET", "key-7"]), "value-7");

    done_by_leader(&cluster, &["transfer", "@", "--to", "4"]);
    eventually("the new node leads", || leader(&cluster) == 4);
    cluster.node(0).ask::<String>(&["SET", "led-by", "4"]);

    // It leads, so it is asked itself; and takes up where it was after a restart.
    let new = local(clients);
    let listed: Value = serde_json::from_str(&done(&["member", "list", &new, "--json"])).unwrap();
    assert_eq!(listed["members"].as_array().unwrap().len(), 4);
    assert_eq!(listed["members"][3]["address"], address, "{listed}");
    fourth.kill();
    fourth.ended();
    fourth = cluster.join(3, peers, clients);
    assert_eq!(Patient::new(clients).ask::<String>(&["GET", "led-by"]), "4");

    // It may be back before the others miss it, and lead again.
    let leaves = if leader(&cluster) == 1 { 3 } else { 1 };
    let id = leaves.to_string();
    let any = [0, 1, 2].map(|n| cluster.clients + n).into_iter().chain([clients]);
    done_by_one_of(&any.collect::<Vec<_>>(), &["member", "remove", "@", &id]);
    let node = &mut cluster.nodes[leaves - 1];
    node.ended();
    assert!(node.errors().contains("no member of its cluster"), "it says why it ended");
    Patient::new(clients).ask::<String>(&["SET", "after", "all"]);
    assert_eq!(Patient::new(clients).ask::<String>(&["GET", "after"]), "all");
    drop(fourth);
}

#[test]
fn a_node_takes_the_place_of_another() {
    let mut cluster = Cluster::start(Scratch::new(), &[], wrap);
    cluster.node(0).ask::<String>(&["SET", "key", "value"]);
    // Everyone has answered a leader, so that whoever is down was heard from.
    let old = if leader(&cluster) == 3 { 2 } else { 3 };
    let (peers, clients) = (ports(1), ports(1));
    let _new = cluster.join(3, peers, clients);
    let (old_id, address) = (old.to_string(), local(peers));
    // The new one was added before the mistake was found.
    let any = all(&cluster, 1);
    let mistaken = ["member", "replace", &any, "9", "4", &address];
    fails(&mistaken, 1, &["node 9 is no member, the members are 1, 2, 3: nothing was changed"]);
    let listed: Value = serde_json::from_str(&done(&["member", "list", &any, "--json"])).unwrap();
    assert_eq!(listed["members"].as_array().unwrap().len(), 3, "{listed}");
    let told = done_by_leader(&cluster, &["member", "replace", "@", &old_id, "4", &address]);
    assert!(told.contains("in the place of"), "{told}");
    cluster.nodes[old - 1].ended();
    assert_eq!(Patient::new(clients).ask::<String>(&["GET", "key"]), "value");
}

#[test]
fn a_node_that_has_moved_is_reached_where_it_is() {
    let mut cluster = Cluster::start(Scratch::new(), &[], wrap);
    cluster.node(0).ask::<String>(&["SET", "key", "value"]);
    let (moved, peers) = (3, ports(1));
    cluster.nodes[moved as usize - 1].signal(Signal::TERM);
    cluster.nodes[moved as usize - 1].ended();
    cluster.node(0).ask::<String>(&["SET", "key", "newer"]);
    cluster.restart_at(moved as u16 - 1, peers);

    let (any, address, id) = (all(&cluster, 1), local(peers), moved.to_string());
    let (_, told) = done_at_once(&cluster, |leader| {
        words(["member", "move", &all(&cluster, leader), &id, &address, "--json"])
    });
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["members"][2]["address"], address, "{told}");
    assert_eq!(told["members"].as_array().unwrap().len(), 3, "{told}");
    // The others connect to where they are told that it is: only so it gets what was written, and can be
    // handed the lead.
    done_by_leader(&cluster, &["transfer", "@", "--to", &id]);
    assert_eq!(led(&cluster), moved);
    assert_eq!(cluster.node(moved - 1).ask::<String>(&["GET", "key"]), "newer");
    cluster.check_digests();

    let refused = ["node 3 is known to be at", "nothing was changed"];
    fails(&["member", "move", &any, &id, &address], 1, &refused);
    fails(&["member", "move", &any, "9", &address], 1, &["node 9 is no member"]);
    let first = told["members"][0]["address"].as_str().unwrap();
    let taken = "node 1 has the address that node 3 is given";
    fails(&["member", "move", &any, &id, first], 1, &[taken]);
    fails(&["member", "move", &any, &id, "nowhere"], 2, &["nowhere"]);
    let listed = json(&["member", "list", &any]);
    assert_eq!(listed["members"][2]["address"], address, "{listed}");
}

/// What whoever leads is asked for, once there is one: at the first try, and told as done.
#[track_caller]
fn done_at_once(cluster: &Cluster, args: impl Fn(u64) -> Vec<String>) -> (u64, String) {
    let mut told = (0, String::new());
    eventually("somebody leads", || {
        let leader = led(cluster);
        let args = args(leader);
        let output = output(&args.iter().map(String::as_str).collect::<Vec<_>>());
        told = (leader, String::from_utf8(output.stdout).unwrap());
        let complaint = String::from_utf8_lossy(&output.stderr);
        // Certainly not begun. Any other failure leaves who gave the order without an answer.
        let early =
            ["leads", "not the leader", "leader is new", "not over", "not answer", "not caught up"];
        let is_early = early.iter().any(|early| complaint.contains(early));
        assert!(output.status.success() || is_early, "{args:?}: {complaint}");
        output.status.success()
    });
    told
}

/// The addresses for clients of all three, that of this node first.
fn all(cluster: &Cluster, first: u64) -> String {
    let at = |n| local(cluster.clients + (first as u16 - 1 + n) % 3);
    [0, 1, 2].map(at).join(",")
}

/// Who leads, as it says itself: the others may not know yet, or be gone.
#[track_caller]
fn led(cluster: &Cluster) -> u64 {
    let leads = |id: &u64| {
        let info = connect(cluster.clients + *id as u16 - 1)
            .and_then(|mut node| redis::cmd("INFO").query::<String>(&mut node));
        info.is_ok_and(|info| info.contains("role:leader"))
    };
    let mut found = None;
    eventually("somebody leads", || {
        found = (1..=3).find(leads);
        found.is_some()
    });
    found.unwrap()
}

fn words<'a>(words: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    words.into_iter().map(String::from).collect()
}

/// The answer and the leader's end are one turn of its engine: the process went with the answer unsaid.
#[test]
fn a_leader_that_is_removed_says_so_before_it_ends() {
    let mut cluster = Cluster::start(Scratch::new(), &[], wrap);
    cluster.node(0).ask::<String>(&["SET", "key", "value"]);
    for _ in 0..2 {
        let (removed, told) = done_at_once(&cluster, |leader| {
            words(["member", "remove", &all(&cluster, leader), &leader.to_string()])
        });
        assert!(told.contains(&format!("node {removed} is no member any more")), "{told}");
        let node = &mut cluster.nodes[removed as usize - 1];
        node.ended();
        assert!(node.errors().contains("no member of its cluster"), "it says why it ended");
    }
}

#[test]
fn a_leader_that_is_replaced_says_so_before_it_ends() {
    let mut cluster = Cluster::start(Scratch::new(), &[], wrap);
    cluster.node(0).ask::<String>(&["SET", "key", "value"]);
    let (peers, clients) = (ports(1), ports(1));
    let _new = cluster.join(3, peers, clients);
    // A first try may have come as far as to add the new one, and is repeated.
    let (old, told) = done_at_once(&cluster, |leader| {
        let at = local(cluster.clients + leader as u16 - 1);
        words(["member", "replace", &at, &leader.to_string(), "4", &local(peers), "--json"])
    });
    // Most often there is nobody left to ask for the members: it may also be still on its way out.
    let told: Value = serde_json::from_str(&told).unwrap();
    let members = told["members"].as_array();
    let ids = |members: &Vec<Value>| members.iter().filter_map(|m| m["id"].as_u64()).collect();
    let listed: Option<Vec<u64>> = members.map(ids);
    let left = (1..=4).filter(|id| *id != old).collect();
    assert!(told["members"].is_null() || listed == Some(left), "{told}");
    cluster.nodes[old as usize - 1].ended();
    assert_eq!(Patient::new(clients).ask::<String>(&["GET", "key"]), "value");
}

/// One that is down does not speak for those behind it.
#[test]
fn the_first_address_that_answers_is_asked() {
    let mut cluster = Cluster::start(Scratch::new(), &[], wrap);
    let down = 3;
    cluster.kill([down as u16 - 1].into_iter());
    let at = all(&cluster, down);
    let listed: Value = serde_json::from_str(&done(&["member", "list", &at, "--json"])).unwrap();
    assert_eq!(listed["members"].as_array().unwrap().len(), 3, "{listed}");
    let remove = |_| words(["member", "remove", &at, &down.to_string()]);
    let (_, told) = done_at_once(&cluster, remove);
    assert!(told.contains(&format!("node {down} is no member any more")), "{told}");
    fails(&["member", "list", "127.0.0.1:9,127.0.0.1:13"], 1, &["cannot ask 127.0.0.1:9:"]);
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    let cluster = Cluster::start(Scratch::new(), &[], wrap);
    let asked = || local(cluster.clients + leader(&cluster) as u16 - 1);
    let other = local(cluster.clients + (leader(&cluster) % 3) as u16);
    let at = asked();
    fails(&["member", "promote", &other, "3"], 1, &["not the leader; node"]);
    fails(&["member", "promote", &at, "9"], 1, &["node 9 is no member"]);
    fails(&["member", "add", &at, "2", "127.0.0.1:9"], 1, &["node 2 is a member already"]);
    fails(&["member", "promote", &at, "2"], 1, &["node 2 is no learner"]);
    fails(
        &["transfer", &at, "--to", "9"],
        1,
        &["node 9 has no vote: it is a learner, or no member"],
    );
    fails(&["member", "remove", "127.0.0.1:9", "1"], 1, &["does a node serve there?"]);
    fails(&["member", "add", &at, "0", "127.0.0.1:9"], 2, &["0"]);
    let dir = Scratch::new();
    let serve = ["serve", "--id", "1", "--dir", dir.path().to_str().unwrap(), "--join"];
    let more = ["--listen", "127.0.0.1:21", "--peers", "1=127.0.0.1:21", "--resp", "127.0.0.1:22"];
    fails(&[&serve[..], &more].concat(), 2, &["the cluster was founded with it"]);
    assert!(!lakebed(&["member"]).output().unwrap().status.success());
}

/// A leader that tells this of itself, so many times, and answers each order like this. Then it is gone.
fn leader_that_answers(info: &'static str, to_orders: &'static str, times: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let left = Arc::new(AtomicUsize::new(times));
    let answer = move |mut client: TcpStream, left: &AtomicUsize| {
        let mut lines = BufReader::new(client.try_clone().unwrap()).lines().map_while(Result::ok);
        while let Some(count) = lines.next() {
            let count: usize = count[1..].parse().unwrap();
            let words: Vec<_> = (0..count).filter_map(|_| lines.nth(1)).collect();
            let answer = match &*words[0] {
                _ if words.last().is_some_and(|last| last == "INFO") => {
                    if left.try_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_err() {
                        return;
                    }
                    format!("${}\r\n{info}\r\n", info.len())
                }
                "LAKEBED" => to_orders.into(),
                _ => "+OK\r\n".into(),
            };
            client.write_all(answer.as_bytes()).unwrap();
        }
    };
    thread::spawn(move || {
        for client in listener.incoming() {
            let (client, left) = (client.unwrap(), Arc::clone(&left));
            thread::spawn(move || answer(client, &left));
        }
    });
    address
}

/// It had removed itself, and ended while it was asked who is left: the command failed, one time of twelve.
#[test]
fn a_change_is_done_also_if_nobody_is_left_to_say_who_is_a_member() {
    let info = "lakebed_version:0\nrole:leader\nmembers:1@127.0.0.1:8401\nlearners:\n";
    // It is asked three times before the order.
    for times in [3, 4] {
        let address = leader_that_answers(info, "+OK\r\n", times);
        let told = json(&["member", "remove", &address, "1"]);
        assert!(told["members"].is_null(), "{told}");
    }
}

/// A voter was called a new learner, and one that nobody knew was said to stop.
#[test]
fn what_is_so_already_is_not_said_to_have_been_done() {
    let info = "lakebed_version:0\ngroups:2\nrole:leader\n\
                members:1@127.0.0.1:8401,2@127.0.0.1:8402\nlearners:\n";
    let refused = "-ERR membership change refused: node 2 is a member already\r\n";
    let address = &leader_that_answers(info, refused, usize::MAX);
    let there = "127.0.0.1:8409";
    fails(&["member", "add", address, "2", there], 1, &["group 1: ", "node 2 is a member already"]);
    let elsewhere = ["node 2 is a member already, at 127.0.0.1:8402 and not at 127.0.0.1:8409"];
    fails(&["member", "replace", address, "1", "2", there], 1, &elsewhere);
    fails(&["member", "replace", address, "9", "2", there], 1, &["node 9 is no member"]);
    let said = |told: &str| format!("group 1: {told}\ngroup 2: {told}\n");
    let removed = done(&["member", "remove", address, "9"]);
    assert_eq!(removed, said("node 9 is no member, nothing was changed"));
    assert_eq!(done(&["member", "promote", address, "2"]), said("node 2 votes already"));
    let there = "127.0.0.1:8402";
    assert_eq!(done(&["member", "add", address, "2", there]), said("node 2 is a member already"));
    let is_there = said("node 2 is known to be at 127.0.0.1:8402 already");
    assert_eq!(done(&["member", "move", address, "2", there]), is_there);
    let replaced = done(&["member", "replace", address, "9", "2", there]);
    assert_eq!(replaced, said("node 2 votes already, and node 9 is no member"));
}
