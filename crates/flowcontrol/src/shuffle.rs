//! Shuffle sharding: each flow has a few of many queues, so that one flow cannot fill the queues of all others
//! (`apiserver/pkg/util/shufflesharding`).

use std::hash::{DefaultHasher, Hash, Hasher};

/// The most bits of a hash that a deal may use up.
const ENTROPY_BITS_MAX: f64 = 60.0;
/// The most queues.
const DECK_MAX: usize = 1 << 26;
/// The largest hand that the other bounds allow.
pub const HAND_MAX: usize = 15;

/// Deals hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dealer {
    deck: usize,
    hand: usize,
}

impl Dealer {
    /// Deals `hand` of `deck` cards; `None` where upstream's `NewDealer` refuses.
    pub fn new(deck: usize, hand: usize) -> Option<Dealer> {
        let bits = ((deck as f64).log2() * hand as f64).ceil();
        let fits = deck >= 1 && hand >= 1 && hand <= deck && deck <= DECK_MAX && bits <= ENTROPY_BITS_MAX;
        // A deck of one or two cards needs few bits; its hand is small already.
        (fits && hand <= HAND_MAX).then_some(Dealer { deck, hand })
    }

    /// The hand of a flow: different cards, the same ones for the same hash.
    pub fn deal<'h>(&self, hash: u64, hand: &'h mut [usize; HAND_MAX]) -> &'h [usize] {
        let mut rest = hash;
        let mut places = [0usize; HAND_MAX];
        for (i, place) in places.iter_mut().enumerate().take(self.hand) {
            let left = (self.deck - i) as u64;
            *place = (rest % left) as usize;
            rest /= left;
        }
        // Each is a place among the cards that are left; from the last dealt one back it becomes a place in the deck.
        for (i, card) in hand.iter_mut().enumerate().take(self.hand) {
            *card = places[..i].iter().rev().fold(places[i], |card, before| card + usize::from(card >= *before));
        }
        &hand[..self.hand]
    }
}

/// The hash of a flow: of its schema and of what tells flows apart. It never leaves the process.
pub fn flow_hash(schema: &str, distinguisher: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (schema, distinguisher).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn shuffle_sharding_refuses_what_upstream_refuses() {
        for (deck, hand, good) in
            [(64, 6, true), (128, 8, true), (0, 1, false), (4, 5, false), (128, 9, false), (1, 1, true)]
        {
            assert_eq!(Dealer::new(deck, hand).is_some(), good, "{deck} {hand}");
        }
    }

    #[test]
    fn shuffle_sharding_deals_different_cards_evenly() {
        let dealer = Dealer::new(16, 4).unwrap();
        let mut seen = [0; 16];
        for flow in 0..4000 {
            let mut hand = [0; HAND_MAX];
            let hand = dealer.deal(flow_hash("f", &format!("user-{flow}")), &mut hand);
            assert_eq!(hand.iter().collect::<BTreeSet<_>>().len(), 4, "{hand:?}");
            hand.iter().for_each(|card| seen[*card] += 1);
        }
        assert!(seen.iter().all(|n| (850..1150).contains(n)), "{seen:?}");
    }

    #[test]
    fn shuffle_sharding_is_upstreams() {
        // The remainders of 128, 127, 126 and 125, moved over the cards dealt before.
        let hash = 14 + 128 * (73 + 127 * (118 + 126 * 26));
        assert_eq!(Dealer::new(128, 4).unwrap().deal(hash, &mut [0; HAND_MAX]), [14, 74, 120, 27]);
    }
}
