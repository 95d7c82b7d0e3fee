//! Words: how each kind of value is written on a line, and read from one.
//!
//! A line is a keyword and then pairs of a name and a value. Both directions go through one list
//! of fields (`fields`), so that what is printed is what is read.

use super::{MS, US};
use std::{fmt, str::FromStr, time::Duration};

/// The longest time a plan may name: an hour, far from where sums of two would overflow.
pub(super) const TIME_MAX: u64 = 3_600_000 * MS;

/// Simulated time as people read it: milliseconds, to the microsecond, or to the nanosecond where
/// there are any.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Time(pub u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / MS, self.0 % MS);
        match part % US {
            0 => write!(f, "{whole}.{:03}ms", part / US),
            _ => write!(f, "{whole}.{part:06}ms"),
        }
    }
}

impl FromStr for Time {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let number = text.strip_suffix("ms").ok_or(())?;
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if part.len() > 6 || !part.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(());
        }
        let whole: u64 = whole.parse().map_err(drop)?;
        let part: u64 = format!("{part:0<6}").parse().map_err(drop)?;
        let time = whole.checked_mul(MS).ok_or(())? + part;
        if time > TIME_MAX { Err(()) } else { Ok(Self(time)) }
    }
}

/// Why a text is no plan.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PlanError {
    /// A line says something else than what can stand there.
    Line {
        /// Which, counting from one.
        line: usize,
        /// What stands there.
        found: String,
        /// What could.
        expected: String,
    },
    /// It is of a version that this build does not read.
    Version {
        /// Which.
        found: u64,
    },
    /// Each line can be read, and together they cannot be meant.
    Contradiction(String),
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { line, found, expected } => {
                write!(f, "line {line}: found {found:?}, expected {expected}")
            }
            Self::Version { found } => {
                let age = if *found < super::VERSION { "an older" } else { "a newer" };
                write!(
                    f,
                    "a plan of version {found}, written by {age} lakebed; this one reads version \
                     {}. Replay it with the lakebed that wrote it, or draw it anew from the seed \
                     it names: lakebed sim plan SCENARIO SEED",
                    super::VERSION
                )
            }
            Self::Contradiction(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for PlanError {}

/// A value as one word.
pub(super) trait Word {
    fn print(&self) -> String;
    /// Takes the value of this text, if it has one.
    fn read(&mut self, text: &str) -> Option<()>;
    fn expected(&self) -> String;
}

/// A named value of a line.
pub(super) type Field<'a> = (&'static str, Box<dyn Word + 'a>);

/// A value that is written as it displays.
pub(super) fn plain<'a, T: Plain>(name: &'static str, value: &'a mut T) -> Field<'a> {
    (name, Box::new(value))
}

/// A time.
pub(super) fn time<'a>(name: &'static str, value: &'a mut u64) -> Field<'a> {
    (name, Box::new(Span(value)))
}

/// A time that others than us keep.
pub(super) fn duration<'a>(name: &'static str, value: &'a mut Duration) -> Field<'a> {
    (name, Box::new(value))
}

/// A value, or `none`.
pub(super) fn optional<'a, T: Plain>(name: &'static str, value: &'a mut Option<T>) -> Field<'a> {
    (name, Box::new(Optional(value)))
}

/// A node; they count from one for people.
pub(super) fn node<'a>(name: &'static str, value: &'a mut usize) -> Field<'a> {
    (name, Box::new(Node(value)))
}

/// Nodes, with commas.
pub(super) fn nodes<'a>(name: &'static str, value: &'a mut Vec<usize>) -> Field<'a> {
    (name, Box::new(Nodes(value)))
}

/// Numbers, with commas.
pub(super) fn numbers<'a>(name: &'static str, value: &'a mut Vec<i64>) -> Field<'a> {
    (name, Box::new(Numbers(value)))
}

/// Each node's side, a letter each.
pub(super) fn sides<'a>(name: &'static str, value: &'a mut Vec<bool>) -> Field<'a> {
    (name, Box::new(Sides(value)))
}

/// One of these.
pub(super) fn choice<'a, T: PartialEq + Clone + fmt::Debug>(
    name: &'static str,
    value: &'a mut T,
    of: &'a [(&'static str, T)],
) -> Field<'a> {
    (name, Box::new(Choice { value, of }))
}

/// What is written as it displays, and what people call it.
pub(super) trait Plain: fmt::Display + FromStr {
    const CALLED: &'static str;
}

macro_rules! plain {
    ($($type:ty: $called:literal,)*) => {
        $(impl Plain for $type {
            const CALLED: &'static str = $called;
        })*
    };
}

plain! {
    u8: "a whole number up to 255",
    u32: "a whole number",
    u64: "a whole number",
    i64: "a whole number, perhaps below zero",
    usize: "a whole number",
    bool: "true or false",
    super::Steps: "steps such as add-4,promote-4,remove-1,remove-leader",
    super::Asks: "operations such as 1-, 3,5-9 or nothing",
}

impl<T: Plain> Word for &mut T {
    fn print(&self) -> String {
        self.to_string()
    }

    fn read(&mut self, text: &str) -> Option<()> {
        **self = text.parse().ok()?;
        Some(())
    }

    fn expected(&self) -> String {
        T::CALLED.into()
    }
}

struct Optional<'a, T>(&'a mut Option<T>);

impl<T: Plain> Word for Optional<'_, T> {
    fn print(&self) -> String {
        self.0.as_ref().map_or_else(|| "none".into(), ToString::to_string)
    }

    fn read(&mut self, text: &str) -> Option<()> {
        *self.0 = if text == "none" { None } else { Some(text.parse().ok()?) };
        Some(())
    }

    fn expected(&self) -> String {
        format!("none or {}", T::CALLED)
    }
}

const A_TIME: &str = "milliseconds such as 1.250ms, an hour at most";

struct Span<'a>(&'a mut u64);

impl Word for Span<'_> {
    fn print(&self) -> String {
        Time(*self.0).to_string()
    }

    fn read(&mut self, text: &str) -> Option<()> {
        *self.0 = text.parse::<Time>().ok()?.0;
        Some(())
    }

    fn expected(&self) -> String {
        A_TIME.into()
    }
}

impl Word for &mut Duration {
    fn print(&self) -> String {
        Time(self.as_nanos() as u64).to_string()
    }

    fn read(&mut self, text: &str) -> Option<()> {
        **self = Duration::from_nanos(text.parse::<Time>().ok()?.0);
        Some(())
    }

    fn expected(&self) -> String {
        A_TIME.into()
    }
}

struct Node<'a>(&'a mut usize);

impl Word for Node<'_> {
    fn print(&self) -> String {
        (*self.0 + 1).to_string()
    }

    fn read(&mut self, text: &str) -> Option<()> {
        *self.0 = text.parse::<usize>().ok()?.checked_sub(1)?;
        Some(())
    }

    fn expected(&self) -> String {
        "a node, counting from 1".into()
    }
}

struct Nodes<'a>(&'a mut Vec<usize>);

impl Word for Nodes<'_> {
    fn print(&self) -> String {
        let nodes: Vec<String> = self.0.iter().map(|node| (node + 1).to_string()).collect();
        nodes.join(",")
    }

    fn read(&mut self, text: &str) -> Option<()> {
        let node = |text: &str| text.parse::<usize>().ok()?.checked_sub(1);
        *self.0 = text.split(',').map(node).collect::<Option<_>>()?;
        Some(())
    }

    fn expected(&self) -> String {
        "nodes such as 1,3, counting from 1".into()
    }
}

struct Numbers<'a>(&'a mut Vec<i64>);

impl Word for Numbers<'_> {
    fn print(&self) -> String {
        let numbers: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        numbers.join(",")
    }

    fn read(&mut self, text: &str) -> Option<()> {
        *self.0 = text.split(',').map(|number| number.parse().ok()).collect::<Option<_>>()?;
        Some(())
    }

    fn expected(&self) -> String {
        "a whole number per node, such as 0,-12,7".into()
    }
}

struct Sides<'a>(&'a mut Vec<bool>);

impl Word for Sides<'_> {
    fn print(&self) -> String {
        self.0.iter().map(|first| if *first { 'a' } else { 'b' }).collect()
    }

    fn read(&mut self, text: &str) -> Option<()> {
        let side = |letter| match letter {
            'a' => Some(true),
            'b' => Some(false),
            _ => None,
        };
        *self.0 = text.chars().map(side).collect::<Option<_>>()?;
        Some(())
    }

    fn expected(&self) -> String {
        "a letter per node, a or b, such as abb".into()
    }
}

struct Choice<'a, T> {
    value: &'a mut T,
    of: &'a [(&'static str, T)],
}

impl<T: PartialEq + Clone + fmt::Debug> Word for Choice<'_, T> {
    fn print(&self) -> String {
        let found = self.of.iter().find(|(_, value)| value == self.value);
        found.map_or_else(|| format!("{:?}", self.value), |(name, _)| (*name).into())
    }

    fn read(&mut self, text: &str) -> Option<()> {
        let (_, value) = self.of.iter().find(|(name, _)| *name == text)?;
        *self.value = value.clone();
        Some(())
    }

    fn expected(&self) -> String {
        let names: Vec<&str> = self.of.iter().map(|(name, _)| *name).collect();
        format!("one of {}", names.join(", "))
    }
}
