//! A backup by a connection.

use super::*;

#[test]
fn a_backup_is_read_in_pieces_and_given_back() {
    let server = Server::start();
    let mut client = server.client();
    client.ask("LAKEBED SNAPSHOT", "+3.9\r\n");
    client.ask("LAKEBED BACKUP READ 0 4", "-ERR no backup was begun on this connection\r\n");
    client.ask("LAKEBED BACKUP BEGIN", "*2\r\n$12\r\nsnapshot-9-3\r\n:10\r\n");
    // Writes before it and reads behind it are answered in their order.
    client.send(&pipeline(&["SET a 1", "lakebed backup read 0 4", "GET a"]));
    client.expect("+OK\r\n$4\r\n0123\r\n$1\r\n1\r\n");
    client.ask("LAKEBED BACKUP READ 8 4", "$2\r\n89\r\n");
    client.ask("LAKEBED BACKUP READ 10 4", "$0\r\n\r\n");
    client.ask("LAKEBED BACKUP END", "+OK\r\n");
    client.ask("LAKEBED BACKUP END", "-ERR no backup was begun on this connection\r\n");
    let file = File::Snapshot(LogId::new(Term(3), LogIndex(9)));
    let read = |offset| Control::ReadPinned { file, offset, len: 4 };
    let expected = [
        Control::Snapshot,
        Control::PinSnapshot,
        read(0),
        read(8),
        read(10),
        Control::Unpin { file },
    ];
    assert_eq!(server.state(|state| state.orders.clone()), expected);
}

/// However a connection ends, and if it begins another backup, what it kept is given back.
#[test]
fn a_backup_is_given_back_by_the_end_of_its_connection() {
    let file = File::Snapshot(LogId::new(Term(3), LogIndex(9)));
    let unpinned = |server: &Server| {
        server.state(|state| {
            state.orders.iter().filter(|order| **order == Control::Unpin { file }).count()
        })
    };
    let mut server = Server::start();
    let begun = "*2\r\n$12\r\nsnapshot-9-3\r\n:10\r\n";
    let mut clients: Vec<_> = (0..3).map(|_| server.client()).collect();
    clients.iter_mut().for_each(|client| client.ask("LAKEBED BACKUP BEGIN", begun));
    clients[0].ask("LAKEBED BACKUP BEGIN", begun);
    assert_eq!(unpinned(&server), 1, "the first of it");
    clients[0].send(b"$nonsense\r\n");
    assert!(clients[0].rest().starts_with("-ERR "));
    clients[1].ask("QUIT", "+OK\r\n");
    assert_eq!(clients[1].rest(), "");
    drop(clients);
    server.stop();
    assert_eq!(unpinned(&server), 4, "told off, left by itself, gone");
}
