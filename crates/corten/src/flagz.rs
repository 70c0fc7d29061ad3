//! The options that a server was started with, for `/flagz`.

use std::collections::BTreeMap;

use clap::{ArgMatches, Command};

/// What must not be read by who may look into a server.
const SECRET: &[&str] = &["token"];

/// All options of a command by their long names: as they were given, or their defaults; empty if they have none.
pub fn of(command: &Command, given: &ArgMatches) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for argument in command.get_arguments() {
        let Some(name) = argument.get_long().filter(|name| !matches!(*name, "help" | "version")) else { continue };
        let values = given.try_get_raw(argument.get_id().as_str()).ok().flatten().into_iter().flatten();
        let values: Vec<String> = values.map(|value| value.to_string_lossy().into_owned()).collect();
        let shown = match SECRET.contains(&name) && !values.is_empty() {
            true => "CLASSIFIED".to_owned(),
            false => values.join(","),
        };
        out.insert(name.to_owned(), shown);
    }
    out
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::args::Arguments;

    #[test]
    fn flagz_tells_options_and_no_secrets() {
        let command = Arguments::command();
        let words = ["corten", "server", "--token", "hush", "--anonymous-auth=false"];
        let matches = command.clone().try_get_matches_from(words).unwrap();
        let (name, given) = matches.subcommand().unwrap();
        let flags = of(command.find_subcommand(name).unwrap(), given);
        assert_eq!(flags["token"], "CLASSIFIED");
        assert_eq!(flags["anonymous-auth"], "false");
        assert_eq!(flags["authentication-config"], "");
        assert!(!flags.contains_key("help"));
    }
}
