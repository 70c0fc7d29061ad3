//! The rules for CustomResourceDefinitions, each with one fault, and upstream's words for it.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use corten_kinds::{Registry, WriteContext, id};
use corten_tree::{Tree, tree};

fn base() -> Tree {
    tree!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
                "properties": {"spec": {"type": "object", "properties": {"a": {"type": "string"}}}}}}}]}})
}

fn version(change: impl FnOnce(&mut Tree)) -> Tree {
    let mut definition = base();
    let mut versions = definition.list_at("spec.versions").to_vec();
    change(&mut versions[0]);
    definition.set("spec.versions", versions);
    definition
}

/// The definition with another schema for its `spec`.
fn spec(schema: Tree) -> Tree {
    version(|v| v.set("schema.openAPIV3Schema.properties.spec", schema))
}

fn with(path: &str, value: impl Into<Tree>) -> Tree {
    let mut definition = base();
    definition.set(path, value);
    definition
}

fn faults(mut definition: Tree, old: Option<&Tree>) -> Vec<String> {
    let registry = Registry::builtin();
    let kind = registry.get(id::CUSTOM_RESOURCE_DEFINITION);
    let context = WriteContext { now: "2026-01-01T00:00:00Z".parse().unwrap() };
    kind.fill_defaults(&mut definition);
    let errors = match old {
        None => {
            kind.hooks.prepare_create.unwrap()(&mut definition, &context);
            kind.create_faults(kind, &definition)
        }
        Some(old) => {
            let mut old = old.clone();
            kind.fill_defaults(&mut old);
            kind.hooks.prepare_create.unwrap()(&mut old, &context);
            definition.set("metadata.resourceVersion", "1");
            old.set("metadata.resourceVersion", "1");
            definition.set("status", old.path("status").cloned().unwrap_or_default());
            kind.hooks.prepare_update.unwrap()(&mut definition, &old, &context);
            kind.update_faults(kind, &definition, &old, &mut Vec::new())
        }
    };
    errors.iter().map(ToString::to_string).collect()
}

const ROOT: &str = "spec.validation.openAPIV3Schema";

#[test]
fn a_good_definition_has_no_faults() {
    assert_eq!(faults(base(), None), Vec::<String>::new());
    assert_eq!(faults(base(), Some(&base())), Vec::<String>::new());
}

#[test]
fn names_group_scope_and_versions() {
    let cases: Vec<(Tree, &str)> = vec![
        (
            with("metadata.name", "x.example.com"),
            "metadata.name: Invalid value: \"x.example.com\": must be spec.names.plural+\".\"+spec.group",
        ),
        (
            with("spec.scope", "Galaxy"),
            "spec.scope: Unsupported value: \"Galaxy\": supported values: \"Cluster\", \"Namespaced\"",
        ),
        (with("spec.names.kind", ""), "spec.names.kind: Required value"),
        (
            with("spec.names.listKind", "Widget"),
            "spec.names.listKind: Invalid value: \"Widget\": kind and listKind may not be the same",
        ),
        (
            with("spec.preserveUnknownFields", true),
            "spec.preserveUnknownFields: Invalid value: true: cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        ),
        (version(|v| v.set("storage", false)), "must have exactly one version marked as storage version"),
        (version(|v| drop(v.remove("schema"))), "spec.versions[0].schema.openAPIV3Schema: Required value"),
        (
            version(|v| v.set("deprecationWarning", "x")),
            "spec.versions[0].deprecationWarning: Invalid value: \"x\": can only be set for deprecated versions",
        ),
        (
            version(|v| v.set("name", "V1")),
            "spec.versions[0].name: Invalid value: \"V1\": a DNS-1035 label must consist of",
        ),
        (
            with("spec.conversion", tree!({"strategy": "Webhook"})),
            "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
        ),
        (
            with(
                "spec.conversion",
                tree!({"strategy": "Webhook", "webhook": {"clientConfig": {"url": "http://x/y"}, "conversionReviewVersions": ["v1"]}}),
            ),
            "spec.conversion.webhookClientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
        ),
        (
            version(|v| {
                v.set(
                    "subresources",
                    tree!({"scale": {"specReplicasPath": ".status.r", "statusReplicasPath": ".status.r"}}),
                )
            }),
            "spec.subresources.scale.specReplicasPath: Invalid value: \".status.r\": should be a json path under .spec",
        ),
        (
            version(|v| v.set("additionalPrinterColumns", tree!([{"name": "A", "type": "text", "jsonPath": ".a"}]))),
            "spec.additionalPrinterColumns[0].type: Invalid value: \"text\": must be one of boolean,date,integer,number,string",
        ),
        (
            version(|v| v.set("selectableFields", tree!([{"jsonPath": ".spec.b"}]))),
            "spec.selectableFields[0].jsonPath: Invalid value: \".spec.b\": is an invalid path: does not refer to a valid field",
        ),
        (
            version(|v| v.set("selectableFields", tree!([{"jsonPath": ".spec"}]))),
            "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
        ),
    ];
    for (definition, wanted) in cases {
        let found = faults(definition, None);
        assert!(found.iter().any(|text| text.contains(wanted)), "{wanted}\n{found:#?}");
    }
    let mut protected = with("spec.group", "x.k8s.io");
    protected.set("metadata.name", "widgets.x.k8s.io");
    let found = faults(protected.clone(), None);
    assert!(
        found[0].starts_with("metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must"),
        "{found:?}"
    );
    let url = tree!({"api-approved.kubernetes.io": "https://github.com/x/y/1"});
    protected.set("metadata.annotations", url);
    assert_eq!(faults(protected, None), Vec::<String>::new());
}

#[test]
fn schemas_must_be_structural_and_fit_together() {
    let at = |rest: &str| format!("{ROOT}.properties[spec]{rest}");
    let cases: Vec<(Tree, String)> = vec![
        (tree!({"properties": {}}), at(".type: Required value: must not be empty for specified object fields")),
        (tree!({"type": "array"}), at(".items: Required value: must be specified")),
        (
            tree!({"type": "thing"}),
            at(
                ".type: Unsupported value: \"thing\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
            ),
        ),
        (
            tree!({"type": "object", "anyOf": [{"type": "string"}]}),
            at(".anyOf[0].type: Forbidden: must be empty to be structural"),
        ),
        (
            tree!({"type": "string", "pattern": "("}),
            at(
                ".pattern: Invalid value: \"(\": must be a valid regular expression, but isn't: error parsing regexp: missing closing ): `(`",
            ),
        ),
        (
            tree!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
            at(".additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive"),
        ),
        (
            tree!({"type": "array", "uniqueItems": true, "items": {"type": "string"}}),
            at(
                ".uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            ),
        ),
        (
            tree!({"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object", "properties": {"k": {"type": "string"}}}}),
            at(".x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map"),
        ),
        (
            tree!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "properties": {"k": {"type": "string"}}}}),
            at(
                ".items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            ),
        ),
        (
            tree!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "object"}}),
            at(
                ".items.x-kubernetes-map-type: Invalid value: null: must be atomic as item of a list with x-kubernetes-list-type=set",
            ),
        ),
        (
            tree!({"type": "object", "x-kubernetes-preserve-unknown-fields": false}),
            at(".x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined"),
        ),
        (
            tree!({"type": "object", "x-kubernetes-embedded-resource": true}),
            at(
                ".properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
            ),
        ),
        (
            tree!({"type": "integer", "default": "x"}),
            at(".default: Invalid value: \"string\": .default in body must be of type integer"),
        ),
        (
            tree!({"type": "object", "default": {"b": 1}, "properties": {"a": {"type": "string"}}}),
            at(".default: Invalid value: {\"b\":1}: must not have unknown fields"),
        ),
        (
            tree!({"type": "object", "patternProperties": {"a": {"type": "string"}}}),
            at(".patternProperties: Forbidden: patternProperties is not supported"),
        ),
        (
            tree!({"x-kubernetes-int-or-string": true, "x-kubernetes-preserve-unknown-fields": true}),
            at(
                ".x-kubernetes-preserve-unknown-fields: Invalid value: true: must be false if x-kubernetes-int-or-string is true",
            ),
        ),
    ];
    for (schema, wanted) in cases {
        let found = faults(spec(schema), None);
        // A fault in a default names the value by an empty path, as upstream does.
        let wanted = wanted.replace(".default in body", " in body");
        assert!(found.iter().any(|text| text.contains(&wanted)), "{wanted}\n{found:#?}");
    }
    let renamed = version(|v| {
        v.set(
            "schema.openAPIV3Schema.properties.metadata",
            tree!({"type": "object", "properties": {"labels": {"type": "object"}}}),
        )
    });
    let found = faults(renamed, None);
    let wanted = format!(
        "{ROOT}.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified"
    );
    assert!(found.contains(&wanted), "{found:#?}");
    let nullable = version(|v| v.set("schema.openAPIV3Schema.nullable", true));
    assert!(
        faults(nullable, None).contains(&format!("{ROOT}.nullable: Forbidden: nullable cannot be true at the root"))
    );
}

#[test]
fn what_a_definition_may_not_change() {
    let mut established = base();
    established.set("status.conditions", tree!([{"type": "Established", "status": "True"}]));
    let found = faults(with("spec.names.plural", "others"), Some(&base()));
    assert!(
        found.iter().any(|text| text == "spec.names.plural: Invalid value: \"others\": field is immutable"),
        "{found:#?}"
    );
    let mut two = base();
    let mut versions = two.list_at("spec.versions").to_vec();
    versions[0].set("name", "v2");
    two.set("spec.versions", versions);
    let found = faults(two, Some(&base()));
    let wanted = "status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions; v1 was previously a storage version";
    assert!(found.iter().any(|text| text.starts_with(wanted)), "{found:#?}");
}
