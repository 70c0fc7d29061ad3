//! What all kinds share: metadata, selectors, conditions, small value types.

use std::collections::BTreeMap;
use std::fmt;

use corten_base::{Istr, Timestamp};
use corten_object::selector::{Operator, Requirement};
use serde::Deserialize;
use serde::de::{Deserializer, Visitor};

/// Labels, annotations and other maps of texts.
pub type Texts = BTreeMap<String, String>;

views! {
    /// `metav1.ObjectMeta`; what the head has decoded is there too, so that templates can be read.
    ObjectMeta {
        name: String,
        generate_name: String,
        namespace: String,
        uid: String,
        generation: i64,
        creation_timestamp: Option<Timestamp>,
        deletion_timestamp: Option<Timestamp>,
        deletion_grace_period_seconds: Option<i64>,
        labels: Texts,
        annotations: Texts,
        owner_references: Vec<OwnerReference>,
        finalizers: Vec<String>,
    }
    /// `metav1.OwnerReference`
    OwnerReference {
        api_version: String,
        kind: String,
        name: String,
        uid: String,
        controller: bool,
        block_owner_deletion: bool,
    }
    /// `metav1.LabelSelector`
    LabelSelector {
        match_labels: Texts,
        match_expressions: Vec<LabelSelectorRequirement>,
    }
    /// `metav1.LabelSelectorRequirement`
    LabelSelectorRequirement { key: String, operator: String, values: Vec<String> }
    /// A condition of any kind; the fields that only some kinds have are empty elsewhere.
    Condition {
        r#type: String,
        status: String,
        reason: String,
        message: String,
        observed_generation: Option<i64>,
        last_transition_time: Option<Timestamp>,
        last_update_time: Option<Timestamp>,
        last_probe_time: Option<Timestamp>,
        last_heartbeat_time: Option<Timestamp>,
    }
    /// `v1.ObjectReference` and its smaller kin.
    ObjectReference {
        kind: String,
        namespace: String,
        name: String,
        uid: String,
        api_version: String,
        api_group: String,
        resource_version: String,
        field_path: String,
    }
    /// `v1.LocalObjectReference`
    LocalReference { name: String }
}

impl Condition {
    /// Whether its status is `True`.
    pub fn is_true(&self) -> bool {
        self.status == "True"
    }
}

/// The condition of a type.
pub fn condition<'c>(conditions: &'c [Condition], kind: &str) -> Option<&'c Condition> {
    conditions.iter().find(|c| c.r#type == kind)
}

/// Whether the condition of a type is `True`.
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    condition(conditions, kind).is_some_and(Condition::is_true)
}

impl LabelSelector {
    /// The selector to match with. An unknown operator selects nothing.
    pub fn compile(&self) -> corten_object::LabelSelector {
        let mut out = Vec::with_capacity(self.match_labels.len() + self.match_expressions.len());
        for (key, value) in &self.match_labels {
            out.push(Requirement { key: key.into(), operator: Operator::In(vec![value.into()]) });
        }
        for e in &self.match_expressions {
            let values = || e.values.iter().map(Istr::from).collect();
            let operator = match e.operator.as_str() {
                "In" => Operator::In(values()),
                "NotIn" => Operator::NotIn(values()),
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                _ => return corten_object::LabelSelector::nothing(),
            };
            out.push(Requirement { key: (&e.key).into(), operator });
        }
        corten_object::LabelSelector::from_requirements(out)
    }

    /// Whether it has no requirement (and so selects everything).
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }
}

/// The selector to match with; an absent one selects nothing.
pub fn compile(selector: Option<&LabelSelector>) -> corten_object::LabelSelector {
    selector.map_or_else(corten_object::LabelSelector::nothing, LabelSelector::compile)
}

/// `intstr.IntOrString`: a number, a percentage or a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IntOrString {
    /// A number.
    Int(i64),
    /// `25%`, or a port's name.
    Text(String),
}

impl Default for IntOrString {
    fn default() -> IntOrString {
        IntOrString::Int(0)
    }
}

impl IntOrString {
    /// The number, or the percentage of `total` (rounded up or down); `None` if the text is no percentage.
    pub fn scaled(&self, total: i64, round_up: bool) -> Option<i64> {
        match self {
            IntOrString::Int(n) => Some(*n),
            IntOrString::Text(text) => {
                let percent: i64 = text.strip_suffix('%')?.parse().ok()?;
                let product = percent.checked_mul(total)?;
                Some(if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) })
            }
        }
    }

    /// The number, if this is one (or a text that reads as one).
    pub fn number(&self) -> Option<i64> {
        match self {
            IntOrString::Int(n) => Some(*n),
            IntOrString::Text(text) => text.parse().ok(),
        }
    }
}

impl fmt::Display for IntOrString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IntOrString::Int(n) => n.fmt(f),
            IntOrString::Text(text) => f.write_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for IntOrString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<IntOrString, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = IntOrString;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a text")
            }
            fn visit_i64<E>(self, n: i64) -> Result<IntOrString, E> {
                Ok(IntOrString::Int(n))
            }
            fn visit_u64<E>(self, n: u64) -> Result<IntOrString, E> {
                Ok(IntOrString::Int(i64::try_from(n).unwrap_or(i64::MAX)))
            }
            fn visit_f64<E>(self, n: f64) -> Result<IntOrString, E> {
                Ok(IntOrString::Int(n as i64))
            }
            fn visit_str<E>(self, text: &str) -> Result<IntOrString, E> {
                Ok(IntOrString::Text(text.to_owned()))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Reads `null` as the default: for the lists that upstream prints even when they are nil.
pub(crate) fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_as_asked() {
        let read = |text| serde_json::from_str::<IntOrString>(text).unwrap();
        assert_eq!(read("\"25%\"").scaled(10, true), Some(3));
        assert_eq!(read("\"25%\"").scaled(10, false), Some(2));
        assert_eq!(read("4").scaled(10, false), Some(4));
        assert_eq!(read("\"http\"").scaled(10, false), None);
    }
}
