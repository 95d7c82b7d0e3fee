//! A copy of the repository with every mutant in it that compiles.

use crate::{
    list::{self, Genre, Mutant},
    plant,
};
use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What the engine is asked by every mutant: whether it is awake. Where a hunter asks for it, who asked is written
/// down, each once.
const SWITCH: &str = r#"

/// Whether this mutant is awake.
#[inline]
pub(crate) fn mutant(id: u32) -> bool {
    use std::{env, fs::File, sync::LazyLock};
    static AWAKE: LazyLock<(u32, Option<File>)> = LazyLock::new(|| {
        let id = env::var("LAKEBED_MUTANT").map_or(0, |id| id.parse().expect("a mutant's number"));
        let open = |path| File::options().create(true).append(true).open(path).expect("it opens");
        (id, env::var_os("LAKEBED_REACHED").map(open))
    });
    let (awake, reached) = &*AWAKE;
    if let Some(reached) = reached {
        reach(id, reached);
    }
    *awake == id
}

#[cold]
fn reach(id: u32, mut file: &std::fs::File) {
    use std::{io::Write, sync::atomic::{AtomicBool, Ordering}};
    static REACHED: [AtomicBool; COUNT] = [const { AtomicBool::new(false) }; COUNT];
    if !REACHED[id as usize].swap(true, Ordering::Relaxed) {
        file.write_all(format!("{id}\n").as_bytes()).expect("it takes a line");
    }
}
"#;
/// A match that does not cover all there is.
const LOST_ARM: &str = "E0004";
/// How often what does not compile may be taken out.
const ROUNDS_MAX: u32 = 30;

/// The copy, and what is known of it.
pub struct Tree<'a> {
    path: PathBuf,
    /// By file: as it was, and its mutants.
    files: BTreeMap<&'a str, (String, Vec<&'a Mutant>)>,
    dead: BTreeSet<u32>,
}

#[derive(Deserialize)]
struct Line {
    reason: String,
    message: Option<Message>,
}

#[derive(Deserialize)]
struct Message {
    level: String,
    message: String,
    code: Option<Code>,
    spans: Vec<Span>,
}

#[derive(Deserialize)]
struct Code {
    code: String,
}

#[derive(Deserialize)]
struct Span {
    file_name: String,
    byte_start: usize,
    is_primary: bool,
}

impl<'a> Tree<'a> {
    /// Copies what is committed of `repository` to `path`.
    pub fn copy(repository: &Path, path: &Path, mutants: &'a [Mutant]) -> Result<Self> {
        fs::create_dir_all(path)?;
        let mut archive = Command::new("git")
            .args(["archive", "HEAD"])
            .current_dir(repository)
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run git")?;
        let bytes = archive.stdout.take().context("git says nothing")?;
        let unpacked = Command::new("tar").arg("-x").current_dir(path).stdin(bytes).status()?;
        ensure!(archive.wait()?.success() && unpacked.success(), "cannot copy the repository");
        let read = |(file, mutants)| {
            let text = fs::read_to_string(path.join(file))
                .with_context(|| format!("{file} of the list is not committed"))?;
            Ok((file, (text, mutants)))
        };
        let files: BTreeMap<_, (_, Vec<_>)> =
            list::by_file(mutants).into_iter().map(read).collect::<Result<_>>()?;
        let switch = path.join("engine/src/lib.rs");
        let count = 1 + mutants.iter().map(|mutant| mutant.id).max().unwrap_or(0);
        fs::write(
            &switch,
            fs::read_to_string(&switch)? + &SWITCH.replace("COUNT", &count.to_string()),
        )?;
        let unplantable = files.values().map(|(text, mutants)| plant::unplantable(text, mutants));
        let dead = unplantable.collect::<Result<Vec<_>>>()?.concat().into_iter().collect();
        Ok(Self { path: path.into(), files, dead })
    }

    /// Plants all of them, and takes out again what does not compile: returns those.
    pub fn grow(mut self) -> Result<BTreeSet<u32>> {
        for round in 1..=ROUNDS_MAX {
            self.write()?;
            let found = self.check()?;
            if found.is_empty() {
                return Ok(self.dead);
            }
            eprintln!("round {round}: {} do not compile", found.len());
            self.dead.extend(found);
        }
        bail!("after {ROUNDS_MAX} rounds there is still something that does not compile")
    }

    fn write(&self) -> Result<()> {
        for (file, (text, mutants)) in &self.files {
            let planted = plant::plant(text, mutants, &self.dead)?;
            fs::write(self.path.join(file), planted)?;
        }
        Ok(())
    }

    /// Those that the compiler complains of.
    fn check(&self) -> Result<BTreeSet<u32>> {
        let output = Command::new(env!("CARGO"))
            .args(["check", "-q", "-p", "lakebed", "--all-targets", "--message-format=json"])
            .env("RUSTFLAGS", "--cap-lints=allow")
            .current_dir(&self.path)
            .stderr(Stdio::inherit())
            .output()?;
        let lines = str::from_utf8(&output.stdout)?.lines();
        let errors = lines.filter_map(|line| serde_json::from_str::<Line>(line).ok());
        let errors = errors.filter(|line| line.reason == "compiler-message");
        let errors = errors.filter_map(|line| line.message).filter(|error| error.level == "error");
        let (mut found, mut constants) = (BTreeSet::new(), BTreeSet::new());
        let mut unknown = Vec::new();
        for error in errors {
            if let Some(name) = constant(&error.message).filter(|name| name != "mutant") {
                constants.insert(name);
                continue;
            }
            let is_lost_arm = error.code.as_ref().is_some_and(|code| code.code == LOST_ARM);
            let blamed = if is_lost_arm { self.blame_arms(&error)? } else { self.blame(&error)? };
            match blamed {
                ids if ids.is_empty() => unknown.push(error.message),
                ids => found.extend(ids),
            }
        }
        for (text, mutants) in self.files.values() {
            found.extend(plant::within_constants(text, mutants, &constants));
        }
        found.retain(|id| !self.dead.contains(id));
        unknown.retain(|message| !message.starts_with("aborting due to"));
        if found.is_empty() && !unknown.is_empty() {
            bail!("it does not compile, and no mutant is to blame:\n{}", unknown.join("\n"));
        }
        ensure!(!found.is_empty() || output.status.success(), "it does not compile");
        Ok(found)
    }

    fn blame_arms(&self, error: &Message) -> Result<Vec<u32>> {
        let Some(span) = error.spans.iter().find(|span| span.is_primary) else {
            return Ok(Vec::new());
        };
        let text = fs::read_to_string(self.path.join(&span.file_name))?;
        let within = plant::within_match(&text, span.byte_start)?;
        let mutants = self.files.values().flat_map(|(_, mutants)| mutants);
        let arms = mutants.filter(|mutant| mutant.genre == Genre::MatchArm);
        Ok(arms.map(|mutant| mutant.id).filter(|id| within.contains(id)).collect())
    }

    fn blame(&self, error: &Message) -> Result<Vec<u32>> {
        let mut spans: Vec<_> = error.spans.iter().collect();
        spans.sort_by_key(|span| !span.is_primary);
        for span in spans {
            if self.files.contains_key(span.file_name.as_str()) {
                let text = fs::read_to_string(self.path.join(&span.file_name))?;
                let blamed = plant::blamed(&text, span.byte_start + 1);
                if !blamed.is_empty() {
                    return Ok(blamed);
                }
            }
        }
        Ok(Vec::new())
    }
}

/// Which function is called where only a constant one may be.
fn constant(message: &str) -> Option<String> {
    let rest = message.strip_prefix("cannot call non-const ")?;
    let path = rest.split('`').nth(1)?;
    // Without the types that it is of and for.
    let mut depth = 0_u32;
    let path = path.replace(
        |letter: char| {
            let is_within = depth > 0 || letter == '<';
            depth += u32::from(letter == '<');
            depth -= u32::from(letter == '>');
            is_within
        },
        "",
    );
    path.rsplit("::").find(|part| !part.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::constant;

    #[test]
    fn the_name_of_a_function_that_is_no_constant_is_found() {
        let of =
            |path: &str| constant(&format!("cannot call non-const {path} in constant functions"));
        assert_eq!(of("function `entry::align`").as_deref(), Some("align"));
        assert_eq!(of("associated function `Range::<u64>::of`").as_deref(), Some("of"));
        assert_eq!(of("function `entry::least::<u64>`").as_deref(), Some("least"));
        let method = "method `storage::states::<impl Storage>::written_bytes`";
        assert_eq!(of(method).as_deref(), Some("written_bytes"));
        assert_eq!(constant("expected an expression"), None);
    }
}
