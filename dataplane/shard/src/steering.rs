//! Which shard a connection belongs to: a secret hash of its id, computed alike here and in the kernel.
//!
//! The kernel runs a classic BPF program for each datagram of a `SO_REUSEPORT` group (`socket(7)`,
//! `SO_ATTACH_REUSEPORT_CBPF`). It sees the UDP payload, and the connection's id lies at a fixed offset in every packet, so a
//! connection stays on its shard when its address changes. The hash takes in the whole id, of which a client chooses every
//! bit, so that nobody aims many connections at one shard without the secret.

#[cfg(test)]
mod tests;

/// Where the id lies in a packet.
const GUUID_OFFSET: u32 = 6;
/// The 32-bit words of an id.
const WORDS: u32 = 4;
/// The high bits of a product depend on all of its factors' bits; they are folded into the low ones.
const FOLD: u32 = 15;
/// Bits of the hash that are left out: the lowest are the weakest.
const DROP: u32 = 8;
/// `BPF_A` of linux/filter.h, which libc lacks: the program's result is the accumulator.
const RETURN_ACCUMULATOR: u32 = 0x10;

/// The shard of a connection among `shards`.
pub(crate) fn shard_of(guuid: &[u8; 16], secret: u64, shards: usize) -> usize {
    let (mut state, factor) = start(secret);
    for word in guuid.as_chunks::<4>().0 {
        // A multiplicative hash by an odd secret (Knuth, The Art of Computer Programming 6.4), chained over the words.
        state = (state ^ u32::from_be_bytes(*word)).wrapping_mul(factor);
        state ^= state >> FOLD;
    }
    (state >> DROP) as usize % shards.max(1)
}

/// What the hash begins with, and what it multiplies by.
fn start(secret: u64) -> (u32, u32) {
    ((secret >> 32) as u32, secret as u32 | 1)
}

/// The program that the kernel runs: the same function. A datagram too short to hold an id ends it with 0, the first shard.
pub(crate) fn program(secret: u64, shards: usize) -> Vec<libc::sock_filter> {
    let op = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let alu = |operation: u32, k: u32| op(libc::BPF_ALU | libc::BPF_K | operation, k);
    let to_x = op(libc::BPF_MISC | libc::BPF_TAX, 0);
    let xor_x = op(libc::BPF_ALU | libc::BPF_XOR | libc::BPF_X, 0);
    let (state, factor) = start(secret);
    let mut program = vec![op(libc::BPF_LD | libc::BPF_IMM, state)];
    for word in 0..WORDS {
        let load = op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, GUUID_OFFSET + 4 * word);
        program.extend([to_x, load, xor_x, alu(libc::BPF_MUL, factor)]);
        program.extend([to_x, alu(libc::BPF_RSH, FOLD), xor_x]);
    }
    program.extend([
        alu(libc::BPF_RSH, DROP),
        alu(libc::BPF_MOD, shards.max(1) as u32),
        op(libc::BPF_RET | RETURN_ACCUMULATOR, 0),
    ]);
    program
}
