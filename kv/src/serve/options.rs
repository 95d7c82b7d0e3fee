//! The commands that take options: which of them go together, and what they amount to.
//!
//! Knows no state and no clock. As Redis has it: what is said twice is said once, the last time, and what
//! contradicts it is wrong; options are looked at before numbers.

use super::{
    reader::Args,
    request::{Wrong, number},
};
use crate::{Command, Expiry, Lives, Only, When, machine::EXPIRES_MILLIS_MAX};

/// How long a key may have to live, in milliseconds: some 445 years. The time of day is below 2^42 of them
/// until the year 2109.
const LIVES_MILLIS_MAX: i64 = EXPIRES_MILLIS_MAX - (1 << 42);

/// In what an expiry is told: EX, PX, EXAT, PXAT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Unit {
    /// Milliseconds.
    millis: i64,
    /// From 1970 on, not from now on.
    is_absolute: bool,
}

impl Unit {
    pub(crate) const SECONDS: Self = Self { millis: 1000, is_absolute: false };
    pub(crate) const MILLIS: Self = Self { millis: 1, is_absolute: false };
    pub(crate) const SECONDS_AT: Self = Self { millis: 1000, is_absolute: true };
    pub(crate) const MILLIS_AT: Self = Self { millis: 1, is_absolute: true };

    fn of(option: &[u8]) -> Option<Self> {
        match &option.to_ascii_uppercase()[..] {
            b"EX" => Some(Self::SECONDS),
            b"PX" => Some(Self::MILLIS),
            b"EXAT" => Some(Self::SECONDS_AT),
            b"PXAT" => Some(Self::MILLIS_AT),
            _ => None,
        }
    }

    /// So many of these, if it is a time that the machine can tell.
    fn expiry(self, digits: &[u8]) -> Result<Expiry, Wrong<'static>> {
        let max = if self.is_absolute { EXPIRES_MILLIS_MAX } else { LIVES_MILLIS_MAX };
        let total = number::<i64>(digits)?.checked_mul(self.millis);
        let total = total.filter(|total| *total <= max).ok_or(Wrong::Expiry)?;
        Ok(if self.is_absolute { Expiry::At(total) } else { Expiry::In(total) })
    }

    /// The same of what is set: some time that is not over when it begins.
    fn lives(self, digits: &[u8]) -> Result<Lives, Wrong<'static>> {
        let (expiry, positive) = (self.expiry(digits)?, |millis| {
            u64::try_from(millis).ok().filter(|millis| *millis > 0).ok_or(Wrong::Expiry)
        });
        Ok(match expiry {
            Expiry::In(millis) => Lives::For(positive(millis)?),
            Expiry::At(millis) => Lives::Until(positive(millis)?),
        })
    }
}

/// `SET key value [NX | XX] [GET] [EX seconds | PX millis | EXAT time | PXAT time | KEEPTTL]`
pub(crate) fn set(args: Args<'_>) -> Result<Command<'_>, Wrong<'_>> {
    let mut args = args.iter();
    let (Some(key), Some(value)) = (args.next(), args.next()) else { return Err(Wrong::Arity) };
    let (mut when, mut lives, mut keeps, mut tells) = (When::Always, None, false, false);
    while let Some(option) = args.next() {
        let is = |name: &str| option.eq_ignore_ascii_case(name.as_bytes());
        if is("NX") && when != When::Present {
            when = When::Absent;
        } else if is("XX") && when != When::Absent {
            when = When::Present;
        } else if is("GET") {
            tells = true;
        } else if is("KEEPTTL") && lives.is_none() {
            keeps = true;
        } else {
            let unit = Unit::of(option).filter(|_| !keeps).ok_or(Wrong::Syntax)?;
            if lives.is_some_and(|(_, other)| other != unit) {
                return Err(Wrong::Syntax);
            }
            lives = Some((args.next().ok_or(Wrong::Syntax)?, unit));
        }
    }
    let lives = match lives {
        Some((digits, unit)) => unit.lives(digits)?,
        None if keeps => Lives::AsBefore,
        None => Lives::Ever,
    };
    Ok(match lives {
        Lives::Ever if !tells => Command::Set { key, value, when, millis: 0 },
        Lives::For(millis) if !tells => Command::Set { key, value, when, millis },
        lives => Command::SetAs { key, value, when, lives, tells },
    })
}

/// `SETEX key seconds value`, and in milliseconds PSETEX.
pub(crate) fn set_ex(args: Args<'_>, unit: Unit) -> Result<Command<'_>, Wrong<'_>> {
    let [key, digits, value] = args.all().ok_or(Wrong::Arity)?;
    let Lives::For(millis) = unit.lives(digits)? else { return Err(Wrong::Expiry) };
    Ok(Command::Set { key, value, when: When::Always, millis })
}

/// `GETEX key [EX seconds | PX millis | EXAT time | PXAT time | PERSIST]`
pub(crate) fn get_ex(args: Args<'_>) -> Result<Command<'_>, Wrong<'_>> {
    let mut args = args.iter();
    let key = args.next().ok_or(Wrong::Arity)?;
    let (mut lives, mut persists) = (None, false);
    while let Some(option) = args.next() {
        if option.eq_ignore_ascii_case(b"PERSIST") && lives.is_none() {
            persists = true;
            continue;
        }
        let unit = Unit::of(option).filter(|_| !persists).ok_or(Wrong::Syntax)?;
        if lives.is_some_and(|(_, other)| other != unit) {
            return Err(Wrong::Syntax);
        }
        lives = Some((args.next().ok_or(Wrong::Syntax)?, unit));
    }
    Ok(match lives {
        Some((digits, unit)) => Command::GetEx { key, lives: unit.lives(digits)? },
        None if persists => Command::GetEx { key, lives: Lives::Ever },
        None => Command::Get(key),
    })
}

/// `EXPIRE key seconds [NX | XX | GT | LT]`, and PEXPIRE, EXPIREAT and PEXPIREAT.
pub(crate) fn expire(args: Args<'_>, unit: Unit) -> Result<Command<'_>, Wrong<'_>> {
    let mut args = args.iter();
    let (Some(key), Some(digits)) = (args.next(), args.next()) else { return Err(Wrong::Arity) };
    let [mut lasting, mut expiring, mut later, mut sooner] = [false; 4];
    for option in args {
        match &option.to_ascii_uppercase()[..] {
            b"NX" => lasting = true,
            b"XX" => expiring = true,
            b"GT" => later = true,
            b"LT" => sooner = true,
            _ => return Err(Wrong::Option(option)),
        }
    }
    let only = match (lasting, expiring, later, sooner) {
        (false, false, false, false) => Only::Always,
        (true, false, false, false) => Only::Lasting,
        (false, true, false, false) => Only::Expiring,
        // What does not expire is never made to expire later.
        (false, _, true, false) => Only::Later,
        (false, false, false, true) => Only::Sooner,
        (false, true, false, true) => Only::ExpiringSooner,
        (true, ..) => return Err(Wrong::Text(LASTING_WITH_OTHERS)),
        (false, _, true, true) => return Err(Wrong::Text(LATER_AND_SOONER)),
    };
    Ok(match (unit.expiry(digits)?, only) {
        (Expiry::In(millis), Only::Always) => Command::Expire { key, millis },
        (expiry, only) => Command::ExpireAs { key, expiry, only },
    })
}

const LASTING_WITH_OTHERS: &str =
    "ERR NX and XX, GT or LT options at the same time are not compatible";
const LATER_AND_SOONER: &str = "ERR GT and LT options at the same time are not compatible";
