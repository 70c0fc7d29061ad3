//! Secret.

use corten_tree::Tree;

use super::config_map::{BYTES_MAX, decoded_length, protected};
use crate::spec::{Fact, Hooks, KindSpec};
use crate::validate::{Spot, names};
use crate::{Column, Count, TextOr, column};
use crate::{Errors, WriteContext};
use crate::{defaults, key_pair};
use corten_schema::scalars::base64;

/// `v1 Secret`
pub(crate) const SECRET: KindSpec = KindSpec {
    kind: "Secret",
    plural: "secrets",
    columns: &[Column::NAME, column("Type", &TextOr("type", "")), column("Data", &Count("data")), Column::AGE],
    immutable: &["type"],
    facts: &[Fact::selectable("type")],
    counting: crate::quota::Counting::ObjectsAndPlural,
    served_by: Some("node"),
    sealed: true,
    hooks: Hooks {
        default: Some(default),
        prepare_update: Some(prepare_update),
        validate: Some(validate),
        validate_update: Some(validate_update),
        warnings: Some(warnings),
        ..Hooks::NONE
    },
    ..KindSpec::NAMESPACED
};

/// With it, what is written only becomes what is read (`Convert_v1_Secret_To_core_Secret`): managed fields and admission know of
/// `data` alone.
fn default(secret: &mut Tree) {
    defaults::text(secret, "type", "Opaque");
    string_data(secret);
}

/// `stringData` is written only: its texts become `data`.
fn string_data(secret: &mut Tree) {
    let Some(Tree::Map(texts)) = secret.remove("stringData") else { return };
    if texts.is_empty() {
        return;
    }
    let data = secret.make_map_at("data");
    for (key, text) in texts {
        data.insert(key, base64::encode(text.as_str().unwrap_or_default().as_bytes()));
    }
    data.sort_keys();
}

/// An update that says nothing of the type keeps it.
fn prepare_update(secret: &mut Tree, old: &Tree, _: &WriteContext) {
    if secret.str_at("type").is_empty() {
        secret.set("type", old.str_at("type"));
    }
}

/// What is wrong with the pair of a TLS secret. (`warningsForSecret`)
fn warnings(secret: &Tree, _: Option<&Tree>) -> Vec<String> {
    if secret.str_at("type") != "kubernetes.io/tls" {
        return Vec::new();
    }
    let data = secret.map_at("data");
    let text = |key: &str| {
        let bytes = data.get(key).and_then(Tree::as_str).and_then(|text| base64::decode(text).ok()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    key_pair::fault(&text("tls.crt"), &text("tls.key")).into_iter().collect()
}

/// `ValidateSecret`
fn validate(secret: &Tree, errors: &mut Errors) {
    let data = Spot::of(secret, "data");
    let mut size = 0;
    for (key, value) in data.map("").iter() {
        for message in names::config_key(key) {
            Spot::at(value, data.path.key(key)).invalid_as("", key, message, errors);
        }
        size += decoded_length(value.as_str().unwrap_or_default());
    }
    if size > BYTES_MAX {
        data.too_long("", BYTES_MAX, errors);
    }
    let has = |key: &str| data.map("").contains(key);
    let require = |key: &str, errors: &mut Errors| {
        Spot::at(data.tree, data.path.key(key)).required("", "", errors);
    };
    match secret.str_at("type") {
        "kubernetes.io/service-account-token" => {
            const NAME: &str = "kubernetes.io/service-account.name";
            let annotations = Spot::of(secret, "metadata.annotations");
            if annotations.map("").get(NAME).and_then(Tree::as_str).unwrap_or_default().is_empty() {
                Spot::at(annotations.tree, annotations.path.key(NAME)).required("", "", errors);
            }
        }
        "kubernetes.io/dockercfg" => docker_config(&data, ".dockercfg", errors),
        "kubernetes.io/dockerconfigjson" => docker_config(&data, ".dockerconfigjson", errors),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            require("username", errors);
            require("password", errors);
        }
        "kubernetes.io/ssh-auth"
            if data.map("").get("ssh-privatekey").and_then(Tree::as_str).unwrap_or_default().is_empty() =>
        {
            require("ssh-privatekey", errors);
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"].into_iter().filter(|key| !has(key)) {
                require(key, errors);
            }
        }
        _ => {}
    }
}

fn docker_config(data: &Spot<'_>, key: &str, errors: &mut Errors) {
    let at = Spot::at(data.tree, data.path.key(key));
    let Some(value) = data.map("").get(key).and_then(Tree::as_str) else {
        at.required("", "", errors);
        return;
    };
    let bytes = base64::decode(value).unwrap_or_default();
    match corten_tree::json::parse(&bytes) {
        Ok(Tree::Map(_)) => {}
        Ok(_) => at.invalid_as("", "<secret contents redacted>", "json: cannot unmarshal into an object", errors),
        Err(error) => at.invalid_as("", "<secret contents redacted>", error.message, errors),
    }
}

fn validate_update(new: &Tree, old: &Tree, errors: &mut Errors) {
    protected(new, old, &["data"], errors);
}
