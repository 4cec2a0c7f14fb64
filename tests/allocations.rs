//! Number of memory allocations of the server per deposit. Unlike a time, it does not depend on the machine.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "the number is worth knowing")]

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use clap::Parser;
use revwallet::app::App;
use revwallet::cli::Cli;
use revwallet::telemetry::{LogStream, Telemetry};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Number of connections, each of which sends one deposit in a round.
const CONNECTIONS: usize = 64;

/// Rounds until every queue and buffer has its final size.
const WARM_UP_ROUNDS: usize = 30;

/// Number of times that allocations are counted. The smallest count has the least work in the background.
const COUNTS: usize = 5;

/// Rounds of a count.
const ROUNDS: usize = 20;

/// Largest number of allocations per deposit.
const ALLOCATIONS_MAX: usize = 45;

/// A client that allocates nothing while it sends deposits.
struct Depositor {
    connection: TcpStream,
    /// The request, whose idempotency key is written into it.
    request: Vec<u8>,
    key_at: usize,
}

impl Depositor {
    fn connect(address: SocketAddr, number: usize) -> Self {
        let mut connection = TcpStream::connect(address).unwrap();
        let open = r#"{"owner":"ada","currency":"EUR"}"#;
        let length = open.len();
        write!(connection, "POST /wallet HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{open}").unwrap();
        let mut response = [0; 4096];
        let body = body(&mut connection, "201", &mut response);
        let (_, id) = body.split_once(r#""id":""#).unwrap();
        let (id, _) = id.split_once('"').unwrap();
        let deposit = format!(r#"{{"id":"{id}","amount":"1.00"}}"#);
        let head = format!(
            "POST /wallet/deposit HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: {}\r\nIdempotency-Key: {number:04}-",
            deposit.len()
        );
        let key_at = head.len();
        let request = format!("{head}00000000\r\n\r\n{deposit}").into_bytes();
        Self { connection, request, key_at }
    }

    fn send(&mut self, round: usize) {
        let mut key = &mut self.request[self.key_at..][..8];
        write!(key, "{round:08}").unwrap();
        self.connection.write_all(&self.request).unwrap();
    }

    fn receive(&mut self) {
        body(&mut self.connection, "200", &mut [0; 4096]);
    }
}

/// Reads a response with this status, and returns its body.
fn body<'a>(connection: &mut TcpStream, status: &str, buffer: &'a mut [u8]) -> &'a str {
    let mut length = 0;
    let start = loop {
        let read = connection.read(&mut buffer[length..]).unwrap();
        assert!(read > 0, "the server closed the connection");
        length += read;
        let text = std::str::from_utf8(&buffer[..length]).unwrap();
        assert!(text.starts_with("HTTP/1.1 ") && text[9..].starts_with(status), "{text}");
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let (_, expected) = head.split_once("content-length: ").unwrap();
        let expected = expected.split("\r\n").next().unwrap().parse::<usize>().unwrap();
        if body.len() == expected {
            break length - expected;
        }
    };
    std::str::from_utf8(&buffer[start..length]).unwrap()
}

#[test]
fn a_deposit_allocates_rarely() {
    let folder = std::env::temp_dir().join(format!("revwallet-allocations-{}", std::process::id()));
    let data_dir = format!("--data-dir={}", folder.display());
    let arguments = [
        "revwallet",
        &data_dir,
        // Whatever the environment says.
        "--database-url=",
        "--database-url-file=",
        "--listen=127.0.0.1:0",
        "--internal-listen=127.0.0.1:0",
        "--access=open",
        "--log-filter=warn",
    ];
    let config = Cli::try_parse_from(arguments).unwrap().config;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    let telemetry = Telemetry::install(&config.telemetry, LogStream::Stdout).unwrap();
    let running = runtime.block_on(App::start(&config, &telemetry.metrics)).unwrap();
    let address = running.address.unwrap();
    let mut clients: Vec<_> = (0..CONNECTIONS).map(|n| Depositor::connect(address, n)).collect();
    let mut send_rounds = |rounds: std::ops::Range<usize>| {
        for round in rounds {
            for client in &mut clients {
                client.send(round);
            }
            for client in &mut clients {
                client.receive();
            }
        }
    };

    send_rounds(0..WARM_UP_ROUNDS);
    let counts = (0..COUNTS).map(|count| {
        let first = WARM_UP_ROUNDS + count * ROUNDS;
        let region = Region::new(ALLOCATOR);
        send_rounds(first..first + ROUNDS);
        let change = region.change();
        (change.allocations + change.reallocations) / (ROUNDS * CONNECTIONS)
    });
    let allocations = counts.min().unwrap();
    println!("{allocations} allocations per deposit");
    drop(clients);
    assert!(runtime.block_on(running.stop()), "the server did not shut down in time");
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(allocations <= ALLOCATIONS_MAX, "{allocations} allocations per deposit");
}
