//! What a service shows an operator: its metrics and whether it is ready.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::eventually;

/// What is at `path`, with its head.
pub async fn http_get(address: SocketAddr, path: &str) -> String {
    let (head, body) = http_get_as(address, path, "*/*").await.unwrap();
    head + &String::from_utf8(body).unwrap()
}

/// The head, and the body as whoever accepts this gets it. In HTTP/1.0, in which no body comes in chunks.
pub async fn http_get_as(address: SocketAddr, path: &str, accept: &str) -> std::io::Result<(String, Vec<u8>)> {
    let mut stream = TcpStream::connect(address).await?;
    let head = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: {accept}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").map_or(answer.len(), |end| end + 4);
    let body = answer.split_off(end);
    Ok((String::from_utf8_lossy(&answer).into_owned(), body))
}

/// Waits until a service says that it is ready; gives what it says.
pub async fn is_ready_within(metrics: SocketAddr, time: Duration) -> String {
    says_within(metrics, "200", time).await
}

/// Waits until a service says that it is not ready; gives what it says.
pub async fn is_unready_within(metrics: SocketAddr, time: Duration) -> String {
    says_within(metrics, "503", time).await
}

async fn says_within(metrics: SocketAddr, code: &str, time: Duration) -> String {
    eventually(time, async || {
        let answer = http_get(metrics, "/readyz").await;
        if answer.starts_with(&format!("HTTP/1.0 {code}")) { Ok(answer) } else { Err(answer) }
    })
    .await
}
