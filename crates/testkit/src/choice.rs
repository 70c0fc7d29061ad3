//! Which tests run, for test programs without libtest's harness.

/// What the command line says, in libtest's words.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Parts of names; none: all tests.
    wanted: Vec<String>,
    /// Names that are left out (`--skip NAME`).
    skipped: Vec<String>,
}

impl Choice {
    /// Reads the arguments; options that are not known here are passed over.
    pub fn of(arguments: &[String]) -> Choice {
        let mut choice = Choice::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--skip" => choice.skipped.extend(arguments.next().cloned()),
                option if option.starts_with('-') => {}
                name => choice.wanted.push(name.to_owned()),
            }
        }
        choice
    }

    /// Whether a test runs.
    pub fn takes(&self, name: &str) -> bool {
        let wanted = self.wanted.is_empty() || self.wanted.iter().any(|part| name.contains(part));
        wanted && !self.skipped.iter().any(|skipped| skipped == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_chosen_by_parts_of_names_and_left_out_by_names() {
        let choice = |arguments: &[&str]| Choice::of(&arguments.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>());
        let all = choice(&["--quiet", "--skip", "image"]);
        assert_eq!([all.takes("image"), all.takes("image_gc"), all.takes("other")], [false, true, true]);
        let some = choice(&["image", "--skip", "image_gc", "exec"]);
        let taken = ["image", "image_gc", "exec_tty", "other"].map(|name| some.takes(name));
        assert_eq!(taken, [true, false, true, false]);
    }
}
