//! SECURITY.md names tests: they exist.

use std::fs;
use std::path::Path;

fn sources(folder: &Path, all: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_test_that_the_table_of_attacks_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = String::new();
    sources(&root.join("src"), &mut all);
    let table = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| attack"));
    let mut named = 0;
    for row in rows {
        let names: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "an attack without a test: {row}");
        for name in names {
            assert!(
                all.contains(&format!("#[test]\n    fn {name}()")) || all.contains(&format!("#[test]\nfn {name}()")),
                "{name}"
            );
            named += 1;
        }
    }
    assert!(named > 40, "{named}");
}
