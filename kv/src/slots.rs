//! Which group a key belongs to: by its hash slot, as Redis Cluster has them.
//!
//! Knows no connection and no node. Invariant: where a key belongs depends on its bytes and on the
//! number of groups alone, so every node of a cluster says the same, for ever.

use std::ops::RangeInclusive;

/// How many slots there are.
pub const SLOTS: u16 = 1 << 14;
/// The most groups that keys are spread over.
pub const GROUPS_MAX: u16 = 64;

/// The polynomial of CRC-16/XMODEM.
const POLYNOMIAL: u16 = 0x1021;
const TABLE: [u16; 256] = table();

const fn table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let (mut crc, mut bit) = ((byte as u16) << 8, 0);
        while bit < 8 {
            crc = (crc << 1) ^ (POLYNOMIAL * (crc >> 15));
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

fn crc16(bytes: &[u8]) -> u16 {
    let step = |crc: u16, byte: &u8| (crc << 8) ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)];
    bytes.iter().fold(0, step)
}

/// The slot of a key: of the part between its first `{` and the `}` behind it, if there is one and
/// it is not empty, so that keys may be kept together.
#[must_use]
pub fn slot(key: &[u8]) -> u16 {
    crc16(tag(key).unwrap_or(key)) % SLOTS
}

fn tag(key: &[u8]) -> Option<&[u8]> {
    let open = key.iter().position(|byte| *byte == b'{')?;
    let rest = &key[open + 1..];
    let close = rest.iter().position(|byte| *byte == b'}')?;
    Some(&rest[..close]).filter(|tag| !tag.is_empty())
}

/// The slots, divided evenly among groups that are numbered from zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slots {
    groups: u32,
}

impl Slots {
    /// Over so many groups: one at least, and [`GROUPS_MAX`] at most.
    #[must_use]
    pub fn over(groups: usize) -> Self {
        assert!((1..=usize::from(GROUPS_MAX)).contains(&groups), "{groups} groups");
        Self { groups: groups as u32 }
    }

    /// The group of a slot.
    #[must_use]
    pub fn group(self, slot: u16) -> usize {
        (u32::from(slot) * self.groups / u32::from(SLOTS)) as usize
    }

    /// The slots of a group.
    #[must_use]
    pub fn of(self, group: usize) -> RangeInclusive<u16> {
        let first = |group: usize| (group as u32 * u32::from(SLOTS)).div_ceil(self.groups);
        first(group) as u16..=(first(group + 1) - 1) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of CRC-16/XMODEM, and slots that Redis' specification and its clients give.
    #[test]
    fn slots_are_those_of_redis() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(crc16(b""), 0);
        for (key, expected) in [("123456789", 0x31C3), ("foo", 12182), ("bar", 5061), ("", 0)] {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
    }

    /// The examples of the specification's chapter on hash tags.
    #[test]
    fn what_stands_in_braces_decides() {
        let same = |one: &str, other: &str| {
            assert_eq!(slot(one.as_bytes()), crc16(other.as_bytes()) % SLOTS, "{one}");
        };
        same("{user1000}.following", "user1000");
        same("{user1000}.followers", "user1000");
        same("foo{}{bar}", "foo{}{bar}");
        same("foo{{bar}}zap", "{bar");
        same("foo{bar}{zap}", "bar");
        same("foo}{bar", "foo}{bar");
    }

    #[test]
    fn each_slot_has_one_group_and_no_group_much_more_than_another() {
        for groups in 1..=usize::from(GROUPS_MAX) {
            let slots = Slots::over(groups);
            let mut next = 0;
            for group in 0..groups {
                let own = slots.of(group);
                assert_eq!(*own.start(), next, "{groups} groups, group {group}");
                assert!(own.clone().all(|slot| slots.group(slot) == group));
                let fair = usize::from(SLOTS) / groups;
                assert!((fair..=fair + 1).contains(&own.clone().count()));
                next = own.end() + 1;
            }
            assert_eq!(next, SLOTS);
        }
    }
}
