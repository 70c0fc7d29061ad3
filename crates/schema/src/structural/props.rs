//! One node of a definition's schema, decoded.

use std::sync::OnceLock;

use corten_tree::Tree;
use regex::Regex;

use crate::model::ListType;
use crate::re2;

/// The type that a node wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Type {
    /// None is named.
    #[default]
    Any,
    /// `object`
    Object,
    /// `array`
    Array,
    /// `string`
    String,
    /// `integer`
    Integer,
    /// `number`
    Number,
    /// `boolean`
    Boolean,
    /// A name that is none of these.
    Unknown,
}

impl Type {
    /// The type of a name.
    pub fn parse(name: &str) -> Type {
        match name {
            "" => Type::Any,
            "object" => Type::Object,
            "array" => Type::Array,
            "string" => Type::String,
            "integer" => Type::Integer,
            "number" => Type::Number,
            "boolean" => Type::Boolean,
            _ => Type::Unknown,
        }
    }

    /// Its name; empty for none.
    pub fn as_str(self) -> &'static str {
        match self {
            Type::Any | Type::Unknown => "",
            Type::Object => "object",
            Type::Array => "array",
            Type::String => "string",
            Type::Integer => "integer",
            Type::Number => "number",
            Type::Boolean => "boolean",
        }
    }
}

/// What a node says of members that it does not name.
#[derive(Debug, Clone, Default)]
pub enum Additional {
    /// Nothing.
    #[default]
    None,
    /// Whether there may be any.
    Allowed(bool),
    /// They are of this form.
    Schema(Box<Props>),
}

impl Additional {
    /// The form of the members, if there is one.
    pub fn schema(&self) -> Option<&Props> {
        if let Additional::Schema(props) = self { Some(props) } else { None }
    }
}

/// One rule of `x-kubernetes-validations`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ValidationRule {
    /// The expression; true means valid.
    pub rule: String,
    /// What is said if it is false.
    pub message: String,
    /// An expression for what is said.
    pub message_expression: String,
    /// The reason of the fault; empty for `FieldValueInvalid`.
    pub reason: String,
    /// Where below the value the fault is shown; empty for the value itself.
    pub field_path: String,
    /// Whether the rule also runs where there is no old value, `oldSelf` being an optional then.
    pub optional_old_self: Option<bool>,
}

/// One node. Absent and zero are the same unless an `Option` tells them apart.
#[derive(Debug, Clone, Default)]
pub struct Props {
    /// `type`
    pub ty: Type,
    /// `type` as it stands.
    pub type_name: String,
    /// `format`
    pub format: String,
    /// `nullable`
    pub nullable: bool,
    /// `default`; `null` is none.
    pub default: Option<Tree>,
    /// `maximum`
    pub maximum: Option<f64>,
    /// `exclusiveMaximum`
    pub exclusive_maximum: bool,
    /// `minimum`
    pub minimum: Option<f64>,
    /// `exclusiveMinimum`
    pub exclusive_minimum: bool,
    /// `multipleOf`
    pub multiple_of: Option<f64>,
    /// `maxLength`, in characters.
    pub max_length: Option<i64>,
    /// `minLength`, in characters.
    pub min_length: Option<i64>,
    /// `pattern`
    pub pattern: String,
    pub(super) regex: OnceLock<Result<Regex, String>>,
    /// `maxItems`
    pub max_items: Option<i64>,
    /// `minItems`
    pub min_items: Option<i64>,
    /// `uniqueItems`
    pub unique_items: bool,
    /// `maxProperties`
    pub max_properties: Option<i64>,
    /// `minProperties`
    pub min_properties: Option<i64>,
    /// `required`
    pub required: Vec<String>,
    /// `enum`
    pub values: Vec<Tree>,
    /// `properties`, by name.
    pub properties: Vec<(String, Props)>,
    /// `additionalProperties`
    pub additional: Additional,
    /// `items`, of the form that structural schemas have: one for all.
    pub items: Option<Box<Props>>,
    /// `allOf`
    pub all_of: Vec<Props>,
    /// `anyOf`
    pub any_of: Vec<Props>,
    /// `oneOf`
    pub one_of: Vec<Props>,
    /// `not`
    pub not: Option<Box<Props>>,
    /// `x-kubernetes-preserve-unknown-fields`
    pub preserve_unknown: bool,
    /// `x-kubernetes-embedded-resource`
    pub embedded: bool,
    /// `x-kubernetes-int-or-string`
    pub int_or_string: bool,
    /// `x-kubernetes-list-type`
    pub list_type: ListType,
    /// `x-kubernetes-list-map-keys`
    pub list_keys: Vec<String>,
    /// `x-kubernetes-map-type` is `atomic`.
    pub atomic_map: bool,
    /// `x-kubernetes-validations`
    pub rules: Vec<ValidationRule>,
}

fn texts(tree: &Tree, key: &str) -> Vec<String> {
    tree.list_at(key).iter().filter_map(Tree::as_str).map(str::to_owned).collect()
}

fn count(tree: &Tree, key: &str) -> Option<i64> {
    tree.get(key).and_then(Tree::as_i64)
}

fn number(tree: &Tree, key: &str) -> Option<f64> {
    tree.get(key).and_then(Tree::as_f64)
}

impl Props {
    /// Reads a node and all below it. The tree was decoded as `JSONSchemaProps`; what is of another form counts as absent.
    pub fn parse(tree: &Tree) -> Props {
        let inner = |key: &str| tree.get(key).filter(|t| t.as_map().is_some()).map(|t| Box::new(Props::parse(t)));
        let list = |key: &str| tree.list_at(key).iter().map(Props::parse).collect();
        let mut properties: Vec<(String, Props)> =
            tree.map_at("properties").iter().map(|(name, t)| (name.to_owned(), Props::parse(t))).collect();
        properties.sort_by(|a, b| a.0.cmp(&b.0));
        Props {
            ty: Type::parse(tree.str_at("type")),
            type_name: tree.str_at("type").to_owned(),
            format: tree.str_at("format").to_owned(),
            nullable: tree.bool_at("nullable"),
            default: tree.get("default").filter(|t| !t.is_null()).cloned(),
            maximum: number(tree, "maximum"),
            exclusive_maximum: tree.bool_at("exclusiveMaximum"),
            minimum: number(tree, "minimum"),
            exclusive_minimum: tree.bool_at("exclusiveMinimum"),
            multiple_of: number(tree, "multipleOf"),
            max_length: count(tree, "maxLength"),
            min_length: count(tree, "minLength"),
            pattern: tree.str_at("pattern").to_owned(),
            regex: OnceLock::new(),
            max_items: count(tree, "maxItems"),
            min_items: count(tree, "minItems"),
            unique_items: tree.bool_at("uniqueItems"),
            max_properties: count(tree, "maxProperties"),
            min_properties: count(tree, "minProperties"),
            required: texts(tree, "required"),
            values: tree.list_at("enum").to_vec(),
            properties,
            additional: match tree.get("additionalProperties") {
                Some(Tree::Bool(allowed)) => Additional::Allowed(*allowed),
                Some(found @ Tree::Map(_)) => Additional::Schema(Box::new(Props::parse(found))),
                _ => Additional::None,
            },
            items: inner("items"),
            all_of: list("allOf"),
            any_of: list("anyOf"),
            one_of: list("oneOf"),
            not: inner("not"),
            preserve_unknown: tree.bool_at("x-kubernetes-preserve-unknown-fields"),
            embedded: tree.bool_at("x-kubernetes-embedded-resource"),
            int_or_string: tree.bool_at("x-kubernetes-int-or-string"),
            list_type: match tree.str_at("x-kubernetes-list-type") {
                "atomic" => ListType::Atomic,
                "set" => ListType::Set,
                "map" => ListType::Map,
                _ => ListType::None,
            },
            list_keys: texts(tree, "x-kubernetes-list-map-keys"),
            atomic_map: tree.str_at("x-kubernetes-map-type") == "atomic",
            rules: tree.list_at("x-kubernetes-validations").iter().map(rule).collect(),
        }
    }

    /// The node of a property.
    pub fn property(&self, name: &str) -> Option<&Props> {
        let at = self.properties.binary_search_by(|(key, _)| key.as_str().cmp(name)).ok()?;
        Some(&self.properties[at].1)
    }

    /// The node of a member: its property, or what is said of additional ones.
    pub fn member(&self, name: &str) -> Option<&Props> {
        self.property(name).or_else(|| self.additional.schema())
    }

    /// The compiled pattern; `None` if there is none.
    pub fn regex(&self) -> Option<&Result<Regex, String>> {
        (!self.pattern.is_empty()).then(|| self.regex.get_or_init(|| re2::compile(&self.pattern)))
    }

    /// The node at a path of property names; `None` if one of them is not named by the schema.
    pub fn at(&self, names: &[&str]) -> Option<&Props> {
        names.iter().try_fold(self, |props, name| props.member(name))
    }
}

fn rule(tree: &Tree) -> ValidationRule {
    let text = |key: &str| tree.str_at(key).to_owned();
    ValidationRule {
        rule: text("rule"),
        message: text("message"),
        message_expression: text("messageExpression"),
        reason: text("reason"),
        field_path: text("fieldPath"),
        optional_old_self: tree.get("optionalOldSelf").and_then(Tree::as_bool),
    }
}
