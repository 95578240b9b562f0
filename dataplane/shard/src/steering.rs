//! Which shard a connection belongs to: a secret hash of its id, computed alike here and in the kernel.
//!
//! The kernel runs a classic BPF program for each datagram of a `SO_REUSEPORT` group (`socket(7)`,
//! `SO_ATTACH_REUSEPORT_CBPF`). It sees the UDP payload, and the connection's id lies at a fixed offset in every packet, so a
//! connection stays on its shard when its address changes. The secret keeps others from aiming at one shard.

/// Where the id lies in a packet.
const GUUID_OFFSET: u32 = 6;
/// The last 32-bit word of the id, all of it random.
const WORD_OFFSET: u32 = GUUID_OFFSET + 12;

/// The shard of a connection among `shards`.
pub(crate) fn shard_of(guuid: &[u8; 16], secret: u32, shards: usize) -> usize {
    let word = u32::from_be_bytes([guuid[12], guuid[13], guuid[14], guuid[15]]);
    let before = u32::from_be_bytes([guuid[8], guuid[9], guuid[10], guuid[11]]);
    let mixed = mix(mix(word, secret) ^ before, secret);
    ((mixed >> 16) as usize) % shards.max(1)
}

/// A multiplicative hash (Knuth, The Art of Computer Programming 6.4) by an odd secret, its high half folded in.
fn mix(value: u32, secret: u32) -> u32 {
    let product = value.wrapping_mul(secret | 1);
    product ^ product >> 15
}

/// The program that the kernel runs: the same function.
pub(crate) fn program(secret: u32, shards: usize) -> Vec<libc::sock_filter> {
    let op = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let (load_word, load_imm) = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, libc::BPF_LD | libc::BPF_IMM);
    let to_x = libc::BPF_MISC | libc::BPF_TAX;
    let store = libc::BPF_ST;
    let load_memory = libc::BPF_LDX | libc::BPF_MEM;
    let alu = |operation: u32| libc::BPF_ALU | operation;
    let mix = |program: &mut Vec<libc::sock_filter>| {
        program.extend([
            op(alu(libc::BPF_MUL | libc::BPF_K), secret | 1),
            op(to_x, 0),
            op(alu(libc::BPF_RSH | libc::BPF_K), 15),
            op(alu(libc::BPF_XOR | libc::BPF_X), 0),
        ]);
    };
    let mut program = vec![op(load_imm, 0), op(load_word, WORD_OFFSET)];
    mix(&mut program);
    program.extend([
        op(store, 0),
        op(load_word, WORD_OFFSET - 4),
        op(load_memory, 0),
        op(alu(libc::BPF_XOR | libc::BPF_X), 0),
    ]);
    mix(&mut program);
    program.extend([
        op(alu(libc::BPF_RSH | libc::BPF_K), 16),
        op(alu(libc::BPF_MOD | libc::BPF_K), shards.max(1) as u32),
        op(libc::BPF_RET | 0x10, 0),
    ]);
    program
}

#[cfg(test)]
mod tests {
    use quantum::GuuidGenerator;

    use super::*;

    #[test]
    fn connections_spread_evenly() {
        for (secret, shards) in [(0x9e37_79b9, 2), (1, 3), (0xdead_beef, 8)] {
            let mut counts = vec![0_usize; shards];
            let mut generator = GuuidGenerator::new([7; 32]);
            for _ in 0..8_000 {
                counts[shard_of(generator.next(1_700_000_000_000).as_bytes(), secret, shards)] += 1;
            }
            let even = 8_000 / shards;
            assert!(counts.iter().all(|&count| count.abs_diff(even) < even / 4), "{secret:#x}: {counts:?}");
        }
    }
}
