//! Tests of the Docker image, which need a Docker engine: `scripts/test --docker` provides it and builds the image.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(unreachable_pub, reason = "a test binary has no public interface")]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "measurements, and logs of failed containers"
)]
#![expect(clippy::disallowed_methods, reason = "each test checks itself that its tasks end")]

mod client;
mod compose;
mod edge;
mod engine;
mod image;
mod lifecycle;
mod network;
