//! Positions of clients after a restore: every one from before is unrecoverable, wherever it was taken from.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::json;

use super::{Site, balance, deposit, now, wallet};
use crate::harness::{Program, free_address};

/// Subscribers at the time of the restore.
const SUBSCRIBERS: usize = 50;

async fn start(data: &Path, address: SocketAddr) -> Program {
    let (data, listen) = (format!("--data-dir={}", data.display()), format!("--listen={address}"));
    Program::start(&[&data, &listen, "--access=open", "--password-memory=512"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_position_from_before_a_restore_is_continued() {
    let (site, address) = (Site::new(), free_address());
    let program = site.start_archiving().await;
    let id = wallet(&program.public).await;
    site.backup(&[]).await;
    assert!(program.stop().await.success());
    let program = start(&site.data(), address).await;
    let path = format!("/wallet/{id}");
    let topic = format!("wallet:{id}");
    deposit(&program.public, &id, "kept").await;
    let target = now();
    let read = program.public.get(&path).await.header("book-position").to_owned();
    let mut positions = vec![read];
    let mut sockets = Vec::new();
    for _ in 0..SUBSCRIBERS {
        let mut socket = program.public.socket().await;
        socket.subscribe(&topic).await;
        sockets.push(socket);
    }
    for key in ["lost-1", "lost-2"] {
        deposit(&program.public, &id, key).await;
        for socket in &mut sockets {
            let event = socket.json().await;
            positions.push(event["position"].as_str().unwrap().to_owned());
        }
    }
    let (stopped, closes) = tokio::join!(program.stop(), async {
        let mut closes = Vec::new();
        for socket in &mut sockets {
            closes.push(socket.closed().await);
        }
        closes
    });
    assert!(stopped.success());
    for close in closes {
        assert_eq!(u16::from(close.code), 1001);
        positions.push(close.reason.to_string());
    }

    let (new, output) = site.restore("new", &[&format!("--until={target}")]);
    assert!(output.succeeded, "{}", output.text);
    let program = start(&new, address).await;
    assert!((balance(&program.public, &id).await - 1.0).abs() < f64::EPSILON);
    // The ids of the lost transfers are assigned again, to other transfers.
    for key in ["other-1", "other-2", "other-3"] {
        deposit(&program.public, &id, key).await;
    }

    positions.sort_unstable();
    positions.dedup();
    assert!(positions.len() >= 3, "{positions:?}");
    let mut socket = program.public.socket().await;
    let mut next = None;
    for position in &positions {
        let frame = json!({ "action": "subscribe", "topic": topic, "after": position });
        let reply = socket.ask(frame).await;
        assert_eq!(reply["error"], "unrecoverable", "{position}: {reply}");
        next = reply["position"].as_str().map(str::to_owned);
    }
    socket.subscribe_after(&topic, &next.unwrap()).await;
    deposit(&program.public, &id, "after").await;
    assert_eq!(socket.json().await["data"]["available"], 5.0);
    socket.is_silent().await;
    assert!(program.stop().await.success());
}
