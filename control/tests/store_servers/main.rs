//! Stores that are servers of their own, which are killed, fall silent, forget, are shared, or are behind a bad network.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "a test")]

#[path = "../common/mod.rs"]
mod common;
mod postgres_documents;
mod postgres_faults;
mod postgres_indexes;
mod postgres_tls;
mod redis_faults;
mod redis_sessions;
