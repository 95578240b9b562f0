//! A real PostgreSQL server: one for all tests of a binary that run at the same time, or one of a test's own; a database for each.

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use control::statesync::PostgresOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection, PgConnection};
use tempfile::TempDir;
use uuid::Uuid;

use super::commands::{path, skip};
use super::eventually;

/// How long the server may take to start, with what it has to repair after it was killed.
const START_TIME: Duration = Duration::from_secs(30);
/// The server that tests share while any of them uses it.
static SHARED: tokio::sync::Mutex<Weak<Cluster>> = tokio::sync::Mutex::const_new(Weak::new());

/// A database of its own, on a server that ends with the last of its users.
pub struct PostgresServer {
    cluster: Arc<Cluster>,
    database: String,
}

impl PostgresServer {
    /// An empty database on the shared server; none if PostgreSQL is not installed, which is a failure where everything has to be
    /// tested.
    pub async fn start() -> Option<Self> {
        let mut shared = SHARED.lock().await;
        let cluster = if let Some(cluster) = shared.upgrade() {
            cluster
        } else {
            let cluster = Arc::new(Cluster::start().await?);
            *shared = Arc::downgrade(&cluster);
            cluster
        };
        drop(shared);
        Some(Self::create(cluster).await)
    }

    /// An empty database on a server of its own, which may be killed.
    pub async fn alone() -> Option<Self> {
        Some(Self::create(Arc::new(Cluster::start().await?)).await)
    }

    async fn create(cluster: Arc<Cluster>) -> Self {
        let database = format!("test_{}", Uuid::new_v4().simple());
        let create = format!("CREATE DATABASE {database}");
        let mut admin = cluster.connect("postgres").await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(create)).execute(&mut admin).await.unwrap();
        admin.close().await.unwrap();
        Self { cluster, database }
    }

    pub fn options(&self) -> PostgresOptions {
        PostgresOptions {
            host: "127.0.0.1".to_owned(),
            port: self.cluster.port,
            user: "postgres".to_owned(),
            password: String::new(),
            database: self.database.clone(),
            ssl_mode: PgSslMode::Disable,
            ssl_root_cert: None,
            connections: 6,
            idle_connections: 2,
            connect_timeout: Duration::from_secs(1),
            statement_timeout: Duration::from_secs(3),
        }
    }

    /// The section `Store` of a configuration file.
    pub fn section(&self) -> String {
        format!(
            "Store:\n  Type: postgres\n  Postgres: {{Host: 127.0.0.1, Port: {}, User: postgres, DBName: {}}}\n",
            self.cluster.port, self.database
        )
    }

    /// A connection beside the service's.
    pub async fn connect(&self) -> PgConnection {
        self.cluster.connect(&self.database).await.unwrap()
    }

    /// Ends every process of the server without any warning.
    pub fn kill(&self) {
        let mut server = self.cluster.server.lock().unwrap();
        signal("-KILL", &with_children(server.id()));
        server.wait().unwrap();
    }

    /// Stops every process of the server, or lets them go on.
    pub fn signal_all(&self, name: &str) {
        signal(name, &with_children(self.cluster.server.lock().unwrap().id()));
    }

    /// Starts it again with what it had on disk.
    pub async fn restart(&self) {
        let deadline = Instant::now() + START_TIME;
        // Processes of the killed server that are not quite gone keep another one from starting.
        loop {
            *self.cluster.server.lock().unwrap() = self.cluster.spawn();
            if self.cluster.answers(deadline).await {
                return;
            }
        }
    }
}

struct Cluster {
    server: Mutex<Child>,
    programs: PathBuf,
    owner: Option<Owner>,
    port: u16,
    data: TempDir,
}

impl Cluster {
    async fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            skip("no PostgreSQL server (Debian: postgresql): .ci/tools.sh fetches it");
            return None;
        };
        let data = tempfile::tempdir().unwrap();
        let owner = Owner::find(&programs, data.path());
        // Its own start syncs nothing: what a test looks at is what the server does later.
        let mut init = command(owner.as_ref(), &programs.join("initdb"));
        init.args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"]);
        let made = init.arg(data.path().join("data")).current_dir(data.path()).output().unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Mutex::new(spawn(owner.as_ref(), &programs, port, &data));
        let cluster = Self { server, programs, owner, port, data };
        assert!(cluster.answers(Instant::now() + START_TIME).await, "PostgreSQL ended at once");
        Some(cluster)
    }

    fn spawn(&self) -> Child {
        spawn(self.owner.as_ref(), &self.programs, self.port, &self.data)
    }

    /// Waits until it takes connections; false if it ended instead.
    async fn answers(&self, deadline: Instant) -> bool {
        let look = async || match self.connect("postgres").await {
            Ok(_) => Ok(true),
            Err(_) if self.server.lock().unwrap().try_wait().unwrap().is_some() => Ok(false),
            Err(error) => Err(error),
        };
        eventually(deadline.saturating_duration_since(Instant::now()), look).await
    }

    async fn connect(&self, database: &str) -> Result<PgConnection, sqlx::Error> {
        let options = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(self.port).username("postgres");
        options.database(database).ssl_mode(PgSslMode::Disable).connect().await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let Ok(server) = self.server.get_mut() else { return };
        // It may have ended already. QUIT is an immediate end that leaves nothing behind in the system.
        if matches!(server.try_wait(), Ok(None)) {
            let processes = with_children(server.id());
            signal("-CONT", &processes);
            signal("-QUIT", &processes[..1]);
            let deadline = Instant::now() + Duration::from_secs(5);
            while matches!(server.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let _ = server.kill();
        let _ = server.wait();
    }
}

fn spawn(owner: Option<&Owner>, programs: &Path, port: u16, data: &TempDir) -> Child {
    let mut command = command(owner, &programs.join("postgres"));
    command.arg("-D").arg(data.path().join("data")).args(["-p", &port.to_string()]);
    for setting in ["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=200", "fsync=on"] {
        command.args(["-c", setting]);
    }
    command.current_dir(data.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// The folder of `initdb` and `postgres`: of the newest version that Debian has installed, or on the path.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    folders.sort();
    let on_path = path();
    let found = folders.into_iter().rev().map(|(_, folder)| folder).chain(std::env::split_paths(&on_path));
    found.into_iter().find(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file())
}

/// Who the server runs as where this is root, as whom it refuses to run.
struct Owner {
    /// The user and group of its files.
    ids: (u32, u32),
    /// What makes a command theirs.
    becoming: Vec<String>,
}

impl Owner {
    /// A user whom it can run as: a real one if the programs and `data` are in reach of that one; else root under another name in
    /// a user namespace of its own.
    fn find(programs: &Path, data: &Path) -> Option<Self> {
        if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
            return None;
        }
        let id = |kind: &str, user: &str| {
            let said = Command::new("id").args([kind, user]).output().unwrap();
            String::from_utf8(said.stdout).unwrap().trim().parse().ok()
        };
        let mut owners: Vec<Self> = ["postgres", "nobody"]
            .into_iter()
            .filter_map(|user| Some((id("-u", user)?, id("-g", user)?)))
            .map(|(user, group)| Self {
                ids: (user, group),
                becoming: format!("setpriv --reuid={user} --regid={group} --clear-groups --")
                    .split(' ')
                    .map(str::to_owned)
                    .collect(),
            })
            .collect();
        let becoming = "unshare --user --map-user=65534 --map-group=65534 --".split(' ').map(str::to_owned).collect();
        owners.push(Self { ids: (0, 0), becoming });
        let found = owners.into_iter().find(|owner| {
            let (user, group) = owner.ids;
            chown(data, Some(user), Some(group)).unwrap();
            let mut command = command(Some(owner), Path::new("sh"));
            command.args(["-c", "cd \"$1\" && touch probe && rm probe && exec \"$0\" --version"]);
            let tried = command.arg(programs.join("initdb")).arg(data).output();
            tried.is_ok_and(|output| output.status.success())
        });
        Some(found.expect("nobody but root can run PostgreSQL here: it needs setpriv or unshare"))
    }
}

fn command(owner: Option<&Owner>, program: &Path) -> Command {
    let Some(owner) = owner else { return Command::new(program) };
    let mut command = Command::new(&owner.becoming[0]);
    command.args(&owner.becoming[1..]).arg(program);
    command
}

/// A process, then its children.
fn with_children(id: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    std::iter::once(id).chain(children.split_whitespace().filter_map(|child| child.parse().ok())).collect()
}

/// One that has just ended is no failure.
fn signal(name: &str, processes: &[u32]) {
    let mut command = Command::new("kill");
    command.arg(name).args(processes.iter().map(u32::to_string)).stderr(Stdio::null());
    command.status().unwrap();
}
