//! Where checks look: the files of `/proc` and `/sys`, under a root that tests choose.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

/// Bytes of a file that are looked at.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A host's files.
#[derive(Debug)]
pub(crate) struct Host {
    root: PathBuf,
}

impl Host {
    /// The files under `root`, which is `/` but in tests.
    pub(crate) fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// Whether this is the host that runs the program, whose kernel can be asked.
    pub(crate) fn is_here(&self) -> bool {
        self.root.as_os_str() == "/"
    }

    /// A file's text without the space around it, if there is one.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        let mut text = String::new();
        let file = File::open(self.root.join(path)).ok()?;
        file.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
        Some(text.trim().to_owned())
    }

    /// A file that is a number.
    pub(crate) fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    /// The names in a folder, sorted.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.join(path)).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// The numbers of the processors that are online.
    pub(crate) fn processors(&self) -> Vec<usize> {
        self.text("sys/devices/system/cpu/online").map(|list| parse_list(&list)).unwrap_or_default()
    }
}

/// The numbers of a list such as `0-3,8` (`cpuset(7)`, "List format"); what is none is left out.
pub(crate) fn parse_list(list: &str) -> Vec<usize> {
    let numbers = list.split(',').filter_map(|part| {
        let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        (first <= last && last < 1 << 16).then_some(first..=last)
    });
    numbers.flatten().collect()
}
