//! What keeps the services' data.

use std::path::Path;

use anyhow::Context;

/// In memory only: nothing on these is durable.
const TMPFS: u32 = 0x0102_1994;
const RAMFS: u32 = 0x8584_58f6;
/// The numbers of `statfs(2)`. ext2, ext3 and ext4 have one.
const NAMES: [(u32, &str); 12] = [
    (0xef53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (TMPFS, "tmpfs"),
    (RAMFS, "ramfs"),
    (0x794c_7630, "overlay"),
    (0x2fc1_2fc1, "zfs"),
    (0xf2f5_2010, "f2fs"),
    (0xca45_1a4e, "bcachefs"),
    (0x6969, "nfs"),
    (0x6573_5546, "fuse"),
    (0x0102_1997, "9p"),
];

/// A kind of file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileSystem(u32);

impl FileSystem {
    /// Of the file system that a folder is on.
    ///
    /// # Errors
    /// If the system does not tell.
    pub(super) fn of(dir: &Path) -> anyhow::Result<Self> {
        let told = rustix::fs::statfs(dir).with_context(|| format!("the file system of {}", dir.display()))?;
        Ok(Self(told.f_type as u32))
    }

    /// Its name, or its number.
    pub(super) fn name(self) -> String {
        let known = NAMES.iter().find(|(number, _)| *number == self.0);
        known.map_or_else(|| format!("{:#x}", self.0), |(_, name)| (*name).to_owned())
    }

    /// Whether what is written there survives the loss of power if the disk is honest.
    pub(super) fn is_durable(self) -> bool {
        ![TMPFS, RAMFS].contains(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{FileSystem, TMPFS};

    #[test]
    fn file_systems_have_names() {
        assert_eq!(FileSystem(0xef53).name(), "ext4");
        assert_eq!(FileSystem(0x1234).name(), "0x1234");
        assert!(!FileSystem(TMPFS).is_durable());
        // Wherever this runs, it is somewhere.
        assert!(!FileSystem::of(std::path::Path::new(".")).unwrap().name().is_empty());
    }
}
