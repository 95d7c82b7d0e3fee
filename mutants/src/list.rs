//! The mutants, as `cargo mutants --list --json` tells them.

use anyhow::{Context as _, Result};
use serde::Deserialize;
use std::{collections::BTreeMap, fs, ops::Range, path::Path};

/// What is changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub enum Genre {
    FnValue,
    BinaryOperator,
    UnaryOperator,
    MatchArm,
    MatchArmGuard,
    StructField,
}

/// One change of one place.
#[derive(Clone, Debug, Deserialize)]
pub struct Mutant {
    /// Its number: from 1, in the list's order.
    #[serde(skip)]
    pub id: u32,
    pub name: String,
    pub file: String,
    pub genre: Genre,
    pub replacement: String,
    span: Span,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Span {
    start: Place,
    end: Place,
}

/// Both count from 1; columns are characters.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Place {
    line: usize,
    column: usize,
}

impl Mutant {
    /// Where it is, in bytes of the file's text.
    pub fn range(&self, text: &str) -> Range<usize> {
        offset(text, self.span.start)..offset(text, self.span.end)
    }
}

fn offset(text: &str, place: Place) -> usize {
    let before = text.split_inclusive('\n').take(place.line - 1).map(str::len).sum();
    let line = &text[before..];
    let column = line.char_indices().nth(place.column - 1).map_or(line.len(), |(at, _)| at);
    before + column
}

/// Reads a list and numbers it.
pub fn read(path: &Path) -> Result<Vec<Mutant>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mutants: Vec<Mutant> = serde_json::from_str(&text).with_context(|| {
        format!("{} is not what `cargo mutants --list --json` prints", path.display())
    })?;
    let number = |(id, mutant)| Mutant { id, ..mutant };
    Ok((1..).zip(mutants).map(number).collect())
}

/// By the file they are in.
pub fn by_file(mutants: &[Mutant]) -> BTreeMap<&str, Vec<&Mutant>> {
    let mut files = BTreeMap::<_, Vec<_>>::new();
    for mutant in mutants {
        files.entry(mutant.file.as_str()).or_default().push(mutant);
    }
    files
}
