//! A target for a fuzzer: what clients send.

use super::{
    reader::{ProtocolError, Reader},
    request::{Request, parse},
};
use crate::Command;
use lakebed::session;

const COMMAND_BYTES_MAX: usize = 4096;

/// A stream from a client, cut into pieces as the first byte says. The same is understood wherever
/// it is cut; what goes into the log is no longer than what the client sent, or would have sent were it
/// no line, and is read back.
pub fn resp(input: &[u8]) {
    let Some((piece, stream)) = input.split_first() else { return };
    let whole = understood(stream.chunks(stream.len().max(1)));
    let pieces = understood(stream.chunks(usize::from(*piece) + 1));
    // Which of two things that are wrong is seen first may depend on what has come.
    assert_eq!(whole.0, pieces.0, "cut otherwise, it says otherwise");
    assert_eq!(whole.1.is_err(), pieces.1.is_err(), "{:?}, {:?}", whole.1, pieces.1);
}

/// What each command amounts to, and why there are not more.
fn understood<'a>(
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (Vec<Vec<u8>>, Result<(), ProtocolError>) {
    let (mut reader, mut found) = (Reader::new(COMMAND_BYTES_MAX), Vec::new());
    for piece in pieces {
        reader.room().extend_from_slice(piece);
        loop {
            match reader.next() {
                Ok(true) => found.push(meaning(&reader)),
                Ok(false) => break,
                Err(error) => return (found, Err(error)),
            }
            reader.consume();
        }
    }
    (found, Ok(()))
}

fn meaning(reader: &Reader) -> Vec<u8> {
    let mut list = Vec::new();
    meaning_of(parse(reader.args(), &mut list), reader)
}

fn meaning_of(request: Request<'_>, reader: &Reader) -> Vec<u8> {
    match request {
        Request::Within(group, request) => {
            [&group.to_le_bytes()[..], &meaning_of(*request, reader)].concat()
        }
        Request::Command(command) => {
            let mut bytes = Vec::new();
            command.encode(&mut bytes);
            assert_eq!(Command::decode(&bytes), Some(command), "the log holds what was meant");
            assert!(bytes.len() <= reader.command_bytes(), "{command:?} grew");
            bytes
        }
        Request::Answered(answer) => {
            assert!(answer.ends_with(b"\r\n"), "{}", answer.escape_ascii());
            answer
        }
        Request::Map(map) => map.bytes,
        Request::Hello(protocol, name) => format!("{protocol:?} {name:?}").into_bytes(),
        Request::Client(asked) => format!("{asked:?}").into_bytes(),
        Request::Stale(asked) => format!("{asked:?}").into_bytes(),
        Request::Time => b"time".to_vec(),
        Request::Wait => b"wait".to_vec(),
        Request::Keys(pattern) => pattern.to_vec(),
        Request::Reset => b"reset".to_vec(),
        Request::Session(asked) => {
            let bytes = asked.bytes;
            assert!(!matches!(
                session::Request::parse(&bytes),
                Err(_) | Ok(session::Request::Plain(_))
            ));
            assert!(bytes.len() <= reader.command_bytes(), "{} grew", bytes.escape_ascii());
            bytes
        }
        Request::Order(order) => format!("{order:?}").into_bytes(),
        Request::Info => b"info".to_vec(),
        Request::Transaction(word) => format!("{word:?}").into_bytes(),
        Request::Quit => b"quit".to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{answer, fuzzing::corpus::replay};

    #[test]
    fn kept_streams_of_clients_mean_the_same_wherever_they_are_cut() {
        let lines = [
            "SET k v EX 2 NX",
            "INCRBY k -7",
            "MSET a b c d",
            "SCAN 5 MATCH k* COUNT 7",
            "PEXPIRE k 3",
            "CONFIG GET save",
            "CLIENT SETINFO LIB-NAME x",
            "LAKEBED DIGEST",
            "LAKEBED BACKUP READ 3 9",
            "LAKEBED SESSION OPEN",
            "LAKEBED SESSION DO 1-2 3 INCR k",
            "LAKEBED SESSION DO 1-2 3 LAKEBED SESSION OPEN",
            "LAKEBED SESSION CLOSE 1-2",
            "LAKEBED SESSION OPEN k",
            "LAKEBED SESSION DO 4:1-2 3 INCR k",
            "LAKEBED GROUP 2 BACKUP READ 3 9",
            "PING",
            "DEL a b",
            "SET k v XX GET KEEPTTL",
            "SET k v PXAT 5",
            "SETNX k v",
            "PSETEX k 5 v",
            "GETDEL k",
            "GETEX k EX 5",
            "EXPIREAT k 5 XX LT",
            "PERSIST k",
            "STRLEN k",
            "MSETNX a b c d",
            "RENAME k l",
            "GETRANGE k -3 7",
            "HELLO 3 SETNAME x",
            "CLIENT SETNAME x",
            "CLIENT ID",
            "KEYS k*",
            "WAIT 1 0",
            "TIME",
            "MULTI",
            "RESET",
        ];
        let mut stream = vec![6];
        for line in lines {
            let words: Vec<_> = line.split(' ').collect();
            answer::array(&mut stream, words.len());
            words.iter().for_each(|word| answer::bulk(&mut stream, word.as_bytes()));
        }
        let mut typed = vec![6];
        lines.iter().for_each(|line| typed.extend(format!("\r\n{line}\r\n").bytes()));
        typed.extend_from_slice(b"set \"\\x00\\n\" 'a\\'b'\n \t\r\nget k\r\nGET / HTTP/1.1\r\n");
        let (blanks, keys) = (b" ".repeat(5000), b" k".repeat(1000));
        let blank = [b"\x40SET k v", &blanks[..], b"\nPING\n"].concat();
        let many = [b"\x40PING\nDEL", &keys[..], b"\nPING\n"].concat();
        let unbalanced = b"\x02SET k v\nSET \"a\" 'b\r\nPING\r\n".to_vec();
        for stream in [typed, blank, many, unbalanced] {
            resp(&stream);
        }
        replay("resp", resp, &[stream, b"\x03*0\r\n*-1\r\n*1\r\n$0\r\n\r\n*1\r\n$x".to_vec()]);
    }
}
