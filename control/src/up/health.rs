//! `grpc.health.v1.Health`: what `/readyz` calls ready serves.

use std::pin::Pin;
use std::time::Duration;

use futures_util::Stream;
use http::StatusCode;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::readiness::Readiness;

/// How old an answer may be, and how often it is looked for while somebody watches: anybody may ask, and an answer costs a write.
const FRESH: Duration = Duration::from_secs(1);

/// Answers for a server of one service.
pub(super) struct Health {
    service: &'static str,
    readiness: Readiness,
}

impl Health {
    pub(super) fn new(service: &'static str, readiness: Readiness) -> Self {
        Self { service, readiness }
    }

    /// The empty name is that of the whole server.
    fn is_served(&self, request: &HealthCheckRequest) -> bool {
        request.service.is_empty() || request.service == self.service
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if !self.is_served(request.get_ref()) {
            let served = self.service;
            return Err(Status::not_found(format!("only {served} is served here; an empty name is the whole server")));
        }
        Ok(Response::new(response(serving(&self.readiness).await)))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let is_served = self.is_served(request.get_ref());
        let readiness = self.readiness.clone();
        let watched = async_stream::stream! {
            let stop = readiness.stop();
            if !is_served {
                // It never will be, but a watch does not end by that.
                yield Ok(response(ServingStatus::ServiceUnknown));
                return stop.cancelled().await;
            }
            let mut told = None;
            loop {
                let is_last = stop.is_cancelled();
                let status = serving(&readiness).await;
                if told.replace(status) != Some(status) {
                    yield Ok(response(status));
                }
                if is_last {
                    return;
                }
                // Either way there is something to look at.
                let _ = tokio::time::timeout(FRESH, stop.cancelled()).await;
            }
        };
        Ok(Response::new(Box::pin(watched)))
    }
}

async fn serving(readiness: &Readiness) -> ServingStatus {
    let (status, _) = readiness.answer_within(FRESH).await;
    if status == StatusCode::OK { ServingStatus::Serving } else { ServingStatus::NotServing }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
