//! Where in a file's text something can be made to choose, at run time, between what is written
//! there and what a mutant says.
//!
//! Knows syntax, and no mutants.

use anyhow::{Context as _, Result};
use std::{collections::BTreeMap, ops::Range};
use syn::{
    Arm, BinOp, Expr, ExprBinary, ExprMatch, ExprStruct, ExprUnary, ImplItemFn, ItemFn, Member,
    Signature,
    spanned::Spanned,
    visit::{self, Visit},
};

/// Places by where the thing that is mutated begins, or lies.
#[derive(Default)]
pub struct Sites {
    /// By the operator.
    pub binaries: BTreeMap<usize, Binary>,
    /// By the operator: the whole, and the operand.
    pub unaries: BTreeMap<usize, (Range<usize>, Range<usize>)>,
    /// By the arm.
    pub arms: BTreeMap<usize, Choice>,
    /// By the guard.
    pub guards: BTreeMap<usize, Range<usize>>,
    /// By the field.
    pub fields: BTreeMap<usize, Field>,
    /// Each match: what is matched, and the whole.
    pub matches: Vec<(Range<usize>, Range<usize>)>,
    /// Functions, and the word `const` before them.
    pub constants: Vec<(Range<usize>, Range<usize>, String)>,
}

pub struct Binary {
    pub whole: Range<usize>,
    pub left: Range<usize>,
    pub operator: Range<usize>,
    pub right: Range<usize>,
    /// `&&` or `||`.
    pub is_lazy: bool,
    /// A condition with `let` in it cannot be told in parts.
    pub binds: bool,
}

/// An arm of a match.
pub struct Choice {
    /// Behind its pattern.
    pub pattern_end: usize,
    pub guard: Option<Range<usize>>,
}

/// A field of a struct expression that has a base.
pub struct Field {
    pub name: String,
    pub whole: Range<usize>,
    pub value: Range<usize>,
    pub base: Range<usize>,
}

impl Sites {
    pub fn of(text: &str) -> Result<Self> {
        let file = syn::parse_file(text).context("the compiler takes it, the parser does not")?;
        let mut sites = Self::default();
        sites.visit_file(&file);
        Ok(sites)
    }

    fn note_constant(&mut self, signature: &Signature, whole: Range<usize>) {
        if let Some(word) = &signature.constness {
            let name = signature.ident.to_string();
            self.constants.push((whole, word.span().byte_range(), name));
        }
    }
}

/// From the first token to the last.
fn range(of: &impl Spanned) -> Range<usize> {
    of.span().byte_range()
}

fn binds(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(binary) => binds(&binary.left) || binds(&binary.right),
        _ => false,
    }
}

impl<'ast> Visit<'ast> for Sites {
    fn visit_expr_binary(&mut self, expr: &'ast ExprBinary) {
        let operator = range(&expr.op);
        let site = Binary {
            whole: range(expr),
            left: range(&expr.left),
            operator: operator.clone(),
            right: range(&expr.right),
            is_lazy: matches!(expr.op, BinOp::And(_) | BinOp::Or(_)),
            binds: binds(&expr.left) || binds(&expr.right),
        };
        self.binaries.insert(operator.start, site);
        visit::visit_expr_binary(self, expr);
    }

    fn visit_expr_unary(&mut self, expr: &'ast ExprUnary) {
        self.unaries.insert(range(&expr.op).start, (range(expr), range(&expr.expr)));
        visit::visit_expr_unary(self, expr);
    }

    fn visit_arm(&mut self, arm: &'ast Arm) {
        let guard = arm.guard.as_ref().map(|(_, guard)| range(guard));
        if let Some(guard) = &guard {
            self.guards.insert(guard.start, guard.clone());
        }
        let pattern_end = range(&arm.pat).end;
        self.arms.insert(range(arm).start, Choice { pattern_end, guard });
        visit::visit_arm(self, arm);
    }

    fn visit_expr_match(&mut self, expr: &'ast ExprMatch) {
        self.matches.push((range(&expr.expr), range(expr)));
        visit::visit_expr_match(self, expr);
    }

    fn visit_expr_struct(&mut self, expr: &'ast ExprStruct) {
        if let Some(base) = &expr.rest {
            for field in &expr.fields {
                let Member::Named(name) = &field.member else { continue };
                let whole = range(field);
                let (name, value, base) = (name.to_string(), range(&field.expr), range(base));
                self.fields.insert(whole.start, Field { name, whole, value, base });
            }
        }
        visit::visit_expr_struct(self, expr);
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.note_constant(&item.sig, range(item));
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        self.note_constant(&item.sig, range(item));
        visit::visit_impl_item_fn(self, item);
    }
}
