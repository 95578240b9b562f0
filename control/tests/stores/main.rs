//! What both services promise, held against every store: one suite, each test once per store, with the store in its name.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

#[path = "../common/mod.rs"]
mod common;
mod compaction;
mod conflicts;
mod documents;
mod locks;
mod purge;
mod sessions;
mod typed;
mod waiting;

/// Makes one test per store of each function, which takes a running `World`.
macro_rules! on_every_store {
    ($($test:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $test() {
                super::$test(crate::common::World::on(control::store::StoreKind::Memory).await).await;
            })*
        }
        mod sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$test(crate::common::World::on(control::store::StoreKind::Sqlite).await).await;
            })*
        }
    };
}
pub(crate) use on_every_store;

/// The same for sessions, which Redis keeps as well.
macro_rules! on_every_session_store {
    ($($test:ident),* $(,)?) => {
        crate::on_every_store! { $($test),* }
        mod redis {
            $(#[tokio::test]
            async fn $test() {
                if let Some(world) = crate::common::World::on_redis().await {
                    super::$test(world).await;
                }
            })*
        }
    };
}
pub(crate) use on_every_session_store;

/// The same for documents, which PostgreSQL keeps as well.
macro_rules! on_every_document_store {
    ($($test:ident),* $(,)?) => {
        crate::on_every_store! { $($test),* }
        mod postgres {
            $(#[tokio::test]
            async fn $test() {
                if let Some(world) = crate::common::World::on_postgres().await {
                    super::$test(world).await;
                }
            })*
        }
    };
}
pub(crate) use on_every_document_store;
