//! Who connects: how many, for how long, and until when.

use super::*;

#[test]
fn a_client_too_many_is_turned_away() {
    let server = Server::with(Limits { clients_max: 1, ..Limits::default() });
    let mut first = server.client();
    first.ask("PING", "+PONG\r\n");
    assert_eq!(server.client().rest(), "-ERR max number of clients reached\r\n");
    first.ask("PING", "+PONG\r\n");
    first.ask("QUIT", "+OK\r\n");
    drop(first);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut next = server.client();
        next.send(&command("PING"));
        if next.line() == "+PONG\r\n" {
            break;
        }
        assert!(Instant::now() < deadline, "the place is not given again");
    }
}

/// Clients whose machine or network went held their places for ever. What the kernel's own table says
/// of the connection: the timer that runs is the one that asks.
#[test]
#[cfg(target_os = "linux")]
fn a_client_that_says_nothing_is_asked_whether_it_is_there() {
    const KEEPALIVE: &str = "02:";
    let server = Server::start();
    let mut client = server.client();
    client.ask("PING", "+PONG\r\n");
    let end = |port: u16| format!("0100007F:{port:04X}");
    let ends = [server.address.port(), client.0.local_addr().unwrap().port()].map(end);
    let timer = || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let line = lines.find(|words| words[1..3] == ends).expect("it is connected");
        line[5].to_string()
    };
    // Until the client's system has acknowledged the answer another timer runs.
    let deadline = Instant::now() + PATIENCE;
    while !timer().starts_with(KEEPALIVE) {
        assert!(Instant::now() < deadline, "nobody asks: {}", timer());
        thread::yield_now();
    }
}

#[test]
fn a_server_that_stops_lets_go_of_everybody() {
    let mut server = Server::start();
    let (mut idle, mut half) = (server.client(), server.client());
    idle.ask("PING", "+PONG\r\n");
    half.ask("SET a 1", "+OK\r\n");
    half.send(b"*1\r\n$4\r\nPI");
    server.stop();
    assert_eq!(idle.rest(), "");
    assert_eq!(half.rest(), "");
    assert!(TcpStream::connect(server.address).is_err());
}
