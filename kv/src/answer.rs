//! RESP values, written: of the second protocol, but for what says otherwise. The machine answers in the bytes its clients read.

/// `+text`
pub(crate) fn simple(out: &mut Vec<u8>, text: &str) {
    debug_assert!(!text.contains(['\r', '\n']), "a simple string is one line");
    line(out, b'+', text.as_bytes());
}

/// `-CODE reason`; line ends within the reason become spaces.
pub(crate) fn error(out: &mut Vec<u8>, reason: &str) {
    out.push(b'-');
    out.extend(reason.bytes().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
    out.extend_from_slice(b"\r\n");
}

/// `:number`
pub(crate) fn integer(out: &mut Vec<u8>, number: i64) {
    line(out, b':', itoa::Buffer::new().format(number).as_bytes());
}

/// `$length`, then the bytes.
pub(crate) fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    count(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// The absence of a value.
pub(crate) fn null(out: &mut Vec<u8>) {
    out.extend_from_slice(b"$-1\r\n");
}

/// `%pairs`; keys and values follow. Of the third protocol.
#[cfg(feature = "serve")]
pub(crate) fn map(out: &mut Vec<u8>, pairs: usize) {
    count(out, b'%', pairs);
}

/// `*count`; the elements follow.
pub(crate) fn array(out: &mut Vec<u8>, elements: usize) {
    count(out, b'*', elements);
}

fn count(out: &mut Vec<u8>, kind: u8, number: usize) {
    line(out, kind, itoa::Buffer::new().format(number).as_bytes());
}

fn line(out: &mut Vec<u8>, kind: u8, content: &[u8]) {
    out.push(kind);
    out.extend_from_slice(content);
    out.extend_from_slice(b"\r\n");
}

/// The first value of these, all of whose bytes are there; `None`: they do not begin with one.
#[cfg(feature = "serve")]
pub(crate) fn first(values: &[u8]) -> Option<&[u8]> {
    let (mut at, mut left) = (0, 1_usize);
    while left > 0 {
        let line = values.get(at..)?.windows(2).position(|end| end == b"\r\n")?;
        let (kind, content) = values[at..at + line].split_first()?;
        at += line + 2;
        left -= 1;
        let number = || std::str::from_utf8(content).ok()?.parse::<i64>().ok();
        match kind {
            b'+' | b'-' | b':' => {}
            b'$' => at += usize::try_from(number()?).map_or(0, |len| len + 2),
            b'*' => left += usize::try_from(number()?).unwrap_or(0),
            _ => return None,
        }
    }
    values.get(..at)
}

/// How many elements an array announces, and the bytes behind that.
#[cfg(feature = "serve")]
pub(crate) fn count_of(array: &[u8]) -> Option<(usize, &[u8])> {
    let line = array.windows(2).position(|end| end == b"\r\n")?;
    let digits = array[..line].strip_prefix(b"*")?;
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, &array[line + 2..]))
}

/// Says in the third protocol what is said from `start` on, whole values: absence in its own way.
#[cfg(feature = "serve")]
pub(crate) fn to_resp3(values: &mut Vec<u8>, start: usize) {
    // What stands between `moved` and `at` is not needed any more.
    let (mut at, mut moved) = (start, start);
    while at < values.len() {
        let len = line_or_bulk(&values[at..]).unwrap_or(values.len() - at);
        if &values[at..at + len] == b"$-1\r\n" {
            values[moved..moved + 3].copy_from_slice(b"_\r\n");
            moved += 3;
        } else {
            if moved < at {
                values.copy_within(at..at + len, moved);
            }
            moved += len;
        }
        at += len;
    }
    values.truncate(moved);
}

/// How long the first line is, with the bytes that it announces.
#[cfg(feature = "serve")]
fn line_or_bulk(values: &[u8]) -> Option<usize> {
    let line = values.windows(2).position(|end| end == b"\r\n")?;
    let announced = match values.split_first()? {
        (b'$', _) => std::str::from_utf8(&values[1..line]).ok()?.parse::<i64>().ok()?,
        _ => -1,
    };
    let bulk = usize::try_from(announced).map_or(0, |len| len + 2);
    Some(line + 2 + bulk).filter(|len| *len <= values.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "serve")]
    #[test]
    fn values_are_told_apart() {
        let mut out = Vec::new();
        array(&mut out, 2);
        bulk(&mut out, b"*1\r\n");
        array(&mut out, 2);
        null(&mut out);
        integer(&mut out, 7);
        let whole = out.clone();
        error(&mut out, "ERR more");
        assert_eq!(first(&out), Some(&whole[..]));
        assert_eq!(first(&out[whole.len()..]), Some(&b"-ERR more\r\n"[..]));
        assert_eq!(first(b"*0\r\n+OK\r\n"), Some(&b"*0\r\n"[..]));
        for end in 0..whole.len() {
            assert_eq!(first(&whole[..end]), None, "{end} bytes");
        }
        assert_eq!(first(b"x\r\n"), None);
    }

    #[cfg(feature = "serve")]
    #[test]
    fn absence_is_said_as_the_third_protocol_does() {
        let mut out = b"$-1\r\n".to_vec();
        let start = out.len();
        null(&mut out);
        array(&mut out, 4);
        bulk(&mut out, b"$-1\r\n$-1\r\n");
        null(&mut out);
        null(&mut out);
        bulk(&mut out, b"");
        integer(&mut out, -1);
        error(&mut out, "ERR $-1");
        map(&mut out, 1);
        bulk(&mut out, b"longer than what was left out before it");
        null(&mut out);
        to_resp3(&mut out, start);
        let expected = b"$-1\r\n_\r\n*4\r\n$10\r\n$-1\r\n$-1\r\n\r\n_\r\n_\r\n$0\r\n\r\n:-1\r\n\
            -ERR $-1\r\n%1\r\n$39\r\nlonger than what was left out before it\r\n_\r\n";
        assert_eq!(out.escape_ascii().to_string(), expected.escape_ascii().to_string());
        let before = out.clone();
        to_resp3(&mut out, before.len());
        assert_eq!(out, before);
    }

    #[test]
    fn values_look_as_the_protocol_says() {
        let mut out = Vec::new();
        simple(&mut out, "OK");
        error(&mut out, "ERR two\r\nlines");
        integer(&mut out, -7);
        array(&mut out, 2);
        bulk(&mut out, b"a\r\nb");
        null(&mut out);
        assert_eq!(out, b"+OK\r\n-ERR two  lines\r\n:-7\r\n*2\r\n$4\r\na\r\nb\r\n$-1\r\n");
    }
}
