//! SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): a few lines that give the
//! same choices for the same seed in every version of every dependency.

/// A deterministic source of choices.
#[derive(Debug, Clone)]
pub(super) struct Rng(u64);

impl Rng {
    /// Choices that depend on `seed` and on what they are for.
    pub(super) fn new(seed: u64, purpose: u64) -> Rng {
        let mut rng = Rng(seed);
        let mixed = rng.next() ^ purpose.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Rng(mixed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which must not be 0. The bias of the remainder
    /// does not matter for picking faults.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True `eighths` times out of 8.
    pub(super) fn chance(&mut self, eighths: u64) -> bool {
        self.below(8) < eighths
    }
}
