//! The request that the current task handles. Each log line that the task writes has the fields of this request.
//!
//! A span would add the same fields, but it costs time even if the request logs nothing. So only a request whose trace
//! is exported has a span.

use std::borrow::Cow;
use std::sync::Arc;

use futures_util::future::Either;
use tracing::{Instrument, Span};

tokio::task_local! {
    static CURRENT: Arc<dyn LoggedRequest>;
}

/// A request whose fields are added to each log line that is written while the request is handled.
pub trait LoggedRequest: Send + Sync {
    /// Calls `add` with the name and the value of each field of the request. Omits fields whose values are not known
    /// yet.
    fn for_each_field(&self, add: &mut dyn FnMut(&'static str, FieldValue<'_>));

    /// Sets the field `caller` of the request.
    fn set_caller(&self, name: Cow<'static, str>);
}

/// Value of a field in a log line.
#[derive(Debug, Clone, Copy)]
pub enum FieldValue<'a> {
    Text(&'a str),
    Number(u64),
}

/// The request on whose behalf code runs, if any. The log lines that this code writes have the fields of the request.
#[derive(Clone)]
pub enum RequestScope {
    /// The request has a span, because its trace is exported.
    Traced(Span),
    Untraced(Arc<dyn LoggedRequest>),
    /// The code runs on behalf of no request.
    Outside,
}

impl RequestScope {
    /// Returns the request that the current task handles, if any, so that another task can run on behalf of the same
    /// request.
    pub fn current() -> Self {
        match (Span::current(), CURRENT.try_with(Arc::clone)) {
            (_, Ok(request)) => Self::Untraced(request),
            (span, Err(_)) if !span.is_none() => Self::Traced(span),
            _ => Self::Outside,
        }
    }

    /// Runs a future so that its log lines have the fields of this request, if any.
    pub fn run<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        match self {
            Self::Traced(span) => Either::Left(Either::Left(work.instrument(span))),
            Self::Untraced(request) => Either::Left(Either::Right(CURRENT.scope(request, work))),
            Self::Outside => Either::Right(work),
        }
    }

    /// Runs a function so that its log lines have the fields of this request, if any.
    pub fn enter(self, work: impl FnOnce()) {
        match self {
            Self::Traced(span) => span.in_scope(work),
            Self::Untraced(request) => CURRENT.sync_scope(request, work),
            Self::Outside => work(),
        }
    }
}

/// Adds the field `caller` to the later log lines of the current request, and to its span if it has one.
pub fn record_caller(name: Cow<'static, str>) {
    Span::current().record("caller", &*name);
    let _outside = CURRENT.try_with(|request| request.set_caller(name));
}

/// Calls `add` with each field of the current request. Does nothing if the current task handles no request, or a
/// request that has a span.
pub(super) fn for_each_field(mut add: impl FnMut(&'static str, FieldValue<'_>)) {
    let _outside = CURRENT.try_with(|request| request.for_each_field(&mut add));
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Mutex, OnceLock};

    use clap::Parser;
    use serde_json::{Value, json};

    use super::*;
    use crate::telemetry::{Telemetry, TelemetryArgs};

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        telemetry: TelemetryArgs,
    }

    #[derive(Default)]
    struct Request(OnceLock<Cow<'static, str>>);

    impl LoggedRequest for Request {
        fn for_each_field(&self, add: &mut dyn FnMut(&'static str, FieldValue<'_>)) {
            add("request_id", FieldValue::Text("a \"quoted\" id"));
            add("status", FieldValue::Number(503));
            if let Some(name) = self.0.get() {
                add("caller", FieldValue::Text(name));
            }
        }

        fn set_caller(&self, name: Cow<'static, str>) {
            self.0.set(name).expect("set once");
        }
    }

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no panic").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn lines_of_a_request_have_its_fields_in_each_of_its_tasks() {
        let output = Output::default();
        let args = Arguments::parse_from(["test", "--log-filter=warn"]).telemetry;
        let (telemetry, guard) = Telemetry::install_here(&args, output.clone());

        let request: RequestScope = RequestScope::Untraced(Arc::new(Request::default()));
        let scope = request.run(async {
            tracing::warn!("first");
            record_caller("key:1".into());
            RequestScope::current()
        });
        let scope = scope.await;
        tracing::warn!("outside");
        scope.clone().run(async { tracing::warn!("elsewhere") }).await;
        scope.enter(|| tracing::warn!("last"));
        drop((guard, telemetry));

        let text = output.0.lock().expect("no panic").clone();
        let text = String::from_utf8(text).expect("UTF-8");
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        let fields = |line: &Value| {
            [&line["request_id"], &line["status"], &line["caller"]].map(Value::clone)
        };
        let id = json!("a \"quoted\" id");
        let with_caller = [id.clone(), json!(503), json!("key:1")];
        let expected = [
            [id, json!(503), Value::Null],
            [Value::Null, Value::Null, Value::Null],
            with_caller.clone(),
            with_caller,
        ];
        assert_eq!(lines.iter().map(fields).collect::<Vec<_>>(), expected, "{text}");
    }
}
