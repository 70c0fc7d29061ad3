//! Files of variables that containers leave for later ones (`pkg/kubelet/util/env/env_util.go` `ParseEnv`).

/// Bytes of one line; upstream's reader ends there.
const LINE_BYTES_MAX: usize = 64 << 10;

/// The value of a variable in a file; empty if it is not there.
///
/// # Errors
/// What is wrong with the file before the variable.
pub fn value(text: &str, key: &str) -> Result<String, String> {
    let mut lines = text.lines().enumerate();
    while let Some((n, line)) = lines.next() {
        let number = n + 1;
        let invalid = |what: &str| Err(format!("invalid environment variable format at line {number}: {what}"));
        if line.len() >= LINE_BYTES_MAX {
            return invalid("token too long");
        }
        let line = line.trim_start_matches([' ', '\t']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else { return invalid("missing '='") };
        let bare = name.trim_end_matches([' ', '\t']);
        if bare.is_empty() {
            return invalid("empty variable name");
        }
        if bare != name {
            return invalid("whitespace before '=' is not allowed");
        }
        // As a shell has it: the variable is empty, and a command follows.
        if value.starts_with([' ', '\t']) {
            if name == key {
                return Ok(String::new());
            }
            continue;
        }
        let Some(mut rest) = value.strip_prefix('\'') else {
            return invalid("value must be enclosed in single quotes");
        };
        let mut out = String::new();
        let after = loop {
            if let Some((end, after)) = rest.split_once('\'') {
                out.push_str(end);
                break after;
            }
            out.push_str(rest);
            out.push('\n');
            let Some((_, next)) = lines.next() else {
                return Err(format!(
                    "invalid environment variable format starting at line {number}: unclosed single quote"
                ));
            };
            rest = next;
        };
        let after = after.trim_start_matches([' ', '\t']);
        if !after.is_empty() && !after.starts_with('#') {
            return invalid("unexpected content after closing quote");
        }
        if name == key {
            return Ok(out);
        }
    }
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::value;

    #[test]
    fn values_are_in_single_quotes() {
        let text = "# comment\n\n  A='one' # more\nB='two\nlines'\nC= 'none'\nD=bare\n";
        let rows = [("A", Ok("one")), ("B", Ok("two\nlines")), ("C", Ok("")), ("D", Err("line 7: value must"))];
        for (key, expected) in rows {
            match (value(text, key), expected) {
                (Ok(found), Ok(wanted)) => assert_eq!(found, wanted, "{key}"),
                (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
                other => panic!("{key}: {other:?}"),
            }
        }
        for (text, part) in [
            ("A", "missing '='"),
            ("='x'", "empty variable name"),
            ("A ='x'", "whitespace before '='"),
            ("A='x' y", "unexpected content"),
            ("A='x", "starting at line 1: unclosed"),
        ] {
            assert!(value(text, "Z").unwrap_err().contains(part), "{text}");
        }
        assert_eq!(value("A='x'\r\n", "Z"), Ok(String::new()));
    }
}
