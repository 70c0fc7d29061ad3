//! Text to tokens (the lexer rules of cel-go's `parser/gen/CEL.g4`).

use crate::issues::Issues;

/// A token's kind; texts are taken from the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tok {
    /// An operator, a bracket or a word such as `in`.
    Sign(&'static str),
    Int,
    Uint,
    Float,
    Str,
    Bytes,
    Ident,
    /// `` `name` ``
    Quoted,
    End,
}

/// A token and where it is, in code points.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token {
    pub(crate) tok: Tok,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

/// Longest first.
const SIGNS: &[&str] = &[
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!", "?", ":", "+", "*",
    "/", "%",
];
const WORDS: &[&str] = &["in", "true", "false", "null"];

/// The tokens of a source; what is none is reported and skipped. The last token is [`Tok::End`].
pub(crate) fn tokens(chars: &[char], issues: &mut Issues) -> Vec<Token> {
    let mut lexer = Lexer { chars, at: 0 };
    let mut out = Vec::new();
    loop {
        lexer.skip_blanks();
        let start = lexer.at;
        if start >= chars.len() {
            out.push(Token { tok: Tok::End, start: start as u32, end: start as u32 });
            return out;
        }
        match lexer.token() {
            Some(tok) => out.push(Token { tok, start: start as u32, end: lexer.at as u32 }),
            None => {
                // The first half of a sign is told with what stands in the place of the second.
                let half = matches!(chars[start], '=' | '&' | '|');
                lexer.at = lexer.at.max(start + 1 + usize::from(half)).min(chars.len());
                let text: String = chars[start..lexer.at].iter().collect();
                let shown = text.replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t");
                issues.report(start as u32, format!("Syntax error: token recognition error at: '{shown}'"));
            }
        }
    }
}

struct Lexer<'a> {
    chars: &'a [char],
    at: usize,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn skip_blanks(&mut self) {
        loop {
            if matches!(self.peek(0), '\t' | ' ' | '\r' | '\n' | '\u{c}') {
                self.at += 1;
            } else if self.peek(0) == '/' && self.peek(1) == '/' {
                while self.at < self.chars.len() && self.peek(0) != '\n' {
                    self.at += 1;
                }
            } else {
                return;
            }
        }
    }

    fn token(&mut self) -> Option<Tok> {
        let c = self.peek(0);
        if let Some(tok) = self.text() {
            return tok;
        }
        if c.is_ascii_alphabetic() || c == '_' {
            let start = self.at;
            while self.peek(0).is_ascii_alphanumeric() || self.peek(0) == '_' {
                self.at += 1;
            }
            let word: String = self.chars[start..self.at].iter().collect();
            return Some(WORDS.iter().find(|w| **w == word).map_or(Tok::Ident, |w| Tok::Sign(w)));
        }
        if c.is_ascii_digit() || (c == '.' && self.peek(1).is_ascii_digit()) {
            return Some(self.number());
        }
        if c == '`' {
            return self.quoted();
        }
        let sign = SIGNS.iter().find(|sign| sign.chars().enumerate().all(|(i, s)| self.peek(i) == s))?;
        self.at += sign.len();
        Some(Tok::Sign(sign))
    }

    fn quoted(&mut self) -> Option<Tok> {
        let mut end = self.at + 1;
        while self.chars.get(end).is_some_and(|c| c.is_ascii_alphanumeric() || "_.-/ ".contains(*c)) {
            end += 1;
        }
        let closed = end > self.at + 1 && self.chars.get(end) == Some(&'`');
        self.at = if closed { end + 1 } else { end };
        closed.then_some(Tok::Quoted)
    }

    fn digits(&mut self, hex: bool) {
        while if hex { self.peek(0).is_ascii_hexdigit() } else { self.peek(0).is_ascii_digit() } {
            self.at += 1;
        }
    }

    fn number(&mut self) -> Tok {
        let hex = self.peek(0) == '0' && self.peek(1) == 'x' && self.peek(2).is_ascii_hexdigit();
        let mut float = false;
        if hex {
            self.at += 2;
            self.digits(true);
        } else {
            self.digits(false);
            if self.peek(0) == '.' && self.peek(1).is_ascii_digit() {
                float = true;
                self.at += 1;
                self.digits(false);
            }
            let sign = usize::from(matches!(self.peek(1), '+' | '-'));
            if matches!(self.peek(0), 'e' | 'E') && self.peek(1 + sign).is_ascii_digit() {
                float = true;
                self.at += 1 + sign;
                self.digits(false);
            }
        }
        if float {
            Tok::Float
        } else if matches!(self.peek(0), 'u' | 'U') {
            self.at += 1;
            Tok::Uint
        } else {
            Tok::Int
        }
    }

    /// A string or bytes literal, if here is one: `Some(None)` if it does not end or has a bad escape.
    fn text(&mut self) -> Option<Option<Tok>> {
        let mut ahead = 0;
        let bytes = matches!(self.peek(0), 'b' | 'B');
        ahead += usize::from(bytes);
        let raw = matches!(self.peek(ahead), 'r' | 'R');
        ahead += usize::from(raw);
        let quote = self.peek(ahead);
        if quote != '"' && quote != '\'' {
            return None;
        }
        let triple = self.peek(ahead + 1) == quote && self.peek(ahead + 2) == quote;
        self.at += ahead + if triple { 3 } else { 1 };
        let done = loop {
            if self.at >= self.chars.len() {
                break false;
            }
            let c = self.peek(0);
            if c == quote && (!triple || (self.peek(1) == quote && self.peek(2) == quote)) {
                self.at += if triple { 3 } else { 1 };
                break true;
            }
            if !triple && (c == '\n' || c == '\r') {
                break false;
            }
            if c == '\\' && !raw {
                match self.escape_length() {
                    Some(length) => self.at += length,
                    None => {
                        self.at += 2;
                        self.at = self.at.min(self.chars.len());
                        break false;
                    }
                }
            } else {
                self.at += 1;
            }
        };
        Some(done.then_some(if bytes { Tok::Bytes } else { Tok::Str }))
    }

    fn escape_length(&self) -> Option<usize> {
        let all = |from: usize, count: usize, ok: fn(char) -> bool| (from..from + count).all(|i| ok(self.peek(i)));
        match self.peek(1) {
            'a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '"' | '\'' | '\\' | '?' | '`' => Some(2),
            'x' | 'X' => all(2, 2, |c| c.is_ascii_hexdigit()).then_some(4),
            'u' => all(2, 4, |c| c.is_ascii_hexdigit()).then_some(6),
            'U' => all(2, 8, |c| c.is_ascii_hexdigit()).then_some(10),
            '0'..='3' => all(2, 2, |c| ('0'..='7').contains(&c)).then_some(4),
            _ => None,
        }
    }
}

/// The value of a string literal's text, quotes and prefix included (`parser/unescape.go`). Bytes literals come without `b`.
/// The result of a bytes literal holds one character below U+0100 per escaped byte and UTF-8 bytes for the rest.
pub(crate) fn unescape(text: &str, bytes: bool) -> Result<Vec<u8>, &'static str> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let (raw, body) = match text.strip_prefix(['r', 'R']) {
        Some(body) => (true, body),
        None => (false, text.as_str()),
    };
    let quote = &body[..1];
    let triple = quote.repeat(3);
    let inner = if body.len() >= 6 && body.starts_with(&triple) && body.ends_with(&triple) {
        &body[3..body.len() - 3]
    } else {
        &body[1..body.len() - 1]
    };
    if raw {
        return Ok(inner.as_bytes().to_vec());
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut chars = inner.chars();
    let mut utf8 = [0; 4];
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes());
            continue;
        }
        let escape = chars.next().ok_or("unable to unescape string, found '\\' as last character")?;
        let (digits, radix) = match escape {
            'a' => (0, 7),
            'b' => (0, 8),
            'f' => (0, 12),
            'n' => (0, 10),
            'r' => (0, 13),
            't' => (0, 9),
            'v' => (0, 11),
            '\\' | '\'' | '"' | '`' | '?' => (0, escape as u32),
            'x' | 'X' => (2, 16),
            'u' if !bytes => (4, 16),
            'U' if !bytes => (8, 16),
            '0'..='3' => (3, 8),
            _ => return Err("unable to unescape string"),
        };
        if digits == 0 {
            out.push(radix as u8);
            continue;
        }
        let mut value = if radix == 8 { escape as u32 - '0' as u32 } else { 0 };
        for _ in 0..if radix == 8 { 2 } else { digits } {
            let digit = chars.next().and_then(|c| c.to_digit(radix)).ok_or("unable to unescape string")?;
            value = value.wrapping_mul(radix) + digit;
        }
        if bytes {
            out.push(value as u8);
        } else {
            let c = char::from_u32(value).ok_or("invalid unicode code point")?;
            out.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes());
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_lose_their_escapes() {
        for (text, value) in [
            (r#""a\tb""#, "a\tb"),
            ("'it\\'s'", "it's"),
            ("r'\\d'", "\\d"),
            ("'''a'b'''", "a'b"),
            (r"'\u00e9\U0001F600\x41\101'", "é😀AA"),
        ] {
            assert_eq!(unescape(text, false).map(|b| String::from_utf8(b).unwrap()), Ok(value.to_owned()), "{text}");
        }
        assert_eq!(unescape(r"'\xff\377é'", true), Ok(vec![0xff, 0xff, 0xc3, 0xa9]));
        assert_eq!(unescape(r"'\ud800'", false), Err("invalid unicode code point"));
    }

    #[test]
    fn what_is_no_token_is_reported() {
        let mut issues = Issues::new("a $ b");
        let chars: Vec<char> = "a $ b".chars().collect();
        let found = tokens(&chars, &mut issues);
        assert_eq!(found.len(), 3);
        assert_eq!(
            issues.to_string(),
            "ERROR: <input>:1:3: Syntax error: token recognition error at: '$'\n | a $ b\n | ..^"
        );
    }
}
