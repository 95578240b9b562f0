//! An echo server and a client of it, on UDP 9090.
//!
//! ```text
//! cargo run -p quantum-grpc --example echo -- serve [ADDRESS]
//! cargo run -p quantum-grpc --example echo -- dial [ADDRESS] [MESSAGE]...
//! ```

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use quantum_grpc::{Config, Identity, MessageConnection, dial, listen};

const ADDRESS: &str = "127.0.0.1:9090";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next();
    let address = arguments.next().unwrap_or_else(|| ADDRESS.to_owned());
    match command.as_deref() {
        Some("serve") => serve(address.parse().context("the address to listen on")?).await,
        Some("dial") => call(&address, arguments.collect()).await,
        _ => bail!("usage: echo serve [ADDRESS] | echo dial [ADDRESS] [MESSAGE]..."),
    }
}

async fn serve(address: SocketAddr) -> anyhow::Result<()> {
    let identity = Identity::load_or_create(Path::new("echo-data"), &[address.ip().to_string()])?;
    let mut listener = listen("quantum", address, &identity, &Config::default())?;
    println!("listening on {}, fingerprint {}", listener.local_addr(), identity.fingerprint());
    while let Some(connection) = listener.accept().await {
        tokio::spawn(async move {
            if let Err(error) = echo(connection.await?).await {
                eprintln!("{error:#}");
            }
            anyhow::Ok(())
        });
    }
    Ok(())
}

async fn echo(connection: MessageConnection) -> anyhow::Result<()> {
    println!("{} connected from {}", hex::encode(connection.guuid().0), connection.remote_addr());
    while let Some(message) = connection.receive().await? {
        connection.send(message).await?;
    }
    connection.close().await;
    Ok(())
}

async fn call(address: &str, mut messages: Vec<String>) -> anyhow::Result<()> {
    if messages.is_empty() {
        messages.push("hello".to_owned());
    }
    let connection = dial("quantum", address, &Config::default()).await?;
    for message in messages {
        connection.send(Bytes::from(message)).await?;
        let answer = connection.receive_timeout(Duration::from_secs(5)).await?.context("the server ended")?;
        println!("{}", String::from_utf8_lossy(&answer));
    }
    let statistics = connection.statistics().await?;
    println!(
        "{} packets sent, {} received, {} lost, round trip {:?}",
        statistics.packets_sent, statistics.packets_received, statistics.packets_lost, statistics.rtt_smoothed
    );
    connection.close().await;
    Ok(())
}
