//! Which of a client's operations it makes.
//!
//! What an operation is stays drawn by (client, n) from the workload; leaving some out moves none
//! of the others.

use std::{fmt, str::FromStr};

/// The operations that a client makes while there are faults, counting from one; the others it
/// passes over. Once everything is healed it makes all that come.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Asks {
    /// First and last of each range, in order, none touching the next; [`u32::MAX`] has no end.
    ranges: Vec<(u32, u32)>,
}

impl Asks {
    /// Every operation.
    #[must_use]
    pub fn all() -> Self {
        Self { ranges: vec![(1, u32::MAX)] }
    }

    /// Not one.
    #[must_use]
    pub const fn nothing() -> Self {
        Self { ranges: Vec::new() }
    }

    /// Whether the client makes none.
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether the client makes this one.
    #[must_use]
    pub fn has(&self, n: u32) -> bool {
        self.ranges.iter().any(|&(first, last)| (first..=last).contains(&n))
    }

    /// How many it makes.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.ranges.iter().map(|&(first, last)| u64::from(last) - u64::from(first) + 1).sum()
    }

    /// Those up to `last`, in order.
    pub fn up_to(&self, last: u32) -> impl Iterator<Item = u32> {
        self.ranges.iter().flat_map(move |&(from, to)| from..=to.min(last))
    }

    fn add(&mut self, first: u32, last: u32) -> Option<()> {
        match self.ranges.last_mut() {
            _ if first == 0 || last < first => return None,
            Some(before) if before.1 >= first => return None,
            Some(before) if before.1 + 1 == first => before.1 = last,
            _ => self.ranges.push((first, last)),
        }
        Some(())
    }
}

impl FromIterator<u32> for Asks {
    /// From numbers in order.
    fn from_iter<I: IntoIterator<Item = u32>>(numbers: I) -> Self {
        let mut asks = Self::nothing();
        for n in numbers {
            asks.add(n, n).expect("operations are given in order, from one on");
        }
        asks
    }
}

impl fmt::Display for Asks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_nothing() {
            return f.write_str("nothing");
        }
        for (at, &(first, last)) in self.ranges.iter().enumerate() {
            f.write_str(if at > 0 { "," } else { "" })?;
            match last {
                u32::MAX => write!(f, "{first}-")?,
                last if last == first => write!(f, "{first}")?,
                last => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// Not a list of operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AsksError;

impl FromStr for Asks {
    type Err = AsksError;

    fn from_str(text: &str) -> Result<Self, AsksError> {
        let mut asks = Self::nothing();
        if text == "nothing" {
            return Ok(asks);
        }
        for range in text.split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let last = if last.is_empty() { Ok(u32::MAX) } else { last.parse() };
            let range = first.parse().ok().zip(last.ok());
            range.and_then(|(first, last)| asks.add(first, last)).ok_or(AsksError)?;
        }
        Ok(asks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_they_are_printed() {
        for text in ["nothing", "1-", "1", "2-7", "1,3-5,9-", "4,6,8-9"] {
            assert_eq!(text.parse::<Asks>().unwrap().to_string(), text);
        }
        assert_eq!("1-2,3-4,5".parse::<Asks>().unwrap().to_string(), "1-5");
        assert_eq!([1, 2, 3, 7].into_iter().collect::<Asks>().to_string(), "1-3,7");
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in ["", "0", "3-2", "5,4", "1-5,5", "1-,7", "x", "1,,2", "-3", "1-2-3"] {
            assert!(text.parse::<Asks>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_operation_is_made_if_it_is_listed() {
        let asks: Asks = "2,4-5,9-".parse().unwrap();
        let made: Vec<u32> = (1..12).filter(|n| asks.has(*n)).collect();
        assert_eq!(made, [2, 4, 5, 9, 10, 11]);
        assert_eq!(asks.up_to(10).collect::<Vec<_>>(), [2, 4, 5, 9, 10]);
    }
}
