//! The wallet backend.
