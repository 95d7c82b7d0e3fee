//! Reads of which a client says how old they may be.

use super::*;

fn local(millis: u64) -> ReadMode {
    ReadMode::Local { stale_max: Duration::from_millis(millis) }
}

/// What was read how since this was asked last.
fn modes(server: &Server) -> Vec<ReadMode> {
    server.state(|state| std::mem::take(&mut state.modes))
}

#[test]
fn a_client_reads_as_old_as_it_allows_and_nobody_else_does() {
    let server = Server::start();
    let (mut client, mut other) = (server.client(), server.client());
    client.ask("LAKEBED STALE", ":0\r\n");
    client.ask("SET a 1", "+OK\r\n");
    // What stands before it in a pipeline is read as before.
    client.send(&pipeline(&["GET a", "lakebed stale 250", "GET a", "DBSIZE", "SCAN 0", "KEYS *"]));
    client.expect("$1\r\n1\r\n+OK\r\n$1\r\n1\r\n:1\r\n*2\r\n$1\r\n0\r\n*1\r\n$1\r\na\r\n");
    client.expect("*1\r\n$1\r\na\r\n");
    let found = modes(&server);
    assert_eq!(found[0], ReadMode::Lease);
    assert!(found.len() > 2 && found[1..].iter().all(|mode| *mode == local(250)), "{found:?}");
    other.ask("GET a", "$1\r\n1\r\n");
    other.ask("LAKEBED STALE", ":0\r\n");
    assert_eq!(modes(&server), [ReadMode::Lease], "it is one connection's");
    client.ask("LAKEBED STALE", ":250\r\n");
    for (ends, answer) in [("LAKEBED STALE off", "+OK\r\n"), ("RESET", "+RESET\r\n")] {
        client.ask("LAKEBED STALE 86400000", "+OK\r\n");
        client.ask(ends, answer);
        client.ask("GET a", "$1\r\n1\r\n");
        assert_eq!(modes(&server), [ReadMode::Lease], "{ends}");
    }
}

#[test]
fn a_bound_that_is_none_is_refused_and_changes_nothing() {
    let server = Server::start();
    let mut client = server.client();
    client.ask("LAKEBED STALE 5", "+OK\r\n");
    for wrong in ["0", "86400001", "-1", "1.5", "ms", "18446744073709551616", "5 5"] {
        client.send(&command(&format!("LAKEBED STALE {wrong}")));
        let reply = client.line();
        assert!(reply.starts_with("-ERR LAKEBED STALE takes") && reply.contains("OFF"), "{reply}");
    }
    client.send(&command("LAKEBED GROUP 1 STALE 7"));
    assert!(client.line().starts_with("-ERR LAKEBED knows "));
    client.ask("LAKEBED STALE", ":5\r\n");
}

/// A node that has heard of no leader for longer reads as all others do, which may fail.
#[test]
fn what_is_older_than_allowed_is_asked_for_anew() {
    let server = Server::start();
    let mut client = server.client();
    client.ask("SET a 1", "+OK\r\n");
    client.ask("LAKEBED STALE 250", "+OK\r\n");
    server.state(|state| state.is_late = true);
    client.ask("GET a", "$1\r\n1\r\n");
    assert_eq!(modes(&server), [local(250), ReadMode::Lease]);
    server.state(|state| state.failure = Some(Failure::Refused(Refusal::NotReady)));
    client.send(&command("GET a"));
    assert!(client.line().starts_with("-TRYAGAIN "));
    assert_eq!(modes(&server), [local(250), ReadMode::Lease]);
    client.ask("LAKEBED STALE OFF", "+OK\r\n");
    client.send(&command("GET a"));
    assert!(client.line().starts_with("-TRYAGAIN "));
    assert_eq!(modes(&server), [ReadMode::Lease], "nothing is tried twice without a bound");
}
