//! The whole crate between two pumps, over shards on loopback and over a wire in memory that takes their place.

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

        mod udp {
            $(
                #[tokio::test]
                async fn $name() {
                    if super::super::fixture::has_shards() {
                        super::$name(super::Network::Udp).await;
                    }
                }
            )*
        }
    };
}

mod any;
mod calls;
mod deadlines;
mod early;
mod fec;
mod fixture;
mod hostile;
mod load;
mod plain;
mod rebinding;
mod service;
mod wire;
