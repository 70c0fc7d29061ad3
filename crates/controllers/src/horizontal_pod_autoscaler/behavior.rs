//! How fast sizes may change: stabilisation windows, policies, limits (`horizontal.go`).

use corten_base::Timestamp;
use corten_tree::Tree;
use jiff::SignedDuration;

/// How long sizes that were recommended before hold a shrinking back, unless the object says otherwise.
pub(super) const DOWNSCALE_WINDOW_SECONDS: i64 = 300;
/// Without a behavior a size at most doubles at once, and may always become this.
const UP_FACTOR: i64 = 2;
const UP_MINIMUM: i64 = 4;

/// A number at a time.
pub(super) type At = (i64, Timestamp);

/// What is remembered of an autoscaler.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Memory {
    /// When it was last evaluated.
    pub evaluated: Option<Timestamp>,
    /// Whether metrics were asked for, so that the next reconcile goes on with the evaluation.
    pub asking: bool,
    /// The change of size that the last plan wrote: from, to, why.
    pub rescaling: Option<(i64, i64, String)>,
    /// Recommended sizes before stabilisation.
    pub recommendations: Vec<At>,
    /// How many replicas were added, and when.
    pub ups: Vec<At>,
    /// How many were taken away, and when.
    pub downs: Vec<At>,
}

/// A size, and the reason and message of the condition that says how it came about.
pub(super) type Reasoned = (i64, &'static str, &'static str);

const IN_RANGE: (&str, &str) = ("DesiredWithinRange", "the desired count is within the acceptable range");
const UP_LIMIT: (&str, &str) =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const DOWN_LIMIT: (&str, &str) =
    ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");
const TOO_MANY: (&str, &str) = ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FEW: (&str, &str) = ("TooFewReplicas", "the desired replica count is less than the minimum replica count");

fn before(now: Timestamp, seconds: i64) -> Timestamp {
    now.checked_sub(SignedDuration::from_secs(seconds)).unwrap_or(now)
}

/// Notes a number in place of the last one that is too old to matter, or behind the others.
fn note(list: &mut Vec<At>, number: i64, now: Timestamp, is_old: impl Fn(Timestamp) -> bool) {
    match list.iter_mut().rev().find(|(_, at)| is_old(*at)) {
        Some(old) => *old = (number, now),
        None => list.push((number, now)),
    }
}

impl Memory {
    /// `recordInitialRecommendation`
    pub fn begin(&mut self, current: i64, now: Timestamp) {
        if self.recommendations.is_empty() {
            self.recommendations.push((current, now));
        }
    }

    /// Notes a change of size that has been made (`storeScaleEvent`).
    pub fn rescaled(&mut self, behavior: Option<&Tree>, from: i64, to: i64, at: Timestamp) {
        let Some(behavior) = behavior else { return };
        let (list, rules) = if to > from { (&mut self.ups, "scaleUp") } else { (&mut self.downs, "scaleDown") };
        let periods = behavior.at(&[rules, "policies"]).and_then(Tree::as_list).unwrap_or_default();
        let longest = periods.iter().filter_map(|p| p.i64_at("periodSeconds")).max().unwrap_or(0);
        let cutoff = before(at, longest);
        note(list, (to - from).abs(), at, |event| event < cutoff);
    }

    /// The highest size of the last minutes, this one included (`stabilizeRecommendation`).
    pub fn stabilize(&mut self, desired: i64, now: Timestamp) -> i64 {
        let cutoff = before(now, DOWNSCALE_WINDOW_SECONDS);
        let recent = self.recommendations.iter().filter(|(_, at)| *at >= cutoff).map(|(n, _)| *n);
        let highest = recent.max().unwrap_or(desired).max(desired);
        note(&mut self.recommendations, desired, now, |at| at < cutoff);
        highest
    }

    /// The size within what the windows of both directions recommended (`stabilizeRecommendationWithBehaviors`).
    pub fn stabilize_with(&mut self, behavior: &Tree, current: i64, desired: i64, now: Timestamp) -> Reasoned {
        let window = |rules: &str, default| {
            behavior.at(&[rules, "stabilizationWindowSeconds"]).and_then(Tree::as_i64).unwrap_or(default)
        };
        let up = before(now, window("scaleUp", 0));
        let down = before(now, window("scaleDown", DOWNSCALE_WINDOW_SECONDS));
        let within =
            |cutoff: Timestamp| self.recommendations.iter().filter(move |(_, at)| *at > cutoff).map(|(n, _)| *n);
        let lowest = within(up).min().unwrap_or(desired).min(desired);
        let highest = within(down).max().unwrap_or(desired).max(desired);
        note(&mut self.recommendations, desired, now, |at| at < up && at < down);
        let recommended = current.max(lowest).min(highest);
        if desired >= current {
            let why = "recent recommendations were lower than current one, applying the lowest recent recommendation";
            (recommended, "ScaleUpStabilized", why)
        } else {
            let why = "recent recommendations were higher than current one, applying the highest recent recommendation";
            (recommended, "ScaleDownStabilized", why)
        }
    }

    /// The size that the policies allow (`convertDesiredReplicasWithBehaviorRate`).
    pub fn limit_with(
        &self,
        behavior: &Tree,
        bounds: (i64, i64),
        current: i64,
        desired: i64,
        now: Timestamp,
    ) -> Reasoned {
        let (least, most) = bounds;
        let rules = |name: &str| behavior.get(name).cloned().unwrap_or_default();
        if desired > current {
            let limit = self.limit(&rules("scaleUp"), current, now, Direction::Up).max(current);
            let (allowed, (reason, message)) = if most > limit { (limit, UP_LIMIT) } else { (most, TOO_MANY) };
            if desired > allowed {
                return (allowed, reason, message);
            }
        } else if desired < current {
            let limit = self.limit(&rules("scaleDown"), current, now, Direction::Down).min(current);
            let (allowed, (reason, message)) = if least < limit { (limit, DOWN_LIMIT) } else { (least, TOO_FEW) };
            if desired < allowed {
                return (allowed, reason, message);
            }
        }
        (desired, IN_RANGE.0, IN_RANGE.1)
    }

    /// The size that the policies of one direction lead to at most (`calculateScaleUpLimitWithScalingRules`,
    /// `calculateScaleDownLimitWithBehaviors`).
    fn limit(&self, rules: &Tree, current: i64, now: Timestamp, direction: Direction) -> i64 {
        let select = rules.str_at("selectPolicy");
        if select == "Disabled" {
            return current;
        }
        let changed = |list: &[At], seconds| -> i64 {
            let cutoff = before(now, seconds);
            list.iter().filter(|(_, at)| *at > cutoff).map(|(n, _)| *n).sum()
        };
        let proposals = rules.list_at("policies").iter().map(|policy| {
            let seconds = policy.i64_at("periodSeconds").unwrap_or(0);
            let start = current - changed(&self.ups, seconds) + changed(&self.downs, seconds);
            let value = policy.i64_at("value").unwrap_or(0);
            match (policy.str_at("type"), direction) {
                ("Percent", Direction::Up) => (start as f64 * (1.0 + value as f64 / 100.0)).ceil() as i64,
                ("Percent", Direction::Down) => (start as f64 * (1.0 - value as f64 / 100.0)) as i64,
                (_, Direction::Up) => start + value,
                (_, Direction::Down) => start - value,
            }
        });
        // The largest change is the highest size on the way up and the lowest on the way down.
        let highest = (direction == Direction::Up) == (select != "Min");
        if highest { proposals.max().unwrap_or(current) } else { proposals.min().unwrap_or(current) }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Up,
    Down,
}

/// The size that may be had without a behavior (`convertDesiredReplicasWithRules`).
pub(super) fn limit_plain(bounds: (i64, i64), current: i64, desired: i64) -> Reasoned {
    let (least, most) = bounds;
    let limit = (UP_FACTOR * current).max(UP_MINIMUM);
    let (allowed, (reason, message)) = if most > limit { (limit, UP_LIMIT) } else { (most, TOO_MANY) };
    if desired < least {
        return (least, TOO_FEW.0, TOO_FEW.1);
    }
    if desired > allowed { (allowed, reason, message) } else { (desired, IN_RANGE.0, IN_RANGE.1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_tree::tree;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    #[test]
    fn hpa_without_behavior_doubles_at_most_and_shrinks_after_five_minutes() {
        assert_eq!(limit_plain((1, 100), 3, 50), (6, UP_LIMIT.0, UP_LIMIT.1));
        assert_eq!(limit_plain((1, 100), 1, 50).0, 4);
        assert_eq!(limit_plain((1, 5), 3, 50), (5, TOO_MANY.0, TOO_MANY.1));
        assert_eq!(limit_plain((2, 5), 3, 1), (2, TOO_FEW.0, TOO_FEW.1));
        let mut memory = Memory::default();
        memory.begin(10, at(0));
        assert_eq!(memory.stabilize(4, at(15)), 10);
        assert_eq!(memory.stabilize(6, at(299)), 10);
        assert_eq!(memory.stabilize(2, at(301)), 6);
        assert_eq!(memory.recommendations.len(), 3, "the sample that is too old was replaced");
    }

    #[test]
    fn hpa_behavior_policies_count_what_was_changed_in_their_period() {
        let behavior = tree!({
            "scaleUp": {"selectPolicy": "Max", "stabilizationWindowSeconds": 0, "policies": [
                {"type": "Pods", "value": 4, "periodSeconds": 60}, {"type": "Percent", "value": 100, "periodSeconds": 15}]},
            "scaleDown": {"selectPolicy": "Min", "policies": [
                {"type": "Pods", "value": 1, "periodSeconds": 60}, {"type": "Percent", "value": 50, "periodSeconds": 60}]}
        });
        let mut memory = Memory::default();
        assert_eq!(memory.limit_with(&behavior, (1, 100), 2, 50, at(0)), (6, UP_LIMIT.0, UP_LIMIT.1));
        memory.rescaled(Some(&behavior), 2, 6, at(0));
        // Four were added within the minute; the percentage counts from what it was 15 seconds ago.
        assert_eq!(memory.limit_with(&behavior, (1, 100), 6, 50, at(10)).0, 6);
        assert_eq!(memory.limit_with(&behavior, (1, 100), 6, 50, at(16)).0, 12);
        assert_eq!(memory.limit_with(&behavior, (1, 8), 6, 50, at(16)), (8, TOO_MANY.0, TOO_MANY.1));
        let fresh = Memory::default();
        assert_eq!(fresh.limit_with(&behavior, (1, 100), 6, 1, at(100)), (5, DOWN_LIMIT.0, DOWN_LIMIT.1));
        assert_eq!(fresh.limit_with(&behavior, (5, 100), 6, 1, at(100)), (5, TOO_FEW.0, TOO_FEW.1));
        let disabled = tree!({"scaleDown": {"selectPolicy": "Disabled"}});
        assert_eq!(fresh.limit_with(&disabled, (1, 100), 6, 1, at(100)).0, 6);
    }

    #[test]
    fn hpa_stabilization_windows_hold_both_directions() {
        let behavior =
            tree!({"scaleUp": {"stabilizationWindowSeconds": 60}, "scaleDown": {"stabilizationWindowSeconds": 120}});
        let mut memory = Memory { recommendations: vec![(3, at(0)), (9, at(30))], ..Memory::default() };
        assert_eq!(memory.stabilize_with(&behavior, 3, 8, at(50)), (3, "ScaleUpStabilized", memory_text(true)));
        assert_eq!(memory.stabilize_with(&behavior, 9, 2, at(100)), (9, "ScaleDownStabilized", memory_text(false)));
        assert_eq!(memory.stabilize_with(&behavior, 9, 2, at(200)).0, 2);
    }

    fn memory_text(up: bool) -> &'static str {
        if up {
            "recent recommendations were lower than current one, applying the lowest recent recommendation"
        } else {
            "recent recommendations were higher than current one, applying the highest recent recommendation"
        }
    }
}
