//! Reads that may be old: a follower answers them without its leader, as long as it has heard of one.

use crate::{
    cluster::Cluster,
    common::{Scratch, connect},
};
use redis::{Connection, RedisResult};
use std::process::Command;

/// Longer than any of this takes, and less than a client waits.
const BOUND: &str = "55000";

/// The third node does not ask around for a leader while it is looked at.
fn wrap(mut command: Command) -> Command {
    let third = |pair: &[&std::ffi::OsStr]| pair == ["--id", "3"];
    if command.get_args().collect::<Vec<_>>().windows(2).any(third) {
        command.args(["--election-delay-ms", "120000"]);
    }
    command
}

fn ask<T: redis::FromRedisValue>(node: &mut Connection, words: &[&str]) -> RedisResult<T> {
    redis::cmd(words[0]).arg(&words[1..]).query(node)
}

#[test]
fn a_follower_answers_without_its_leader_what_may_be_old() {
    let mut cluster = Cluster::start(Scratch::new(), &[], wrap);
    cluster.node(2).ask::<String>(&["SET", "key", "value"]);
    cluster.check_digests();
    cluster.kill(0..2);
    let mut third = connect(cluster.clients + 2).unwrap();
    let get = |third: &mut Connection| ask::<String>(third, &["GET", "key"]);
    let set = |third: &mut Connection, bound| ask::<String>(third, &["LAKEBED", "STALE", bound]);
    let refused = get(&mut third).unwrap_err();
    assert_eq!(refused.code(), Some("TRYAGAIN"), "{refused}");

    set(&mut third, BOUND).unwrap();
    assert_eq!(get(&mut third).unwrap(), "value");
    assert_eq!(ask::<u64>(&mut third, &["DBSIZE"]).unwrap(), 1);
    let written = ask::<String>(&mut third, &["SET", "other", "newer"]).unwrap_err();
    assert_ne!(written.code(), None, "{written}");
    // It has heard of none for longer than that.
    set(&mut third, "1").unwrap();
    let refused = get(&mut third).unwrap_err();
    assert_eq!(refused.code(), Some("TRYAGAIN"), "{refused}");
    set(&mut third, "OFF").unwrap();
    let refused = get(&mut third).unwrap_err();
    assert_eq!(refused.code(), Some("TRYAGAIN"), "{refused}");

    cluster.restart(0);
    cluster.nodes[0].says("ready");
    assert_eq!(cluster.node(2).ask::<String>(&["GET", "key"]), "value");
}
