//! The image: what its Dockerfile promises, and, where a Docker engine runs, the image itself.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod dockerfile;
