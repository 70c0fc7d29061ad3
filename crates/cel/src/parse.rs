//! Tokens to a syntax tree: recursive descent after the grammar of cel-go's `parser/gen/CEL.g4`.
//!
//! Bounds as cel-go's (`parser/parser.go`): 100,000 code points, 250 levels per rule, 100,000 nodes while macros expand.

use std::sync::Arc;

use crate::ast::{Call, Element, Entry, Expr, ExprKind, Id, Select, Struct, StructField, op};
use crate::escape::RESERVED;
use crate::issues::Issues;
use crate::lex::{Tok, Token, tokens, unescape};
use crate::macros;
use crate::value::Literal;

const SOURCE_CODE_POINTS_MAX: usize = 100_000;
const DEPTH_MAX: u32 = 250;
const NODES_MAX: u32 = 100_000;

const EXPECT_EXPR: &str =
    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
const EXPECT_ARGUMENT: &str = "{'[', '{', '(', ')', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
const EXPECT_INDEX: &str = "{'[', '{', '(', '.', '-', '!', '?', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
const EXPECT_ITEM: &str = "{'[', ']', '{', '(', '.', ',', '-', '!', '?', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, \
                           STRING, BYTES, IDENTIFIER}";
const EXPECT_ENTRY: &str = "{'[', '{', '}', '(', '.', ',', '-', '!', '?', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, \
                            NUM_UINT, STRING, BYTES, IDENTIFIER}";

/// Which macros there are.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Syntax {
    /// `a.?b`, `a[?b]`, optMap, optFlatMap.
    pub(crate) optionals: bool,
    /// `all(k, v, …)`, transformList and the like.
    pub(crate) two_variables: bool,
    /// sortBy.
    pub(crate) lists: bool,
    /// cel.bind: not in Kubernetes' environments.
    pub(crate) bindings: bool,
}

/// The tree of `source`, and how many nodes there are at most; what is wrong goes to `issues`.
pub(crate) fn parse(source: &str, syntax: Syntax, issues: &mut Issues) -> (Option<Expr>, u32) {
    let chars: Vec<char> = source.chars().collect();
    if chars.len() > SOURCE_CODE_POINTS_MAX {
        issues.report_nowhere(format!(
            "expression code point size exceeds limit: size: {}, limit {SOURCE_CODE_POINTS_MAX}",
            chars.len()
        ));
        return (None, 0);
    }
    let tokens = tokens(&chars, issues);
    let mut parser =
        Parser { chars: &chars, tokens, at: 0, issues, syntax, next_id: 1, depth: Depth::default(), failed: false };
    let expr = parser.expr().and_then(|expr| {
        if parser.peek() == Tok::End {
            return Some(expr);
        }
        if parser.tokens.get(parser.at + 1).is_some_and(|token| token.tok == Tok::End) {
            parser.syntax_error(format!("extraneous input {} expecting <EOF>", parser.shown()));
        } else {
            parser.syntax_error(format!("mismatched input {} expecting <EOF>", parser.shown()));
        }
        None
    });
    let nodes = parser.next_id;
    (expr, nodes)
}

/// Binary operators, from loose to tight.
const LEVELS: [&[&str]; 5] =
    [&["||"], &["&&"], &["<", "<=", ">=", ">", "==", "!=", "in"], &["+", "-"], &["*", "/", "%"]];

#[derive(Default, Clone, Copy)]
struct Depth {
    expr: u32,
    relation: u32,
    calc: u32,
    member: u32,
}

/// The parser; macros make their nodes through it.
pub(crate) struct Parser<'a> {
    chars: &'a [char],
    tokens: Vec<Token>,
    at: usize,
    issues: &'a mut Issues,
    pub(crate) syntax: Syntax,
    next_id: Id,
    depth: Depth,
    failed: bool,
}

impl Parser<'_> {
    fn peek(&self) -> Tok {
        self.tokens[self.at].tok
    }

    fn pos(&self) -> u32 {
        self.tokens[self.at].start
    }

    fn text(&self, token: Token) -> String {
        self.chars[token.start as usize..token.end as usize].iter().collect()
    }

    fn shown(&self) -> String {
        match self.peek() {
            Tok::End => "'<EOF>'".to_owned(),
            _ => format!("'{}'", self.text(self.tokens[self.at])),
        }
    }

    fn bump(&mut self) -> Token {
        let token = self.tokens[self.at];
        if token.tok != Tok::End {
            self.at += 1;
        }
        token
    }

    fn eat(&mut self, sign: &'static str) -> Option<u32> {
        (self.peek() == Tok::Sign(sign)).then(|| self.bump().start)
    }

    fn syntax_error(&mut self, message: impl std::fmt::Display) {
        if !self.failed {
            self.issues.report(self.pos(), format!("Syntax error: {message}"));
        }
        self.failed = true;
    }

    /// Takes `sign` or says in ANTLR's words what is there instead.
    fn expect(&mut self, sign: &'static str) -> Option<u32> {
        self.expect_one_of(sign, None)
    }

    /// The same where other tokens could stand, too: `wanted` names them all.
    fn expect_one_of(&mut self, sign: &'static str, wanted: Option<&str>) -> Option<u32> {
        if let Some(pos) = self.eat(sign) {
            return Some(pos);
        }
        let shown = self.shown();
        let quoted = format!("'{sign}'");
        let expected = wanted.unwrap_or(&quoted);
        let (now, after) = (self.tokens[self.at], self.tokens.get(self.at + 1).map(|token| token.tok));
        let can_go_on = if sign == ":" { starts_expr(&now) } else { now.tok == Tok::End };
        if after == Some(Tok::Sign(sign)) && now.tok != Tok::End {
            self.syntax_error(format!("extraneous input {shown} expecting {expected}"));
        } else if can_go_on && wanted.is_none() {
            self.syntax_error(format!("missing '{sign}' at {shown}"));
        } else {
            self.syntax_error(format!("mismatched input {shown} expecting {expected}"));
        }
        None
    }

    /// At the end of the source where something or `more` could stand.
    fn ended(&mut self, more: &str) -> bool {
        let ended = self.peek() == Tok::End;
        if ended {
            self.syntax_error(format!("mismatched input '<EOF>' expecting {more}"));
        }
        ended
    }

    fn too_deep(&mut self, depth: u32) -> bool {
        if depth > DEPTH_MAX && !self.failed {
            self.issues.report_nowhere(format!("expression recursion limit exceeded: {DEPTH_MAX}"));
            self.failed = true;
        }
        depth > DEPTH_MAX
    }

    /// A new node.
    pub(crate) fn node(&mut self, pos: u32, kind: ExprKind) -> Expr {
        let id = self.next_id;
        self.next_id += 1;
        Expr { id, pos, kind }
    }

    /// A problem at a place, and the node that stands there.
    pub(crate) fn problem(&mut self, pos: u32, message: impl Into<String>) -> Expr {
        self.issues.report(pos, message);
        self.node(pos, ExprKind::Unspecified)
    }

    /// Whether `more` nodes would be too many.
    pub(crate) fn is_full(&self, more: u32) -> bool {
        self.next_id.saturating_add(more) > NODES_MAX
    }

    /// The same tree as nodes of its own.
    pub(crate) fn copy(&mut self, expr: &Expr) -> Expr {
        let mut copy = expr.clone();
        self.renumber(&mut copy);
        copy
    }

    fn renumber(&mut self, expr: &mut Expr) {
        expr.id = self.next_id;
        self.next_id += 1;
        expr.for_each_child(&mut |child| self.renumber(child));
    }

    pub(crate) fn call(&mut self, pos: u32, function: &str, target: Option<Expr>, args: Vec<Expr>) -> Expr {
        self.node(pos, ExprKind::Call(Box::new(Call { function: function.into(), target, args })))
    }

    /// A call, or what its macro makes of it.
    fn call_or_macro(&mut self, pos: u32, function: &str, target: Option<Expr>, args: Vec<Expr>) -> Expr {
        if !macros::exists(self.syntax, function, target.as_ref(), &args) {
            return self.call(pos, function, target, args);
        }
        let expanded = match self.next_id > NODES_MAX {
            true => None,
            false => Some(macros::expand(self, pos, function, target, args)),
        };
        match expanded {
            Some(expr) if self.next_id <= NODES_MAX => expr,
            _ => {
                let why = format!("expression count exceeds limit of {NODES_MAX} while expanding macro '{function}'");
                self.problem(pos, why)
            }
        }
    }

    fn expr(&mut self) -> Option<Expr> {
        self.depth.expr += 1;
        if self.too_deep(self.depth.expr) {
            return None;
        }
        let mut condition = self.binary(0)?;
        if let Some(pos) = self.eat("?") {
            let yes = self.binary(0)?;
            self.expect(":")?;
            let no = self.expr()?;
            condition = self.call(pos, op::CONDITIONAL, None, vec![condition, yes, no]);
        }
        self.depth.expr -= 1;
        Some(condition)
    }

    /// Operators of `level` and tighter ones. Few stack frames per level of nesting matter here.
    fn binary(&mut self, level: usize) -> Option<Expr> {
        let depth = self.depth;
        self.depth.relation += u32::from(level == 0);
        self.depth.calc += 1;
        let mut left = self.unary()?;
        while let Some((found, sign)) = self.operator(level) {
            if found < 2 {
                left = self.logic(found, sign, left)?;
                continue;
            }
            let counter = if found == 2 { &mut self.depth.relation } else { &mut self.depth.calc };
            *counter += 1;
            let count = *counter;
            if self.too_deep(count) {
                return None;
            }
            let pos = self.bump().start;
            let right = self.binary(found + 1)?;
            let function = if sign == "in" { "@in".to_owned() } else { format!("_{sign}_") };
            left = self.call(pos, &function, None, vec![left, right]);
        }
        self.depth = depth;
        Some(left)
    }

    /// The operator that comes next and its level, if that is `level` or tighter.
    fn operator(&self, level: usize) -> Option<(usize, &'static str)> {
        let Tok::Sign(sign) = self.peek() else { return None };
        let found = LEVELS.iter().position(|signs| signs.contains(&sign))?;
        (found >= level).then_some((found, sign))
    }

    /// Terms of `||` or `&&` as a balanced tree (`parser/helper.go`, logicManager).
    fn logic(&mut self, level: usize, sign: &'static str, first: Expr) -> Option<Expr> {
        let mut terms = vec![Some(first)];
        let mut ops = Vec::new();
        while let Some(pos) = self.eat(sign) {
            terms.push(Some(self.binary(level + 1)?));
            ops.push(pos);
        }
        let function = if level == 0 { op::OR } else { op::AND };
        self.balance(function, &mut terms, &ops, 0, ops.len() - 1)
    }

    fn balance(
        &mut self,
        function: &str,
        terms: &mut [Option<Expr>],
        ops: &[u32],
        lo: usize,
        hi: usize,
    ) -> Option<Expr> {
        let mid = (lo + hi).div_ceil(2);
        let left = if mid == lo { terms[mid].take()? } else { self.balance(function, terms, ops, lo, mid - 1)? };
        let right = if mid == hi { terms[mid + 1].take()? } else { self.balance(function, terms, ops, mid + 1, hi)? };
        Some(self.call(ops[mid], function, None, vec![left, right]))
    }

    fn unary(&mut self) -> Option<Expr> {
        for (sign, function) in [("!", op::NOT), ("-", op::NEGATE)] {
            let Tok::Sign(found) = self.peek() else { break };
            if found != sign {
                continue;
            }
            if sign == "-" && matches!(self.tokens[self.at + 1].tok, Tok::Int | Tok::Float) {
                break; // the sign is the literal's
            }
            let pos = self.pos();
            let mut count = 0;
            while self.eat(sign).is_some() {
                count += 1;
            }
            let operand = self.member()?;
            return Some(if count % 2 == 0 { operand } else { self.call(pos, function, None, vec![operand]) });
        }
        self.member()
    }

    fn member(&mut self) -> Option<Expr> {
        let depth = self.depth.member;
        self.depth.member += 1;
        let mut left = self.primary()?;
        loop {
            self.depth.member += 1;
            if self.too_deep(self.depth.member) {
                return None;
            }
            if let Some(pos) = self.eat(".") {
                left = self.selection(left, pos)?;
            } else if let Some(pos) = self.eat("[") {
                let optional = self.eat("?").is_some();
                if !optional && self.ended(EXPECT_INDEX) {
                    return None;
                }
                let index = self.expr()?;
                self.expect("]")?;
                if optional && !self.syntax.optionals {
                    left = self.problem(pos, "unsupported syntax '[?'");
                    continue;
                }
                let function = if optional { op::OPT_INDEX } else { op::INDEX };
                left = self.call(pos, function, None, vec![left, index]);
            } else {
                break;
            }
        }
        self.depth.member = depth;
        Some(left)
    }

    fn selection(&mut self, operand: Expr, pos: u32) -> Option<Expr> {
        let optional = self.eat("?").is_some();
        let token = self.tokens[self.at];
        let name = match token.tok {
            Tok::Ident => self.text(self.tokens[self.at]),
            Tok::Quoted => {
                let text = self.text(token);
                text[1..text.len() - 1].to_owned()
            }
            _ if optional => {
                let shown = self.shown();
                self.syntax_error(format!("mismatched input {shown} expecting {{IDENTIFIER, ESC_IDENTIFIER}}"));
                return None;
            }
            // Upstream's lexer has these as words of their own, which are no names of fields.
            Tok::Sign(word @ ("true" | "false" | "null")) => {
                self.syntax_error(format!("mismatched input '{word}' expecting IDENTIFIER"));
                return None;
            }
            _ => {
                let text = self.text(token);
                self.syntax_error(format!("no viable alternative at input '.{text}'"));
                return None;
            }
        };
        self.bump();
        if optional {
            if !self.syntax.optionals {
                return Some(self.problem(pos, "unsupported syntax '.?'"));
            }
            let field = self.node(token.start, ExprKind::Literal(Literal::Str(name.into())));
            return Some(self.call(pos, op::OPT_SELECT, None, vec![operand, field]));
        }
        if token.tok == Tok::Ident && self.peek() == Tok::Sign("(") {
            let open = self.bump().start;
            let args = self.arguments()?;
            return Some(self.call_or_macro(open, &name, Some(operand), args));
        }
        if token.tok == Tok::Ident && self.peek() == Tok::Sign("{") {
            let mut full = operand.qualified_name();
            if let Some(full) = &mut full {
                full.push('.');
                full.push_str(&name);
            }
            if let Some(full) = full {
                return self.message(full);
            }
        }
        Some(self.node(pos, ExprKind::Select(Box::new(Select { operand, field: name.into(), test_only: false }))))
    }

    fn arguments(&mut self) -> Option<Vec<Expr>> {
        let mut args = Vec::new();
        if self.eat(")").is_some() {
            return Some(args);
        }
        if self.ended(EXPECT_ARGUMENT) {
            return None;
        }
        loop {
            args.push(self.expr()?);
            if self.eat(",").is_none() {
                self.expect(")")?;
                return Some(args);
            }
        }
    }

    fn primary(&mut self) -> Option<Expr> {
        let token = self.tokens[self.at];
        match token.tok {
            Tok::Sign("(") => {
                self.bump();
                let inner = self.expr()?;
                self.expect(")")?;
                Some(inner)
            }
            Tok::Sign("[") => self.list(),
            Tok::Sign("{") => self.map(),
            Tok::Sign(".") | Tok::Ident => self.name(),
            _ => self.literal(),
        }
    }

    fn name(&mut self) -> Option<Expr> {
        let start = self.pos();
        let dot = self.eat(".").is_some();
        let token = self.tokens[self.at];
        if token.tok != Tok::Ident {
            let shown = self.shown();
            self.syntax_error(format!("mismatched input {shown} expecting IDENTIFIER"));
            return None;
        }
        self.bump();
        let plain = self.text(token);
        let name = if dot { format!(".{plain}") } else { plain.clone() };
        if self.peek() == Tok::Sign("{") {
            return self.message(name);
        }
        if RESERVED.contains(&plain.as_str()) {
            let bad = self.problem(start, format!("reserved identifier: {plain}"));
            if self.eat("(").is_some() {
                self.arguments()?;
            }
            return Some(bad);
        }
        if self.peek() == Tok::Sign("(") {
            let open = self.bump().start;
            let args = self.arguments()?;
            return Some(self.call_or_macro(open, &name, None, args));
        }
        Some(self.node(token.start, ExprKind::Ident(name.into())))
    }

    fn optional_mark(&mut self) -> bool {
        let Some(pos) = self.eat("?") else { return false };
        if !self.syntax.optionals {
            self.issues.report(pos, "unsupported syntax '?'");
        }
        true
    }

    fn list(&mut self) -> Option<Expr> {
        let pos = self.bump().start;
        let mut items = Vec::new();
        if self.ended(EXPECT_ITEM) {
            return None;
        }
        let mut wanted = Some("{']', ','}");
        while self.peek() != Tok::Sign("]") {
            if self.peek() == Tok::Sign(",") && items.is_empty() {
                self.bump();
                break;
            }
            let optional = self.optional_mark();
            items.push(Element { expr: self.expr()?, optional });
            if self.eat(",").is_none() {
                break;
            }
            if self.peek() == Tok::End {
                wanted = None;
                break;
            }
        }
        self.expect_one_of("]", wanted)?;
        Some(self.node(pos, ExprKind::List(items)))
    }

    fn map(&mut self) -> Option<Expr> {
        let pos = self.bump().start;
        let mut entries = Vec::new();
        if self.ended(EXPECT_ENTRY) {
            return None;
        }
        while self.peek() != Tok::Sign("}") {
            if self.peek() == Tok::Sign(",") && entries.is_empty() {
                self.bump();
                break;
            }
            let optional = self.optional_mark();
            let key = self.expr()?;
            self.expect(":")?;
            self.next_id += 1;
            entries.push(Entry { key, value: self.expr()?, optional });
            if self.eat(",").is_none() {
                break;
            }
        }
        self.expect_one_of("}", Some("{'}', ','}"))?;
        Some(self.node(pos, ExprKind::Map(entries)))
    }

    fn message(&mut self, name: String) -> Option<Expr> {
        let pos = self.bump().start;
        let mut fields = Vec::new();
        while self.peek() != Tok::Sign("}") {
            if self.peek() == Tok::Sign(",") && fields.is_empty() {
                self.bump();
                break;
            }
            let optional = self.optional_mark();
            let token = self.tokens[self.at];
            let field = match token.tok {
                Tok::Ident => self.text(token),
                Tok::Quoted => {
                    let text = self.text(token);
                    text[1..text.len() - 1].to_owned()
                }
                _ => {
                    let shown = self.shown();
                    self.syntax_error(format!(
                        "mismatched input {shown} expecting {{'}}', ',', '?', IDENTIFIER, ESC_IDENTIFIER}}"
                    ));
                    return None;
                }
            };
            self.bump();
            let colon = self.expect(":")?;
            self.next_id += 1;
            fields.push(StructField { pos: colon, name: field, value: self.expr()?, optional });
            if self.eat(",").is_none() {
                break;
            }
        }
        self.expect_one_of("}", Some("{'}', ','}"))?;
        Some(self.node(pos, ExprKind::Struct(Box::new(Struct { name, fields }))))
    }

    fn literal(&mut self) -> Option<Expr> {
        let pos = self.pos();
        let negative = self.peek() == Tok::Sign("-")
            && matches!(self.tokens[self.at + 1].tok, Tok::Int | Tok::Float)
            && self.eat("-").is_some();
        let token = self.tokens[self.at];
        let text = self.text(token);
        let value = match token.tok {
            Tok::Int => int(&text, negative).map(Literal::Int).ok_or("invalid int literal"),
            Tok::Uint => uint(&text[..text.len() - 1]).map(Literal::Uint).ok_or("invalid uint literal"),
            Tok::Float => match text.parse::<f64>() {
                Ok(value) if value.is_finite() => Ok(Literal::Double(if negative { -value } else { value })),
                _ => Err("invalid double literal"),
            },
            Tok::Str => {
                unescape(&text, false).map(|bytes| Literal::Str(Arc::from(String::from_utf8_lossy(&bytes).as_ref())))
            }
            Tok::Bytes => unescape(&text[1..], true).map(|bytes| Literal::Bytes(bytes.into())),
            Tok::Sign("true") => Ok(Literal::Bool(true)),
            Tok::Sign("false") => Ok(Literal::Bool(false)),
            Tok::Sign("null") => Ok(Literal::Null),
            _ => {
                let shown = self.shown();
                let extra = self.peek() != Tok::End && self.tokens.get(self.at + 1).is_some_and(starts_expr);
                let what = if extra { "extraneous" } else { "mismatched" };
                self.syntax_error(format!("{what} input {shown} expecting {EXPECT_EXPR}"));
                return None;
            }
        };
        self.bump();
        Some(match value {
            Ok(value) => self.node(pos, ExprKind::Literal(value)),
            Err(why) => self.problem(pos, why),
        })
    }
}

fn starts_expr(token: &Token) -> bool {
    match token.tok {
        Tok::Sign(sign) => matches!(sign, "[" | "{" | "(" | "." | "-" | "!" | "true" | "false" | "null"),
        Tok::Quoted | Tok::End => false,
        _ => true,
    }
}

fn int(text: &str, negative: bool) -> Option<i64> {
    let magnitude = uint(text)?;
    match negative {
        true if magnitude == 1 << 63 => Some(i64::MIN),
        true => i64::try_from(magnitude).ok().map(|n| -n),
        false => i64::try_from(magnitude).ok(),
    }
}

fn uint(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}
