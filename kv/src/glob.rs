//! Patterns of SCAN: `*`, `?`, `[a-z]`, `[^a]`, and `\` before a byte that is meant as it is.
//!
//! Invariant: a byte of a text costs a step for each 64 elements of the pattern, whatever either of
//! them is; each value that a byte can have costs one more for each byte of the pattern, once.

/// The longest pattern, in bytes.
pub(crate) const PATTERN_BYTES_MAX: usize = 1 << 10;

const WORD_BITS: usize = u64::BITS as usize;

/// A pattern, and what was found out about it while matching. All places in the pattern that a text
/// can have come to are followed at once, a bit for each, so that no text is gone back in.
pub(crate) struct Glob<'a> {
    pattern: &'a [u8],
    /// How many elements there are, stars apart: so many bytes has what matches, or more.
    elements: usize,
    /// Bit n: a star stands before element n, or behind the last.
    stars: Vec<u64>,
    /// For each byte that was met, which elements it is one of.
    rows: Vec<u64>,
    /// Which row is a byte's, counted from one; zero: it was not met.
    row_of: [u16; 256],
    /// The places that the text at hand can have come to.
    places: Vec<u64>,
    steps: usize,
}

impl<'a> Glob<'a> {
    /// `None`: the pattern is too long.
    pub(crate) fn new(pattern: &'a [u8]) -> Option<Self> {
        if pattern.len() > PATTERN_BYTES_MAX {
            return None;
        }
        // No pattern has more elements than bytes, and one place more than elements.
        let words = pattern.len() / WORD_BITS + 1;
        let (mut elements, mut stars) = (0, vec![0; words]);
        let mut rest = pattern;
        while let Some(&first) = rest.first() {
            if first == b'*' {
                put(&mut stars, elements);
                rest = &rest[1..];
            } else {
                (_, rest) = one(rest, 0);
                elements += 1;
            }
        }
        let (rows, row_of, places) = (Vec::new(), [0; 256], vec![0; words]);
        Some(Self { pattern, elements, stars, rows, row_of, places, steps: pattern.len() })
    }

    /// Whether all of `text` matches.
    pub(crate) fn matches(&mut self, text: &[u8]) -> bool {
        self.places.fill(0);
        put(&mut self.places, 0);
        for &byte in text {
            if self.ends_with_star() && has(&self.places, self.elements) {
                return true;
            }
            if !self.step(byte) {
                return false;
            }
        }
        has(&self.places, self.elements)
    }

    /// How many steps all of it took up to now.
    pub(crate) const fn steps(&self) -> usize {
        self.steps
    }

    /// Whether what has come to the end matches, whatever follows.
    fn ends_with_star(&self) -> bool {
        has(&self.stars, self.elements)
    }

    /// From every place over one byte; false: there is no place left.
    fn step(&mut self, byte: u8) -> bool {
        let row = self.row(byte);
        let (mut carry, mut any) = (0, 0);
        let words = self.places.iter_mut().zip(&self.stars).zip(&self.rows[row..]);
        for ((places, stars), row) in words {
            let over = *places & row;
            *places = over << 1 | carry | *places & stars;
            carry = over >> (WORD_BITS - 1);
            any |= *places;
        }
        self.steps += self.places.len();
        any != 0
    }

    /// Where the row of a byte begins.
    fn row(&mut self, byte: u8) -> usize {
        let words = self.places.len();
        let known = usize::from(self.row_of[usize::from(byte)]);
        if known > 0 {
            return (known - 1) * words;
        }
        let start = self.rows.len();
        self.rows.resize(start + words, 0);
        self.row_of[usize::from(byte)] = (start / words + 1) as u16;
        self.steps += self.pattern.len();
        let (mut rest, mut element) = (self.pattern, 0);
        while let Some(&first) = rest.first() {
            if first == b'*' {
                rest = &rest[1..];
                continue;
            }
            let (is_one, after) = one(rest, byte);
            if is_one {
                put(&mut self.rows[start..], element);
            }
            (rest, element) = (after, element + 1);
        }
        start
    }
}

fn has(bits: &[u64], bit: usize) -> bool {
    bits[bit / WORD_BITS] >> (bit % WORD_BITS) & 1 == 1
}

fn put(bits: &mut [u64], bit: usize) {
    bits[bit / WORD_BITS] |= 1 << (bit % WORD_BITS);
}

/// Whether `byte` is what the first element of a pattern means, and the pattern behind that.
fn one(pattern: &[u8], byte: u8) -> (bool, &[u8]) {
    match pattern {
        [b'?', rest @ ..] => (true, rest),
        [b'[', rest @ ..] => set(rest, byte),
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => (*literal == byte, rest),
        [] => (false, pattern),
    }
}

/// The same of a set whose `[` was read. A set without end reaches to the end.
fn set(pattern: &[u8], byte: u8) -> (bool, &[u8]) {
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
    (found != negated, rest.get(1..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Glob::new(pattern.as_bytes()).unwrap().matches(text.as_bytes())
    }

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
            ("a**", "a", true),
            ("a*", "b", false),
            ("\\", "\\", true),
            ("*[", "a", false),
            ("[^", "a", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    /// Word by word of places: what matches in the first must match in the others.
    #[test]
    fn long_patterns_match_as_short_ones_do() {
        for before in 0..PATTERN_BYTES_MAX / 3 - 2 {
            let (pattern, text) = ("?x*".repeat(before) + "a[b-d]*e", "_x".repeat(before));
            assert!(matches(&pattern, &format!("{text}ac-e-e")), "{before}");
            assert!(!matches(&pattern, &format!("{text}aa-e-e")), "{before}");
            assert!(!matches(&pattern, &format!("{text}ac-e-")), "{before}");
        }
    }

    /// Each element meant one byte here, and was tried again for each that a star might take: the
    /// product of both lengths for one key, 11 s for a few of them, on the node's only thread.
    #[test]
    fn a_text_costs_few_steps_whatever_the_pattern_is() {
        let text = "a".repeat(64 << 10);
        let ends = "a".repeat(PATTERN_BYTES_MAX - 2);
        let stars = "*a".repeat(PATTERN_BYTES_MAX / 2 - 1);
        let sets = format!("*[{}]", &ends[3..]);
        for pattern in [format!("*{ends}b"), format!("{stars}b"), format!("{sets}b")] {
            let mut glob = Glob::new(pattern.as_bytes()).unwrap();
            assert!(!glob.matches(text.as_bytes()));
            assert!(glob.steps() < 20 * text.len(), "{pattern}: {} steps", glob.steps());
        }
        let mut all = Glob::new(b"*").unwrap();
        assert!(all.matches(text.as_bytes()) && all.steps() < 10);
    }

    #[test]
    fn a_pattern_that_is_too_long_is_none() {
        assert!(Glob::new(&[b'*'; PATTERN_BYTES_MAX]).is_some());
        assert!(Glob::new(&[b'*'; PATTERN_BYTES_MAX + 1]).is_none());
    }
}
