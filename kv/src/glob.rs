//! Patterns of SCAN: `*`, `?`, `[a-z]`, `[^a]`, and `\` before a byte that is meant as it is.

/// Whether all of `text` matches `pattern`. Takes at most the product of their lengths in steps.
pub(crate) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (pattern, text);
    // Where to go on when what follows the last star does not match: it takes one byte more.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', rest @ ..] = p {
            p = rest;
            retry = Some((rest, t));
            continue;
        }
        let step = match t.split_first() {
            None if p.is_empty() => return true,
            None => return p.iter().all(|&byte| byte == b'*'),
            Some((&byte, after)) => one(p, byte).map(|rest| (rest, after)),
        };
        match (step, retry) {
            (Some((rest, after)), _) => (p, t) = (rest, after),
            (None, Some((star, [_, after @ ..]))) => {
                (p, t) = (star, after);
                retry = Some((star, after));
            }
            (None, _) => return false,
        }
    }
}

/// The pattern behind its first element, if that matches `byte`.
fn one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern {
        [b'?', rest @ ..] => Some(rest),
        [b'[', rest @ ..] => set(rest, byte),
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => (*literal == byte).then_some(rest),
        [] => None,
    }
}

/// The pattern behind a set whose `[` was read. A set without end reaches to the end.
fn set(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let (negated, mut rest) = match pattern {
        [b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut found = false;
    loop {
        rest = match rest {
            [] | [b']', ..] => break,
            [b'\\', literal, rest @ ..] => {
                found |= *literal == byte;
                rest
            }
            [low, b'-', high, rest @ ..] if *high != b']' => {
                found |= (*low.min(high)..=*low.max(high)).contains(&byte);
                rest
            }
            [literal, rest @ ..] => {
                found |= *literal == byte;
                rest
            }
        };
    }
    (found != negated).then(|| rest.get(1..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_what_they_say() {
        let cases = [
            ("*", "", true),
            ("*", "anything", true),
            ("", "", true),
            ("", "a", false),
            ("a*c", "abbc", true),
            ("a*c", "abbd", false),
            ("a*b*c", "aXbXbXc", true),
            ("*ab", "aab", true),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h[ae]llo", "hallo", true),
            ("h[^ae]llo", "hallo", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("k\\*", "k*", true),
            ("k\\*", "kk", false),
            ("[a\\]]", "]", true),
            ("[a", "a", true),
            ("a", "ab", false),
            ("ab", "a", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_do_not_explode() {
        let pattern = "*a".repeat(40) + "b";
        assert!(!matches(pattern.as_bytes(), "a".repeat(4000).as_bytes()));
    }
}
