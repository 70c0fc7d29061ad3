//! The part of TOML that registry configuration uses: tables with dotted and quoted names, strings on one line, booleans, whole
//! numbers, and arrays. What is beyond it is an error with its line, never a guess.

use serde_json::{Map, Value};

/// Arrays and tables in each other; deeper is an error.
const DEPTH_MAX: usize = 16;

/// A document as JSON, or what is wrong with which line.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    let mut parser = Parser { rest: text, line: 1 };
    parser.document().map_err(|why| format!("line {}: {why}", parser.line))
}

struct Parser<'t> {
    rest: &'t str,
    line: usize,
}

impl Parser<'_> {
    fn document(&mut self) -> Result<Value, String> {
        let mut root = Map::new();
        let mut at: Vec<String> = Vec::new();
        loop {
            self.blank(true);
            match self.rest.chars().next() {
                None => return Ok(Value::Object(root)),
                Some('[') if self.rest.starts_with("[[") => return Err("arrays of tables are not supported".into()),
                Some('[') => {
                    self.take();
                    at = self.key()?;
                    self.expect(']')?;
                    table(&mut root, &at)?;
                }
                Some(_) => {
                    let mut key = self.key()?;
                    self.expect('=')?;
                    self.blank(false);
                    let value = self.value(0)?;
                    let last = key.pop().ok_or("a key is missing")?;
                    let path: Vec<String> = at.iter().cloned().chain(key).collect();
                    if table(&mut root, &path)?.insert(last.clone(), value).is_some() {
                        return Err(format!("{last:?} is there twice"));
                    }
                }
            }
            self.blank(false);
            if !matches!(self.rest.chars().next(), None | Some('\n')) {
                return Err("something follows where the line should end".into());
            }
        }
    }

    fn take(&mut self) -> Option<char> {
        let first = self.rest.chars().next()?;
        self.rest = &self.rest[first.len_utf8()..];
        if first == '\n' {
            self.line += 1;
        }
        Some(first)
    }

    /// Skips spaces and comments, and line ends too if `lines`.
    fn blank(&mut self, lines: bool) {
        while let Some(first) = self.rest.chars().next() {
            match first {
                ' ' | '\t' | '\r' => drop(self.take()),
                '\n' if lines => drop(self.take()),
                '#' => {
                    let end = self.rest.find('\n').unwrap_or(self.rest.len());
                    self.rest = &self.rest[end..];
                }
                _ => return,
            }
        }
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        self.blank(false);
        match self.take() {
            Some(found) if found == wanted => Ok(()),
            _ => Err(format!("{wanted:?} is missing")),
        }
    }

    fn key(&mut self) -> Result<Vec<String>, String> {
        let mut parts = Vec::new();
        loop {
            self.blank(false);
            let part = match self.rest.chars().next() {
                Some('"' | '\'') => self.string()?,
                _ => {
                    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
                    let end = self.rest.find(|c| !bare(c)).unwrap_or(self.rest.len());
                    let (word, rest) = self.rest.split_at(end);
                    self.rest = rest;
                    word.to_owned()
                }
            };
            if part.is_empty() {
                return Err("a key is missing".into());
            }
            parts.push(part);
            if parts.len() > DEPTH_MAX {
                return Err("too deep".into());
            }
            self.blank(false);
            if !self.rest.starts_with('.') {
                return Ok(parts);
            }
            self.take();
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        match self.rest.chars().next() {
            Some('"' | '\'') => self.string().map(Value::String),
            Some('[') if depth < DEPTH_MAX => {
                self.take();
                let mut items = Vec::new();
                loop {
                    self.blank(true);
                    if self.rest.starts_with(']') {
                        self.take();
                        return Ok(Value::Array(items));
                    }
                    items.push(self.value(depth + 1)?);
                    self.blank(true);
                    match self.rest.chars().next() {
                        Some(',') => drop(self.take()),
                        Some(']') => {}
                        _ => return Err("an array does not end".into()),
                    }
                }
            }
            Some('[') => Err("too deep".into()),
            _ => {
                let end = self.rest.find([',', ']', '\n', '#', ' ', '\t', '\r']).unwrap_or(self.rest.len());
                let (word, rest) = self.rest.split_at(end);
                self.rest = rest;
                match word {
                    "true" => Ok(Value::Bool(true)),
                    "false" => Ok(Value::Bool(false)),
                    number => match number.parse::<i64>() {
                        Ok(number) => Ok(Value::from(number)),
                        Err(_) => Err(format!("{word:?} is no string, boolean, number or array")),
                    },
                }
            }
        }
    }

    fn string(&mut self) -> Result<String, String> {
        if self.rest.starts_with("\"\"\"") || self.rest.starts_with("'''") {
            return Err("strings of several lines are not supported".into());
        }
        let quote = self.take().ok_or("a string is missing")?;
        let mut out = String::new();
        loop {
            match self.take() {
                None | Some('\n') => return Err("a string does not end".into()),
                Some(c) if c == quote => return Ok(out),
                Some('\\') if quote == '"' => out.push(match self.take() {
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some(c @ ('"' | '\\')) => c,
                    other => return Err(format!("the escape {other:?} is not supported")),
                }),
                Some(c) => out.push(c),
            }
        }
    }
}

/// The table at a path, made if it is not there.
fn table<'m>(root: &'m mut Map<String, Value>, path: &[String]) -> Result<&'m mut Map<String, Value>, String> {
    let mut at = root;
    for part in path {
        let next = at.entry(part.clone()).or_insert_with(|| Value::Object(Map::new()));
        at = next.as_object_mut().ok_or_else(|| format!("{part:?} is no table"))?;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::parse;

    #[test]
    fn what_hosts_files_hold() {
        let text = "# c\nserver = \"https://a.io\" # c\n\n[host.\"https://m:5000/v2/x\"]\n  capabilities = [\"pull\",\n 'resolve', ]\n\
            skip_verify = true\n  client = [[\"c\", \"k\"]]\n[host.\"https://m:5000/v2/x\".header]\n x-a = [\"1\"]\n n = 3\n";
        let expected = json!({"server": "https://a.io", "host": {"https://m:5000/v2/x": {
            "capabilities": ["pull", "resolve"], "skip_verify": true, "client": [["c", "k"]], "header": {"x-a": ["1"], "n": 3}}}});
        assert_eq!(parse(text), Ok(expected));
        assert_eq!(parse("a.b = 'c\\d'\r\n"), Ok(json!({"a": {"b": "c\\d"}})));
    }

    #[test]
    fn what_is_not_understood_is_an_error_with_its_line() {
        for (text, line) in [
            ("a = 1\na = 2", 2),
            ("a", 1),
            ("a = \"x", 1),
            ("\n\na = [1, 2", 3),
            ("a = 1 b = 2", 1),
            ("[[a]]", 1),
            ("a = \"\"\"x\"\"\"", 1),
            ("a = 1.5", 1),
            ("a = 1\n[a.b]", 2),
            (&"[".repeat(40), 1),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(&format!("line {line}: ")), "{text:?}: {error}");
        }
    }
}
