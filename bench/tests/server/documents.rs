//! What the document service says of the documents that somebody else writes.

use std::time::{Duration, Instant};

use proto::statesync::ListDocumentsRequest;
use proto::statesync::state_sync_service_client::StateSyncServiceClient;
use tonic::transport::Channel;

/// Between two looks at a document: a subscriber would be one more reader of what is measured.
const POLL: Duration = Duration::from_millis(5);

pub async fn documents(base: u16) -> StateSyncServiceClient<Channel> {
    StateSyncServiceClient::connect(format!("http://127.0.0.1:{}", base + 2)).await.unwrap()
}

/// The id and the version of a document, counted in the order of their creation, if it is there.
pub async fn document(client: &mut StateSyncServiceClient<Channel>, number: usize) -> Option<(String, u64)> {
    let request = ListDocumentsRequest { offset: number as i32, limit: 1, ..ListDocumentsRequest::default() };
    let listed = client.list_documents(request).await.unwrap().into_inner().documents;
    listed.into_iter().next().map(|document| (document.id, document.version))
}

/// Waits until a document has so many versions.
pub async fn reaches(base: u16, number: usize, version: u64) {
    let mut client = documents(base).await;
    let deadline = Instant::now() + Duration::from_mins(1);
    while document(&mut client, number).await.is_none_or(|(_, at)| at < version) {
        assert!(Instant::now() < deadline, "the replay does not come to version {version}");
        tokio::time::sleep(POLL).await;
    }
}
