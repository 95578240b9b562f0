//! The whole crate between two pumps: a wire in memory takes the place of the shards.

/// The named tests over every network.
macro_rules! on_both {
    ($($name:ident,)*) => {
        mod memory {
            $(
                #[tokio::test]
                async fn $name() {
                    super::$name(super::Network::Memory).await;
                }
            )*
        }
    };
}

mod calls;
mod deadlines;
mod fixture;
mod hostile;
mod load;
mod plain;
mod service;
mod wire;
