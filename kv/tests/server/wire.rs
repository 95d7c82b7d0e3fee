//! What a connection carries: commands, garbage and half of either, in the protocol that was asked for.

use super::*;

#[test]
fn what_is_wrong_does_not_disturb_its_neighbours() {
    let server = Server::start();
    let mut client = server.client();
    client.send(&pipeline(&["SET a 1", "SET a", "NONE", "GET a"]));
    client.expect("+OK\r\n-ERR wrong number of arguments for 'set' command\r\n");
    client.expect("-ERR unknown command 'none'\r\n$1\r\n1\r\n");
}

/// Each pair of words was one more call on the stack: a few thousand of them, from anybody, ended the
/// process and all its nodes.
#[test]
fn groups_within_groups_are_refused_however_many() {
    let server = Server::start();
    let mut client = server.client();
    let many = format!("LAKEBED{} INFO", " GROUP 1".repeat(50_000));
    client.send(&pipeline(&[&many, "PING"]));
    let refused = client.line();
    assert!(refused.starts_with("-ERR LAKEBED knows"), "{refused}");
    client.expect("+PONG\r\n");
}

#[test]
fn garbage_is_answered_and_let_go() {
    let server = Server::start();
    let nested = b"*1\r\n".repeat(200_000);
    let cases: [(&[u8], &str); 7] = [
        (b"POST /x\r\nHost: here\r\n\r\nSET a 1\r\n", "this is HTTP"),
        (b"SET a \"1\r\n", "unbalanced quotes"),
        (b"GET / HTTP/1.1\r\n\r\n", "this is HTTP"),
        (b"\x16\x03\x01\x02\x00", "expected '*', got '\\x16'"),
        (b"*1\r\n$-5\r\nabc\r\n", "invalid bulk length"),
        (b"*9999999999\r\n", "invalid multibulk length"),
        (&nested, "expected '$', got '*'"),
    ];
    for (bytes, expected) in cases {
        let mut client = server.client();
        client.send(bytes);
        let reply = client.rest();
        assert!(reply.starts_with("-ERR Protocol error: ") && reply.contains(expected), "{reply}");
    }
    server.client().ask("PING", "+PONG\r\n");
}

/// As `redis-cli --pipe` ends it: behind an empty line it asks for an echo. The empty line was no RESP.
#[test]
fn a_bulk_load_hears_its_end() {
    let server = Server::start();
    let mut client = server.client();
    client.send(&pipeline(&["SET a 1", "INCR a"]));
    client.send(b"\r\n");
    client.send(&command("ECHO 0123456789abcdefghij"));
    client.expect("+OK\r\n:2\r\n$20\r\n0123456789abcdefghij\r\n");
    client.send(b"PING\r\nSET b \"two words\"\nGET b\r\n");
    client.expect("+PONG\r\n+OK\r\n$9\r\ntwo words\r\n");
}

#[test]
fn commands_before_the_garbage_are_performed() {
    let server = Server::start();
    let mut client = server.client();
    client.send(&[&command("SET a 1")[..], b"!"].concat());
    assert_eq!(client.rest(), "+OK\r\n-ERR Protocol error: expected '*', got '!'\r\n");
    server.client().ask("GET a", "$1\r\n1\r\n");
}

#[test]
fn an_oversized_command_is_refused() {
    let server = Server::with(Limits { batch_bytes_max: 10_000, ..Limits::default() });
    let mut client = server.client();
    client.send(&command(&format!("SET a {}", "x".repeat(50_000))));
    let reply = client.rest();
    assert_eq!(reply, "-ERR Protocol error: the command is larger than 10000 bytes\r\n");
    assert!(server.state(|state| state.batches.is_empty()));
}

#[test]
fn half_a_command_is_told_when_the_connection_ends() {
    let server = Server::start();
    let whole = command("SET a 1");
    for end in 1..whole.len() {
        let mut client = server.client();
        client.send(&whole[..end]);
        client.0.shutdown(std::net::Shutdown::Write).unwrap();
        let expected = "-ERR Protocol error: the connection ended within a command\r\n";
        assert_eq!(client.rest(), expected, "{end} bytes");
    }
    assert!(server.state(|state| state.batches.is_empty()));
}

/// MULTI was refused, and what stood behind it was performed as it came: a client library's pipeline
/// that was meant to be one transaction was half of one.
#[test]
fn nothing_of_a_transaction_is_performed() {
    let server = Server::start();
    let mut client = server.client();
    client.send(&pipeline(&["SET a 1", "MULTI", "SET a 9", "GET a", "MULTI", "NONE", "EXEC"]));
    client.send(&pipeline(&["GET a", "MULTI", "INCR a", "DISCARD", "INCR a", "EXEC", "DISCARD"]));
    client.expect("+OK\r\n");
    let refused = "-ERR not performed: it is part of a transaction (MULTI), and there are none";
    for expected in [
        "-ERR MULTI: there are no transactions here; what follows is refused up to EXEC",
        refused,
        refused,
        refused,
        refused,
        "-EXECABORT there are no transactions here: nothing of it was performed",
    ] {
        let line = client.line();
        assert!(line.starts_with(expected), "{line}");
    }
    client.expect("$1\r\n1\r\n");
    for expected in ["-ERR MULTI: ", refused, "-ERR DISCARD: there are no transactions here"] {
        let line = client.line();
        assert!(line.starts_with(expected), "{line}");
    }
    client.expect(":2\r\n-ERR EXEC without MULTI\r\n-ERR DISCARD without MULTI\r\n");
    for line in ["WATCH a", "UNWATCH"] {
        client.ask(line, "-ERR no key is watched: there are no transactions here\r\n");
    }
    // Of one connection, and not for ever.
    client.ask("MULTI x", "-ERR wrong number of arguments for 'multi' command\r\n");
    client.send(&command("MULTI"));
    client.line();
    server.client().ask("GET a", "$1\r\n2\r\n");
    client.ask("QUIT", "+OK\r\n");
    assert_eq!(server.state(|state| state.batches.clone()), [1, 1]);
}

fn greeting(head: &str, protocol: u8) -> String {
    format!(
        "{head}\r\n$6\r\nserver\r\n$7\r\nlakebed\r\n$7\r\nversion\r\n${}\r\n{}\r\n$4\r\nmode\r\n\
         $10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$5\r\nproto\r\n:{protocol}\r\n$2\r\nid\r\n:1\r\n\
         $7\r\nmodules\r\n*0\r\n",
        env!("CARGO_PKG_VERSION").len(),
        env!("CARGO_PKG_VERSION"),
    )
}

/// Client libraries ask for it by default, and two of the most used did not connect without.
#[test]
fn who_asks_for_the_third_protocol_is_answered_in_it() {
    let server = Server::start();
    let (mut client, mut other) = (server.client(), server.client());
    let absent = ["GET none", "MGET a none", "SET a 2 NX", "SET none 2 XX", "CONFIG GET save"];
    client.send(&pipeline(&["SET a $-1", "GET none", "HELLO 3"]));
    client.send(&pipeline(&absent));
    client.send(&pipeline(&["GET a", "HELLO", "COMMAND DOCS", "HELLO 4", "DBSIZE"]));
    client.expect(&format!("+OK\r\n$-1\r\n{}", greeting("%7", 3)));
    client.expect("_\r\n*2\r\n$3\r\n$-1\r\n_\r\n_\r\n_\r\n%1\r\n$4\r\nsave\r\n$0\r\n\r\n");
    client.expect(&format!("$3\r\n$-1\r\n{}%0\r\n", greeting("%7", 3)));
    client.expect("-NOPROTO unsupported protocol version\r\n:1\r\n");
    // Of one connection, and until it asks for the other one, or to be as new.
    let plain = "$-1\r\n*2\r\n$3\r\n$-1\r\n$-1\r\n$-1\r\n$-1\r\n*2\r\n$4\r\nsave\r\n$0\r\n\r\n";
    other.send(&pipeline(&absent));
    other.expect(plain);
    client.send(&pipeline(&["GET none", "HELLO 2", "GET none", "HELLO 3", "GET none", "RESET"]));
    client.send(&pipeline(&absent));
    client.expect(&format!("_\r\n{}$-1\r\n", greeting("*14", 2)));
    client.expect(&format!("{}_\r\n+RESET\r\n{plain}", greeting("%7", 3)));
    // What does not fit into one answer of the machine, and a session's write.
    let value = "x".repeat(1_000_000);
    client.ask(&format!("SET large {value}"), "+OK\r\n");
    client.ask("HELLO 3", &greeting("%7", 3));
    client.send(&pipeline(&["MGET none large none"; 4]));
    let one = format!("*3\r\n_\r\n$1000000\r\n{value}\r\n_\r\n");
    (0..4).for_each(|_| client.expect(&one));
    client.send(&command("LAKEBED SESSION OPEN"));
    client.line();
    let name = client.line();
    let again = format!("LAKEBED SESSION DO {} 1 SET a 2 NX", name.trim());
    client.ask(&again, "_\r\n");
    other.ask(&again, "$-1\r\n");
    // A transaction that was refused has ended, too.
    client.send(&command("MULTI"));
    client.line();
    client.send(&pipeline(&["RESET", "GET none"]));
    client.expect("+RESET\r\n$-1\r\n");
}

#[test]
fn quit_is_answered_and_what_follows_is_not() {
    let server = Server::start();
    let mut client = server.client();
    client.send(&pipeline(&["PING", "QUIT", "PING"]));
    client.0.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.rest(), "+PONG\r\n+OK\r\n");
}
