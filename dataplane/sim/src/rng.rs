//! Randomness that stays the same over versions of every dependency, so that a seed replays for ever.

/// The generator `xoshiro256++` of Blackman and Vigna, seeded by `SplitMix64`.
#[derive(Clone, Debug)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// The generator of that seed.
    pub fn new(seed: u64) -> Self {
        let mut mixer = seed;
        Self { state: std::array::from_fn(|_| split_mix(&mut mixer)) }
    }

    /// A generator for one purpose: what it draws does not depend on what is drawn for others.
    pub fn derive(seed: u64, purpose: u64) -> Self {
        let mut mixer = seed ^ purpose.wrapping_mul(0xa24b_aed4_963e_e407);
        Self::new(split_mix(&mut mixer))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        let [first, second, third, fourth] = &mut self.state;
        let result = first.wrapping_add(*fourth).rotate_left(23).wrapping_add(*first);
        let shifted = *second << 17;
        *third ^= *first;
        *fourth ^= *second;
        *second ^= *third;
        *first ^= *fourth;
        *third ^= shifted;
        *fourth = fourth.rotate_left(45);
        result
    }

    /// A number below `limit`, which is not zero.
    pub fn below(&mut self, limit: u64) -> u64 {
        debug_assert!(limit > 0, "no number is below zero");
        ((u128::from(self.bits()) * u128::from(limit)) >> 64) as u64
    }

    /// A number from 0 up to, not including, 1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True in `percent` of a hundred draws.
    pub fn chance(&mut self, percent: f64) -> bool {
        self.unit() * 100.0 < percent
    }

    /// A number of the exponential distribution of that mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    /// 32 random bytes, as a seed for something else.
    pub fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        for chunk in seed.chunks_exact_mut(8) {
            chunk.copy_from_slice(&self.bits().to_le_bytes());
        }
        seed
    }
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn the_numbers_of_a_seed_never_change() {
        let mut rng = Rng::new(7);
        let drawn: Vec<u64> = (0..3).map(|_| rng.bits()).collect();
        assert_eq!(drawn, EXPECTED);
    }

    #[test]
    fn a_chance_is_as_likely_as_it_says() {
        let mut rng = Rng::new(1);
        let hits = (0..100_000).filter(|_| rng.chance(5.0)).count();
        // Five standard deviations of a binomial count.
        assert!((4_655..=5_345).contains(&hits), "{hits} of 100000 at 5 %");
    }

    /// Computed apart from this code, from the published algorithms.
    const EXPECTED: [u64; 3] = [1_021_219_803_524_665_661, 3_174_977_118_032_272_916, 13_236_943_193_235_544_178];
}
