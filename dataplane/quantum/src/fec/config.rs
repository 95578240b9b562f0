//! What forward error correction can be told.

/// When packets are protected by repair symbols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FecMode {
    /// Never; what the peer repairs is not taken either.
    Off,
    /// As the path's losses call for it and as the budget allows.
    Adaptive,
    /// Always, and without a budget: groups of at most `members` packets get `repairs` symbols each. (10, 3) is the usual choice.
    Fixed {
        /// Packets of a group, 1 to [`MEMBERS_MAX`](Self::MEMBERS_MAX), at most; and at most as many as the peer takes.
        members: u8,
        /// Repair symbols of each group, 1 to [`REPAIRS_MAX`](Self::REPAIRS_MAX).
        repairs: u8,
    },
}

impl FecMode {
    /// Packets of a group at most.
    pub const MEMBERS_MAX: u8 = 192;
    /// Repair symbols of a group at most.
    pub const REPAIRS_MAX: u8 = 63;
}

/// Settings of forward error correction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FecConfig {
    /// Whether, and how.
    pub mode: FecMode,
    /// So many of a million packets may need to be sent again after all; symbols are as many as that takes.
    pub residual_ppm: u32,
    /// Bytes of repair for a hundred bytes of the application, at most.
    pub overhead_percent_max: u16,
    /// As long as all that is sent stays under this rate, or a tenth of the path's, repair may cost as much as
    /// `overhead_percent_max`; beyond it 2 %.
    pub free_bits_per_s: u64,
    /// Packets of a group at most, up to 192.
    pub members_max: u8,
    /// Bytes that each side of a connection keeps for groups, at most.
    pub memory_max: usize,
}

impl Default for FecConfig {
    fn default() -> Self {
        Self {
            mode: FecMode::Adaptive,
            residual_ppm: 100,
            overhead_percent_max: 300,
            free_bits_per_s: 4_000_000,
            members_max: 64,
            memory_max: 256 << 10,
        }
    }
}
