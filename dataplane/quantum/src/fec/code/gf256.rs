//! Arithmetic in GF(2^8) modulo x^8 + x^4 + x^3 + x^2 + 1, byte by byte and on whole shards.

#[cfg(target_arch = "x86_64")]
mod wide;

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
    /// And for 64 bytes at once (AVX-512).
    #[cfg(target_arch = "x86_64")]
    Avx512(pulp::x86::V4),
}

impl Kernel {
    /// The fastest one here. Cheap: what the processor can do is looked up once.
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = pulp::x86::V4::try_new() {
            return Self::Avx512(simd);
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = pulp::x86::V3::try_new() {
            return Self::Avx2(simd);
        }
        Self::Table
    }

    /// Makes each of `targets` the sum of all of `sources`, each times its `factor(target, source)` and as if filled up with
    /// zeros to `len` bytes.
    pub fn sum(self, len: usize, targets: &mut [Vec<u8>], sources: &[&[u8]], factor: impl Fn(usize, usize) -> u8) {
        debug_assert!(sources.iter().all(|source| source.len() <= len), "a source is longer than the sums");
        match self {
            Self::Table => {
                for (row, target) in targets.iter_mut().enumerate() {
                    target.clear();
                    target.resize(len, 0);
                    for (column, source) in sources.iter().enumerate() {
                        mul_add(target, source, factor(row, column));
                    }
                }
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => wide::sum(simd, len, targets, sources, factor),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => wide::sum(simd, len, targets, sources, factor),
        }
    }
}

/// Adds `factor` times `source` to the front of `target`, byte by byte.
pub fn mul_add(target: &mut [u8], source: &[u8], factor: u8) {
    let halves = &HALVES[usize::from(factor)];
    for (target, source) in target.iter_mut().zip(source) {
        *target ^= match factor {
            1 => *source,
            _ => halves[usize::from(source & 15)] ^ halves[16 + usize::from(source >> 4)],
        };
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
    fn every_kernel_gives_the_same_sums() {
        let mut kernels = vec![Kernel::Table];
        #[cfg(target_arch = "x86_64")]
        kernels.extend(pulp::x86::V3::try_new().map(Kernel::Avx2));
        kernels.push(Kernel::best());
        let factors = [1, 0x53, 0xff, 0, 2, 0x80];
        for len in (0..100).chain([127, 128, 129, 255, 256, 257, 1_200]) {
            for repairs in 1..=9 {
                // Every third shard is as long as the sums, the others end before them.
                let shard = |nth: usize| {
                    (0..len - (nth % 3 * 41).min(len)).map(move |byte| (byte * 7 + nth * 31 + byte / 256) as u8)
                };
                let sources: Vec<Vec<u8>> = (0..repairs + 3).map(|nth| shard(nth).collect()).collect();
                let sources: Vec<&[u8]> = sources.iter().map(Vec::as_slice).collect();
                // The first row, and with many repair shards the second one, are plain sums.
                let factor =
                    |row: usize, column: usize| if row < repairs / 4 + 1 { 1 } else { factors[(row + column) % 6] };
                let expected: Vec<Vec<u8>> = (0..repairs)
                    .map(|row| {
                        let mut sum = vec![0; len];
                        for (column, source) in sources.iter().enumerate() {
                            let products = source.iter().map(|byte| mul(factor(row, column), *byte));
                            sum.iter_mut().zip(products).for_each(|(sum, product)| *sum ^= product);
                        }
                        sum
                    })
                    .collect();
                for kernel in &kernels {
                    let mut targets = vec![vec![0xa5; 70]; repairs];
                    kernel.sum(len, &mut targets, &sources, factor);
                    assert_eq!(targets, expected, "{kernel:?}, {len} bytes, {repairs} repair shards");
                }
            }
        }
    }
}
