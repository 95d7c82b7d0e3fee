//! The same for people: 80 columns, a heading a block, figures in line.

use super::{
    BlockContent, Defect, HardBlock, HardStateFound, Inspection, Judgement, SegmentFound,
    SegmentState, SnapshotFound,
};
use crate::{
    file::File,
    membership::Membership,
    types::{LogId, LogIndex},
};
use std::fmt::{self, Display, Formatter};

impl Display for Inspection {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(hard) = &self.hard_state {
            write!(f, "{hard}")?;
        }
        blocks(f, &self.blocks)?;
        if let Some(hard) = &self.hard_state {
            writeln!(f, "members      {}", Members(&hard.members))?;
        }
        if let Some(log) = &self.log {
            write!(
                f,
                "log          {}, proven durable up to {}",
                Span(log.first, log.last.index),
                log.proven
            )?;
            writeln!(f)?;
        }
        segments(f, &self.segments)?;
        snapshots(f, &self.snapshots)?;
        if !self.left_over.is_empty() {
            writeln!(f, "left over")?;
        }
        for left in &self.left_over {
            writeln!(
                f,
                "  {:<20}{:>10}  {}",
                left.file.name(),
                Size(left.bytes).to_string(),
                left.purpose
            )?;
        }
        if !self.defects.is_empty() {
            writeln!(f, "wrong")?;
        }
        self.defects.iter().try_for_each(|defect| writeln!(f, "{defect}"))?;
        write!(f, "{}", self.judgement)
    }
}

impl Display for HardStateFound {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "node         {} of cluster {}, group {}",
            self.node, self.cluster, self.group
        )?;
        if self.cluster_epoch > 0 {
            writeln!(f, "             cluster epoch {}: recovered by force", self.cluster_epoch)?;
        }
        write!(f, "hard state   number {}, term {}, ", self.number, self.term)?;
        match self.vote {
            Some(vote) => writeln!(f, "voted for node {vote}")?,
            None => writeln!(f, "no vote")?,
        }
        writeln!(
            f,
            "             committed at least {}, durable at least {}, write epoch {}",
            self.commit_hint, self.durable_hint, self.write_epoch
        )?;
        if self.cut.0 != LogIndex(0) {
            let marked = if self.cutting { ", not finished" } else { "" };
            writeln!(
                f,
                "             last cut from {} in write epoch {}{marked}",
                self.cut.0, self.cut.1
            )?;
        }
        if self.installed != LogId::ZERO {
            writeln!(f, "             last installed snapshot {}", Position(self.installed))?;
        }
        if self.gated {
            writeln!(f, "             gated: no vote until what was lost has come from a leader")?;
        }
        Ok(())
    }
}

/// The blocks of the hard state, a copy a line.
fn blocks(f: &mut Formatter<'_>, blocks: &[HardBlock]) -> fmt::Result {
    for (n, block) in blocks.iter().enumerate() {
        let starts_line = n.checked_sub(1).is_none_or(|before| blocks[before].copy != block.copy);
        let content = match &block.content {
            BlockContent::Good { number } => format!("good, number {number}"),
            BlockContent::Empty => "never written".into(),
            BlockContent::Bad { found } => format!("BAD: {found}"),
        };
        match (starts_line, n) {
            (true, 0) => write!(f, "  copy {}     {content}", block.copy)?,
            (true, _) => write!(f, "\n  copy {}     {content}", block.copy)?,
            (false, _) => write!(f, "; {content}")?,
        }
    }
    if blocks.is_empty() { Ok(()) } else { writeln!(f) }
}

fn segments(f: &mut Formatter<'_>, segments: &[SegmentFound]) -> fmt::Result {
    if segments.is_empty() {
        return Ok(());
    }
    writeln!(f, "segments       {:>17} {:>8} {:>20} {:>16}", "entries", "terms", "used", "slots")?;
    for found in segments {
        let used = format!("{} of {}", Size(found.data_bytes), Size(found.bytes));
        let count = (found.last.0 + 1).saturating_sub(found.first.0);
        let slots = format!("{count} of {}", found.slots);
        let name = File::Segment(found.sequence).name();
        if found.first == LogIndex(0) {
            writeln!(f, "  {name:<12} {:>17}", Size(found.bytes).to_string())?;
        } else {
            let terms = if found.terms.0 == found.terms.1 || count == 0 {
                found.terms.1.to_string()
            } else {
                format!("{}..={}", found.terms.0, found.terms.1)
            };
            let entries = Span(found.first, found.last).to_string();
            writeln!(f, "  {name:<12} {entries:>17} {terms:>8} {used:>20} {slots:>16}")?;
        }
        match &found.state {
            SegmentState::Sealed => {}
            SegmentState::Last => writeln!(f, "{:15}takes new entries", "")?,
            SegmentState::Damaged { .. } => writeln!(f, "{:15}DAMAGED: see below", "")?,
        }
    }
    Ok(())
}

fn snapshots(f: &mut Formatter<'_>, snapshots: &[SnapshotFound]) -> fmt::Result {
    if !snapshots.is_empty() {
        writeln!(f, "snapshots")?;
    }
    for found in snapshots {
        let name = File::Snapshot(found.at).name();
        write!(f, "  {name:<20}{:>10}  ", Size(found.bytes).to_string())?;
        match &found.content {
            Ok(content) => {
                let from =
                    if content.installed { "from a peer or a backup" } else { "captured here" };
                let plural = if content.blocks == 1 { "" } else { "s" };
                write!(f, "whole, {from}, {} block{plural}", content.blocks)?;
                if content.groups > 1 {
                    write!(f, ", one of {} groups", content.groups)?;
                }
                writeln!(f)?;
            }
            Err(why) => writeln!(f, "NOT WHOLE: {why}")?,
        }
    }
    Ok(())
}

impl Display for Judgement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let verdict = format!("{}: {}", self.row, self.says);
        let does = format!("a restart {}", self.does);
        writeln!(f, "{}", Wrapped("verdict", &verdict))?;
        writeln!(f, "{}", Wrapped("", &does))?;
        write!(f, "{}", Wrapped("because", &self.because))
    }
}

impl Display for Defect {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.file, self.offset)?;
        if self.bytes > 0 {
            write!(f, " ({} bytes)", self.bytes)?;
        }
        write!(f, "\n{}", Wrapped("  expected", &self.expected))?;
        write!(f, "\n{}", Wrapped("  found", &self.found))?;
        write!(f, "\n{}", Wrapped("  a restart", &self.then))
    }
}

/// The columns that a report keeps within.
const WIDTH: usize = 80;
/// What stands behind a heading begins here.
const INDENT: usize = 13;

/// A heading and a text of any length behind it, broken between words.
struct Wrapped<'a>(&'a str, &'a str);

impl Display for Wrapped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:<INDENT$}", self.0)?;
        let mut column = INDENT;
        for word in self.1.split(' ') {
            let chars = word.chars().count();
            if column > INDENT && column + 1 + chars > WIDTH {
                write!(f, "\n{:INDENT$}", "")?;
                column = INDENT;
            }
            if column > INDENT {
                f.write_str(" ")?;
                column += 1;
            }
            f.write_str(word)?;
            column += chars;
        }
        Ok(())
    }
}

/// From one index to another; none if they are the wrong way round.
struct Span(LogIndex, LogIndex);

impl Display for Span {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.1 < self.0 {
            return write!(f, "none from {}", self.0);
        }
        write!(f, "{}..={}", self.0, self.1)
    }
}

struct Position(LogId);

impl Display for Position {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "of entry {}, term {}", self.0.index, self.0.term)
    }
}

/// Every member, three to a line.
struct Members<'a>(&'a Membership);

impl Display for Members<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (n, member) in self.0.members().enumerate() {
            let role = if self.0.is_voter(member.id) { "" } else { " (learner)" };
            let before = match n {
                0 => "",
                n if n % 3 == 0 => ",\n             ",
                _ => ", ",
            };
            let address = member.address.escape_ascii();
            write!(f, "{before}{}={address}{role}", member.id)?;
        }
        if self.0.members().next().is_none() { f.write_str("none known") } else { Ok(()) }
    }
}

/// Bytes, in the largest unit of which there is one; a tenth is rounded down.
struct Size(u64);

impl Display for Size {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        let Some((shift, unit)) = units.into_iter().find(|(shift, _)| self.0 >> shift > 0) else {
            return write!(f, "{} B", self.0);
        };
        let (whole, rest) = (self.0 >> shift, self.0 & ((1 << shift) - 1));
        match (rest * 10) >> shift {
            0 => write!(f, "{whole} {unit}"),
            tenth => write!(f, "{whole}.{tenth} {unit}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_in_the_largest_unit() {
        let told =
            [0, 1023, 1024, 1536, (1 << 20) - 1, 64 << 20, 5 << 29].map(|n| Size(n).to_string());
        assert_eq!(told, ["0 B", "1023 B", "1 KiB", "1.5 KiB", "1023.9 KiB", "64 MiB", "2.5 GiB"]);
    }
}
