//! JSON in and out: a pull reader that a schema can drive, and a writer with Go's escapes and number forms.
//!
//! Bounds: nesting is limited to [`DEPTH_MAX`]; text must be UTF-8. Errors carry the byte offset.

use crate::{Key, MapBuilder, RawJson, Tree};

/// How deep arrays and objects may nest (Go's decoder: 10,000; a stack-safe bound here).
pub const DEPTH_MAX: usize = 512;

/// What is wrong with a JSON text, and at which byte.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (at byte {offset})")]
pub struct JsonError {
    /// What is wrong, in Go's words where it has some.
    pub message: String,
    /// Byte offset of the fault.
    pub offset: usize,
}

/// What the next value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// A number.
    Number,
    /// Text.
    Str,
    /// `[`
    List,
    /// `{`
    Map,
}

/// A number as read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// Without fraction and exponent, in range.
    Int(i64),
    /// Anything else.
    Float(f64),
}

/// Reads one JSON value after the other from bytes, without building anything.
///
/// An object is read by `begin_map`, then `next_key` until it gives `None`; each key is followed by exactly one value read.
/// A list by `begin_list`, then `next_item` until it gives false.
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
    first: bool,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0, depth: 0, first: false }
    }

    /// The byte offset reached.
    pub fn offset(&self) -> usize {
        self.at
    }

    /// An error at the present offset.
    pub fn error(&self, message: impl Into<String>) -> JsonError {
        JsonError { message: message.into(), offset: self.at }
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    fn unexpected(&self, context: &str) -> JsonError {
        match self.bytes.get(self.at..).and_then(|rest| std::str::from_utf8(rest).map_or(None, |s| s.chars().next())) {
            Some(c) => self.error(format!("invalid character '{c}' {context}")),
            None if self.at >= self.bytes.len() => self.error("unexpected end of JSON input"),
            None => self.error(format!("invalid character {context}")),
        }
    }

    /// What kind of value comes next.
    pub fn peek(&mut self) -> Result<Kind, JsonError> {
        self.skip_space();
        Ok(match self.bytes.get(self.at) {
            Some(b'n') => Kind::Null,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'"') => Kind::Str,
            Some(b'[') => Kind::List,
            Some(b'{') => Kind::Map,
            Some(b'-' | b'0'..=b'9') => Kind::Number,
            _ => return Err(self.unexpected("looking for beginning of value")),
        })
    }

    fn literal(&mut self, text: &'static str) -> Result<(), JsonError> {
        if self.bytes[self.at..].starts_with(text.as_bytes()) {
            self.at += text.len();
            Ok(())
        } else {
            Err(self.unexpected(&format!("in literal {text}")))
        }
    }

    /// Reads `null`.
    pub fn null(&mut self) -> Result<(), JsonError> {
        self.skip_space();
        self.literal("null")
    }

    /// Reads `true` or `false`.
    pub fn bool(&mut self) -> Result<bool, JsonError> {
        self.skip_space();
        if self.bytes.get(self.at) == Some(&b't') {
            self.literal("true").map(|()| true)
        } else {
            self.literal("false").map(|()| false)
        }
    }

    /// Reads a number.
    pub fn number(&mut self) -> Result<Number, JsonError> {
        let text = self.number_text()?;
        if let Ok(n) = text.parse::<i64>() {
            return Ok(Number::Int(n));
        }
        match text.parse::<f64>() {
            Ok(n) if n.is_finite() => Ok(Number::Float(n)),
            _ => Err(self.error(format!("number {text} out of range"))),
        }
    }

    /// Reads a number's text as it stands.
    pub fn number_text(&mut self) -> Result<&'a str, JsonError> {
        self.skip_space();
        let start = self.at;
        if self.bytes.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        match self.bytes.get(self.at) {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.unexpected("in numeric literal")),
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.some_digits("after decimal point in numeric literal")?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            self.some_digits("in exponent of numeric literal")?;
        }
        Ok(std::str::from_utf8(&self.bytes[start..self.at]).expect("only ASCII was passed over"))
    }

    fn digits(&mut self) {
        while let Some(b'0'..=b'9') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    fn some_digits(&mut self, context: &str) -> Result<(), JsonError> {
        let start = self.at;
        self.digits();
        if self.at == start { Err(self.unexpected(context)) } else { Ok(()) }
    }

    /// Reads a text.
    pub fn string(&mut self) -> Result<std::borrow::Cow<'a, str>, JsonError> {
        self.skip_space();
        if self.bytes.get(self.at) != Some(&b'"') {
            return Err(self.unexpected("looking for beginning of string"));
        }
        self.at += 1;
        let start = self.at;
        self.at += plain_run(&self.bytes[start..]);
        match self.bytes.get(self.at) {
            Some(b'"') => {
                let text = self.utf8(start)?;
                self.at += 1;
                Ok(text.into())
            }
            Some(b'\\') => self.escaped(start).map(Into::into),
            Some(_) => Err(self.unexpected("in string literal")),
            None => Err(self.error("unexpected end of JSON input")),
        }
    }

    fn utf8(&self, start: usize) -> Result<&'a str, JsonError> {
        std::str::from_utf8(&self.bytes[start..self.at]).map_err(|_| self.error("invalid UTF-8 in string literal"))
    }

    fn escaped(&mut self, start: usize) -> Result<String, JsonError> {
        let mut out = self.utf8(start)?.to_owned();
        loop {
            let run = self.at;
            self.at += plain_run(&self.bytes[run..]);
            out.push_str(self.utf8(run)?);
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    self.at += 1;
                    let c = self.escape()?;
                    out.push(c);
                }
                Some(_) => return Err(self.unexpected("in string literal")),
                None => return Err(self.error("unexpected end of JSON input")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let c = match self.bytes.get(self.at) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode();
            }
            _ => return Err(self.unexpected("in string escape code")),
        };
        self.at += 1;
        Ok(c)
    }

    /// A lone surrogate becomes U+FFFD, as in Go.
    fn unicode(&mut self) -> Result<char, JsonError> {
        let high = self.hex4()?;
        if !(0xd800..0xdc00).contains(&high) {
            return Ok(char::from_u32(high).unwrap_or('\u{fffd}'));
        }
        let before = self.at;
        if self.bytes[self.at..].starts_with(b"\\u") {
            self.at += 2;
            let low = self.hex4()?;
            if (0xdc00..0xe000).contains(&low) {
                let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                return Ok(char::from_u32(code).unwrap_or('\u{fffd}'));
            }
            self.at = before;
        }
        Ok('\u{fffd}')
    }

    fn hex4(&mut self) -> Result<u32, JsonError> {
        let digits = self.bytes.get(self.at..self.at + 4).and_then(|b| std::str::from_utf8(b).ok());
        let code =
            digits.filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit())).and_then(|d| u32::from_str_radix(d, 16).ok());
        let code = code.ok_or_else(|| self.unexpected("in \\u hexadecimal character escape"))?;
        self.at += 4;
        Ok(code)
    }

    fn open(&mut self, bracket: u8, what: &str) -> Result<(), JsonError> {
        self.skip_space();
        if self.bytes.get(self.at) != Some(&bracket) {
            return Err(self.unexpected(what));
        }
        if self.depth == DEPTH_MAX {
            return Err(self.error("exceeded max depth"));
        }
        self.depth += 1;
        self.at += 1;
        self.first = true;
        Ok(())
    }

    /// Opens an object.
    pub fn begin_map(&mut self) -> Result<(), JsonError> {
        self.open(b'{', "looking for beginning of object")
    }

    /// Opens a list.
    pub fn begin_list(&mut self) -> Result<(), JsonError> {
        self.open(b'[', "looking for beginning of array")
    }

    /// Steps to the next member: false (and the bracket is consumed) at the end.
    fn next(&mut self, close: u8, context: &str) -> Result<bool, JsonError> {
        self.skip_space();
        let first = std::mem::take(&mut self.first);
        match self.bytes.get(self.at) {
            Some(b) if *b == close => {
                self.at += 1;
                self.depth -= 1;
                Ok(false)
            }
            Some(b',') if !first => {
                self.at += 1;
                self.skip_space();
                Ok(true)
            }
            Some(_) if first => Ok(true),
            _ => Err(self.unexpected(context)),
        }
    }

    /// The next key of the object, `None` at its end.
    pub fn next_key(&mut self) -> Result<Option<std::borrow::Cow<'a, str>>, JsonError> {
        if !self.next(b'}', "after object key:value pair")? {
            return Ok(None);
        }
        if self.bytes.get(self.at) != Some(&b'"') {
            return Err(self.unexpected("looking for beginning of object key string"));
        }
        let key = self.string()?;
        self.skip_space();
        if self.bytes.get(self.at) != Some(&b':') {
            return Err(self.unexpected("after object key"));
        }
        self.at += 1;
        Ok(Some(key))
    }

    /// Whether the list has one more item.
    pub fn next_item(&mut self) -> Result<bool, JsonError> {
        self.next(b']', "after array element")
    }

    /// Passes over one value and returns its bytes.
    pub fn skip(&mut self) -> Result<&'a [u8], JsonError> {
        self.skip_space();
        let start = self.at;
        match self.peek()? {
            Kind::Null => self.null()?,
            Kind::Bool => drop(self.bool()?),
            Kind::Number => drop(self.number_text()?),
            Kind::Str => drop(self.string()?),
            Kind::List => {
                self.begin_list()?;
                while self.next_item()? {
                    self.skip()?;
                }
            }
            Kind::Map => {
                self.begin_map()?;
                while self.next_key()?.is_some() {
                    self.skip()?;
                }
            }
        }
        Ok(&self.bytes[start..self.at])
    }

    /// Reads one value as a tree. A repeated key keeps its last value, as in Go.
    pub fn tree(&mut self) -> Result<Tree, JsonError> {
        Ok(match self.peek()? {
            Kind::Null => {
                self.null()?;
                Tree::Null
            }
            Kind::Bool => Tree::Bool(self.bool()?),
            Kind::Number => match self.number()? {
                Number::Int(n) => Tree::Int(n),
                Number::Float(n) => Tree::Float(n),
            },
            Kind::Str => Tree::Str(self.string()?.into_owned()),
            Kind::List => {
                self.begin_list()?;
                let mut items = Vec::new();
                while self.next_item()? {
                    items.push(self.tree()?);
                }
                Tree::List(items)
            }
            Kind::Map => {
                self.begin_map()?;
                let mut map = MapBuilder::new();
                while let Some(key) = self.next_key()? {
                    let value = self.tree()?;
                    map.insert(Key::from(key.into_owned()), value);
                }
                Tree::Map(map.finish())
            }
        })
    }

    /// Reads one value without taking it apart. White space between its parts is dropped.
    pub fn raw(&mut self) -> Result<Tree, JsonError> {
        let bytes = self.skip()?;
        if bytes.iter().any(u8::is_ascii_whitespace) {
            return Ok(Tree::Raw(RawJson::new_unchecked(&parse(bytes)?.to_json_string())));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| self.error("invalid UTF-8 in string literal"))?;
        Ok(Tree::Raw(RawJson::new_unchecked(text)))
    }

    /// Checks that nothing but white space is left.
    pub fn end(&mut self) -> Result<(), JsonError> {
        self.skip_space();
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.unexpected("after top-level value")) }
    }
}

/// How many bytes there are before a quote, a backslash or a control character: eight at a time.
fn plain_run(bytes: &[u8]) -> usize {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // The high bit of each byte that is zero (and perhaps of bytes after it, which do not matter).
    let zero = |word: u64| word.wrapping_sub(LOW) & !word & HIGH;
    let (words, _) = bytes.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let control = word.wrapping_sub(LOW * 0x20) & !word & HIGH;
        let found = zero(word ^ (LOW * 0x22)) | zero(word ^ (LOW * 0x5c)) | control;
        if found != 0 {
            return i * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let done = words.len() * 8;
    let stop = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
    done + bytes[done..].iter().position(stop).unwrap_or(bytes.len() - done)
}

/// Reads one JSON document.
pub fn parse(bytes: &[u8]) -> Result<Tree, JsonError> {
    let mut reader = Reader::new(bytes);
    let tree = reader.tree()?;
    reader.end()?;
    Ok(tree)
}

impl Tree {
    /// Takes apart what is kept as text ([`Tree::Raw`]), at any depth.
    pub fn read_raw(&mut self) {
        match self {
            Tree::Raw(raw) => *self = parse(raw.as_str().as_bytes()).unwrap_or_else(|_| Tree::map()),
            Tree::List(items) => items.iter_mut().for_each(Tree::read_raw),
            Tree::Map(map) => map.iter_mut().for_each(|(_, value)| value.read_raw()),
            _ => {}
        }
    }

    /// Compact JSON in the tree's own key order, with Go's escapes.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        write(&mut out, self);
        out
    }

    /// As [`Tree::to_json`], as text.
    pub fn to_json_string(&self) -> String {
        String::from_utf8(self.to_json()).expect("the writer writes UTF-8 only")
    }
}

/// Appends a value.
pub fn write(out: &mut Vec<u8>, tree: &Tree) {
    match tree {
        Tree::Null => out.extend_from_slice(b"null"),
        Tree::Bool(true) => out.extend_from_slice(b"true"),
        Tree::Bool(false) => out.extend_from_slice(b"false"),
        Tree::Int(n) => write_int(out, *n),
        Tree::Float(n) => write_float(out, *n),
        Tree::Str(text) => write_str(out, text),
        Tree::Raw(raw) => out.extend_from_slice(raw.as_str().as_bytes()),
        Tree::List(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write(out, item);
            }
            out.push(b']');
        }
        Tree::Map(map) => {
            out.push(b'{');
            for (i, (key, value)) in map.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_str(out, key);
                out.push(b':');
                write(out, value);
            }
            out.push(b'}');
        }
    }
}

/// Appends an integer.
pub fn write_int(out: &mut Vec<u8>, n: i64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut left = n.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    if n < 0 {
        at -= 1;
        digits[at] = b'-';
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends a float as Go's `encoding/json` does: shortest form, exponent below 1e-6 and from 1e21.
pub fn write_float(out: &mut Vec<u8>, n: f64) {
    let size = n.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{n:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |d| ('-', d));
        out.extend_from_slice(mantissa.as_bytes());
        out.push(b'e');
        out.push(sign as u8);
        out.extend_from_slice(digits.as_bytes());
    } else {
        out.extend_from_slice(format!("{n}").as_bytes());
    }
}

/// What a byte needs in a JSON text: 0 nothing, 1 a look at what follows, else the letter of its short escape, `u` for the long one.
const ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 0x20 {
        table[i] = b'u';
        i += 1;
    }
    table[8] = b'b';
    table[9] = b't';
    table[10] = b'n';
    table[12] = b'f';
    table[13] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table[b'<' as usize] = b'u';
    table[b'>' as usize] = b'u';
    table[b'&' as usize] = b'u';
    table[0xe2] = 1;
    table
};

/// Appends a text with Go's escapes: `<`, `>`, `&`, U+2028 and U+2029 too.
pub fn write_str(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| ESCAPES[usize::from(*byte)] != 0) {
        let (plain, tail) = rest.split_at(at);
        out.extend_from_slice(plain);
        let byte = tail[0];
        let mut passed = 1;
        match ESCAPES[usize::from(byte)] {
            1 => match tail {
                [0xe2, 0x80, 0xa8, ..] => {
                    out.extend_from_slice(b"\\u2028");
                    passed = 3;
                }
                [0xe2, 0x80, 0xa9, ..] => {
                    out.extend_from_slice(b"\\u2029");
                    passed = 3;
                }
                _ => out.push(byte),
            },
            b'u' => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
            letter => out.extend_from_slice(&[b'\\', letter]),
        }
        rest = &tail[passed..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(text: &str) -> String {
        parse(text.as_bytes()).map_or_else(|e| format!("error: {e}"), |t| t.to_string())
    }

    #[test]
    fn reads_and_writes_as_go() {
        for (input, output) in [
            (r#" { "a" : [1, -2.5, 1e3, true, null], "b": {} } "#, r#"{"a":[1,-2.5,1000,true,null],"b":{}}"#),
            (r#""\u003c\u2028\ud83d\ude00\ud800x""#, "\"\\u003c\\u2028😀\u{fffd}x\""),
            (r#""<a>&\u0001\b""#, r#""\u003ca\u003e\u0026\u0001\b""#),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            ("1e21", "1e+21"),
            ("0.0000001", "1e-7"),
            ("9223372036854775808", "9223372036854776000"),
            ("[1,]", "error: invalid character ']' looking for beginning of value (at byte 3)"),
            ("{\"a\":1", "error: unexpected end of JSON input (at byte 6)"),
            ("[1 2]", "error: invalid character '2' after array element (at byte 3)"),
            ("1 x", "error: invalid character 'x' after top-level value (at byte 2)"),
        ] {
            assert_eq!(round(input), output, "{input}");
        }
    }

    #[test]
    fn raw_values_are_written_as_they_stand() {
        let mut reader = Reader::new(br#" {"f:a" : {"b": [1, {}]}} "#);
        let mut raw = reader.raw().unwrap();
        assert_eq!((raw.to_string().as_str(), raw.get("f:a")), (r#"{"f:a":{"b":[1,{}]}}"#, None));
        raw.read_raw();
        assert_eq!(raw.str_at("f:a.b.0"), "");
        assert!(raw.at(&["f:a", "b"]).is_some());
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = "[".repeat(DEPTH_MAX + 1);
        assert!(round(&deep).contains("exceeded max depth"));
    }
}
