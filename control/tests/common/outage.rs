//! Calls that go on while what they need is killed or out of reach, and comes back.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tonic::{Code, Request, Response, Status};

use super::fault::{Fault, FaultProxy};
use super::service::ServiceProcess;
use super::{eventually, is_ready_within, is_unready_within};

/// How long a call may take.
pub const DEADLINE: Duration = Duration::from_secs(4);
/// How much later than that a client may notice, where a call runs into it.
const LEEWAY: Duration = Duration::from_millis(500);
/// How soon everything has to work again after the server is back, where others use the processors as well.
pub const RECOVERY: Duration = Duration::from_secs(10);
/// What is acknowledged between two kills, and how long that may take.
const BETWEEN_KILLS: (u64, Duration) = (200, Duration::from_secs(30));
/// How often the network fails, and how many calls are refused each time before it is good again, and acknowledged after it.
const FAULTS: (u32, u64) = (2, 16);
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
    /// Whether calls may run into their deadline.
    is_late: bool,
}

impl Calls {
    /// Those to a service whose store is behind a bad network.
    pub fn of_bad_network() -> Self {
        Self { is_late: true, ..Self::default() }
    }

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
                let (code, took) = (status.code(), started.elapsed());
                if self.is_late && code == Code::DeadlineExceeded {
                    assert!(took < DEADLINE + LEEWAY, "{took:?}");
                } else {
                    assert!(self.service_dies || code == Code::Unavailable, "{status:?}");
                    assert!(took < DEADLINE, "{took:?}");
                }
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
        self.until_refused_more(1, 2 * DEADLINE).await;
    }

    /// How many were refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    async fn until_refused_more(&self, count: u64, within: Duration) {
        let wanted = self.refused() + count;
        let enough = async || match self.refused() {
            refused if refused >= wanted => Ok(()),
            refused => Err(format!("{refused} of {wanted} calls were refused")),
        };
        eventually(within, enough).await;
    }

    /// What was killed is back: calls have to be acknowledged soon.
    pub async fn recover(&self) {
        let back = Instant::now();
        self.until_acknowledged(1, RECOVERY).await;
        println!("again after {:?}", back.elapsed());
    }

    pub async fn until_acknowledged(&self, count: u64, within: Duration) {
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

    /// Has the network between a service and its store fail in the middle of them, again and again. `/readyz` at `metrics` says so,
    /// and soon after its end everything works, which `works` finds out.
    pub async fn outlive_fault(
        &self,
        (network, fault): (&FaultProxy, Fault),
        metrics: SocketAddr,
        mut works: impl AsyncFnMut(),
    ) {
        let (rounds, count) = FAULTS;
        for _ in 0..rounds {
            self.until_kill().await;
            network.set(fault);
            self.until_refused_more(count, 3 * DEADLINE).await;
            is_unready_within(metrics, DEADLINE).await;
            assert!(network.met() > 0, "nothing has met {fault:?}");
            network.set(Fault::None);
            let back = Instant::now();
            works().await;
            is_ready_within(metrics, RECOVERY).await;
            self.until_acknowledged(count, RECOVERY).await;
            println!("again after {:?}", back.elapsed());
            assert!(back.elapsed() < RECOVERY, "{:?}", back.elapsed());
        }
    }

    /// Has the writers stop.
    pub async fn end(&self, writers: JoinSet<()>) {
        self.stop.store(true, Ordering::Relaxed);
        writers.join_all().await;
        let acknowledged = self.acknowledged.load(Ordering::Relaxed);
        println!("{acknowledged} calls were acknowledged, {} refused", self.refused());
    }
}
