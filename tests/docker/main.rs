//! The image, where a Docker engine runs: `scripts/test --docker` builds it, sees to the engine and runs this.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(unreachable_pub, reason = "nothing is outside of a test binary")]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "figures, and the logs of what failed"
)]
#![expect(clippy::disallowed_methods, reason = "a test sees for itself that its tasks end")]

mod caller;
mod compose;
mod edge;
mod engine;
mod image;
mod life;
mod network;
