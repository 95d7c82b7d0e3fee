//! A state machine of one's own: counts words.

use bytes::Bytes;
use lakebed::{LogId, MachineError, StateMachine, Timestamp};
use std::collections::BTreeMap;

/// How often each word was said.
#[derive(Default)]
pub(crate) struct Words {
    counts: BTreeMap<Vec<u8>, u64>,
    /// A line that a restore has begun and not ended.
    rest: Vec<u8>,
}

impl StateMachine for Words {
    /// A command is a word; the answer is how often it was said.
    fn apply(&mut self, _: LogId, _: Timestamp, word: &[u8], answer: &mut Vec<u8>) {
        let count = self.counts.entry(word.to_vec()).or_default();
        *count += 1;
        answer.extend_from_slice(count.to_string().as_bytes());
    }

    /// A query is a word; the empty one asks for all of them.
    fn query(&self, word: &[u8], answer: &mut Vec<u8>) {
        for (said, count) in self.counts.iter().filter(|(said, _)| word.is_empty() || *said == word)
        {
            answer.extend_from_slice(said);
            answer.extend_from_slice(format!(": {count}  ").as_bytes());
        }
    }

    /// Lines of a count and a word.
    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        let counts = self.counts.clone();
        Box::new(counts.into_iter().map(|(word, count)| {
            let mut line = format!("{count} ").into_bytes();
            line.extend_from_slice(&word);
            line.push(b'\n');
            line.into()
        }))
    }

    fn restore(&mut self, offset: u64, bytes: &[u8], last: bool) -> Result<(), MachineError> {
        if offset == 0 {
            *self = Self::default();
        }
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let (count, word) = parse(&line[..end]).ok_or_else(|| broken(&line))?;
            self.counts.insert(word, count);
        }
        if last && !self.rest.is_empty() { Err(broken(&self.rest)) } else { Ok(()) }
    }
}

fn parse(line: &[u8]) -> Option<(u64, Vec<u8>)> {
    let space = line.iter().position(|byte| *byte == b' ')?;
    let count = std::str::from_utf8(&line[..space]).ok()?.parse().ok()?;
    Some((count, line[space + 1..].to_vec()))
}

fn broken(line: &[u8]) -> MachineError {
    MachineError(format!("not a line of a snapshot: {:?}", String::from_utf8_lossy(line)))
}
