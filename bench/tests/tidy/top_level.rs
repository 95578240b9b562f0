//! What is seen first is what the owner set.

use std::path::Path;

use crate::source::Violation;

const ALLOWED: [&str; 11] = [
    "Cargo.toml",
    "Cargo.lock",
    "LICENSE",
    "Makefile",
    "README.md",
    "dataplane",
    "control",
    "proto",
    "bench",
    "tuning",
    "configs",
];
/// These may be missing.
const OPTIONAL: [&str; 1] = ["LICENSE"];
/// The folders that say at their door what they are.
const FOLDERS: [&str; 6] = ["dataplane", "control", "proto", "bench", "tuning", "configs"];

pub(crate) fn check(root: &Path) -> Vec<Violation> {
    let ignored = std::fs::read_to_string(root.join(".gitignore")).unwrap_or_default();
    let violation =
        |file: &str, message: &str| Violation { file: file.to_owned(), line: 0, message: message.to_owned() };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        let is_ignored = ignored.lines().any(|line| line.trim_matches('/') == name);
        if !name.starts_with('.') && !ALLOWED.contains(&name.as_str()) && !is_ignored {
            found.push(violation(&name, "not one of the names at the top level"));
        }
    }
    for name in ALLOWED.iter().filter(|name| !OPTIONAL.contains(name) && !root.join(name).exists()) {
        found.push(violation(name, "is missing"));
    }
    for folder in FOLDERS.iter().filter(|folder| !root.join(folder).join("README.md").exists()) {
        found.push(violation(&format!("{folder}/README.md"), "is missing: it says where to start reading"));
    }
    found
}

#[test]
fn a_stray_name_a_missing_one_and_a_folder_without_a_readme_are_found() {
    let root = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(root.path().join(name), text).unwrap();
    for name in ["Cargo.toml", "Cargo.lock", "Makefile", "README.md"] {
        write(name, "");
    }
    for folder in FOLDERS {
        std::fs::create_dir(root.path().join(folder)).unwrap();
        write(&format!("{folder}/README.md"), "");
    }
    write(".gitignore", "/target\n");
    std::fs::create_dir(root.path().join("target")).unwrap();
    std::fs::create_dir(root.path().join(".ci")).unwrap();
    let found = || check(root.path()).into_iter().map(|violation| violation.file).collect::<Vec<_>>();
    assert_eq!(found(), Vec::<String>::new());
    write("notes.txt", "");
    assert_eq!(found(), ["notes.txt"]);
    std::fs::remove_file(root.path().join("notes.txt")).unwrap();
    std::fs::remove_file(root.path().join("tuning/README.md")).unwrap();
    std::fs::remove_file(root.path().join("Makefile")).unwrap();
    assert_eq!(found(), ["Makefile", "tuning/README.md"]);
}
