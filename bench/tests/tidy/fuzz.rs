//! Every fuzz target has inputs that each test run tries.

use std::path::Path;

use crate::source::{Source, Violation, root};

/// The folder in which bolero looks for the inputs of `fn fuzz_NAME`: by the module's path.
fn folder(file: &str, name: &str) -> String {
    let parent = Path::new(file).parent().unwrap().display();
    match file.trim_end_matches(".rs").split_once("/src/") {
        Some((_, module)) => format!("{parent}/__fuzz__/{}__{name}/corpus", module.replace('/', "__")),
        None => format!("{parent}/__fuzz__/{name}/corpus"),
    }
}

pub(crate) fn check(source: &Source) -> Vec<Violation> {
    let targets = source.text.lines().enumerate().filter_map(|(line, text)| {
        let name = text.strip_prefix("fn fuzz_")?.split('(').next()?;
        Some((line + 1, folder(&source.path, name)))
    });
    let is_empty = |folder: &str| std::fs::read_dir(root().join(folder)).map_or(true, |files| files.count() < 2);
    targets
        .filter(|(_, folder)| is_empty(folder))
        .map(|(line, folder)| Violation {
            file: source.path.clone(),
            line,
            message: format!("a fuzz target without inputs in {folder}"),
        })
        .collect()
}

#[test]
fn a_target_without_inputs_breaks_the_rule() {
    let with = |path, name| check(&Source::new(path, format!("#[test]\nfn fuzz_{name}() {{}}\n")));
    let violations = with("dataplane/quantum/src/fuzz_tests.rs", "missing");
    assert_eq!(violations[0].line, 2);
    assert!(violations[0].message.ends_with("dataplane/quantum/src/__fuzz__/fuzz_tests__missing/corpus"));
    assert!(with("dataplane/quantum/src/fuzz_tests.rs", "header").is_empty());
    assert!(with("dataplane/sim/tests/fuzz_connection.rs", "connection").is_empty());
}
