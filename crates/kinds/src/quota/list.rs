//! Amounts by resource name, exact.

use std::collections::BTreeMap;
use std::fmt;

use corten_schema::scalars::Quantity;
use corten_tree::{Map, Tree};

/// Amounts by resource name (`v1.ResourceList`), as upstream computes with them (`apiserver/pkg/quota/v1/resources.go`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceList(BTreeMap<String, Quantity>);

impl ResourceList {
    /// From a map of an object; what is no quantity counts as nothing.
    pub fn of(map: &Map) -> ResourceList {
        let amount = |value: &Tree| match value {
            Tree::Str(text) => text.parse().unwrap_or_default(),
            other => other.to_string().parse().unwrap_or_default(),
        };
        ResourceList(map.iter().map(|(name, value)| (name.to_owned(), amount(value))).collect())
    }

    /// Nothing of each of these.
    pub fn zeros<'n>(names: impl Iterator<Item = &'n str>) -> ResourceList {
        ResourceList(names.map(|name| (name.to_owned(), Quantity::default())).collect())
    }

    /// As a map of an object.
    pub fn to_tree(&self) -> Tree {
        Tree::Map(self.0.iter().map(|(name, q)| (name.clone().into(), Tree::from(q.to_string()))).collect())
    }

    /// The amount of a resource.
    pub fn get(&self, name: &str) -> Option<&Quantity> {
        self.0.get(name)
    }

    /// Sets an amount.
    pub fn set(&mut self, name: &str, amount: Quantity) {
        self.0.insert(name.to_owned(), amount);
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The amounts.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Quantity)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), amount))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the other amounts.
    pub fn add(&mut self, other: &ResourceList) {
        for (name, amount) in &other.0 {
            let sum = self.0.get(name).map_or_else(|| amount.clone(), |have| have.plus(amount));
            self.0.insert(name.clone(), sum);
        }
    }

    /// Raises each amount to the other's where that is larger.
    pub fn max(&mut self, other: &ResourceList) {
        for (name, amount) in &other.0 {
            if self.0.get(name).is_none_or(|have| amount > have) {
                self.0.insert(name.clone(), amount.clone());
            }
        }
    }

    /// What is left when the other amounts are taken away, nowhere less than nothing (`SubtractWithNonNegativeResult`).
    #[must_use]
    pub fn minus(&self, other: &ResourceList) -> ResourceList {
        let zero = Quantity::default();
        let left = |(name, amount): (&String, &Quantity)| {
            let rest = other.0.get(name).map_or_else(|| amount.clone(), |taken| amount.minus(taken));
            (name.clone(), if rest.sign() > 0 { rest } else { zero.clone() })
        };
        ResourceList(self.0.iter().map(left).collect())
    }

    /// Only these names.
    #[must_use]
    pub fn only(&self, wanted: impl Fn(&str) -> bool) -> ResourceList {
        let kept = self.0.iter().filter(|(name, _)| wanted(name));
        ResourceList(kept.map(|(name, amount)| (name.clone(), amount.clone())).collect())
    }

    /// Without amounts of nothing.
    #[must_use]
    pub fn without_zeros(&self) -> ResourceList {
        let kept = self.0.iter().filter(|(_, amount)| !amount.is_zero());
        ResourceList(kept.map(|(name, amount)| (name.clone(), amount.clone())).collect())
    }

    /// The names whose amount is more than the other's (`LessThanOrEqual`).
    pub fn exceeding(&self, other: &ResourceList) -> Vec<&str> {
        let more = |(name, amount): &(&String, &Quantity)| other.0.get(*name).is_some_and(|limit| *amount > limit);
        self.0.iter().filter(more).map(|(name, _)| name.as_str()).collect()
    }
}

/// `cpu=1,pods=2`, as in upstream's messages.
impl fmt::Display for ResourceList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, amount)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{name}={amount}")?;
        }
        Ok(())
    }
}
