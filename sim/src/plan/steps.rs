//! Steps of a planned membership change, as words such as `add-4,promote-4,remove-leader`.

use std::{fmt, str::FromStr};

/// What a change does with a node. Nodes count from zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A machine that waits to join becomes a learner.
    Add(usize),
    /// A learner becomes a voter.
    Promote(usize),
    /// A voter becomes a learner.
    Demote(usize),
    /// A member leaves.
    Remove(usize),
    /// Whoever leads then leaves.
    RemoveLeader,
    /// A member gets another address.
    Address(usize),
}

impl Step {
    /// The node that it is about, if the plan knows which.
    pub(crate) const fn node_mut(&mut self) -> Option<&mut usize> {
        match self {
            Self::RemoveLeader => None,
            Self::Add(node)
            | Self::Promote(node)
            | Self::Demote(node)
            | Self::Remove(node)
            | Self::Address(node) => Some(node),
        }
    }
}

/// Steps that are one change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Steps(pub Vec<Step>);

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            f.write_str(if at > 0 { "," } else { "" })?;
            match step {
                Step::Add(node) => write!(f, "add-{}", node + 1),
                Step::Promote(node) => write!(f, "promote-{}", node + 1),
                Step::Demote(node) => write!(f, "demote-{}", node + 1),
                Step::Remove(node) => write!(f, "remove-{}", node + 1),
                Step::RemoveLeader => f.write_str("remove-leader"),
                Step::Address(node) => write!(f, "address-{}", node + 1),
            }?;
        }
        Ok(())
    }
}

/// Not a list of steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StepsError;

impl FromStr for Steps {
    type Err = StepsError;

    fn from_str(text: &str) -> Result<Self, StepsError> {
        let step = |text: &str| {
            if text == "remove-leader" {
                return Ok(Step::RemoveLeader);
            }
            let (word, node) = text.split_once('-').ok_or(StepsError)?;
            let node = node.parse::<usize>().ok().and_then(|node| node.checked_sub(1));
            let node = node.ok_or(StepsError)?;
            match word {
                "add" => Ok(Step::Add(node)),
                "promote" => Ok(Step::Promote(node)),
                "demote" => Ok(Step::Demote(node)),
                "remove" => Ok(Step::Remove(node)),
                "address" => Ok(Step::Address(node)),
                _ => Err(StepsError),
            }
        };
        text.split(',').map(step).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read_as_they_are_printed() {
        for text in ["add-4", "promote-4,remove-1", "demote-2,address-3,remove-leader"] {
            assert_eq!(text.parse::<Steps>().unwrap().to_string(), text);
        }
        for text in ["", "add", "add-0", "promote-x", "leave-1", "add-4,"] {
            assert!(text.parse::<Steps>().is_err(), "{text}");
        }
    }
}
