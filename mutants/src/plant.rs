//! A file's text with all its mutants in it, each asleep until it is called by its number.
//!
//! Invariant: with none awake the text means what it meant.

use crate::{
    list::{Genre, Mutant},
    sites::Sites,
};
use anyhow::{Context as _, Result};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    ops::Range,
};

/// A place where something is chosen.
struct Site<'a> {
    range: Range<usize>,
    kind: Kind<'a>,
    mutants: Vec<&'a Mutant>,
}

enum Kind<'a> {
    /// Before a function's body.
    Return,
    /// The word `const`, in the way of a choice at run time.
    Constant,
    Lazy([Range<usize>; 3]),
    Binary([Range<usize>; 3]),
    Unary(Range<usize>),
    /// Behind a pattern that has no guard.
    Arm,
    /// A guard: those who take the arm away, and those who settle the guard.
    Guard {
        deleted: Vec<&'a Mutant>,
    },
    Field(&'a str, Range<usize>, Range<usize>),
}

/// The text with these in it, but for those that are `dead`: they do not compile.
pub fn plant(text: &str, mutants: &[&Mutant], dead: &BTreeSet<u32>) -> Result<String> {
    let sites = Sites::of(text)?;
    let awake: Vec<_> = mutants.iter().filter(|mutant| !dead.contains(&mutant.id)).collect();
    let mut planted = Planted { text, sites: Vec::new() };
    for mutant in &awake {
        planted.add(mutant, &sites)?;
    }
    let is_changed = |of: &Range<usize>| awake.iter().any(|m| of.contains(&m.range(text).start));
    for (_, word, _) in sites.constants.iter().filter(|(whole, ..)| is_changed(whole)) {
        planted.sites.push(Site { range: word.clone(), kind: Kind::Constant, mutants: Vec::new() });
    }
    planted.settle_guards();
    // Outer ones before those within; a guard before the condition that it is.
    planted.sites.sort_by_key(|site| {
        let is_inner = matches!(site.kind, Kind::Lazy(_) | Kind::Binary(_) | Kind::Unary(_));
        let is_long = !site.range.is_empty();
        (site.range.start, is_long, Reverse(site.range.end), is_inner)
    });
    Ok(planted.render(0..text.len(), 0))
}

/// Those that there is no asleep for: a condition that binds names cannot be told in parts, and a
/// function that returns an opaque type returns one only.
pub fn unplantable(text: &str, mutants: &[&Mutant]) -> Result<Vec<u32>> {
    let sites = Sites::of(text)?;
    let is_unplantable = |mutant: &&&Mutant| match mutant.genre {
        Genre::FnValue => mutant.replacement.starts_with("::std::iter::"),
        Genre::BinaryOperator => {
            sites.binaries.get(&mutant.range(text).start).is_some_and(|site| site.binds)
        }
        _ => false,
    };
    Ok(mutants.iter().filter(is_unplantable).map(|mutant| mutant.id).collect())
}

/// Which mutant, or else which of a site, the text has around this place.
pub fn blamed(planted: &str, at: usize) -> Vec<u32> {
    let (mut open, mut rest) = (Vec::new(), 0);
    while let Some(found) = planted[rest..at.min(planted.len())].find("/*<") {
        let word = &planted[rest + found + 3..];
        let word = &word[..word.find("*/").unwrap_or(0)];
        rest += found + 3;
        match word {
            ">" => drop(open.pop()),
            ids => open.push(ids.split(',').filter_map(|id| id.parse().ok()).collect()),
        }
    }
    open.pop().unwrap_or_default()
}

/// What the markers name within the match of what lies at this place: a match that has lost an arm
/// is told by what is matched.
pub fn within_match(planted: &str, at: usize) -> Result<Vec<u32>> {
    let sites = Sites::of(planted)?;
    let of = sites.matches.iter().filter(|(matched, _)| matched.contains(&at));
    let whole = of.map(|(_, whole)| whole).min_by_key(|whole| whole.len());
    let text = whole.map_or("", |whole| &planted[whole.clone()]);
    let named = text.split("/*<").skip(1).filter_map(|word| word.split_once("*/"));
    Ok(named.flat_map(|(ids, _)| ids.split(',')).filter_map(|id| id.parse().ok()).collect())
}

struct Planted<'a> {
    text: &'a str,
    sites: Vec<Site<'a>>,
}

impl<'a> Planted<'a> {
    fn add(&mut self, mutant: &'a Mutant, sites: &'a Sites) -> Result<()> {
        let range = mutant.range(self.text);
        let lost = || format!("{}: nothing of its kind is there", mutant.name);
        let (range, kind) = match mutant.genre {
            Genre::FnValue => (range.start..range.start, Kind::Return),
            Genre::BinaryOperator => {
                let site = sites.binaries.get(&range.start).with_context(lost)?;
                let parts = [site.left.clone(), site.operator.clone(), site.right.clone()];
                let kind = if site.is_lazy { Kind::Lazy(parts) } else { Kind::Binary(parts) };
                (site.whole.clone(), kind)
            }
            Genre::UnaryOperator => {
                let (whole, operand) = sites.unaries.get(&range.start).with_context(lost)?;
                (whole.clone(), Kind::Unary(operand.clone()))
            }
            Genre::MatchArm => {
                let arm = sites.arms.get(&range.start).with_context(lost)?;
                match &arm.guard {
                    Some(guard) => (guard.clone(), Kind::Guard { deleted: vec![mutant] }),
                    None => (arm.pattern_end..arm.pattern_end, Kind::Arm),
                }
            }
            Genre::MatchArmGuard => {
                let guard = sites.guards.get(&range.start).with_context(lost)?;
                (guard.clone(), Kind::Guard { deleted: Vec::new() })
            }
            Genre::StructField => {
                let field = sites.fields.get(&range.start).with_context(lost)?;
                let kind = Kind::Field(&field.name, field.value.clone(), field.base.clone());
                (field.whole.clone(), kind)
            }
        };
        let is_same = |site: &&mut Site<'_>| {
            site.range == range
                && std::mem::discriminant(&site.kind) == std::mem::discriminant(&kind)
        };
        match self.sites.iter_mut().find(is_same) {
            Some(site) => {
                if let (Kind::Guard { deleted }, Kind::Guard { deleted: more }) =
                    (&mut site.kind, kind)
                {
                    deleted.extend(more);
                }
                site.mutants.push(mutant);
            }
            None => self.sites.push(Site { range, kind, mutants: vec![mutant] }),
        }
        Ok(())
    }

    /// Those who take an arm away do not settle its guard as well.
    fn settle_guards(&mut self) {
        for site in &mut self.sites {
            if let Kind::Guard { deleted } = &site.kind {
                site.mutants.retain(|mutant| !deleted.iter().any(|other| other.id == mutant.id));
            }
        }
    }

    /// The text of a range, of which the sites from this one on may lie within.
    fn render(&self, range: Range<usize>, first: usize) -> String {
        let (mut out, mut at, mut n) = (String::new(), range.start, first);
        while let Some(site) = self.sites.get(n) {
            let is_within = range.start <= site.range.start && site.range.end <= range.end;
            if is_within && site.range.start >= at {
                out += &self.text[at..site.range.start];
                self.render_site(site, n, &mut out);
                at = site.range.end;
            }
            n += 1;
            if site.range.start > range.end {
                break;
            }
        }
        out + &self.text[at..range.end]
    }

    fn render_site(&self, site: &Site<'a>, n: usize, out: &mut String) {
        let part = |range: &Range<usize>| self.render(range.clone(), n + 1);
        let all: Vec<u32> = match &site.kind {
            Kind::Guard { deleted } => ids(deleted).chain(ids(&site.mutants)).collect(),
            _ => ids(&site.mutants).collect(),
        };
        let all = all.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let _ = write!(out, "/*<{all}*/");
        match &site.kind {
            Kind::Constant => {}
            Kind::Return => {
                for Mutant { id, replacement, .. } in &site.mutants {
                    let _ = write!(
                        out,
                        "if crate::mutant({id}) {{ return /*<{id}*/{replacement}/*<>*/; }} "
                    );
                }
            }
            Kind::Lazy([left, operator, right]) => {
                // By De Morgan: each operand is there once, and is evaluated when it was.
                let awake = called(&site.mutants);
                let _ = write!(
                    out,
                    "({awake} ^ (({}) {} ({awake} ^ ({}))))",
                    negated(&awake, &part(left)),
                    &self.text[operator.clone()],
                    part(right)
                );
            }
            Kind::Binary([left, operator, right]) => {
                let (left, right) = (part(left), part(right));
                out.push('(');
                for Mutant { id, replacement, .. } in &site.mutants {
                    let _ = write!(
                        out,
                        "if crate::mutant({id}) {{ /*<{id}*/ {left} {replacement} {right} /*<>*/ }} else "
                    );
                }
                let _ = write!(out, "{{ {left} {} {right} }})", &self.text[operator.clone()]);
            }
            Kind::Unary(operand) => {
                let awake = called(&site.mutants);
                let all = self.text[site.range.start..operand.start].to_owned();
                let operand = part(operand);
                let _ = write!(out, "(if {awake} {{ {operand} }} else {{ {all}{operand} }})");
            }
            Kind::Arm => {
                let _ = write!(out, " if !{} ", called(&site.mutants));
            }
            Kind::Guard { deleted } => {
                let gone = if deleted.is_empty() { "false".into() } else { called(deleted) };
                let named = |value: &str| {
                    let mutants = site.mutants.iter().filter(|m| m.replacement == value);
                    let calls = mutants.map(|m| format!("crate::mutant({})", m.id));
                    calls.chain(["false".into()]).collect::<Vec<String>>().join(" || ")
                };
                let _ = write!(
                    out,
                    "!({gone}) && (({}) || (!({}) && ({})))",
                    named("true"),
                    named("false"),
                    part(&site.range)
                );
            }
            Kind::Field(name, value, base) => {
                let awake = called(&site.mutants);
                let _ = write!(
                    out,
                    "{name}: if {awake} {{ ({}).{name}.clone() }} else {{ {} }}",
                    part(base),
                    part(value)
                );
            }
        }
        out.push_str("/*<>*/");
    }
}

fn ids<'a>(mutants: &'a [&'a Mutant]) -> impl Iterator<Item = u32> + 'a {
    mutants.iter().map(|mutant| mutant.id)
}

/// Whether any of these is awake.
fn called(mutants: &[&Mutant]) -> String {
    let calls = mutants.iter().map(|mutant| format!("crate::mutant({})", mutant.id));
    format!("({})", calls.collect::<Vec<_>>().join(" || "))
}

fn negated(awake: &str, operand: &str) -> String {
    format!("{awake} ^ ({operand})")
}

/// The functions that must stay `const`, and the mutants within them.
pub fn within_constants(text: &str, mutants: &[&Mutant], names: &BTreeSet<String>) -> Vec<u32> {
    let Ok(sites) = Sites::of(text) else { return Vec::new() };
    let kept: BTreeMap<_, _> = sites
        .constants
        .iter()
        .filter(|(.., name)| names.contains(name))
        .map(|(whole, ..)| (whole.start, whole.end))
        .collect();
    let is_within = |at: usize| kept.range(..=at).next_back().is_some_and(|(_, end)| at < *end);
    let within = mutants.iter().filter(|mutant| is_within(mutant.range(text).start));
    within.map(|mutant| mutant.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
const fn least(a: u8, b: u8) -> u8 { if a < b { a } else { b } }
fn f(a: u8, b: bool) -> Point {
    let a = match a { 0 if b => 1, 1 => 2, other => other };
    Point { x: a, ..Point::of(!b && a < 7 || b) }
}
";

    fn mutant(id: u32, genre: Genre, place: (usize, &str), replacement: &str) -> Mutant {
        mutant_of(TEXT, id, genre, place, replacement)
    }

    fn mutant_of(
        text: &str,
        id: u32,
        genre: Genre,
        (line, what): (usize, &str),
        replacement: &str,
    ) -> Mutant {
        let column = text.lines().nth(line - 1).and_then(|text| text.find(what)).unwrap() + 1;
        let span = serde_json::json!({
            "start": { "line": line, "column": column },
            "end": { "line": line, "column": column + what.len() },
        });
        let genre_name = format!("{genre:?}");
        let all = serde_json::json!({
            "name": format!("{what} -> {replacement}"), "file": "a.rs", "genre": genre_name,
            "replacement": replacement, "span": span,
        });
        let mut mutant: Mutant = serde_json::from_value(all).unwrap();
        mutant.id = id;
        mutant
    }

    fn all() -> Vec<Mutant> {
        vec![
            mutant(1, Genre::FnValue, (1, "if a"), "0"),
            mutant(2, Genre::BinaryOperator, (1, "< b"), "<="),
            mutant(3, Genre::MatchArmGuard, (3, "b =>"), "true"),
            mutant(4, Genre::MatchArm, (3, "0 if"), ""),
            mutant(5, Genre::MatchArm, (3, "1 => 2"), ""),
            mutant(6, Genre::UnaryOperator, (4, "!b"), ""),
            mutant(7, Genre::BinaryOperator, (4, "&&"), "||"),
            mutant(8, Genre::BinaryOperator, (4, "|| b"), "&&"),
            mutant(9, Genre::BinaryOperator, (4, "< 7"), ">"),
            mutant(10, Genre::StructField, (4, "x: a"), ""),
        ]
    }

    #[test]
    fn every_mutant_is_in_a_text_that_parses() {
        let mutants = all();
        let mutants: Vec<_> = mutants.iter().collect();
        let planted = plant(TEXT, &mutants, &BTreeSet::new()).unwrap();
        syn::parse_file(&planted).unwrap();
        for Mutant { id, name, .. } in &mutants {
            assert!(planted.contains(&format!("mutant({id})")), "{name}: {planted}");
        }
        assert!(!planted.contains("const fn"), "what is chosen at run time is no constant");
    }

    fn last(block: &syn::Block) -> &syn::Expr {
        let Some(syn::Stmt::Expr(expr, None)) = block.stmts.last() else { panic!("no value") };
        expr
    }

    /// What a planted expression of truths is, `is_true` telling of those in it.
    fn value(expr: &syn::Expr, is_true: &dyn Fn(&str) -> bool) -> bool {
        let of = |expr: &syn::Expr| value(expr, is_true);
        match expr {
            syn::Expr::Paren(paren) => of(&paren.expr),
            syn::Expr::Unary(unary) => !of(&unary.expr),
            syn::Expr::Binary(binary) => match binary.op {
                syn::BinOp::And(_) => of(&binary.left) && of(&binary.right),
                syn::BinOp::Or(_) => of(&binary.left) || of(&binary.right),
                syn::BinOp::BitXor(_) => of(&binary.left) ^ of(&binary.right),
                _ => panic!("no operator of truths"),
            },
            syn::Expr::Call(call) => match &call.args[0] {
                syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Int(id), .. }) => {
                    is_true(id.base10_digits())
                }
                _ => panic!("no number of a mutant"),
            },
            syn::Expr::Path(path) => is_true(&path.path.get_ident().unwrap().to_string()),
            syn::Expr::If(either) if of(&either.cond) => of(last(&either.then_branch)),
            syn::Expr::If(either) => of(&either.else_branch.as_ref().unwrap().1),
            syn::Expr::Block(block) => of(last(&block.block)),
            _ => panic!("no expression of truths"),
        }
    }

    /// Of both operators, awake and asleep, for all that the operands may be.
    #[test]
    fn what_is_awake_is_what_the_mutant_says() {
        let text = "fn f(a: bool, b: bool, c: bool) -> bool { !a && b || c }";
        let places = [
            (6, Genre::UnaryOperator, "!a", ""),
            (7, Genre::BinaryOperator, "&&", "||"),
            (8, Genre::BinaryOperator, "||", "&&"),
        ];
        let mutants =
            places.map(|(id, genre, what, instead)| mutant_of(text, id, genre, (1, what), instead));
        let mutants: Vec<_> = mutants.iter().collect();
        let planted = plant(text, &mutants, &BTreeSet::new()).unwrap();
        let item: syn::ItemFn = syn::parse_str(&planted).unwrap();
        for truths in 0..8 {
            let [a, b, c] = [1, 2, 4].map(|bit| truths & bit > 0);
            let means = [(0, !a && b || c), (6, a && b || c), (7, !a || b || c), (8, !a && b && c)];
            for (id, means) in means {
                let is_true = |name: &str| match name {
                    "a" => a,
                    "b" => b,
                    "c" => c,
                    number => number.parse() == Ok(id),
                };
                let is = value(last(&item.block), &is_true);
                assert_eq!(is, means, "{id} with {a}, {b}, {c}: {planted}");
            }
        }
    }

    #[test]
    fn without_the_dead_ones_the_text_is_as_it_was() {
        let mutants = all();
        let mutants: Vec<_> = mutants.iter().collect();
        let dead = mutants.iter().map(|mutant| mutant.id).collect();
        assert_eq!(plant(TEXT, &mutants, &dead).unwrap(), TEXT);
    }

    #[test]
    fn who_is_to_blame_stands_around_the_place() {
        let mutants = all();
        let mutants: Vec<_> = mutants.iter().collect();
        let planted = plant(TEXT, &mutants, &BTreeSet::new()).unwrap();
        let at = planted.find("return /*<1*/").unwrap() + "return /*<1*/".len();
        assert_eq!(blamed(&planted, at), [1]);
        let inner = planted.find("a > 7").or_else(|| planted.find("> 7")).unwrap();
        assert_eq!(blamed(&planted, inner), [9]);
        assert_eq!(blamed(&planted, 0), [] as [u32; 0]);
        let matched = planted.find("match a").unwrap() + "match ".len();
        assert_eq!(within_match(&planted, matched).unwrap(), [4, 3, 5]);
    }
}
