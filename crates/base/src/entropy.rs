//! Randomness as a value that is passed in: uids, name suffixes, jitter.

use ring::rand::{SecureRandom, SystemRandom};

/// Letters of generated names, without vowels and look-alikes (`k8s.io/apimachinery/pkg/util/rand`).
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Where randomness comes from.
pub trait Entropy: Send + Sync + 'static {
    /// Fills `bytes` with random ones.
    fn fill(&self, bytes: &mut [u8]);

    /// A random number.
    fn u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A random UUID (version 4) in text form, for `metadata.uid`.
    fn uid(&self) -> String {
        let mut b = [0u8; 16];
        self.fill(&mut b);
        b[6] = (b[6] & 0x0f) | 0x40;
        b[8] = (b[8] & 0x3f) | 0x80;
        let n = u128::from_be_bytes(b);
        let hex = format!("{n:032x}");
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    /// A random name suffix of `length` characters, as generateName's (5).
    fn suffix(&self, length: usize) -> String {
        (0..length).map(|_| char::from(ALPHABET[(self.u64() % ALPHABET.len() as u64) as usize])).collect()
    }
}

/// The operating system's randomness.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        if bytes.len() > STOCK / 4 {
            return random(bytes);
        }
        // Most asks are small, and a system call for each would be most of its cost. What is given out is wiped.
        STOCKED.with_borrow_mut(|(stock, left)| {
            if *left < bytes.len() {
                random(stock);
                *left = STOCK;
            }
            let given = &mut stock[*left - bytes.len()..*left];
            bytes.copy_from_slice(given);
            given.fill(0);
            *left -= bytes.len();
        });
    }
}

/// Random bytes that a thread has in stock.
const STOCK: usize = 512;

thread_local! {
    static STOCKED: std::cell::RefCell<([u8; STOCK], usize)> = const { std::cell::RefCell::new(([0; STOCK], 0)) };
}

fn random(bytes: &mut [u8]) {
    SystemRandom::new().fill(bytes).expect("the kernel's random source does not fail once it is seeded");
}

/// A small generator (splitmix64) for seeded runs and jitter; not for secrets.
#[derive(Debug)]
pub struct SeededEntropy(std::sync::atomic::AtomicU64);

impl SeededEntropy {
    /// The same seed gives the same sequence.
    pub fn new(seed: u64) -> SeededEntropy {
        SeededEntropy(seed.into())
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
            let mut z = self.0.fetch_add(STEP, std::sync::atomic::Ordering::Relaxed).wrapping_add(STEP);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_are_version_4() {
        let uid = SeededEntropy::new(7).uid();
        assert_eq!(uid.len(), 36);
        assert_eq!(&uid[14..15], "4");
        assert_ne!(SystemEntropy.uid(), SystemEntropy.uid());
        assert_eq!(SeededEntropy::new(7).suffix(5), SeededEntropy::new(7).suffix(5));
        // More than a thread has in stock.
        let many: std::collections::BTreeSet<String> = (0..1000).map(|_| SystemEntropy.uid()).collect();
        assert_eq!(many.len(), 1000);
        assert!(many.iter().all(|uid| !uid.contains("00000000")), "what was given out is given again");
    }
}
