//! What can be changed in a file, and the text in which every change stands behind its switch.
//!
//! Each changed expression becomes `(if on(7) { changed } else { original })`, so that types and borrows hold as before or the compiler says
//! where not. The changed copy is plain text: one mutant is on at a time, so nothing in it needs a switch of its own.

use std::ops::Range;
use std::path::{Path, PathBuf};

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, BinOp, Block, Expr, GenericArgument, PathArguments, ReturnType, Signature, Stmt, Type, UnOp};

/// Methods that stand for each other: same arguments, other meaning.
const TWINS: [(&str, &str); 7] = [
    ("saturating_add", "saturating_sub"),
    ("checked_add", "checked_sub"),
    ("min", "max"),
    ("any", "all"),
    ("is_some_and", "is_none_or"),
    ("first", "last"),
    ("take_while", "skip_while"),
];

/// Methods whose closure answers a question.
const ASKING: [&str; 12] = [
    "filter",
    "any",
    "all",
    "is_some_and",
    "is_none_or",
    "retain",
    "find",
    "position",
    "partition",
    "take_while",
    "skip_while",
    "is_ok_and",
];

/// One change.
#[derive(Debug, Clone)]
pub(crate) struct Mutant {
    pub(crate) id: u32,
    pub(crate) file: PathBuf,
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) function: String,
    pub(crate) change: String,
}

/// How the changes of one place stand in the text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Instead of an expression.
    Expression,
    /// Instead of a statement.
    Statement,
    /// An early return at the head of a body; its range is empty.
    Return,
}

/// Changes of one range of the original, innermost last.
struct Site {
    at: Range<usize>,
    form: Form,
    /// Number and new text.
    changes: Vec<(u32, String)>,
}

/// A parsed file and everything that can be changed in it.
pub(crate) struct Found {
    text: String,
    sites: Vec<Site>,
    pub(crate) mutants: Vec<Mutant>,
}

/// A file with switches, and where in it each mutant stands.
pub(crate) struct Switched {
    pub(crate) text: String,
    /// The changed text itself.
    changed: Vec<(Range<usize>, u32)>,
    /// Everything between the first and the last byte of a site.
    around: Vec<(Range<usize>, Vec<u32>)>,
}

/// Finds the changes of a file; numbers begin after `last`.
pub(crate) fn find(path: &Path, text: String, last: u32) -> Result<Found, String> {
    let file = syn::parse_file(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut finder = Finder { path, text: &text, function: String::new(), last, sites: Vec::new(), mutants: Vec::new() };
    finder.visit_file(&file);
    let Finder { sites, mutants, .. } = finder;
    Ok(Found { text, sites, mutants })
}

impl Found {
    /// The text with a switch for every mutant that `keeps` accepts.
    pub(crate) fn switched(&self, keeps: impl Fn(u32) -> bool) -> Switched {
        let kept = |site: &Site| site.changes.iter().filter(|(id, _)| keeps(*id)).cloned().collect::<Vec<_>>();
        let sites: Vec<(&Site, Vec<(u32, String)>)> =
            self.sites.iter().map(|site| (site, kept(site))).filter(|(_, kept)| !kept.is_empty()).collect();
        // At one position inner sites end before outer ones do, and all of them before the next begins.
        let mut cuts: Vec<(usize, bool, usize)> = Vec::new();
        for (order, (site, _)) in sites.iter().enumerate() {
            cuts.push((site.at.start, true, order));
            if site.form != Form::Return {
                cuts.push((site.at.end, false, sites.len() - order));
            }
        }
        cuts.sort_unstable();
        let mut out = Switched { text: String::with_capacity(self.text.len() * 3), changed: Vec::new(), around: Vec::new() };
        let (mut copied, mut open) = (0, Vec::new());
        for (at, begins, order) in cuts {
            out.text.push_str(self.text.get(copied..at).unwrap_or_default());
            copied = at;
            if !begins {
                out.text.push_str(" }");
                if let Some((start, ids, form)) = open.pop() {
                    if form == Form::Expression {
                        out.text.push(')');
                    }
                    out.around.push((start..out.text.len(), ids));
                }
                continue;
            }
            let Some((site, kept)) = sites.get(order) else { continue };
            let start = out.text.len();
            out.text.push_str(if site.form == Form::Expression { "(" } else { " " });
            for (id, change) in kept {
                out.text.extend(["if crate::mutant::on(", &id.to_string(), ") { "]);
                let changed = out.text.len();
                out.text.push_str(change);
                out.changed.push((changed..out.text.len(), *id));
                out.text.push_str(" } ");
                if site.form != Form::Return {
                    out.text.push_str("else ");
                }
            }
            if site.form != Form::Return {
                out.text.push_str("{ ");
                open.push((start, kept.iter().map(|(id, _)| *id).collect(), site.form));
            }
        }
        out.text.push_str(self.text.get(copied..).unwrap_or_default());
        out
    }
}

impl Switched {
    /// Who is to blame for an error at this range: the changed text it lies in, else the outermost sites it covers, else the innermost
    /// site around it.
    pub(crate) fn to_blame(&self, at: &Range<usize>) -> Vec<u32> {
        let holds = |outer: &Range<usize>, inner: &Range<usize>| outer.start <= inner.start && inner.end <= outer.end;
        let meets = |one: &Range<usize>| one.start < at.end && at.start < one.end;
        if let Some((_, id)) = self.changed.iter().find(|(changed, _)| holds(changed, at)) {
            return vec![*id];
        }
        let covered = || self.around.iter().filter(|(around, _)| holds(at, around));
        let outermost = covered().filter(|(around, _)| !covered().any(|(other, _)| other != around && holds(other, around)));
        let blamed: Vec<u32> = outermost.flat_map(|(_, ids)| ids.clone()).collect();
        if !blamed.is_empty() {
            return blamed;
        }
        let met: Vec<u32> = self.changed.iter().filter(|(changed, _)| meets(changed)).map(|(_, id)| *id).collect();
        if !met.is_empty() {
            return met;
        }
        let innermost = self.around.iter().filter(|(around, _)| holds(around, at)).min_by_key(|(around, _)| around.len());
        innermost.map_or_else(Vec::new, |(_, ids)| ids.clone())
    }

    /// Deletions within this range: a value that was moved before a deleted `return` is moved twice.
    pub(crate) fn deleted_within(&self, hull: &Range<usize>) -> Vec<u32> {
        let within = |changed: &Range<usize>| changed.is_empty() && hull.contains(&changed.start);
        self.changed.iter().filter(|(changed, _)| within(changed)).map(|(_, id)| *id).collect()
    }
}

struct Finder<'a> {
    path: &'a Path,
    text: &'a str,
    function: String,
    last: u32,
    sites: Vec<Site>,
    mutants: Vec<Mutant>,
}

impl Finder<'_> {
    fn source(&self, part: &impl Spanned) -> String {
        self.text.get(part.span().byte_range()).unwrap_or_default().to_owned()
    }

    /// One site with its changes, each as (what the report says, new text).
    fn site(&mut self, part: &impl Spanned, form: Form, changes: Vec<(String, String)>) {
        let (start, range) = (part.span().start(), part.span().byte_range());
        let at = if form == Form::Return { range.end..range.end } else { range };
        let mut kept = Vec::new();
        for (change, text) in changes {
            self.last += 1;
            kept.push((self.last, text));
            let change = change.split_whitespace().collect::<Vec<_>>().join(" ");
            self.mutants.push(Mutant {
                id: self.last,
                file: self.path.to_owned(),
                line: start.line,
                column: start.column + 1,
                function: self.function.clone(),
                change,
            });
        }
        if !kept.is_empty() {
            self.sites.push(Site { at, form, changes: kept });
        }
    }

    fn negate(&mut self, question: &Expr) {
        // Other sites see to these, and a chain with `let` in it is no expression.
        if answers(question) || matches!(question, Expr::Lit(_)) || has_let(question) {
            return;
        }
        let text = self.source(question);
        self.site(question, Form::Expression, vec![(format!("negate {text}"), format!("!({text})"))]);
    }

    fn binary(&mut self, whole: &Expr, binary: &syn::ExprBinary) {
        let swaps: &[&str] = match binary.op {
            BinOp::Eq(_) => &["!="],
            BinOp::Ne(_) => &["=="],
            BinOp::Lt(_) => &["<=", ">="],
            BinOp::Le(_) => &["<", ">"],
            BinOp::Gt(_) => &[">=", "<="],
            BinOp::Ge(_) => &[">", "<"],
            BinOp::And(_) => &["||"],
            BinOp::Or(_) => &["&&"],
            BinOp::Add(_) => &["-"],
            BinOp::Sub(_) => &["+"],
            BinOp::Mul(_) => &["/"],
            BinOp::Div(_) | BinOp::Rem(_) => &["*"],
            BinOp::AddAssign(_) => &["-="],
            BinOp::SubAssign(_) => &["+="],
            _ => &[],
        };
        let (left, op, right) = (self.source(&binary.left), self.source(&binary.op), self.source(&binary.right));
        if matches!(binary.op, BinOp::And(_) | BinOp::Or(_)) {
            if !has_let(whole) {
                // In parentheses, as either side may bind less tightly than the new operator.
                let changes =
                    swaps.iter().map(|swap| (format!("{op} to {swap}: {left} {op} {right}"), format!("({left}) {swap} ({right})")));
                self.site(whole, Form::Expression, changes.collect());
            }
            self.negate(&binary.left);
            self.negate(&binary.right);
            return;
        }
        let changes = swaps.iter().map(|swap| (format!("{op} to {swap}: {left} {op} {right}"), format!("{left} {swap} {right}")));
        self.site(whole, Form::Expression, changes.collect());
    }

    fn method(&mut self, whole: &Expr, call: &syn::ExprMethodCall) {
        let name = call.method.to_string();
        let twin = TWINS.iter().find_map(|(one, other)| (name == *one).then_some(other).or_else(|| (name == *other).then_some(one)));
        // `min()` and `max()` of iterators are other methods.
        if let Some(twin) = twin.filter(|_| !(matches!(name.as_str(), "min" | "max") && call.args.is_empty())) {
            let (text, start) = (self.source(whole), whole.span().byte_range().start);
            let at = call.method.span().byte_range();
            let (before, after) = (text.get(..at.start - start), text.get(at.end - start..));
            let changed = format!("{}{twin}{}", before.unwrap_or_default(), after.unwrap_or_default());
            self.site(whole, Form::Expression, vec![(format!("{name} to {twin}: {text}"), changed)]);
        }
        if ASKING.contains(&name.as_str()) {
            for argument in &call.args {
                if let Expr::Closure(closure) = argument
                    && !matches!(*closure.body, Expr::Block(_))
                {
                    self.negate(&closure.body);
                }
            }
        }
    }

    fn function(&mut self, signature: &Signature, body: &Block) {
        if signature.constness.is_some() {
            return;
        }
        let outer = std::mem::replace(&mut self.function, signature.ident.to_string());
        if !body.stmts.is_empty() {
            let values = match &signature.output {
                ReturnType::Default => vec!["()".to_owned()],
                ReturnType::Type(_, output) => values(output),
            };
            let changes = values.into_iter().map(|value| (format!("body returns {value}"), format!("return {value};"))).collect();
            self.site(&body.brace_token.span.open(), Form::Return, changes);
        }
        visit::visit_block(self, body);
        self.function = outer;
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_test(&item.attrs) {
            self.function(&item.sig, &item.block);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_test(&item.attrs) {
            self.function(&item.sig, &item.block);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let of = item.trait_.as_ref().and_then(|(_, path, _)| path.segments.last()).map(|last| last.ident.to_string());
        if !is_test(&item.attrs) && !of.is_some_and(|name| name == "Debug" || name == "Display") {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_stmt(&mut self, stmt: &'ast Stmt) {
        if let Stmt::Expr(expr, Some(_)) = stmt
            && deletable(expr)
            && !self.source(expr).starts_with("Meters::")
        {
            let text = self.source(expr);
            self.site(stmt, Form::Statement, vec![(format!("delete {text}"), String::new())]);
        }
        visit::visit_stmt(self, stmt);
    }

    fn visit_expr(&mut self, expr: &'ast Expr) {
        match expr {
            Expr::Binary(binary) => self.binary(expr, binary),
            Expr::Unary(unary) if matches!(unary.op, UnOp::Not(_)) => {
                let inner = self.source(&unary.expr);
                self.site(expr, Form::Expression, vec![(format!("delete ! of {inner}"), inner)]);
            }
            Expr::MethodCall(call) => self.method(expr, call),
            Expr::If(branch) if !only_logs(branch) => self.negate(&branch.cond),
            Expr::While(again) => self.negate(&again.cond),
            _ => {}
        }
        visit::visit_expr(self, expr);
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        if let Some((_, guard)) = &arm.guard
            && !has_let(guard)
        {
            let text = self.source(&**guard);
            let change = |value: &str| (format!("guard {text} is {value}"), value.to_owned());
            self.site(&**guard, Form::Expression, vec![change("true"), change("false")]);
        }
        visit::visit_arm(self, arm);
    }

    // What the compiler evaluates, and what is no code.
    fn visit_item_const(&mut self, _: &'ast syn::ItemConst) {}
    fn visit_item_static(&mut self, _: &'ast syn::ItemStatic) {}
    fn visit_item_enum(&mut self, _: &'ast syn::ItemEnum) {}
    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {}
    fn visit_expr_const(&mut self, _: &'ast syn::ExprConst) {}
    fn visit_expr_repeat(&mut self, _: &'ast syn::ExprRepeat) {}
    fn visit_type(&mut self, _: &'ast Type) {}
    fn visit_generic_argument(&mut self, _: &'ast GenericArgument) {}
    fn visit_pat(&mut self, _: &'ast syn::Pat) {}
    fn visit_attribute(&mut self, _: &'ast Attribute) {}
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let list = attribute.meta.require_list().ok();
        let for_tests = list.is_some_and(|list| list.path.is_ident("cfg") && list.tokens.to_string() == "test");
        for_tests || attribute.path().segments.last().is_some_and(|last| last.ident == "test")
    })
}

/// Whether the expression is true or false by an operator that has its own changes.
fn answers(expr: &Expr) -> bool {
    match expr {
        Expr::Paren(inner) => answers(&inner.expr),
        Expr::Binary(_) => true,
        Expr::Unary(unary) => matches!(unary.op, UnOp::Not(_)),
        _ => false,
    }
}

/// Whether it is a `let` or a chain with one.
fn has_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Paren(inner) => has_let(&inner.expr),
        Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        _ => false,
    }
}

/// Whether nothing depends on the branch but lines in the service's own log.
fn only_logs(branch: &syn::ExprIf) -> bool {
    let logs = |stmt: &Stmt| match stmt {
        Stmt::Macro(line) => line.mac.path.segments.first().is_some_and(|first| first.ident == "tracing"),
        _ => false,
    };
    branch.else_branch.is_none() && branch.then_branch.stmts.iter().all(logs)
}

/// Whether the rest of a block may do without the statement.
fn deletable(expr: &Expr) -> bool {
    match expr {
        Expr::Call(_) | Expr::MethodCall(_) | Expr::Await(_) | Expr::Assign(_) | Expr::Continue(_) => true,
        Expr::Break(end) => end.expr.is_none(),
        Expr::Return(end) => end.expr.is_none(),
        Expr::Try(attempt) => deletable(&attempt.expr),
        Expr::Binary(binary) => {
            matches!(
                binary.op,
                BinOp::AddAssign(_) | BinOp::SubAssign(_) | BinOp::MulAssign(_) | BinOp::BitOrAssign(_) | BinOp::BitXorAssign(_)
            )
        }
        _ => false,
    }
}

/// Plain values of a type, by its name; the compiler says which do not exist.
fn values(output: &Type) -> Vec<String> {
    let wrapped = |outer: &str, inner: Option<&Type>| -> Vec<String> {
        inner.map(values).unwrap_or_default().into_iter().map(|value| format!("{outer}({value})")).collect()
    };
    match output {
        Type::Paren(inner) => values(&inner.elem),
        Type::Tuple(parts) => {
            let firsts: Option<Vec<String>> = parts.elems.iter().map(|part| values(part).into_iter().next()).collect();
            firsts.map(|firsts| format!("({})", firsts.join(", "))).into_iter().collect()
        }
        Type::Reference(reference) => match &*reference.elem {
            Type::Path(path) if path.path.is_ident("str") => vec!["\"\"".to_owned()],
            Type::Slice(_) => vec!["&[]".to_owned()],
            _ => Vec::new(),
        },
        Type::Path(path) => {
            let Some(last) = path.path.segments.last() else { return Vec::new() };
            let inner = match &last.arguments {
                PathArguments::AngleBracketed(list) => list.args.iter().find_map(|argument| match argument {
                    GenericArgument::Type(inner) => Some(inner),
                    _ => None,
                }),
                _ => None,
            };
            match last.ident.to_string().as_str() {
                "bool" => vec!["true".to_owned(), "false".to_owned()],
                "u8" | "u16" | "u32" | "u64" | "usize" | "i64" => vec!["0".to_owned(), "1".to_owned()],
                "f64" => vec!["0.0".to_owned(), "1.0".to_owned()],
                "Option" => std::iter::once("None".to_owned()).chain(wrapped("Some", inner)).collect(),
                "Result" => wrapped("Ok", inner),
                "Arc" => wrapped("std::sync::Arc::new", inner),
                "Box" => wrapped("Box::new", inner),
                "Duration" => vec!["std::time::Duration::ZERO".to_owned()],
                _ => vec!["Default::default()".to_owned()],
            }
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(text: &str) -> Vec<String> {
        find(Path::new("a.rs"), text.to_owned(), 0).unwrap().mutants.into_iter().map(|mutant| mutant.change).collect()
    }

    #[test]
    fn every_change_stands_behind_its_switch_and_the_text_still_parses() {
        let text = "fn f(a: u8, b: bool) -> Option<u8> { if a < 3 && !b && let Some(c) = g(|x| x == 1) { h(c)?; } Some(a + 1) }";
        let found = find(Path::new("a.rs"), text.to_owned(), 0).unwrap();
        let switched = found.switched(|_| true);
        syn::parse_file(&switched.text).unwrap();
        for mutant in &found.mutants {
            assert_eq!(switched.text.matches(&format!("on({})", mutant.id)).count(), 1, "{mutant:?}");
            let (range, _) = switched.changed.iter().find(|(_, id)| *id == mutant.id).unwrap();
            assert_eq!(switched.to_blame(range), [mutant.id]);
        }
        assert_eq!(found.switched(|_| false).text, text);
    }

    #[test]
    fn bodies_operators_statements_and_guards_are_changed() {
        assert_eq!(changes("fn f() -> bool { x }"), ["body returns true", "body returns false"]);
        assert_eq!(changes("fn f() { a.push(1); }"), ["body returns ()", "delete a.push(1)"]);
        assert_eq!(changes("fn f() -> T<'a> { a <= b }"), ["body returns Default::default()", "<= to <: a <= b", "<= to >: a <= b"]);
        assert_eq!(changes("fn f() -> &X { match a { B if c => d, _ => e } }"), ["guard c is true", "guard c is false"]);
        assert_eq!(changes("fn f() -> &X { a.saturating_add(1).min(b) }").len(), 2);
    }

    #[test]
    fn tests_constants_and_chains_with_let_stay_as_they_are() {
        assert!(changes("#[cfg(test)] mod tests { fn f() -> bool { x } } const A: u8 = 1 + 2; const fn g() -> u8 { 1 + 2 }").is_empty());
        assert_eq!(changes("fn f() -> &X { if a && let Some(b) = c { d } }"), ["negate a"]);
    }

    #[test]
    fn what_is_only_counted_or_logged_stays_as_it_is() {
        assert!(changes("fn f() -> &X { if g { tracing::debug!(a); } Meters::bump(&b); c }").is_empty());
        assert_eq!(changes("fn f() -> &X { if g { tracing::debug!(a); } else { d } c }"), ["negate g"]);
        assert_eq!(changes("fn f() -> &X { if g { tracing::debug!(a); return h; } c }"), ["negate g"]);
    }
}
