//! The request that the current task handles. Each log line that the task writes has the fields of this request.
//!
//! A span would add the same fields, but it costs time even if the request logs nothing. So only a request whose trace
//! is exported has a span.

use std::borrow::Cow;
use std::sync::Arc;

use tracing::Span;

tokio::task_local! {
    static CURRENT: Arc<dyn LoggedRequest>;
}

/// A request whose fields are part of its log lines.
pub trait LoggedRequest: Send + Sync {
    /// Passes the name and the value of each field that is known so far to `add`.
    fn for_each_field(&self, add: &mut dyn FnMut(&'static str, FieldValue<'_>));

    /// Adds the field `caller`.
    fn set_caller(&self, name: Cow<'static, str>);
}

/// Value of a field in a log line.
#[derive(Debug, Clone, Copy)]
pub enum FieldValue<'a> {
    Text(&'a str),
    Number(u64),
}

/// Runs a future. Its log lines have the fields of the request.
pub fn in_request<F: Future>(
    request: Arc<dyn LoggedRequest>,
    future: F,
) -> impl Future<Output = F::Output> {
    CURRENT.scope(request, future)
}

/// Runs a function. Its log lines have the fields of the request.
pub fn log_in_request(request: Arc<dyn LoggedRequest>, log: impl FnOnce()) {
    CURRENT.sync_scope(request, log);
}

/// Adds the field `caller` to the later log lines of the current request, and to its span if it has one.
pub fn record_caller(name: Cow<'static, str>) {
    Span::current().record("caller", &*name);
    let _outside = CURRENT.try_with(|request| request.set_caller(name));
}

/// Passes the fields of the current request to `add`, if the current task handles a request without a span.
pub(super) fn for_each_field(mut add: impl FnMut(&'static str, FieldValue<'_>)) {
    let _outside = CURRENT.try_with(|request| request.for_each_field(&mut add));
}
