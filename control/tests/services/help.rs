//! What `--help` and `completions` print, command by command.

use std::process::Command;

use crate::common::commands::{AETHERFLOW, said};

/// What clap wraps at where there is no terminal; a longer example would be broken.
const COLUMNS: usize = 100;
const COMMANDS: [&str; 13] = [
    "",
    "up",
    "session",
    "statesync",
    "migrate",
    "migrate up",
    "migrate down",
    "migrate status",
    "config",
    "config check",
    "call",
    "proxy",
    "token",
];

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn arguments<'a>(command: &'a str, last: &'a str) -> Vec<&'a str> {
    command.split_whitespace().chain([last]).collect()
}

#[test]
fn every_command_has_examples_which_are_not_broken() {
    for command in COMMANDS.into_iter().chain(["completions"]) {
        let help = run(AETHERFLOW, &arguments(command, "--help"));
        let (_, examples) =
            help.split_once("Examples:\n").unwrap_or_else(|| panic!("{command} has no examples:\n{help}"));
        let examples: Vec<_> = examples.lines().take_while(|line| !line.is_empty()).collect();
        assert!(examples.iter().all(|line| line.len() <= COLUMNS), "{command}: {examples:#?}");
        let mut continues = false;
        for line in examples {
            // What clap breaks goes on where the line began, without a backslash before it.
            assert!(
                continues || line.contains("aetherflow"),
                "{command}: an example was broken before {line:?}\n{help}"
            );
            continues = line.ends_with('\\');
        }
    }
}

#[test]
fn completions_know_every_command_in_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = run(AETHERFLOW, &["completions", shell]);
        for name in COMMANDS.iter().flat_map(|command| command.split_whitespace()).chain(["--insecure-loopback"]) {
            assert!(script.contains(name.trim_start_matches('-')), "{shell} does not complete {name}");
        }
    }
}

#[test]
fn the_programs_of_one_service_say_which() {
    for (program, service) in [
        (env!("CARGO_BIN_EXE_session-service"), "session service"),
        (env!("CARGO_BIN_EXE_statesync-service"), "document service"),
    ] {
        assert!(run(program, &["--help"]).contains(service));
        assert!(run(program, &["--version"]).contains(env!("CARGO_PKG_VERSION")));
    }
}
