//! Calls that go on while what they need is killed and comes back.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tonic::{Code, Request, Response, Status};

use super::eventually;
use super::service::ServiceProcess;

/// How long a call may take.
pub const DEADLINE: Duration = Duration::from_secs(4);
/// How soon everything has to work again after the server is back.
pub const RECOVERY: Duration = Duration::from_secs(5);
/// What is acknowledged between two kills, and how long that may take.
const BETWEEN_KILLS: (u64, Duration) = (200, Duration::from_secs(30));
/// Who was refused asks again after so long.
const PAUSE: Duration = Duration::from_millis(20);

/// How often the tests that kill something do it: some times, or `STORE_KILLS` times.
pub fn kills() -> usize {
    std::env::var("STORE_KILLS").map_or(5, |kills| kills.parse().unwrap())
}

pub fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

/// What a call is told that has to fail, and in time.
pub async fn refused<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Code {
    let started = Instant::now();
    let status = call.await.err().expect("what it needs is not there");
    assert!(started.elapsed() < DEADLINE, "{:?}", started.elapsed());
    status.code()
}

/// What became of the calls of several writers.
#[derive(Default)]
pub struct Calls {
    stop: AtomicBool,
    acknowledged: AtomicU64,
    refused: AtomicU64,
    /// Whether calls may fail as they do where nobody listens.
    service_dies: bool,
}

impl Calls {
    /// Those to a service that is killed itself.
    pub fn of_dying_service() -> Self {
        Self { service_dies: true, ..Self::default() }
    }

    /// Whether writers are to go on.
    pub fn go_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// What a call is answered; none if it is refused.
    pub async fn heard<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Option<T> {
        let started = Instant::now();
        match call.await {
            Ok(answer) => {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
                Some(answer)
            }
            Err(status) => {
                assert!(self.service_dies || status.code() == Code::Unavailable, "{status:?}");
                assert!(started.elapsed() < DEADLINE, "{:?}", started.elapsed());
                self.refused.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(PAUSE).await;
                None
            }
        }
    }

    /// What a call is answered in the end, however often it is refused.
    pub async fn acknowledged<T, F>(&self, call: impl Fn() -> F) -> T
    where
        F: Future<Output = Result<T, Status>>,
    {
        loop {
            if let Some(answer) = self.heard(call()).await {
                return answer;
            }
        }
    }

    /// Waits until enough is acknowledged for the next kill.
    pub async fn until_kill(&self) {
        let (count, within) = BETWEEN_KILLS;
        self.until_acknowledged(count, within).await;
    }

    /// Waits until somebody is told that the store is down.
    pub async fn until_refused(&self) {
        let before = self.refused.load(Ordering::Relaxed);
        let refused = async || {
            if self.refused.load(Ordering::Relaxed) > before { Ok(()) } else { Err("nobody is told of the kill") }
        };
        eventually(2 * DEADLINE, refused).await;
    }

    /// What was killed is back: calls have to be acknowledged soon.
    pub async fn recover(&self) {
        let back = Instant::now();
        self.until_acknowledged(1, RECOVERY).await;
        println!("again after {:?}", back.elapsed());
    }

    async fn until_acknowledged(&self, count: u64, within: Duration) {
        let wanted = self.acknowledged.load(Ordering::Relaxed) + count;
        let enough = async || match self.acknowledged.load(Ordering::Relaxed) {
            acknowledged if acknowledged >= wanted => Ok(()),
            acknowledged => Err(format!("{acknowledged} of {wanted} calls were acknowledged")),
        };
        eventually(within, enough).await;
    }

    /// Kills a service in the middle of them, again and again.
    pub async fn outlive(&self, service: &mut ServiceProcess) {
        for _ in 1..=kills() {
            self.until_kill().await;
            service.kill();
            service.restart().await;
            self.recover().await;
        }
    }

    /// Has the writers stop.
    pub async fn end(&self, writers: JoinSet<()>) {
        self.stop.store(true, Ordering::Relaxed);
        writers.join_all().await;
        let [acknowledged, refused] = [&self.acknowledged, &self.refused].map(|count| count.load(Ordering::Relaxed));
        println!("{acknowledged} calls were acknowledged, {refused} refused");
    }
}
