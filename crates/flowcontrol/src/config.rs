//! FlowSchemas and PriorityLevelConfigurations as they are written, compiled.

use corten_tree::Tree;

use crate::matching::Rule;
use crate::name;
use crate::shuffle::Dealer;

/// By what the requests of one schema are told apart into flows (`FlowDistinguisherMethod`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// One flow per user.
    User,
    /// One flow per namespace.
    Namespace,
}

/// A FlowSchema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowSchema {
    /// Its name.
    pub name: String,
    /// Its uid; empty for one that is not there.
    pub uid: String,
    /// Which schemas are looked at first: the lower, the earlier.
    pub precedence: i64,
    /// The name of the level that its requests go to.
    pub level: String,
    /// How they are told apart; `None`: they are one flow.
    pub method: Option<Method>,
    pub(crate) rules: Vec<Rule>,
}

impl FlowSchema {
    /// Reads an object. What validation would refuse matches nothing.
    pub fn read(object: &Tree) -> FlowSchema {
        let rules = object.list_at("spec.rules").iter().map(Rule::read).collect();
        FlowSchema {
            name: object.str_at("metadata.name").to_owned(),
            uid: object.str_at("metadata.uid").to_owned(),
            precedence: object.i64_at("spec.matchingPrecedence").unwrap_or_default(),
            level: object.str_at("spec.priorityLevelConfiguration.name").to_owned(),
            method: match object.str_at("spec.distinguisherMethod.type") {
                "ByUser" => Some(Method::User),
                "ByNamespace" => Some(Method::Namespace),
                _ => None,
            },
            rules,
        }
    }

    /// What schemas are sorted by (`apihelpers.FlowSchemaSequence`).
    pub fn order(&self) -> (i64, &str) {
        (self.precedence, &self.name)
    }
}

/// What a level does with requests above its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Response {
    /// Turns them away.
    Reject,
    /// Lets them wait.
    Queue(Queuing),
}

/// The queues of a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queuing {
    /// How many queues.
    pub queues: usize,
    /// How many of them one flow may use.
    pub hand_size: usize,
    /// How many requests one queue holds.
    pub length_limit: usize,
}

/// How much of the server a level may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Its share of all shares, in seats of the server.
    pub shares: u64,
    /// How much of that it may lend, in percent.
    pub lendable_percent: u64,
    /// How much more it may borrow, in percent of that; `None`: all there is.
    pub borrowing_percent: Option<u64>,
}

/// A PriorityLevelConfiguration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriorityLevel {
    /// Its name.
    pub name: String,
    /// Its uid; empty for one that is not there.
    pub uid: String,
    /// Its part of the server.
    pub capacity: Capacity,
    /// What happens above its limit; `None`: it has no limit.
    pub response: Option<Response>,
}

impl PriorityLevel {
    /// Reads an object; `None` for one that cannot be used (`queueSetCompleterForPL`).
    pub fn read(object: &Tree) -> Option<PriorityLevel> {
        let (kind, name) = (object.str_at("spec.type"), object.str_at("metadata.name"));
        let exempt = kind == "Exempt";
        let (limited, unlimited) = (object.path("spec.limited"), object.path("spec.exempt"));
        let (limited, unlimited) = (limited.filter(|t| !t.is_null()), unlimited.filter(|t| !t.is_null()));
        if (kind == "Limited") != limited.is_some() || exempt != unlimited.is_some() || exempt != (name == name::EXEMPT)
        {
            return None;
        }
        let part = limited.or(unlimited)?;
        let number = |field: &str| part.i64_at(field).and_then(|n| u64::try_from(n).ok());
        let capacity = Capacity {
            shares: number("nominalConcurrencyShares").unwrap_or_default(),
            lendable_percent: number("lendablePercent").unwrap_or_default().min(100),
            borrowing_percent: limited.and_then(|_| number("borrowingLimitPercent")),
        };
        let response = match limited {
            Some(part) => Some(response(part)?),
            None => None,
        };
        let uid = object.str_at("metadata.uid").to_owned();
        Some(PriorityLevel { name: name.to_owned(), uid, capacity, response })
    }

    /// How wide a request of this level may be thought, when the level has so many seats; `None`: no bound of its own
    /// (`finishQueueSetReconfigsLocked`, `MaxSeatsTracker`).
    pub fn width_max(&self, nominal: u64) -> Option<u64> {
        let Some(Response::Queue(queuing)) = self.response else { return None };
        let part = (nominal * 15).div_ceil(100);
        Some(part.min(nominal / queuing.hand_size.max(1) as u64).max(1))
    }
}

fn response(limited: &Tree) -> Option<Response> {
    let queuing = limited.path("limitResponse.queuing").filter(|t| !t.is_null());
    match (limited.str_at("limitResponse.type"), queuing) {
        ("Reject", None) => Some(Response::Reject),
        ("Queue", Some(queuing)) => {
            let number = |field: &str| queuing.i64_at(field).and_then(|n| usize::try_from(n).ok());
            let (queues, hand_size) = (number("queues")?, number("handSize")?);
            Dealer::new(queues, hand_size)?;
            Some(Response::Queue(Queuing { queues, hand_size, length_limit: number("queueLengthLimit")? }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use corten_tree::tree;

    use super::*;

    fn level(name: &str, spec: Tree) -> Option<PriorityLevel> {
        PriorityLevel::read(&tree!({"metadata": {"name": name, "uid": "u"}, "spec": spec}))
    }

    #[test]
    fn a_broken_priority_level_is_not_used() {
        let reject =
            tree!({"type": "Limited", "limited": {"nominalConcurrencyShares": 5, "limitResponse": {"type": "Reject"}}});
        let read = level("a", reject.clone()).unwrap();
        assert_eq!((read.capacity.shares, read.response), (5, Some(Response::Reject)));
        assert!(level("exempt", reject).is_none());
        assert!(level("a", tree!({"type": "Exempt", "exempt": {}})).is_none());
        assert!(level("exempt", tree!({"type": "Exempt", "exempt": {}})).unwrap().response.is_none());
        assert!(level("a", tree!({"type": "Limited", "exempt": {}})).is_none());
        let queue = |queuing: Tree| tree!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": queuing}}});
        assert!(level("a", queue(Tree::Null)).is_none());
        assert!(level("a", queue(tree!({"queues": 4, "handSize": 8, "queueLengthLimit": 1}))).is_none());
        assert!(level("a", queue(tree!({"queues": 64, "handSize": 8, "queueLengthLimit": 50}))).is_some());
    }

    #[test]
    fn width_max_is_a_part_of_the_nominal_seats() {
        // The values of upstream's comment and of its tests: 15 percent, at most a hand's part, at least one.
        let with_hand = |hand_size| PriorityLevel {
            name: String::new(),
            uid: String::new(),
            capacity: Capacity { shares: 1, lendable_percent: 0, borrowing_percent: None },
            response: Some(Response::Queue(Queuing { queues: 64, hand_size, length_limit: 50 })),
        };
        for (nominal, hand, expected) in [(74, 6, 12), (245, 6, 37), (25, 4, 4), (5, 6, 1), (0, 6, 1)] {
            assert_eq!(with_hand(hand).width_max(nominal), Some(expected), "{nominal} {hand}");
        }
    }
}
