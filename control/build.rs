//! Finds out what is built, for `aetherflow_build_info`: the commit, if this is a checkout and git is there, and the compiler.
//!
//! Only a release looks whether the checkout has moved on. Other builds keep the commit that they began with: a commit is no
//! reason to compile everything and its tests again.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=AETHERFLOW_COMMIT");
    let given = std::env::var("AETHERFLOW_COMMIT").ok().filter(|commit| is_word(commit));
    let commit = given.or_else(commit).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=AETHERFLOW_COMMIT={commit}");
    println!("cargo:rustc-env=AETHERFLOW_RUSTC={}", compiler().unwrap_or_else(|| "unknown".to_owned()));
}

/// The commit that is checked out.
fn commit() -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    // Inside somebody else's repository, as a source archive may be, git would tell of that.
    if !root.join(".git").exists() {
        return None;
    }
    let git = |arguments: &[&str]| said(Command::new("git").arg("-C").arg(root).args(arguments));
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        let branch = git(&["symbolic-ref", "-q", "HEAD"]);
        for name in ["HEAD", "logs/HEAD", "packed-refs"].into_iter().chain(branch.as_deref()) {
            let path = git(&["rev-parse", "--git-path", name]).map(|path| root.join(path));
            // One that is not there would make every build start anew.
            if let Some(path) = path.filter(|path| path.exists()) {
                println!("cargo:rerun-if-changed={}", path.display());
            }
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"]).filter(|commit| is_word(commit))
}

/// The version of the compiler, such as 1.95.0.
fn compiler() -> Option<String> {
    let version = said(Command::new(std::env::var_os("RUSTC")?).arg("--version"))?;
    version.split(' ').nth(1).filter(|version| is_word(version)).map(str::to_owned)
}

fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// What can stand in a label as it is.
fn is_word(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-+_".contains(&byte))
}
