//! What is asked of the node and not of its state, or of how late it is.

use super::*;

#[test]
fn keys_expire_though_nobody_writes() {
    let server = Server::start();
    let mut client = server.client();
    client.ask("SET a 1 PX 50", "+OK\r\n");
    let deadline = Instant::now() + PATIENCE;
    loop {
        client.send(&command("GET a"));
        if client.line() == "$-1\r\n" {
            break;
        }
        client.expect("1\r\n");
        assert!(Instant::now() < deadline, "the key does not expire");
    }
    client.ask("EXISTS a", ":0\r\n");
    assert_eq!(server.state(|state| state.batches.clone()), [1, 1]);
}

/// The time could not be told for want of room, and reads of whatever expires failed with DISKFULL
/// for as long as the disk was full.
#[test]
fn keys_with_expiry_are_read_while_nothing_can_be_written() {
    for (refusal, code) in [(Refusal::DiskFull, "-DISKFULL "), (Refusal::Busy, "-BUSY ")] {
        let server = Server::start();
        let mut client = server.client();
        client.ask("SET a 1 PX 10", "+OK\r\n");
        server.state(|state| state.refusal = Some(refusal));
        let refused = || server.state(|state| state.refused);
        let deadline = Instant::now() + PATIENCE;
        while refused() == 0 {
            client.ask("GET a", "$1\r\n1\r\n");
            assert!(Instant::now() < deadline, "nobody asks for the time");
        }
        client.send(&pipeline(&["EXISTS a", "SCAN 0 COUNT 9999", "MGET a", "GET a"]));
        client.expect(":1\r\n*2\r\n$1\r\n0\r\n*1\r\n$1\r\na\r\n*1\r\n$1\r\n1\r\n$1\r\n1\r\n");
        // Asked for once by each query.
        assert_eq!(refused(), 2);
        client.send(&command("SET b 1"));
        assert!(client.line().starts_with(code));
        server.state(|state| state.refusal = None);
        client.ask("GET a", "$-1\r\n");
    }
    // Whoever leads nobody knows whether there was another write.
    let server = Server::start();
    let mut client = server.client();
    client.ask("SET a 1 PX 1", "+OK\r\n");
    server.state(|state| state.refusal = Some(Refusal::NotReady));
    let deadline = Instant::now() + PATIENCE;
    loop {
        client.send(&command("GET a"));
        if client.line().starts_with("-TRYAGAIN ") {
            break;
        }
        client.expect("1\r\n");
        assert!(Instant::now() < deadline, "nobody asks for the time");
    }
}

#[test]
fn info_and_digest_describe_the_node_and_its_state() {
    let server = Server::start();
    let mut client = server.client();
    client.send(&command("INFO"));
    let len: usize = client.line()[1..].trim().parse().unwrap();
    let mut text = vec![0; len + 2];
    client.0.read_exact(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("\r\nnode:7\r\nrole:leader\r\n"), "{text}");
    client.ask("SET a 1", "+OK\r\n");
    let digest = server.state(|state| state.kv.machine().digest());
    client.ask("LAKEBED DIGEST", &format!("*2\r\n:1\r\n$64\r\n{digest}\r\n"));
}

/// Any bytes were an address: INFO had one line more, and members that nobody had added.
#[test]
fn an_address_that_cannot_be_kept_is_refused() {
    let server = Server::start();
    let member = |id, address: &'static str| Member {
        id: NodeId(id),
        incarnation: 0,
        address: Bytes::from_static(address.as_bytes()),
    };
    server.state(|state| {
        state.members = Arc::new(Membership::of([member(1, "a:1"), member(2, "b:1")]))
    });
    let mut client = server.client();
    for (step, why) in [
        ("MOVE 2 127.0.0.1:7870\r\nrole:king,5@x", "HOST:PORT"),
        ("ADD 3 c:1,5@x:1", "HOST:PORT"),
        ("MOVE 2 b:0", "ports begin at 1"),
        ("MOVE 2 a:1", "node 1 has the address that node 2 is given"),
        // The whole usage was the answer, and what is wrong had to be found in it.
        ("PROMOTE x", "PROMOTE 'x': a node's id is a whole number, from 1 on"),
        ("ADD 0 x", "ADD '0': a node's id is a whole number, from 1 on"),
        ("ADD 3", "ADD takes an address"),
        ("PROMOTE 3 NOW", "no step 'NOW'"),
    ] {
        client.send(&command(&format!("LAKEBED CHANGE {step}")));
        let reply = client.line();
        assert!(reply.starts_with("-ERR ") && reply.contains(why), "{step:?}: {reply}");
        assert!(!reply.contains("SNAPSHOT"), "{step:?}: {reply}");
    }
    client.ask(
        "LAKEBED TRANSFER x",
        "-ERR TRANSFER 'x': a node's id is a whole number, from 1 on\r\n",
    );
    assert_eq!(server.state(|state| state.orders.clone()), [], "the node was ordered nothing");
    client.ask("LAKEBED CHANGE MOVE 2 c:1", "+3.9\r\n");
}
