//! The client of `revwallet health`, which asks a server whether it is ready. Containers use it as their health check.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http::{StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::output::{OutputArgs, print_json};

/// Longest time that the server may take to respond.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Largest response body that is read, in bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Asks the server with the internal listener at `listen` whether it is ready. Returns an error with the reason if it
/// is not. With `--json`, prints the server's response.
pub async fn health(listen: SocketAddr, output: OutputArgs) -> anyhow::Result<()> {
    let address = reachable(listen);
    let response = tokio::time::timeout(TIMEOUT, get_readyz(address)).await;
    let response = response.unwrap_or_else(|late| Err(late.into()));
    let (status, body) =
        response.with_context(|| format!("the server at {address} does not respond"))?;
    if output.json {
        let document: Value = serde_json::from_str(&body)
            .with_context(|| format!("the response of {address} is not JSON"))?;
        print_json(&document)?;
    }
    if status != StatusCode::OK {
        bail!("the server at {address} is not ready: {}", body.trim());
    }
    Ok(())
}

async fn get_readyz(address: SocketAddr) -> anyhow::Result<(StatusCode, String)> {
    let url: Uri = format!("http://{address}/readyz").parse()?;
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let response = client.get(url).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
    let body = body.map_err(|cause| anyhow!(cause))?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// Returns the address to connect to: the loopback address if the server listens on all addresses (a wildcard),
/// otherwise the address on which the server listens.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
