//! Commands as people type them and some tools send them: words in a line, as Redis takes them.
//!
//! Knows no buffer. Invariant: the words of a line are never longer than the line.

use super::reader::ProtocolError;
use std::ops::Range;

/// The longest line, its end included.
pub(crate) const LINE_BYTES_MAX: usize = 64 << 10;

/// Whether a line may begin so: with a command's name, or with nothing.
pub(crate) const fn begins(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte.is_ascii_whitespace()
}

/// The words of a line, one behind the other, and where each is; none in an empty one. Within double
/// quotes `\n`, `\r`, `\t`, `\b`, `\a` and `\x3f` stand for a byte, and a backslash takes the meaning
/// from what is behind it; within single ones it does so for a quote alone.
pub(crate) fn split(line: &[u8]) -> Result<(Vec<u8>, Vec<Range<usize>>), ProtocolError> {
    let (mut bytes, mut words, mut rest) = (Vec::new(), Vec::new(), line);
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            break;
        }
        let start = bytes.len();
        while let Some((&first, after)) = rest.split_first()
            && !first.is_ascii_whitespace()
        {
            rest = match first {
                b'"' | b'\'' => quoted(first, after, &mut bytes)?,
                _ => {
                    bytes.push(first);
                    after
                }
            };
        }
        words.push(start..bytes.len());
    }
    if is_http(words.iter().map(|word| &bytes[word.clone()])) {
        return Err(ProtocolError::Http);
    }
    Ok((bytes, words))
}

/// Adds what stands before the closing quote to `bytes`, and gives what is behind it.
fn quoted<'a>(
    quote: u8,
    mut rest: &'a [u8],
    bytes: &mut Vec<u8>,
) -> Result<&'a [u8], ProtocolError> {
    loop {
        let (byte, after) = match *rest {
            [b'\\', b'\'', ref after @ ..] if quote == b'\'' => (b'\'', after),
            [b'\\', b'x', high, low, ref after @ ..]
                if quote == b'"' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (hex(high) << 4 | hex(low), after)
            }
            [b'\\', escaped, ref after @ ..] if quote == b'"' => (meant(escaped), after),
            // The word ends with the quote.
            [end, ref after @ ..] if end == quote => match after.first() {
                Some(next) if !next.is_ascii_whitespace() => return Err(ProtocolError::Quotes),
                _ => return Ok(after),
            },
            [byte, ref after @ ..] => (byte, after),
            [] => return Err(ProtocolError::Quotes),
        };
        bytes.push(byte);
        rest = after;
    }
}

const fn meant(escaped: u8) -> u8 {
    match escaped {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        other => other,
    }
}

fn hex(digit: u8) -> u8 {
    char::from(digit).to_digit(16).expect("it is a digit") as u8
}

/// What a browser sends on behalf of some page: were it passed over line by line, what stands in its
/// body would be performed.
fn is_http<'a>(mut words: impl ExactSizeIterator<Item = &'a [u8]>) -> bool {
    let count = words.len();
    let Some(first) = words.next() else { return false };
    [&b"POST"[..], b"Host:"].iter().any(|word| first.eq_ignore_ascii_case(word))
        || count == 3 && words.nth(1).is_some_and(|version| version.starts_with(b"HTTP/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &[u8]) -> Result<Vec<Vec<u8>>, ProtocolError> {
        let (bytes, words) = split(line)?;
        assert!(bytes.len() <= line.len());
        Ok(words.into_iter().map(|word| bytes[word].to_vec()).collect())
    }

    #[test]
    fn a_line_is_split_as_redis_does_it() {
        let cases: [(&[u8], &[&[u8]]); 10] = [
            (b"", &[]),
            (b" \t\r", &[]),
            (b"PING\r", &[b"PING"]),
            (b"  set\tk  v ", &[b"set", b"k", b"v"]),
            (b"set k \"a b\"", &[b"set", b"k", b"a b"]),
            (b"set k ''", &[b"set", b"k", b""]),
            (br#"set k "\x00\n\r\t\b\a\"\\\q\xz""#, &[b"set", b"k", b"\0\n\r\t\x08\x07\"\\qxz"]),
            (br"set k 'a\'b\n'", &[b"set", b"k", br"a'b\n"]),
            (br#"set k a"b c""#, &[b"set", b"k", b"ab c"]),
            (b"set \xc3\xa4 \0", &[b"set", b"\xc3\xa4", b"\0"]),
        ];
        for (line, expected) in cases {
            let found = words(line).unwrap();
            assert_eq!(found, expected, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn quotes_that_do_not_close_a_word_are_named() {
        for line in
            [&b"set k \"a"[..], b"set k '", br#"set k "a\""#, b"set k \"a\"b", b"a 'b'\"c\""]
        {
            assert_eq!(words(line), Err(ProtocolError::Quotes), "{}", line.escape_ascii());
        }
    }

    #[test]
    fn what_browsers_send_is_none_of_it() {
        for line in ["GET / HTTP/1.1\r", "PUT /a%0d HTTP/1.0", "post x", "POST", "host: here"] {
            assert_eq!(words(line.as_bytes()), Err(ProtocolError::Http), "{line}");
        }
        assert!(words(b"SET path HTTP/1.1 NX").is_ok());
    }
}
