//! The files of the repository.

use std::fmt;
use std::path::{Path, PathBuf};

use proc_macro2::TokenStream;

/// Folders that hold nothing written by hand.
const FOLDERS_SKIPPED: [&str; 4] = ["target", "data", "node_modules", "proptest-regressions"];
/// Kinds of files that are read.
const KINDS: [&str; 13] = ["rs", "toml", "md", "proto", "py", "sh", "yaml", "yml", "ts", "js", "css", "html", "sql"];
/// Files without such an ending that are read.
const NAMES: [&str; 2] = ["Makefile", "run"];

/// Something that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) file: String,
    /// From 1; 0 for the file as a whole.
    pub(crate) line: usize,
    pub(crate) message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}", self.file, self.line.max(1), self.message)
    }
}

/// A file, with its path from the root.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    /// Made up, for a rule to be shown.
    pub(crate) fn new(path: &str, text: impl Into<String>) -> Self {
        Self { path: path.to_owned(), text: text.into() }
    }

    /// Every file of the repository that is read.
    pub(crate) fn all() -> Vec<Self> {
        let root = root();
        let mut folders = vec![root.clone()];
        let mut sources = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                if path.is_dir() {
                    let hidden = name.starts_with('.') && name != ".ci";
                    if !hidden && !FOLDERS_SKIPPED.contains(&name.as_str()) {
                        folders.push(path);
                    }
                } else if is_read(&path, &name) {
                    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
                    sources.push(Self { path: path.strip_prefix(&root).unwrap().display().to_string(), text });
                }
            }
        }
        sources
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.kind() == "rs"
    }

    /// The end of the name after its last point.
    pub(crate) fn kind(&self) -> &str {
        Path::new(&self.path).extension().and_then(|kind| kind.to_str()).unwrap_or_default()
    }

    /// The file's tokens; none if it is not Rust.
    pub(crate) fn tokens(&self) -> TokenStream {
        let text = if self.is_rust() { self.text.as_str() } else { "" };
        text.parse().unwrap_or_else(|error| panic!("{}: {error}", self.path))
    }

    /// The file's syntax tree; empty if it is not Rust.
    pub(crate) fn syntax(&self) -> syn::File {
        syn::parse2(self.tokens()).unwrap_or_else(|error| panic!("{}: {error}", self.path))
    }

    pub(crate) fn violation(&self, line: usize, message: impl Into<String>) -> Violation {
        Violation { file: self.path.clone(), line, message: message.into() }
    }
}

fn is_read(path: &Path, name: &str) -> bool {
    let kind = path.extension().map(|kind| kind.to_string_lossy().into_owned());
    NAMES.contains(&name) || kind.is_some_and(|kind| KINDS.contains(&kind.as_str()))
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}
