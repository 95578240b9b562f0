//! Whom PostgreSQL runs as where this is root, as whom it refuses to run.

use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::StartError;

/// Users that a server may run as, if they are there.
const USERS: [&str; 2] = ["postgres", "nobody"];

/// A user other than root.
#[derive(Debug)]
pub(crate) struct Owner {
    /// The user and group of its files.
    ids: (u32, u32),
    /// What makes a command theirs.
    becoming: Vec<String>,
}

impl Owner {
    /// A user whom a server can run as, and whose `data` is; none if this is not root. A real one if the programs and `data` are in
    /// reach of that one; else root under another name in a user namespace of its own.
    pub(crate) fn find(programs: &Path, data: &Path) -> Result<Option<Self>, StartError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let mut owners: Vec<Self> = USERS
            .into_iter()
            .filter_map(|user| Some((id("-u", user)?, id("-g", user)?)))
            .map(|(user, group)| {
                let becoming = format!("setpriv --reuid={user} --regid={group} --clear-groups --");
                Self { ids: (user, group), becoming: becoming.split(' ').map(str::to_owned).collect() }
            })
            .collect();
        let becoming = "unshare --user --map-user=65534 --map-group=65534 --".split(' ').map(str::to_owned).collect();
        owners.push(Self { ids: (0, 0), becoming });
        for owner in owners {
            let (user, group) = owner.ids;
            chown(data, Some(user), Some(group)).map_err(StartError::system("cannot give PostgreSQL its folder"))?;
            if owner.can_run(programs, data) {
                return Ok(Some(owner));
            }
        }
        Err(StartError::NoOwner)
    }

    fn can_run(&self, programs: &Path, data: &Path) -> bool {
        let mut command = command(Some(self), Path::new("sh"));
        command.args(["-c", "cd \"$1\" && touch probe && rm probe && exec \"$0\" --version"]);
        let tried = command.arg(programs.join("initdb")).arg(data).stdin(Stdio::null()).output();
        tried.is_ok_and(|output| output.status.success())
    }
}

/// The number of a user or of its group.
fn id(kind: &str, user: &str) -> Option<u32> {
    let said = Command::new("id").args([kind, user]).stdin(Stdio::null()).output().ok()?;
    String::from_utf8(said.stdout).ok()?.trim().parse().ok()
}

/// A command as that user, or as this one.
pub(crate) fn command(owner: Option<&Owner>, program: &Path) -> Command {
    let Some(owner) = owner else { return Command::new(program) };
    let mut command = Command::new(&owner.becoming[0]);
    command.args(&owner.becoming[1..]).arg(program);
    command
}
