//! The section of how sessions behave.

use serde::{Deserialize, Serialize};

use crate::session::OnDisconnect;

/// How sessions behave.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SessionManager {
    /// What becomes of the sessions of a connection that has ended.
    pub on_disconnect: OnDisconnect,
}
