//! What stays broken once all else is healed: a minority of the voters, while the others owe what they
//! always owe (`storm/majority.rs`).
//!
//! Names nobody: who leads, and who votes by then, a plan cannot know.

use super::{
    site::Site,
    text::{Field, choice, plain},
};

/// A minority, and what is the matter with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Minority {
    /// What is.
    pub trouble: Trouble,
    /// How many voters it has at most; never so many that the others are no quorum.
    pub most: usize,
    /// Whether whoever leads is one of them.
    pub leads: bool,
    /// Whether nobody asks for anything at first: then the minority's log is as new as the others', and it
    /// is by no log of its own that nobody votes for it.
    pub quiet: bool,
}

/// What is the matter with a minority.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// Their machines have no power.
    Down,
    /// Each of them is alone, and nobody's connections break.
    Alone,
    /// They hear each other and nobody else, and connections break at once.
    Apart,
    /// They hear everybody, and nobody else hears them.
    Unheard,
    /// Everybody hears them, and they hear nobody else.
    Deaf,
    /// They are alone for a while, and back for a moment, again and again.
    ComesAndGoes,
    /// Of the others they hear one and are heard by one, the same: who is between.
    OneLink,
    /// Their disks take everything and end nothing.
    HungDisk,
    /// Every sync and durable write of theirs fails, in one of the ways in which they do.
    FailingDisk,
}

const TROUBLES: [(&str, Trouble); 9] = [
    ("down", Trouble::Down),
    ("alone", Trouble::Alone),
    ("apart", Trouble::Apart),
    ("unheard", Trouble::Unheard),
    ("deaf", Trouble::Deaf),
    ("comes-and-goes", Trouble::ComesAndGoes),
    ("one-link", Trouble::OneLink),
    ("hung-disk", Trouble::HungDisk),
    ("failing-disk", Trouble::FailingDisk),
];

impl Default for Minority {
    /// One that does not lead, without power.
    fn default() -> Self {
        Self { trouble: Trouble::Down, most: 1, leads: false, quiet: false }
    }
}

impl Minority {
    /// In one storm of twelve.
    pub(super) fn of_storm(seed: u64) -> Option<Self> {
        let mut draw = Site::Minority.draw(seed);
        let is_there = draw.ratio(1, 12);
        let (_, trouble) = *draw.pick(&TROUBLES);
        let most = *draw.pick(&[1, 3]);
        let minority = Self { trouble, most, leads: draw.ratio(1, 2), quiet: draw.ratio(1, 2) };
        is_there.then_some(minority)
    }

    pub(super) fn fields(&mut self) -> Vec<Field<'_>> {
        vec![
            choice("trouble", &mut self.trouble, &TROUBLES),
            plain("most", &mut self.most),
            plain("leads", &mut self.leads),
            plain("quiet", &mut self.quiet),
        ]
    }
}
