//! Commands out of a stream of bytes, one at a time, wherever the stream is cut.
//!
//! Knows no command. Invariants: no byte is looked at twice for long, nothing is allocated by a
//! length that was only announced, and what is held is at most a command and a read more.
//!
//! The library reads the elements; the line before them is read here, because the library would
//! follow arrays within arrays down the stack, as deep as a client likes. What begins with no array is
//! a line of words (`inline.rs`); empty lines are passed over.

use super::inline;
use crate::answer;
use bytes::{Buf, BytesMut};
use redis_protocol::resp2::{decode::decode_range, types::RangeFrame};
use std::{fmt, ops::Range};

/// The most elements of a command.
const ARGS_MAX: usize = 1 << 20;
/// The longest line with a length in it.
const LINE_BYTES_MAX: usize = 32;
/// How much room there is for what the next read brings.
const READ_BYTES: usize = 64 << 10;
/// A buffer that grew for a command larger than this is given back when it is empty.
pub(crate) const KEPT_BYTES_MAX: usize = 256 << 10;
/// Room for so many elements is kept for the next command.
const KEPT_ARGS_MAX: usize = 1 << 10;

/// The buffer of a connection and how far it is understood.
#[derive(Debug)]
pub(crate) struct Reader {
    /// Begins with the command that comes next.
    buf: BytesMut,
    command_bytes_max: usize,
    /// Whether the buffer grew for a large command.
    is_grown: bool,
    /// Up to here the command is understood, or known to be a line without an end.
    at: usize,
    /// How long a command that came as a line would be as an array.
    framed_bytes: usize,
    /// Elements to come; `None` before the command's first line.
    left: Option<usize>,
    args: Vec<Range<usize>>,
}

/// What no client that speaks RESP sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ProtocolError {
    Expected { expected: char, found: u8 },
    ArrayLength,
    BulkLength,
    Terminator,
    TooLarge { max: usize },
    Quotes,
    Http,
    HalfCommand,
    Stalled { seconds: u64 },
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ERR Protocol error: ")?;
        match self {
            Self::Expected { expected, found } => {
                write!(f, "expected '{expected}', got '{}'", found.escape_ascii())
            }
            Self::ArrayLength => f.write_str("invalid multibulk length"),
            Self::BulkLength => f.write_str("invalid bulk length"),
            Self::Terminator => f.write_str("a bulk string is longer than its length says"),
            Self::TooLarge { max } => write!(f, "the command is larger than {max} bytes"),
            Self::Quotes => f.write_str("unbalanced quotes in request"),
            Self::Http => f.write_str("this is HTTP, and RESP is spoken here"),
            Self::HalfCommand => f.write_str("the connection ended within a command"),
            Self::Stalled { seconds } => {
                write!(f, "the rest of a command did not come within {seconds} s")
            }
        }
    }
}

/// The elements of a command, its name first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Args<'a> {
    buf: &'a [u8],
    ranges: &'a [Range<usize>],
}

impl<'a> Args<'a> {
    pub(crate) fn iter(self) -> impl ExactSizeIterator<Item = &'a [u8]> {
        self.ranges.iter().map(move |range| &self.buf[range.clone()])
    }

    /// The first element, and the others.
    pub(crate) fn split_first(self) -> Option<(&'a [u8], Self)> {
        let (first, ranges) = self.ranges.split_first()?;
        Some((&self.buf[first.clone()], Self { buf: self.buf, ranges }))
    }

    /// All elements, if they are that many.
    pub(crate) fn all<const N: usize>(self) -> Option<[&'a [u8]; N]> {
        let ranges: &[Range<usize>; N] = self.ranges.try_into().ok()?;
        Some(ranges.each_ref().map(|range| &self.buf[range.clone()]))
    }

    pub(crate) const fn len(self) -> usize {
        self.ranges.len()
    }
}

impl Reader {
    pub(crate) fn new(command_bytes_max: usize) -> Self {
        Self {
            buf: BytesMut::new(),
            command_bytes_max,
            is_grown: false,
            at: 0,
            framed_bytes: 0,
            left: None,
            args: Vec::new(),
        }
    }

    /// Room for the next read.
    pub(crate) fn room(&mut self) -> &mut BytesMut {
        self.buf.reserve(READ_BYTES);
        &mut self.buf
    }

    /// Whether a command has begun and not ended.
    pub(crate) fn is_within(&self) -> bool {
        !self.buf.is_empty()
    }

    /// Whether the next command is all there. Asked again before [`consume`](Self::consume), it
    /// answers the same.
    pub(crate) fn next(&mut self) -> Result<bool, ProtocolError> {
        let whole = self.advance()?;
        let bytes = if whole { self.command_bytes() } else { self.buf.len() };
        if bytes > self.command_bytes_max {
            return Err(ProtocolError::TooLarge { max: self.command_bytes_max });
        }
        Ok(whole)
    }

    /// The command that is all there.
    pub(crate) fn args(&self) -> Args<'_> {
        debug_assert_eq!(self.left, Some(0), "the command is whole");
        Args { buf: &self.buf, ranges: &self.args }
    }

    /// The length of the command that is all there, as it was sent; of a line, as it would have been
    /// sent as an array if that is longer: it may cost the log as much.
    pub(crate) fn command_bytes(&self) -> usize {
        self.at.max(self.framed_bytes)
    }

    /// What was read and not consumed, the command that is all there included.
    pub(crate) fn buffered(&self) -> usize {
        self.buf.len()
    }

    /// Goes on behind the command that is all there.
    pub(crate) fn consume(&mut self) {
        self.buf.advance(self.at);
        self.is_grown |= self.at > KEPT_BYTES_MAX;
        // Empty, it would keep for ever the room that its largest command took, whatever small
        // one came behind it.
        if self.buf.is_empty() && self.is_grown {
            (self.buf, self.is_grown) = (BytesMut::new(), false);
        }
        (self.at, self.framed_bytes) = (0, 0);
        self.left = None;
        self.args.clear();
        // The ranges of short elements take more room than the command did.
        self.args.shrink_to(KEPT_ARGS_MAX);
    }

    fn advance(&mut self) -> Result<bool, ProtocolError> {
        while self.left.is_none() {
            if !self.first_line()? {
                return Ok(false);
            }
        }
        while self.left != Some(0) {
            if !self.element()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// `*3\r\n`: false if it is not all there. A command without elements is none at all.
    fn first_line(&mut self) -> Result<bool, ProtocolError> {
        let Some(&first) = self.buf.first() else { return Ok(false) };
        if first != b'*' {
            return self.inline(first);
        }
        let Some(end) = line_end(&self.buf).ok_or(ProtocolError::ArrayLength)? else {
            return Ok(false);
        };
        let count = length(&self.buf[1..end]).ok_or(ProtocolError::ArrayLength)?;
        let count = usize::try_from(count).unwrap_or(0);
        match count {
            0 => self.buf.advance(end + 2),
            1..=ARGS_MAX => (self.left, self.at) = (Some(count), end + 2),
            _ => return Err(ProtocolError::ArrayLength),
        }
        Ok(true)
    }

    /// `GET key\r\n`, the first byte of which is given: false if it is not all there. An empty line is
    /// passed over.
    #[cold]
    fn inline(&mut self, first: u8) -> Result<bool, ProtocolError> {
        if !inline::begins(first) {
            return Err(ProtocolError::Expected { expected: '*', found: first });
        }
        let max = inline::LINE_BYTES_MAX.min(self.command_bytes_max);
        let there = self.buf.len().min(max);
        let Some(end) = self.buf[self.at..there].iter().position(|byte| *byte == b'\n') else {
            if there == max {
                return Err(ProtocolError::TooLarge { max });
            }
            self.at = there;
            return Ok(false);
        };
        let end = self.at + end;
        let (bytes, words) = inline::split(&self.buf[..end])?;
        if words.is_empty() {
            self.buf.advance(end + 1);
            self.at = 0;
            return Ok(true);
        }
        self.buf[..bytes.len()].copy_from_slice(&bytes);
        let mut framed = Vec::new();
        answer::array(&mut framed, words.len());
        words.iter().for_each(|word| answer::bulk(&mut framed, &bytes[word.clone()]));
        self.framed_bytes = framed.len();
        (self.left, self.at, self.args) = (Some(0), end + 1, words);
        Ok(true)
    }

    /// `$5\r\nhello\r\n`: false if it is not all there.
    fn element(&mut self) -> Result<bool, ProtocolError> {
        let rest = &self.buf[self.at..];
        let Some(&first) = rest.first() else { return Ok(false) };
        if first != b'$' {
            return Err(ProtocolError::Expected { expected: '$', found: first });
        }
        // Before the rest is looked at, or a long line would be right when it comes in one piece.
        let Some(end) = line_end(rest).ok_or(ProtocolError::BulkLength)? else {
            return Ok(false);
        };
        let announced = length(&rest[1..end]).and_then(|length| usize::try_from(length).ok());
        let announced = announced.ok_or(ProtocolError::BulkLength)?;
        // It would be waited for, and refused when it has come.
        if announced > self.command_bytes_max.saturating_sub(self.at + end + 4) {
            return Err(ProtocolError::TooLarge { max: self.command_bytes_max });
        }
        let Some((frame, used)) = decode_range(rest).map_err(|_| ProtocolError::BulkLength)? else {
            return Ok(false);
        };
        let RangeFrame::BulkString((start, end)) = frame else {
            return Err(ProtocolError::BulkLength);
        };
        if &rest[end..used] != b"\r\n" {
            return Err(ProtocolError::Terminator);
        }
        self.args.push(self.at + start..self.at + end);
        self.at += used;
        self.left = self.left.map(|left| left - 1);
        Ok(true)
    }
}

/// The number of a line, in the one form that it has: no plus, no zeros before it, no minus before zero.
fn length(digits: &[u8]) -> Option<i64> {
    let number: i64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (itoa::Buffer::new().format(number).as_bytes() == digits).then_some(number)
}

/// Where the first line ends, `Some(None)` if that is not there yet; `None`: it is too long.
fn line_end(bytes: &[u8]) -> Option<Option<usize>> {
    let line = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    match line.windows(2).position(|pair| pair == b"\r\n") {
        None if bytes.len() >= LINE_BYTES_MAX => None,
        end => Some(end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1000;

    /// The commands in `bytes`, and why there are not more.
    fn read(pieces: &[&[u8]]) -> (Vec<Vec<Vec<u8>>>, Result<(), ProtocolError>) {
        let mut reader = Reader::new(MAX);
        let mut commands = Vec::new();
        for piece in pieces {
            reader.room().extend_from_slice(piece);
            loop {
                match reader.next() {
                    Ok(true) => commands.push(reader.args().iter().map(<[u8]>::to_vec).collect()),
                    Ok(false) => break,
                    Err(error) => return (commands, Err(error)),
                }
                reader.consume();
            }
        }
        (commands, Ok(()))
    }

    #[test]
    fn commands_are_read_wherever_they_are_cut() {
        let bytes =
            b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n*0\r\n*-1\r\n*1\r\n$4\r\nPING\r\n*1\r\n$0\r\n\r\n";
        let expected: Vec<Vec<Vec<u8>>> =
            vec![vec![b"GET".into(), b"a".into()], vec![b"PING".into()], vec![b"".into()]];
        for cut in 0..=bytes.len() {
            let (commands, end) = read(&[&bytes[..cut], &bytes[cut..]]);
            assert_eq!((&commands, end), (&expected, Ok(())), "cut at {cut}");
        }
        let single: Vec<_> = bytes.chunks(1).collect();
        assert_eq!(read(&single), (expected, Ok(())));
    }

    fn command(line: &str) -> Vec<Vec<u8>> {
        line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
    }

    /// Bulk loads (`redis-cli --pipe`) end with an empty line and an array, and always ended as failed.
    #[test]
    fn lines_are_commands_and_empty_ones_are_none_wherever_they_are_cut() {
        let bytes =
            b"\r\nPING\r\n\n \t\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n\r\nset  k 'v'\nget k\r\n\r\n";
        let expected = ["PING", "GET a", "set k v", "get k"].map(command).to_vec();
        for cut in 0..=bytes.len() {
            let (commands, end) = read(&[&bytes[..cut], &bytes[cut..]]);
            assert_eq!((&commands, end), (&expected, Ok(())), "cut at {cut}");
        }
        let single: Vec<_> = bytes.chunks(1).collect();
        assert_eq!(read(&single), (expected, Ok(())));
    }

    /// A word of one byte may cost the log more than it and the blank before it.
    #[test]
    fn a_line_counts_as_the_array_that_it_might_have_been() {
        let mut reader = Reader::new(MAX);
        let array = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n";
        for (sent, bytes) in [(&b"SET k v\n"[..], array.len()), (array, array.len())] {
            reader.room().extend_from_slice(sent);
            assert_eq!(reader.next(), Ok(true));
            assert_eq!(reader.command_bytes(), bytes);
            reader.consume();
            assert!(!reader.is_within());
        }
        let many = [&b"DEL"[..], &b" k".repeat(MAX / 4), b"\n"].concat();
        assert_eq!(read(&[&many]), (vec![], Err(ProtocolError::TooLarge { max: MAX })));
    }

    #[test]
    fn a_line_is_as_long_as_it_may_be_and_no_longer() {
        let max = inline::LINE_BYTES_MAX;
        for (larger, max) in [(MAX, MAX), (2 * max, max)] {
            for (blanks, expected) in
                [(max - 1, Ok(false)), (max, Err(ProtocolError::TooLarge { max }))]
            {
                let mut reader = Reader::new(larger);
                reader.room().extend_from_slice(&b" ".repeat(blanks));
                reader.room().extend_from_slice(b"\n");
                assert_eq!(reader.next(), expected);
                assert_eq!(reader.next(), expected, "it says so again");
            }
        }
    }

    /// What stands before a mistake is performed, and then it is asked for again.
    #[test]
    fn a_mistake_in_a_line_stays_one() {
        let mut reader = Reader::new(MAX);
        reader.room().extend_from_slice(b"set \"a\" 'b\r\nPING\r\n");
        for _ in 0..2 {
            assert_eq!(reader.next(), Err(ProtocolError::Quotes));
        }
    }

    #[test]
    fn garbage_is_named() {
        let expected = |expected, found| ProtocolError::Expected { expected, found };
        let cases: [(&[u8], ProtocolError); 25] = [
            (b"GET / HTTP/1.1\r\n", ProtocolError::Http),
            (b"$3\r\nGET\r\n", expected('*', b'$')),
            (b"!", expected('*', b'!')),
            (b"\xff\xfe", expected('*', 0xff)),
            (b"*x\r\n", ProtocolError::ArrayLength),
            (b"*1048577\r\n", ProtocolError::ArrayLength),
            (b"*99999999999999999999\r\n", ProtocolError::ArrayLength),
            (b"*00000000000000000000000000000000000", ProtocolError::ArrayLength),
            (b"*+1\r\n", ProtocolError::ArrayLength),
            (b"*01\r\n", ProtocolError::ArrayLength),
            (b"*-0\r\n", ProtocolError::ArrayLength),
            (b"*\r\n", ProtocolError::ArrayLength),
            (b"* 1\r\n", ProtocolError::ArrayLength),
            (b"*1\r\n$+1\r\na\r\n", ProtocolError::BulkLength),
            (b"*1\r\n$01\r\na\r\n", ProtocolError::BulkLength),
            (b"*1\r\n$-0\r\n\r\n", ProtocolError::BulkLength),
            (b"*1\r\n$\r\n", ProtocolError::BulkLength),
            (b"*1\r\n$9223372036854775808\r\n", ProtocolError::BulkLength),
            (b"*1\r\n+OK\r\n", expected('$', b'+')),
            (b"*1\r\n*1\r\n$1\r\na\r\n", expected('$', b'*')),
            (b"*1\r\n$-1\r\n", ProtocolError::BulkLength),
            (b"*1\r\n$x\r\n", ProtocolError::BulkLength),
            (b"*1\r\n$00000000000000000000000000000000000", ProtocolError::BulkLength),
            (b"*1\r\n$1\r\nabc", ProtocolError::Terminator),
            (b"*1\r\n$0000000000000000000000000000002\r\nab\r\n", ProtocolError::BulkLength),
        ];
        for (bytes, error) in cases {
            assert_eq!(read(&[bytes]), (vec![], Err(error)), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn an_announced_length_costs_nothing() {
        for announced in [&b"*1\r\n$900\r\n"[..], b"*1048576\r\n$1\r\na\r\n"] {
            let mut reader = Reader::new(MAX);
            reader.room().extend_from_slice(announced);
            assert_eq!(reader.next(), Ok(false));
            assert!(reader.buf.capacity() <= READ_BYTES && reader.args.capacity() < 10);
        }
    }

    #[test]
    fn a_command_too_large_is_refused_before_it_is_whole() {
        let head = b"*1\r\n$5000\r\n";
        let (commands, end) = read(&[head, &[b'x'; MAX]]);
        assert_eq!((commands.len(), end), (0, Err(ProtocolError::TooLarge { max: MAX })));
        let whole = [&b"*1\r\n$2000\r\n"[..], &[b'x'; 2000], b"\r\n"].concat();
        assert_eq!(read(&[&whole]).1, Err(ProtocolError::TooLarge { max: MAX }));
        let many = b"*1\r\n$4\r\nPING\r\n".repeat(MAX);
        assert_eq!(read(&[&many]).0.len(), MAX);
    }

    /// Two gigabytes were waited for as far as they might come.
    #[test]
    fn a_length_that_is_never_taken_is_refused_at_once() {
        // Its line, and that of the array before it, count as well.
        let longest = MAX - b"*1\r\n$989\r\n\r\n".len();
        let whole = |bytes: usize| [format!("*1\r\n${bytes}\r\n").into_bytes(), vec![b'x'; bytes]];
        let refused = Err(ProtocolError::TooLarge { max: MAX });
        let [head, bytes] = whole(longest);
        assert_eq!(read(&[&head, &bytes, b"\r\n"]), (vec![vec![bytes]], Ok(())));
        assert_eq!(read(&[&whole(longest + 1)[0]]), (vec![], refused));
        for announced in ["2147483647", "9223372036854775807"] {
            let head = format!("*2\r\n$1\r\na\r\n${announced}\r\n");
            assert_eq!(read(&[head.as_bytes()]), (vec![], refused));
        }
    }

    #[test]
    fn room_is_given_back_after_a_large_command() {
        let mut reader = Reader::new(1 << 20);
        let whole = [&b"*1\r\n$500000\r\n"[..], &[b'x'; 500_000], b"\r\n"].concat();
        reader.room().extend_from_slice(&whole);
        assert_eq!(reader.next(), Ok(true));
        reader.consume();
        assert!(reader.room().capacity() <= KEPT_BYTES_MAX);
        // Together with the small one behind it.
        reader.room().extend_from_slice(&[&whole, &b"*1\r\n$4\r\nPING\r\n"[..]].concat());
        for _ in 0..2 {
            assert_eq!(reader.next(), Ok(true));
            reader.consume();
        }
        assert!(reader.room().capacity() <= KEPT_BYTES_MAX);
    }

    /// A hundred idle clients, each of which had once sent 170,000 empty keys, cost 387 MB.
    #[test]
    fn room_is_given_back_after_many_elements() {
        let mut reader = Reader::new(2 << 20);
        let whole = [&b"*170000\r\n"[..], &b"$0\r\n\r\n".repeat(170_000)].concat();
        reader.room().extend_from_slice(&whole);
        assert_eq!(reader.next(), Ok(true));
        assert_eq!(reader.args().len(), 170_000);
        reader.consume();
        assert!(reader.args.capacity() <= KEPT_ARGS_MAX);
        assert!(reader.room().capacity() <= KEPT_BYTES_MAX);
    }
}
