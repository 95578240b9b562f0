//! Sums of products by instructions that look up many bytes at once: each column of a source is loaded once for several
//! targets, whose sums stay in registers.
#![expect(clippy::inline_always, reason = "what is not inlined into `call` does not get the instructions")]

use std::arch::x86_64::{__m128i, __m256i, __m512i};

use pulp::NullaryFnOnce;
use pulp::bytemuck::{Pod, Zeroable, bytes_of, bytes_of_mut, pod_read_unaligned};
use pulp::x86::{V3, V4};
use smallvec::SmallVec;

use super::HALVES;

/// Targets at most that are worked on at once, beside the plain ones. The sums of four just about fit into the registers of
/// AVX2; more gain little with AVX-512 (3, 5 and 6 were measured).
const ROWS_MAX: usize = 4;

/// The instructions of a processor.
pub(super) trait Wide: Copy {
    /// Many bytes.
    type Register: Pod;

    /// Runs `work` with the instructions.
    fn run(self, work: impl NullaryFnOnce<Output = ()>);
    /// Sixteen bytes, once in each sixteen of a register.
    fn table(self, bytes: __m128i) -> Self::Register;
    /// The low halves of bytes and the high ones.
    fn halves(self, bytes: Self::Register) -> [Self::Register; 2];
    /// What `table` has at each of `indices`.
    fn look_up(self, table: Self::Register, indices: Self::Register) -> Self::Register;
    /// The sum of bytes.
    fn add(self, left: Self::Register, right: Self::Register) -> Self::Register;
}

impl Wide for V3 {
    type Register = __m256i;

    fn run(self, work: impl NullaryFnOnce<Output = ()>) {
        self.vectorize(work);
    }

    #[inline(always)]
    fn table(self, bytes: __m128i) -> __m256i {
        self.avx2._mm256_broadcastsi128_si256(bytes)
    }

    #[inline(always)]
    fn halves(self, bytes: __m256i) -> [__m256i; 2] {
        let mask = self.avx._mm256_set1_epi8(0x0f);
        let high = self.avx2._mm256_srli_epi64::<4>(bytes);
        [self.avx2._mm256_and_si256(bytes, mask), self.avx2._mm256_and_si256(high, mask)]
    }

    #[inline(always)]
    fn look_up(self, table: __m256i, indices: __m256i) -> __m256i {
        self.avx2._mm256_shuffle_epi8(table, indices)
    }

    #[inline(always)]
    fn add(self, left: __m256i, right: __m256i) -> __m256i {
        self.avx2._mm256_xor_si256(left, right)
    }
}

impl Wide for V4 {
    type Register = __m512i;

    fn run(self, work: impl NullaryFnOnce<Output = ()>) {
        self.vectorize(work);
    }

    #[inline(always)]
    fn table(self, bytes: __m128i) -> __m512i {
        self.avx512f._mm512_broadcast_i32x4(bytes)
    }

    #[inline(always)]
    fn halves(self, bytes: __m512i) -> [__m512i; 2] {
        let mask = self.avx512f._mm512_set1_epi8(0x0f);
        let high = self.avx512f._mm512_srli_epi64::<4>(bytes);
        [self.avx512f._mm512_and_si512(bytes, mask), self.avx512f._mm512_and_si512(high, mask)]
    }

    #[inline(always)]
    fn look_up(self, table: __m512i, indices: __m512i) -> __m512i {
        self.avx512bw._mm512_shuffle_epi8(table, indices)
    }

    #[inline(always)]
    fn add(self, left: __m512i, right: __m512i) -> __m512i {
        self.avx512f._mm512_xor_si512(left, right)
    }
}

/// Two registers: with that the tables of a factor are loaded half as often.
type Column<W> = [<W as Wide>::Register; 2];

/// What [`Kernel::sum`](super::Kernel::sum) does.
pub(super) fn sum<W: Wide>(
    simd: W,
    len: usize,
    targets: &mut [Vec<u8>],
    sources: &[&[u8]],
    factor: impl Fn(usize, usize) -> u8,
) {
    for target in &mut *targets {
        target.resize(len.max(size_of::<Column<W>>()), 0);
    }
    let is_plain = |target: &usize| (0..sources.len()).all(|source| factor(*target, source) == 1);
    let mut plain = (0..targets.len()).take_while(is_plain).count();
    let mut first = 0;
    while first < targets.len() {
        let end = targets.len().min(first + plain + ROWS_MAX);
        let factor = |row, source| factor(first + row, source);
        let group = &mut targets[first..end];
        match group.len() - plain {
            0 => sum_group::<W, 0>(simd, group, sources, factor),
            1 => sum_group::<W, 1>(simd, group, sources, factor),
            2 => sum_group::<W, 2>(simd, group, sources, factor),
            3 => sum_group::<W, 3>(simd, group, sources, factor),
            _ => sum_group::<W, ROWS_MAX>(simd, group, sources, factor),
        }
        (first, plain) = (end, 0);
    }
    for target in targets {
        target.truncate(len);
    }
}

/// The last `ROWS` of `targets` are sums of products, those before them plain sums.
fn sum_group<W: Wide, const ROWS: usize>(
    simd: W,
    targets: &mut [Vec<u8>],
    sources: &[&[u8]],
    factor: impl Fn(usize, usize) -> u8,
) {
    let (plain, targets) = targets.split_at_mut(targets.len() - ROWS);
    let tables = |source| std::array::from_fn(|row| &HALVES[usize::from(factor(plain.len() + row, source))]);
    // As many terms as most groups have need no allocation. Filled in place: `collect` would move it.
    let mut terms = SmallVec::<[_; 32]>::new();
    terms.extend(sources.iter().enumerate().map(|(nth, source)| (*source, tables(nth))));
    simd.run(Sums::<W, ROWS> { simd, plain, targets, terms: &terms });
}

/// What runs with the instructions.
struct Sums<'a, W, const ROWS: usize> {
    simd: W,
    plain: &'a mut [Vec<u8>],
    targets: &'a mut [Vec<u8>],
    /// The sources, each with the tables of its factors.
    terms: &'a [(&'a [u8], [&'static [u8; 32]; ROWS])],
}

impl<W: Wide, const ROWS: usize> NullaryFnOnce for Sums<'_, W, ROWS> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { simd, plain, targets, terms } = self;
        let width = size_of::<Column<W>>();
        let len = plain.iter().chain(&*targets).map(Vec::len).next().unwrap_or(0);
        for start in (0..len).step_by(width) {
            // The last column overlaps the one before it, so that it is as wide.
            let start = start.min(len - width);
            let mut plain_sum: Column<W> = Zeroable::zeroed();
            let mut sums = [plain_sum; ROWS];
            for (source, tables) in terms.iter().filter(|(source, _)| source.len() > start) {
                let bytes: Column<W> = column(source, start);
                plain_sum = [simd.add(plain_sum[0], bytes[0]), simd.add(plain_sum[1], bytes[1])];
                let halves = [simd.halves(bytes[0]), simd.halves(bytes[1])];
                for (sum, tables) in sums.iter_mut().zip(tables) {
                    let [low, high]: [__m128i; 2] = pulp::cast(**tables);
                    let (low, high) = (simd.table(low), simd.table(high));
                    for (sum, halves) in sum.iter_mut().zip(halves) {
                        let product = simd.add(simd.look_up(low, halves[0]), simd.look_up(high, halves[1]));
                        *sum = simd.add(*sum, product);
                    }
                }
            }
            for target in &mut *plain {
                target[start..start + width].copy_from_slice(bytes_of(&plain_sum));
            }
            for (target, sum) in targets.iter_mut().zip(&sums) {
                target[start..start + width].copy_from_slice(bytes_of(sum));
            }
        }
    }
}

/// A column of a shard, which does not end before it, filled up with zeros.
#[inline(always)]
fn column<C: Pod>(shard: &[u8], start: usize) -> C {
    if let Some(bytes) = shard.get(start..start + size_of::<C>()) {
        return pod_read_unaligned(bytes);
    }
    let rest = &shard[start..];
    let mut column = C::zeroed();
    bytes_of_mut(&mut column)[..rest.len()].copy_from_slice(rest);
    column
}
