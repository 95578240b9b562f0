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
