//! Arithmetic in GF(2^8) modulo x^8 + x^4 + x^3 + x^2 + 1, byte by byte and on whole shards.

/// The polynomial, without its highest term.
const POLYNOMIAL: u16 = 0x11d;

/// Powers of x, twice over so that the sum of two logarithms needs no reduction.
const EXP: [u8; 512] = exp();
const LOG: [u8; 256] = log();
/// For each factor its products with the sixteen low and the sixteen high halves of a byte.
static HALVES: [[u8; 32]; 256] = halves();

const fn exp() -> [u8; 512] {
    let mut table = [0; 512];
    let (mut power, mut index) = (1_u16, 0);
    while index < 512 {
        table[index] = power as u8;
        power <<= 1;
        if power & 0x100 != 0 {
            power ^= POLYNOMIAL;
        }
        index += 1;
    }
    table
}

const fn log() -> [u8; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 255 {
        table[EXP[index] as usize] = index as u8;
        index += 1;
    }
    table
}

const fn halves() -> [[u8; 32]; 256] {
    let mut table = [[0; 32]; 256];
    let mut factor = 0;
    while factor < 256 {
        let mut half = 0;
        while half < 16 {
            table[factor][half] = mul(factor as u8, half as u8);
            table[factor][16 + half] = mul(factor as u8, (half << 4) as u8);
            half += 1;
        }
        factor += 1;
    }
    table
}

/// The product of two elements.
pub const fn mul(left: u8, right: u8) -> u8 {
    if left == 0 || right == 0 {
        return 0;
    }
    EXP[LOG[left as usize] as usize + LOG[right as usize] as usize]
}

/// The element whose product with `value`, which is not 0, is 1.
pub const fn inverse(value: u8) -> u8 {
    assert!(value != 0, "0 has no inverse");
    EXP[255 - LOG[value as usize] as usize]
}

/// How shards are multiplied. [`Kernel::best`] finds the fastest that the processor has.
#[derive(Clone, Copy, Debug)]
pub enum Kernel {
    /// Two tables of 16 products for each factor.
    Table,
    /// The same, looked up for 32 bytes at once (AVX2).
    #[cfg(target_arch = "x86_64")]
    Avx2(pulp::x86::V3),
}

impl Kernel {
    /// The fastest one here. Cheap: what the processor can do is looked up once.
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = pulp::x86::V3::try_new() {
            return Self::Avx2(simd);
        }
        Self::Table
    }

    /// Adds `factor` times `source` to the front of `target`, which is no shorter.
    pub fn mul_add(self, target: &mut [u8], source: &[u8], factor: u8) {
        let target = &mut target[..source.len()];
        match factor {
            0 => {}
            1 => target.iter_mut().zip(source).for_each(|(target, source)| *target ^= source),
            _ => match self {
                Self::Table => mul_add_by_table(target, source, factor),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2(simd) => avx2::mul_add(simd, target, source, factor),
            },
        }
    }
}

fn mul_add_by_table(target: &mut [u8], source: &[u8], factor: u8) {
    let halves = &HALVES[usize::from(factor)];
    for (target, source) in target.iter_mut().zip(source) {
        *target ^= halves[usize::from(source & 15)] ^ halves[16 + usize::from(source >> 4)];
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use pulp::NullaryFnOnce;
    use pulp::x86::V3;

    use super::{HALVES, mul_add_by_table};

    /// What runs with the instructions of AVX2.
    struct MulAdd<'a> {
        simd: V3,
        target: &'a mut [u8],
        source: &'a [u8],
        factor: u8,
    }

    pub(super) fn mul_add(simd: V3, target: &mut [u8], source: &[u8], factor: u8) {
        simd.vectorize(MulAdd { simd, target, source, factor });
    }

    impl NullaryFnOnce for MulAdd<'_> {
        type Output = ();

        #[inline(always)]
        #[expect(clippy::inline_always, reason = "what is not inlined does not get the instructions")]
        fn call(self) {
            let Self { simd, target, source, factor } = self;
            let (avx, avx2) = (simd.avx, simd.avx2);
            let halves = &HALVES[usize::from(factor)];
            let half = |start: usize| {
                let table: [u8; 16] = std::array::from_fn(|index| halves[start + index]);
                avx2._mm256_broadcastsi128_si256(pulp::cast(table))
            };
            let (low, high) = (half(0), half(16));
            let mask = avx._mm256_set1_epi8(0x0f);
            let (targets, target_rest) = target.as_chunks_mut::<32>();
            let (sources, source_rest) = source.as_chunks::<32>();
            for (target, source) in targets.iter_mut().zip(sources) {
                let bytes = pulp::cast(*source);
                let low_halves = avx2._mm256_and_si256(bytes, mask);
                let high_halves = avx2._mm256_and_si256(avx2._mm256_srli_epi64::<4>(bytes), mask);
                let product = avx2._mm256_xor_si256(
                    avx2._mm256_shuffle_epi8(low, low_halves),
                    avx2._mm256_shuffle_epi8(high, high_halves),
                );
                *target = pulp::cast(avx2._mm256_xor_si256(pulp::cast(*target), product));
            }
            mul_add_by_table(target_rest, source_rest, factor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_but_zero_has_an_inverse() {
        for value in 1..=255 {
            assert_eq!(mul(value, inverse(value)), 1);
        }
        assert_eq!((mul(0, 9), mul(9, 0), mul(1, 77)), (0, 0, 77));
        assert_eq!(mul(0x80, 2), 0x1d, "x^8 is reduced");
    }

    #[test]
    fn multiplication_distributes_over_addition() {
        for (left, right, other) in [(3, 7, 200), (0x80, 0xff, 0x1d), (91, 17, 17)] {
            assert_eq!(mul(left, right ^ other), mul(left, right) ^ mul(left, other));
        }
    }

    #[test]
    fn every_kernel_gives_the_same_product() {
        let source: Vec<u8> = (0..1_000_u32).map(|byte| (byte * 7 + byte / 256) as u8).collect();
        for len in [0, 1, 31, 32, 33, 64, 1_000] {
            for factor in [0, 1, 2, 0x53, 0xff] {
                let mut expected = vec![0xa5; 1_000];
                for (target, source) in expected.iter_mut().zip(&source[..len]) {
                    *target ^= mul(factor, *source);
                }
                for kernel in [Kernel::Table, Kernel::best()] {
                    let mut target = vec![0xa5; 1_000];
                    kernel.mul_add(&mut target, &source[..len], factor);
                    assert_eq!(target, expected, "{kernel:?}, {len} bytes times {factor}");
                }
            }
        }
    }
}
