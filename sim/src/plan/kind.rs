//! What is the same of many kinds of fault: whom they strike, for how long, and what is promised after them.

use super::FaultKind;

impl FaultKind {
    /// How long it lasts, if it does not end by itself.
    #[must_use]
    pub const fn lasts(&self) -> Option<u64> {
        match self {
            Self::Partition { lasts, .. }
            | Self::DiskFull { lasts, .. }
            | Self::SlowDisk { lasts, .. }
            | Self::HungDisk { lasts, .. }
            | Self::Isolated { lasts, .. }
            | Self::SlowLink { lasts, .. }
            | Self::OldImage { lasts, .. } => Some(*lasts),
            _ => None,
        }
    }

    /// Whether nothing is promised after it but to fail rather than to be wrong.
    #[must_use]
    pub const fn is_beyond(&self) -> bool {
        matches!(
            self,
            Self::Ruin { .. }
                | Self::Rot { .. }
                | Self::LostWrite { .. }
                | Self::MisdirectedWrite { .. }
                | Self::MisfiledWrite { .. }
                | Self::LostNames { .. }
                | Self::LateReport { .. }
                | Self::MisdirectedRead { .. }
                | Self::OldImage { .. }
                | Self::DiskGone { .. }
        )
    }

    /// Whether it is never drawn: it comes from an enumeration ([`exhaust`](crate::exhaust),
    /// [`flips`](crate::flips)), and strikes where that counts.
    #[must_use]
    pub const fn is_enumerated(&self) -> bool {
        matches!(
            self,
            Self::PowerCutAt { .. } | Self::KillAt { .. } | Self::FailAt { .. } | Self::Flip { .. }
        )
    }

    /// The node that it strikes, if that is one alone.
    pub(crate) const fn node_mut(&mut self) -> Option<&mut usize> {
        match self {
            Self::PowerCut { .. }
            | Self::Partition { .. }
            | Self::SlowLink { .. }
            | Self::Change { .. }
            | Self::Times { .. } => None,
            Self::Kill { node, .. }
            | Self::KillAndCut { node, .. }
            | Self::PowerCutAt { node, .. }
            | Self::KillAt { node, .. }
            | Self::FailAt { node, .. }
            | Self::Flip { node, .. }
            | Self::SyncFailure { node, .. }
            | Self::UnheardFailure { node, .. }
            | Self::DiskFull { node, .. }
            | Self::SlowDisk { node, .. }
            | Self::Stop { node, .. }
            | Self::Transfer { node }
            | Self::BackUp { node, .. }
            | Self::Tune { node, .. }
            | Self::HungDisk { node, .. }
            | Self::FailedOperation { node, .. }
            | Self::Pause { node, .. }
            | Self::SetClock { node, .. }
            | Self::StalledClock { node, .. }
            | Self::Isolated { node, .. }
            | Self::Damage { node, .. }
            | Self::Ruin { node, .. }
            | Self::Rot { node, .. }
            | Self::LostWrite { node }
            | Self::MisdirectedWrite { node, .. }
            | Self::MisfiledWrite { node, .. }
            | Self::LostNames { node }
            | Self::LateReport { node, .. }
            | Self::MisdirectedRead { node, .. }
            | Self::OldImage { node, .. }
            | Self::DiskGone { node, .. } => Some(node),
        }
    }
}
