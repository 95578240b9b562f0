//! What our services are compared with: plain tonic over TCP, its sessions in a map behind a mutex, nothing else.

use std::collections::HashMap;
use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use proto::session as pb;
use proto::session::session_service_server::{SessionService, SessionServiceServer};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::floor_documents::FloorDocuments;

/// As long as ours, in characters.
const TOKEN: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const REMAINING_SECONDS: u32 = 1800;

/// Serves on a free port of loopback, which it tells as our services do, until it is ended.
///
/// # Errors
/// If it cannot listen.
pub(super) fn serve() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        println!("  gRPC over TCP  http://{address}\n  fingerprint of no key  -");
        std::io::stdout().flush()?;
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let sessions = SessionServiceServer::new(Floor::default());
        let server = Server::builder().add_service(sessions).add_service(FloorDocuments::default());
        Ok(server.serve_with_incoming(incoming).await?)
    })
}

/// Sessions by id.
#[derive(Default)]
struct Floor(Mutex<HashMap<String, pb::Session>>);

impl Floor {
    fn sessions(&self) -> MutexGuard<'_, HashMap<String, pb::Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_session() -> Status {
    Status::not_found("there is no such session")
}

#[tonic::async_trait]
impl SessionService for Floor {
    async fn create_session(
        &self,
        request: Request<pb::CreateSessionRequest>,
    ) -> Result<Response<pb::CreateSessionResponse>, Status> {
        let request = request.into_inner();
        let now = Some(SystemTime::now().into());
        let session = pb::Session {
            session_id: Uuid::now_v7().to_string(),
            user_id: request.user_id,
            connection_id: Uuid::now_v7().to_string(),
            client_ip: request.client_ip,
            client_port: request.client_port,
            created_at: now,
            last_active_at: now,
            expires_at: now,
            metadata: request.metadata,
            ..pb::Session::default()
        };
        self.sessions().insert(session.session_id.clone(), session.clone());
        Ok(Response::new(pb::CreateSessionResponse { session: Some(session), token: TOKEN.to_owned() }))
    }

    async fn get_session(
        &self,
        request: Request<pb::GetSessionRequest>,
    ) -> Result<Response<pb::GetSessionResponse>, Status> {
        let session = self.sessions().get(&request.into_inner().session_id).cloned();
        Ok(Response::new(pb::GetSessionResponse { session: Some(session.ok_or_else(no_session)?) }))
    }

    async fn heartbeat(
        &self,
        request: Request<pb::HeartbeatRequest>,
    ) -> Result<Response<pb::HeartbeatResponse>, Status> {
        let now = Some(SystemTime::now().into());
        let mut sessions = self.sessions();
        let session = sessions.get_mut(&request.into_inner().session_id).ok_or_else(no_session)?;
        session.last_active_at = now;
        let answer =
            pb::HeartbeatResponse { success: true, server_timestamp: now, remaining_seconds: REMAINING_SECONDS };
        Ok(Response::new(answer))
    }

    async fn get_stats(&self, _: Request<pb::GetStatsRequest>) -> Result<Response<pb::GetStatsResponse>, Status> {
        let total = self.sessions().len() as u64;
        Ok(Response::new(pb::GetStatsResponse { total, ..pb::GetStatsResponse::default() }))
    }

    async fn update_session(
        &self,
        _: Request<pb::UpdateSessionRequest>,
    ) -> Result<Response<pb::UpdateSessionResponse>, Status> {
        Err(Status::unimplemented("not compared"))
    }

    async fn delete_session(
        &self,
        _: Request<pb::DeleteSessionRequest>,
    ) -> Result<Response<pb::DeleteSessionResponse>, Status> {
        Err(Status::unimplemented("not compared"))
    }

    async fn rotate_token(
        &self,
        _: Request<pb::RotateTokenRequest>,
    ) -> Result<Response<pb::RotateTokenResponse>, Status> {
        Err(Status::unimplemented("not compared"))
    }

    async fn list_sessions(
        &self,
        _: Request<pb::ListSessionsRequest>,
    ) -> Result<Response<pb::ListSessionsResponse>, Status> {
        Err(Status::unimplemented("not compared"))
    }
}
