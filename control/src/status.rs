//! gRPC statuses with details that a client can act on.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::store::StoreError;
use crate::telemetry::Seldom;

/// The `domain` of every `google.rpc.ErrorInfo` here.
pub const DOMAIN: &str = "aetherflow";

/// A status with an `ErrorInfo`: `reason` is a constant in `UPPER_SNAKE_CASE`, `metadata` holds the facts.
pub fn with_info(code: Code, message: impl Into<String>, reason: &str, metadata: &[(&str, String)]) -> Status {
    let metadata: HashMap<String, String> =
        metadata.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    Status::with_error_details(code, message, ErrorDetails::with_error_info(reason, DOMAIN, metadata))
}

/// `INVALID_ARGUMENT` with a `BadRequest` that names the field.
pub fn invalid(field: &str, description: impl Into<String>) -> Status {
    let description = description.into();
    let message = format!("{field}: {description}");
    Status::with_error_details(
        Code::InvalidArgument,
        message,
        ErrorDetails::with_bad_request_violation(field, description),
    )
}

/// `NOT_FOUND` for a `kind` of thing with this id.
pub fn not_found(kind: &str, id: &str) -> Status {
    let reason = format!("{}_NOT_FOUND", kind.to_uppercase());
    with_info(Code::NotFound, format!("{kind} {id} does not exist"), &reason, &[("id", id.to_owned())])
}

/// The status of a store's failure. What the database said goes to the log, not to the client; of a store that is down, where
/// every request fails, once a second.
pub fn of_store(error: &StoreError) -> Status {
    static DOWN: Seldom = Seldom::new();
    match error {
        StoreError::Failed(_) | StoreError::Closed => {
            if let Some(others) = DOWN.admit() {
                tracing::error!(%error, others, "a request failed in the store, and others since this was last said");
            }
        }
        _ => tracing::error!(%error, "a request failed in the store"),
    }
    with_info(Code::Unavailable, "the store does not answer; try again", "STORE_UNAVAILABLE", &[])
}

/// Checks that a required text is there and at most `bytes_max` long.
///
/// # Errors
/// `INVALID_ARGUMENT` that names `field`.
pub fn required(field: &str, value: &str, bytes_max: usize) -> Result<(), Status> {
    if value.is_empty() {
        return Err(invalid(field, "is required"));
    }
    bounded(field, value, bytes_max)
}

/// Checks that a text is at most `bytes_max` long and has no NUL, which not every store can keep.
///
/// # Errors
/// `INVALID_ARGUMENT` that names `field`.
pub fn bounded(field: &str, value: &str, bytes_max: usize) -> Result<(), Status> {
    if value.len() > bytes_max {
        return Err(invalid(field, format!("is {} bytes long; at most {bytes_max} are allowed", value.len())));
    }
    if value.contains('\0') {
        return Err(invalid(field, "has a NUL character"));
    }
    Ok(())
}

/// Reads a UUID.
///
/// # Errors
/// `INVALID_ARGUMENT` that names `field`.
pub fn uuid(field: &str, value: &str) -> Result<uuid::Uuid, Status> {
    if value.is_empty() {
        return Err(invalid(field, "is required"));
    }
    bounded(field, value, 64)?;
    match uuid::Uuid::try_parse(value) {
        Ok(id) if !id.is_nil() => Ok(id),
        _ => Err(invalid(field, "is not a UUID")),
    }
}
