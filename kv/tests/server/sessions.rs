//! Writes of a session.

use super::*;

/// The name of a new session.
fn opened(client: &mut Client) -> String {
    client.send(&command("LAKEBED SESSION OPEN"));
    client.line();
    client.line().trim().into()
}

#[test]
fn a_write_of_a_session_is_applied_once_and_answered_alike() {
    let server = Server::start();
    let mut client = server.client();
    let name = &opened(&mut client);
    let ask = |client: &mut Client, line: &str, expected: &str| {
        client.ask(&format!("LAKEBED SESSION {}", line.replace("NAME", name)), expected);
    };
    ask(&mut client, "DO NAME 1 INCR n", ":1\r\n");
    ask(&mut client, "DO NAME 1 INCR n", ":1\r\n");
    // Another connection, perhaps to another node.
    let mut other = server.client();
    ask(&mut other, "do NAME 1 INCR n", ":1\r\n");
    ask(&mut other, "DO NAME 2 MSET n 5 m 6", "+OK\r\n");
    client.ask("INCR n", ":6\r\n");
    ask(&mut client, "DO NAME 2 MSET n 5 m 6", "+OK\r\n");
    ask(&mut client, "DO NAME 3 INCR m", ":7\r\n");
    client.ask("GET n", "$1\r\n6\r\n");
    // A write that fails is answered alike, too; one that cannot be performed takes no number.
    ask(&mut client, "DO NAME 4 SET s text", "+OK\r\n");
    let failed = "-ERR value is not an integer or out of range\r\n";
    ask(&mut client, "DO NAME 5 INCR s", failed);
    client.ask("SET s 1", "+OK\r\n");
    ask(&mut client, "DO NAME 5 INCR s", failed);
    ask(&mut client, "DO NAME 6 SET s", "-ERR wrong number of arguments for 'set' command\r\n");
    ask(&mut client, "DO NAME 6 INCR s", ":2\r\n");
    ask(&mut client, "CLOSE NAME", "+OK\r\n");
}

#[test]
fn what_is_wrong_with_a_session_is_said() {
    let server = Server::start();
    let mut client = server.client();
    let name = &opened(&mut client);
    let mut says = |line: &str, expected: &str| {
        client.send(&command(&format!("LAKEBED SESSION {}", line.replace("NAME", name))));
        let answer = client.line();
        assert!(answer.starts_with(expected), "{line}: {answer}");
    };
    says("DO NAME 2 INCR n", "-OUTOFORDER not applied: the session's next command is 1");
    for n in 1..=17 {
        says(&format!("DO NAME {n} INCR n"), &format!(":{n}\r\n"));
    }
    says("DO NAME 1 INCR n", "-REPLAYED applied before, once, and its answer is not kept");
    says("DO NAME 2 INCR n", ":2\r\n");
    says("DO 9-1 1 INCR n", "-NOSESSION no such session was ever opened here");
    says("DO 1-1 1 INCR n", "-NOSESSION ");
    says("CLOSE NAME", "+OK");
    says("CLOSE NAME", "-EXPIRED the session has ended");
    says("DO NAME 18 INCR n", "-EXPIRED ");
    for wrong in ["", "OPEN x y", "CLOSE", "DO NAME 1", "DO", "CLOSE NAME x"] {
        says(wrong, "-ERR LAKEBED SESSION knows OPEN [key], DO session number write");
    }
    says("DO x 1 INCR n", "-ERR a session's name is what LAKEBED SESSION OPEN answered");
    says("CLOSE 1", "-ERR a session's name");
    says("DO NAME 0 INCR n", "-ERR a session's writes are numbered");
    says("DO NAME x INCR n", "-ERR a session's writes are numbered");
    for line in ["GET n", "PING", "INFO", "QUIT", "LAKEBED DIGEST", "LAKEBED SESSION OPEN"] {
        says(&format!("DO NAME 18 {line}"), "-ERR a session's command is a write");
    }
    says("DO NAME 18 NONSENSE", "-ERR unknown command 'nonsense'");
    server.state(|state| state.failure = Some(Failure::Unknown));
    says("DO NAME 18 INCR n", "-UNKNOWN applied, or not: send it again with the same number");
    server.state(|state| state.failure = Some(Failure::Refused(Refusal::Busy)));
    says("OPEN", "-BUSY ");
}
