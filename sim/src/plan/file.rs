//! A plan as a file: a version, what it is about, then the plan itself.
//!
//! What a file leaves out is as [`Plan::calm`] has it, so that settings which did not exist when it
//! was written mean what they meant then. Only the seed and the number of nodes must be there.

use super::{
    Fault, Plan,
    fields::{GROUPS, KINDS, print},
    text::{Field, PlanError, TIME_MAX, Time},
};
use std::{fmt, str::FromStr};

/// The version of plans that this build writes, and the only one that it reads.
pub const VERSION: u64 = 1;

const TITLE: &str = "lakebed plan";

/// A plan and what people should know about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlanFile {
    /// The scenario whose machine and workload it runs.
    pub scenario: String,
    /// Which bug it found, if it did.
    pub bug: String,
    /// What mended that.
    pub fix: String,
    /// Which invariant broke.
    pub invariant: String,
    /// The plan.
    pub plan: Plan,
}

impl PlanFile {
    /// A plan of a scenario, about which there is nothing to say.
    #[must_use]
    pub fn new(scenario: &str, plan: Plan) -> Self {
        let [bug, fix, invariant] = [String::new(), String::new(), String::new()];
        Self { scenario: scenario.into(), bug, fix, invariant, plan }
    }

    fn header(&mut self) -> [(&'static str, &mut String); 4] {
        let Self { scenario, bug, fix, invariant, .. } = self;
        [("scenario", scenario), ("bug", bug), ("fix", fix), ("invariant", invariant)]
    }
}

impl fmt::Display for PlanFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{TITLE} {VERSION}")?;
        for (name, text) in self.clone().header() {
            if !text.is_empty() {
                writeln!(f, "{name} {}", one_line(text))?;
            }
        }
        write!(f, "{}", self.plan)
    }
}

/// A header is one line, without space around it.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        writeln!(f, "nodes {}", self.nodes)?;
        if self.joining > 0 {
            writeln!(f, "joining {}", self.joining)?;
        }
        if self.keeps > 0 {
            writeln!(f, "keeps {}", self.keeps)?;
        }
        let mut plan = self.clone();
        for (name, fields) in GROUPS {
            print(f, name, &fields(&mut plan))?;
            writeln!(f)?;
        }
        if let Some(mut sessions) = self.sessions {
            print(f, "sessions", &sessions.fields())?;
            writeln!(f)?;
        }
        if let Some(mut minority) = self.minority {
            print(f, "minority", &minority.fields())?;
            writeln!(f)?;
        }
        for (client, asks) in (1..).zip(&self.clients) {
            writeln!(f, "client {client} asks {asks}")?;
        }
        self.faults.iter().try_for_each(|fault| writeln!(f, "{fault}"))
    }
}

impl FromStr for PlanFile {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let mut lines = (1..).zip(text.lines().map(str::trim));
        version(lines.next().map_or("", |(_, line)| line))?;
        let mut reader = Reader::new();
        for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let problem = |(found, expected)| PlanError::Line { line: number, found, expected };
            reader.line(line).map_err(problem)?;
        }
        reader.finish()
    }
}

fn version(line: &str) -> Result<(), PlanError> {
    let number = line.strip_prefix(TITLE).and_then(|rest| rest.trim().parse().ok());
    match number {
        Some(VERSION) => Ok(()),
        Some(found) => Err(PlanError::Version { found }),
        None => Err(PlanError::Line {
            line: 1,
            found: line.into(),
            expected: format!("{TITLE} {VERSION}"),
        }),
    }
}

/// What was found, and what was expected.
type Problem = (String, String);

/// What the lines so far said.
struct Reader {
    file: PlanFile,
    given: Vec<String>,
    clients: usize,
}

impl Reader {
    fn new() -> Self {
        let file = PlanFile::new("", Plan::calm(0, 1));
        Self { file, given: Vec::new(), clients: 0 }
    }

    fn line(&mut self, line: &str) -> Result<(), Problem> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim();
        match word {
            "client" => return self.client(rest),
            "at" => return self.fault(rest),
            _ if self.given.iter().any(|given| given == word) => {
                return Err((line.into(), format!("no second line of {word}")));
            }
            _ => self.given.push(word.into()),
        }
        let plan = &mut self.file.plan;
        match word {
            "seed" => number(rest, u64::MAX).map(|seed| plan.seed = seed),
            "nodes" => number(rest, super::check::NODES_MAX as u64).map(|nodes| {
                plan.nodes = nodes as usize;
                plan.drift_ppm.resize(plan.nodes, 0);
            }),
            "joining" => number(rest, super::check::NODES_MAX as u64)
                .map(|joining| plan.joining = joining as usize),
            "keeps" => number(rest, u64::from(u32::MAX)).map(|keeps| plan.keeps = keeps),
            "sessions" => {
                let sessions = plan.sessions.get_or_insert_default();
                read(sessions.fields(), rest, Missing::Stays)
            }
            "minority" => {
                let minority = plan.minority.get_or_insert_default();
                read(minority.fields(), rest, Missing::Stays)
            }
            _ => match GROUPS.iter().find(|(name, _)| *name == word) {
                Some((_, fields)) => read(fields(plan), rest, Missing::Stays),
                None => self.header(word, rest),
            },
        }
    }

    fn header(&mut self, word: &str, text: &str) -> Result<(), Problem> {
        let mut header = self.file.header();
        let Some((_, kept)) = header.iter_mut().find(|(name, _)| *name == word) else {
            let names = GROUPS.iter().map(|(name, _)| *name);
            let names: Vec<&str> = names.chain(["sessions", "minority", "client", "at"]).collect();
            let names = names.join(", ");
            return Err((word.into(), format!("seed, nodes, joining, keeps, {names}")));
        };
        **kept = one_line(text);
        Ok(())
    }

    fn client(&mut self, rest: &str) -> Result<(), Problem> {
        if self.clients == 0 {
            self.file.plan.clients.clear();
        }
        self.clients += 1;
        let (which, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        if which != self.clients.to_string() {
            return Err((which.into(), format!("client {}", self.clients)));
        }
        let mut asks = super::Asks::nothing();
        read(vec![super::text::plain("asks", &mut asks)], rest, Missing::IsWrong)?;
        self.file.plan.clients.push(asks);
        Ok(())
    }

    fn fault(&mut self, rest: &str) -> Result<(), Problem> {
        let (time, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let at = time.parse::<Time>();
        let at = at.map_err(|()| (time.into(), "a time such as 120.500ms".into()))?.0;
        let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let Some((_, blank)) = KINDS.iter().find(|(known, _)| *known == name) else {
            let names: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
            return Err((name.into(), format!("one of {}", names.join(", "))));
        };
        let mut kind = blank();
        read(kind.fields(), rest, Missing::IsWrong)?;
        self.file.plan.faults.push(Fault { at, kind });
        Ok(())
    }

    fn finish(self) -> Result<PlanFile, PlanError> {
        for word in ["seed", "nodes"] {
            if !self.given.iter().any(|given| given == word) {
                let what = format!("no line says the {word}, such as `{word} 3`");
                return Err(PlanError::Contradiction(what));
            }
        }
        self.file.plan.validate().map_err(PlanError::Contradiction)?;
        Ok(self.file)
    }
}

fn number(text: &str, most: u64) -> Result<u64, Problem> {
    let number = text.parse().ok().filter(|number| *number <= most);
    number.ok_or_else(|| (text.into(), format!("a whole number, {most} at most")))
}

/// What becomes of a field that a line does not name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Stays,
    IsWrong,
}

/// Reads pairs of names and values into the fields of these names.
fn read(mut fields: Vec<Field<'_>>, text: &str, missing: Missing) -> Result<(), Problem> {
    let mut words = text.split_whitespace();
    while let Some(name) = words.next() {
        let Some(at) = fields.iter().position(|(known, _)| *known == name) else {
            let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
            let names = if names.is_empty() { "no more".into() } else { names.join(", ") };
            return Err((name.into(), format!("{names} (each once)")));
        };
        let (_, mut value) = fields.swap_remove(at);
        let word = words.next().unwrap_or("");
        if value.read(word).is_none() {
            return Err((format!("{name} {word}"), format!("{name} with {}", value.expected())));
        }
    }
    match fields.first() {
        Some((name, _)) if missing == Missing::IsWrong => {
            Err((text.into(), format!("also {name}")))
        }
        _ => Ok(()),
    }
}

const _: () = assert!(TIME_MAX < u64::MAX / 4, "sums of times do not overflow");
