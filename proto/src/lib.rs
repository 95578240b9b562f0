//! The messages, clients and servers of `AetherFlow`'s gRPC services, generated from `proto/*.proto`.
//!
//! The `.proto` files are the documentation of every field; names and numbers in them never change. Fields of type `bytes` are
//! [`bytes::Bytes`](https://docs.rs/bytes), so that a payload is not copied from the wire to the handler.

/// `session.SessionService` and its messages.
#[expect(
    missing_docs,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code; the .proto file documents it"
)]
pub mod session {
    tonic::include_proto!("session");
}

/// `aetherflow.statesync.StateSyncService` and its messages.
#[expect(
    missing_docs,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code; the .proto file documents it"
)]
pub mod statesync {
    tonic::include_proto!("aetherflow.statesync");
}

/// The encoded `google.protobuf.FileDescriptorSet` of both files and what they import, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The gRPC paths of the methods that have no side effects (`idempotency_level = NO_SIDE_EFFECTS`): their RPCs may happen twice, so
/// they may be sent as early data.
pub const IDEMPOTENT_METHODS: &[&str] = include!(concat!(env!("OUT_DIR"), "/idempotent.rs"));
