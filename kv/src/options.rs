//! What commands ask of a key before they change it, and for how long they do.
//!
//! Part of what stands in the log: the bytes never change their meaning.

/// What SET asks of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// Nothing.
    Always,
    /// That it does not exist (NX).
    Absent,
    /// That it exists (XX).
    Present,
}

impl When {
    pub(crate) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Always),
            1 => Some(Self::Absent),
            2 => Some(Self::Present),
            _ => None,
        }
    }
}

/// How long what is set lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lives {
    /// Until it is removed.
    Ever,
    /// So many milliseconds from now on (EX, PX).
    For(u64),
    /// Until so many milliseconds after the beginning of 1970 (EXAT, PXAT): not at all if that is over.
    Until(u64),
    /// As long as what was there before (KEEPTTL).
    AsBefore,
}

impl Lives {
    pub(crate) const fn to_parts(self) -> (u8, u64) {
        match self {
            Self::Ever => (0, 0),
            Self::For(millis) => (1, millis),
            Self::Until(millis) => (2, millis),
            Self::AsBefore => (3, 0),
        }
    }

    pub(crate) const fn from_parts(kind: u8, millis: u64) -> Option<Self> {
        match (kind, millis) {
            (0, 0) => Some(Self::Ever),
            (1, millis) => Some(Self::For(millis)),
            (2, millis) => Some(Self::Until(millis)),
            (3, 0) => Some(Self::AsBefore),
            _ => None,
        }
    }
}

/// When a key is to expire, in milliseconds; if that is over, it is removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expiry {
    /// From now on.
    In(i64),
    /// After the beginning of 1970.
    At(i64),
}

impl Expiry {
    pub(crate) const fn to_parts(self) -> (u8, i64) {
        match self {
            Self::In(millis) => (0, millis),
            Self::At(millis) => (1, millis),
        }
    }

    pub(crate) const fn from_parts(kind: u8, millis: i64) -> Option<Self> {
        match kind {
            0 => Some(Self::In(millis)),
            1 => Some(Self::At(millis)),
            _ => None,
        }
    }
}

/// What EXPIRE asks of the expiry that a key has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Only {
    /// Nothing.
    Always,
    /// That there is none (NX).
    Lasting,
    /// That there is one (XX).
    Expiring,
    /// That the new one is later, where none is the latest (GT).
    Later,
    /// That the new one is sooner, where none is the latest (LT).
    Sooner,
    /// That there is one, and the new one is sooner (XX, LT).
    ExpiringSooner,
}

impl Only {
    pub(crate) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Always),
            1 => Some(Self::Lasting),
            2 => Some(Self::Expiring),
            3 => Some(Self::Later),
            4 => Some(Self::Sooner),
            5 => Some(Self::ExpiringSooner),
            _ => None,
        }
    }
}
