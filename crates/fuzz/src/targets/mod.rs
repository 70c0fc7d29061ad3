//! The targets, by what they read.

mod objects;
mod patches;
mod texts;

use corten_faults::{case, recorded};
use corten_schema::{Options, TypeId, builtin, decode_json};
use corten_tree::{Tree, json};

use crate::{Shape, Target};

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "json", shape: Shape::Json, seeds: objects::manifests, run: objects::json_text },
    Target { name: "yaml", shape: Shape::Words(objects::YAML_WORDS), seeds: objects::yaml_seeds, run: objects::yaml },
    Target { name: "decode", shape: Shape::Json, seeds: objects::manifests, run: objects::decode },
    Target { name: "protobuf", shape: Shape::Bytes, seeds: objects::protobufs, run: objects::protobuf },
    Target { name: "definition", shape: Shape::Json, seeds: objects::definitions, run: objects::definition },
    Target { name: "json-patch", shape: Shape::Json, seeds: patches::json_seeds, run: patches::json_patch },
    Target { name: "merge-patch", shape: Shape::Json, seeds: patches::pairs, run: patches::merge },
    Target { name: "strategic-patch", shape: Shape::Json, seeds: patches::strategic_seeds, run: patches::strategic },
    Target { name: "apply", shape: Shape::Json, seeds: patches::pairs, run: patches::apply },
    Target { name: "fields-v1", shape: Shape::Json, seeds: patches::field_sets, run: patches::fields_v1 },
    Target {
        name: "label-selector",
        shape: Shape::Words(texts::SELECTOR_WORDS),
        seeds: texts::selectors,
        run: texts::label_selector,
    },
    Target {
        name: "field-selector",
        shape: Shape::Words(texts::SELECTOR_WORDS),
        seeds: texts::selectors,
        run: texts::field_selector,
    },
    Target { name: "cel", shape: Shape::Words(texts::CEL_WORDS), seeds: texts::expressions, run: texts::cel },
    Target {
        name: "quantity",
        shape: Shape::Words(texts::NUMBER_WORDS),
        seeds: texts::quantities,
        run: texts::quantity,
    },
    Target { name: "time", shape: Shape::Words(texts::NUMBER_WORDS), seeds: texts::times, run: texts::time },
    Target { name: "names", shape: Shape::Words(texts::NAME_WORDS), seeds: texts::names, run: texts::name },
    Target { name: "field-path", shape: Shape::Words(texts::PATH_WORDS), seeds: texts::paths, run: texts::field_path },
    Target { name: "json-path", shape: Shape::Words(texts::PATH_WORDS), seeds: texts::paths, run: texts::json_path },
    Target { name: "cron", shape: Shape::Words(texts::CRON_WORDS), seeds: texts::schedules, run: texts::cron },
    Target { name: "re2", shape: Shape::Words(texts::PATTERN_WORDS), seeds: texts::patterns, run: texts::pattern },
];

/// A manifest of each kind that the fault cases have, in canonical form with its type.
fn objects_of_all_kinds() -> Vec<(TypeId, Tree)> {
    let mut found = Vec::new();
    for (_, file) in recorded::case_files().unwrap_or_default() {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        for base in case::parse(&text).unwrap_or_default() {
            let Some(ty) = builtin().api_version_kind(&base.api_version, &base.kind) else { continue };
            if let Ok(decoded) = decode_json(builtin(), ty, base.object.to_string().as_bytes(), Options::default()) {
                found.push((ty, decoded.tree));
            }
        }
    }
    found
}

/// The type that a tree says that it is.
fn type_of(tree: &Tree) -> Option<TypeId> {
    builtin().api_version_kind(tree.str_at("apiVersion"), tree.str_at("kind"))
}

/// The two members of an input that is a pair.
fn pair(input: &[u8], first: &str, second: &str) -> Option<(Tree, Tree)> {
    let tree = json::parse(input).ok()?;
    Some((tree.get(first)?.clone(), tree.get(second)?.clone()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::runner::{Plan, run};

    /// Inputs that once broke something, in files named `TARGET-what`.
    #[test]
    fn what_was_found_stays_fixed() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            let matching = TARGETS.iter().filter(|t| file.starts_with(&format!("{}-", t.name)));
            let target = matching.max_by_key(|t| t.name.len()).unwrap_or_else(|| panic!("{file} names no target"));
            (target.run)(&std::fs::read(entry.path()).unwrap());
        }
    }

    #[test]
    fn each_target_runs_and_tells_inputs_apart() {
        let dir = tempfile::tempdir().unwrap();
        for target in TARGETS {
            let findings = dir.path().to_owned();
            let plan = Plan { seed: 7, executions: 300, time: Duration::from_secs(60), findings, trace: false };
            let report = run(target, &plan);
            assert!(report.faults.is_empty(), "{}: {:?}", target.name, report.faults);
            assert!(report.classes > 1, "{} tells nothing apart", target.name);
        }
    }
}
