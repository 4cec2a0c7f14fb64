//! The client behind `revwallet health`: asks a server whether it is ready, as a container's health check does.

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

/// Longest time that a response may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Largest response body that is read.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Fails with the reason when the server behind this internal listener is not ready. With `--json`, prints its response.
pub async fn health(listen: SocketAddr, output: OutputArgs) -> anyhow::Result<()> {
    let address = reachable(listen);
    let response = tokio::time::timeout(TIMEOUT, get_readyz(address)).await;
    let response = response.unwrap_or_else(|late| Err(late.into()));
    let (status, body) =
        response.with_context(|| format!("the server at {address} does not answer"))?;
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

/// The address to connect to: a wildcard listen address is reached over loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
