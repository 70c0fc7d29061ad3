//! What a list or a watch is about: a kind, a namespace, labels and fields.

use corten_base::Istr;
use corten_kinds::{FieldLabel, Kind};
use corten_object::{FieldSelector, KindId, LabelSelector, Object};

/// A field that objects of a kind cannot be selected by. The text is upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnsupportedField(pub String);

impl UnsupportedField {
    /// For a kind that has no selectable fields of its own upstream's scheme has other words
    /// (`k8s.io/apimachinery/pkg/runtime/conversion.go` `DefaultMetaV1FieldSelectorConversion`).
    pub fn of(kind: &Kind, label: &str) -> UnsupportedField {
        let plain = kind.custom.is_none() && !kind.facts.iter().any(|fact| fact.selectable);
        UnsupportedField(match plain {
            true => {
                format!("{label:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
            }
            false => format!("field label not supported: {label}"),
        })
    }
}

/// A selection of objects of one kind, compiled for matching many objects.
#[derive(Clone, Debug)]
pub struct Filter {
    kind: KindId,
    namespace: Istr,
    labels: LabelSelector,
    fields: Vec<Term>,
}

#[derive(Clone, Debug)]
struct Term {
    field: Field,
    /// What the row calls the value of an absent field (`0`, `false`).
    zero: &'static str,
    equal: bool,
    value: Istr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Name,
    Namespace,
    /// A place in the head's facts.
    Fact(usize),
}

impl Filter {
    /// Every object of a kind.
    pub fn all(kind: KindId) -> Filter {
        Filter { kind, namespace: Istr::default(), labels: LabelSelector::everything(), fields: Vec::new() }
    }

    /// A selection by namespace (empty: all), labels (`None`: all) and fields: name, namespace and the row's selectable facts.
    pub fn new(
        kind: &Kind,
        namespace: &str,
        labels: Option<LabelSelector>,
        fields: &FieldSelector,
    ) -> Result<Filter, UnsupportedField> {
        let mut terms = Vec::with_capacity(fields.terms.len());
        for term in &fields.terms {
            let (field, zero) = match kind.field_label(&term.path) {
                Some(FieldLabel::Name) => (Field::Name, ""),
                Some(FieldLabel::Namespace) => (Field::Namespace, ""),
                Some(FieldLabel::Fact { index, zero }) => (Field::Fact(index), zero),
                None => return Err(UnsupportedField::of(kind, &term.path)),
            };
            // An absent value is kept as empty text: what the row calls its zero value is compared as that.
            let value = if !zero.is_empty() && term.value == zero { "" } else { &term.value };
            terms.push(Term { field, zero, equal: term.equal, value: Istr::new(value) });
        }
        let labels = labels.unwrap_or_else(LabelSelector::everything);
        Ok(Filter { kind: kind.id, namespace: namespace.into(), labels, fields: terms })
    }

    /// The one object of this name.
    pub fn one(kind: KindId, namespace: &str, name: &str) -> Filter {
        let by_name = Term { field: Field::Name, zero: "", equal: true, value: name.into() };
        Filter { namespace: namespace.into(), fields: vec![by_name], ..Filter::all(kind) }
    }

    /// The kind.
    pub fn kind(&self) -> KindId {
        self.kind
    }

    /// The namespace; empty: all.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Whether an object is selected.
    pub fn matches(&self, object: &Object) -> bool {
        let head = &object.head;
        object.kind == self.kind
            && (self.namespace.is_empty() || head.namespace == self.namespace)
            && self.fields.iter().all(|term| {
                let value = match term.field {
                    Field::Name => head.name.as_str(),
                    Field::Namespace => head.namespace.as_str(),
                    Field::Fact(place) => head.facts.get(place).map_or("", Istr::as_str),
                };
                let value = if value == term.zero { "" } else { value };
                (value == term.value.as_str()) == term.equal
            })
            && (self.labels.is_everything() || self.labels.matches(&head.labels))
    }

    /// Whether this lets every object of the kind (in the namespace) through.
    pub fn is_everything(&self) -> bool {
        self.fields.is_empty() && self.labels.is_everything()
    }

    pub(crate) fn exact_name(&self) -> Option<&str> {
        self.exact(Field::Name)
    }

    pub(crate) fn exact_fact(&self, place: usize) -> Option<&str> {
        self.exact(Field::Fact(place))
    }

    fn exact(&self, field: Field) -> Option<&str> {
        self.fields.iter().find(|term| term.equal && term.field == field).map(|term| term.value.as_str())
    }
}
