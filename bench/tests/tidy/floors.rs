//! Which crate may use which.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};
use proc_macro2::{TokenStream, TokenTree};

use crate::source::{Source, Violation, root};

/// The crates of the workspace and those among them that they may use, in any kind of build. `bench` may use all.
const FLOORS: [(&str, &[&str]); 8] = [
    ("quantum", &[]),
    ("aetherflow-proto", &[]),
    ("quantum-shard", &["quantum"]),
    ("quantum-sim", &["quantum"]),
    ("quantum-grpc", &["quantum", "quantum-shard"]),
    ("private-stores", &[]),
    ("aetherflow", &["quantum", "quantum-grpc", "aetherflow-proto"]),
    ("aetherflow-tune", &[]),
];
const TOP: &str = "aetherflow-bench";
/// What only the tests of a crate use; `KEPT_OUT` keeps it out of what is shipped.
const TESTED_WITH: [(&str, &str); 1] = [("aetherflow", "private-stores")];

/// What moves bytes, waits or runs tasks.
const IO: [&str; 16] = [
    "async-io",
    "async-std",
    "core_affinity",
    "glommio",
    "h2",
    "hyper",
    "io-uring",
    "mio",
    "monoio",
    "nix",
    "polling",
    "quinn",
    "quinn-udp",
    "socket2",
    "tokio",
    "tonic",
];
const TASKS: [&str; 4] = ["async-std", "hyper", "tokio", "tonic"];
/// Crates that may not get something, by whatever way, into what they ship.
const KEPT_OUT: [(&str, &[&str]); 6] = [
    ("quantum", &IO),
    ("quantum-sim", &IO),
    ("quantum-shard", &TASKS),
    ("quantum-grpc", &["quantum-sim"]),
    ("aetherflow", &["quantum-sim", "private-stores"]),
    ("aetherflow-tune", &["quantum-sim", "quantum", "tokio"]),
];

/// Types of std that no sans-IO crate names: time and sockets come from outside.
const OUTSIDE: [&str; 6] = ["Instant", "SystemTime", "TcpListener", "TcpStream", "UdpSocket", "UnixStream"];
const SANS_IO: [&str; 2] = ["dataplane/quantum/src/", "dataplane/sim/src/"];
/// The cipher that hides nothing, and the way to put it into an endpoint, exist for the virtual world only.
const NULL_CIPHER: [&str; 5] = ["Cipher", "NullCipher", "NullProvider", "NullSession", "with_provider"];
const SIMULATION: [&str; 2] = ["dataplane/sim/", "dataplane/quantum/"];

/// The dependencies of a workspace.
#[derive(Debug, Default, Clone)]
pub(crate) struct Graph {
    /// What each crate of the workspace names in its Cargo.toml, of any kind.
    direct: BTreeMap<String, BTreeSet<String>>,
    /// What is compiled into each crate of the workspace when others use it.
    shipped: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    pub(crate) fn of_workspace() -> Self {
        let mut command = MetadataCommand::new();
        command.current_dir(root());
        // The packages of this platform are there, because this test was built from them.
        let host = format!("--filter-platform={}-unknown-linux-gnu", std::env::consts::ARCH);
        command.other_options(["--offline".to_owned(), "--locked".to_owned(), host]);
        let metadata = command.exec().expect("cargo can read its own workspace");
        let mut graph = Self::default();
        for package in metadata.workspace_packages() {
            let name = package.name.to_string();
            let direct = package.dependencies.iter().map(|dependency| dependency.name.clone()).collect();
            graph.direct.insert(name.clone(), direct);
            graph.shipped.insert(name, shipped(&metadata, package));
        }
        graph
    }

    #[cfg(test)]
    fn example() -> Self {
        let mut graph = Self::default();
        for (name, may_use) in FLOORS.into_iter().chain([(TOP, &["quantum-sim"] as &[&str])]) {
            graph.uses(name, "");
            for used in may_use {
                graph.uses(name, used);
            }
        }
        graph
    }

    #[cfg(test)]
    fn uses(&mut self, name: &str, used: &str) {
        for table in [&mut self.direct, &mut self.shipped] {
            table
                .entry(name.to_owned())
                .or_default()
                .extend([used.to_owned()].into_iter().filter(|used| !used.is_empty()));
        }
    }
}

/// Everything that normal dependencies lead to.
fn shipped(metadata: &Metadata, package: &Package) -> BTreeSet<String> {
    let resolve = metadata.resolve.as_ref().expect("dependencies were asked for");
    let nodes: BTreeMap<&PackageId, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let mut seen = BTreeSet::new();
    let mut open = vec![&package.id];
    while let Some(id) = open.pop() {
        for used in &nodes[id].deps {
            let is_normal = used.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal);
            if is_normal && seen.insert(&used.pkg) {
                open.push(&used.pkg);
            }
        }
    }
    seen.into_iter().map(|id| metadata[id].name.to_string()).collect()
}

pub(crate) fn check(graph: &Graph) -> Vec<Violation> {
    let known = |name: &str| name == TOP || FLOORS.iter().any(|(floor, _)| *floor == name);
    let mut found = Vec::new();
    let mut report = |name: &str, message: String| {
        found.push(Violation { file: format!("Cargo.toml of {name}"), line: 0, message });
    };
    for name in FLOORS.iter().map(|(name, _)| *name).chain([TOP]).filter(|name| !graph.direct.contains_key(*name)) {
        report(name, "is not in the workspace".to_owned());
    }
    for (name, direct) in &graph.direct {
        let Some((_, may_use)) = FLOORS.iter().find(|(floor, _)| floor == name) else {
            if name != TOP {
                report(name, "stands on no floor: give it one in bench/tests/tidy/floors.rs".to_owned());
            }
            continue;
        };
        let may_use = |used: &str| may_use.contains(&used) || TESTED_WITH.contains(&(name.as_str(), used));
        for used in direct.iter().filter(|used| known(used) && !may_use(used)) {
            report(name, format!("may not use {used}"));
        }
    }
    for (name, kept_out) in KEPT_OUT {
        let shipped = graph.shipped.get(name).into_iter().flatten();
        for used in shipped.filter(|used| kept_out.contains(&used.as_str())) {
            report(name, format!("{used} gets into it"));
        }
    }
    found
}

pub(crate) fn check_source(source: &Source) -> Vec<Violation> {
    let is_under = |folders: &[&str]| folders.iter().any(|folder| source.path.starts_with(folder));
    let mut kept_out: Vec<&str> = Vec::new();
    if is_under(&SANS_IO) {
        kept_out.extend(OUTSIDE);
    }
    if !is_under(&SIMULATION) {
        kept_out.extend(NULL_CIPHER);
    }
    let mut found = Vec::new();
    find_words(source, source.tokens(), &kept_out, &mut found);
    found
}

fn find_words(source: &Source, tokens: TokenStream, words: &[&str], found: &mut Vec<Violation>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => find_words(source, group.stream(), words, found),
            TokenTree::Ident(word) => {
                if let Some(word_out) = words.iter().find(|out| word == **out) {
                    let line = word.span().start().line;
                    found.push(source.violation(line, format!("`{word_out}` may not be named here")));
                }
            }
            _ => {}
        }
    }
}

#[test]
fn a_crate_that_reaches_over_its_floor_is_found() {
    assert_eq!(check(&Graph::example()), []);
    for (name, used) in [
        ("quantum", "quantum-shard"),
        ("quantum", "tokio"),
        ("quantum", "socket2"),
        ("quantum-shard", "tokio"),
        ("quantum-shard", "quantum-grpc"),
        ("quantum-sim", "quantum-shard"),
        ("aetherflow", "quantum-shard"),
        ("aetherflow", "aetherflow-bench"),
        // Allowed to its tests, but this is shipped.
        ("aetherflow", "private-stores"),
        ("aetherflow-tune", "aetherflow"),
    ] {
        let mut graph = Graph::example();
        graph.uses(name, used);
        assert_eq!(check(&graph).len(), 1, "{name} uses {used}");
    }
    let mut graph = Graph::example();
    // Named and shipped.
    graph.uses("aetherflow", "quantum-sim");
    assert_eq!(check(&graph).len(), 2);
    graph = Graph::example();
    graph.uses("commons", "quantum");
    assert_eq!(check(&graph).len(), 1, "a crate without a floor");
    graph = Graph::example();
    graph.direct.remove("quantum");
    assert_eq!(check(&graph).len(), 1, "a crate that is gone");
}

#[test]
fn the_real_graph_is_read_with_everything_that_comes_along() {
    let graph = Graph::of_workspace();
    assert!(graph.direct["aetherflow"].contains("tonic"));
    // Not named by `control`, but used by what it uses.
    assert!(!graph.direct["aetherflow"].contains("io-uring") && graph.shipped["aetherflow"].contains("io-uring"));
}

#[test]
fn a_clock_in_the_core_and_the_null_cipher_outside_the_simulation_are_found() {
    let found = |path: &str, text: &str| check_source(&Source::new(path, text)).len();
    for text in ["use std::time::Instant;", "fn f() { g!(SystemTime::now()) }", "use std::net::{UdpSocket};"] {
        assert_eq!(found("dataplane/quantum/src/a.rs", text), 1, "{text}");
        assert_eq!(found("dataplane/shard/src/a.rs", text), 0, "{text}");
    }
    for path in ["control/src/main.rs", "tuning/src/main.rs", "bench/src/main.rs", "dataplane/shard/src/lib.rs"] {
        assert_eq!(found(path, "use quantum_sim::Cipher;"), 1, "{path}");
    }
    assert_eq!(found("dataplane/sim/src/a.rs", "struct NullCipher;"), 0);
}
