//! Deserializes query strings, and rejects parameters that the operation does not have.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::{MatchedPath, Request};
use axum::response::{IntoResponse, Response};
use futures_util::future::{Either, Ready, ready};
use http::Method;
use serde::de::DeserializeOwned;
use tower::{Layer, Service};
use url::form_urlencoded;
use utoipa::openapi::RefOr;
use utoipa::openapi::path::{Operation, ParameterIn, PathItem};

use super::position::{STALE, STALE_OK};
use crate::error::{Error, FieldError, Result};

/// Maximum number of invalid parameters that an error response lists.
const ERRORS_MAX: usize = 20;

/// Maximum length, in characters, of an invalid parameter's name in an error response. Longer names are truncated.
const NAME_MAX: usize = 100;

/// Deserializes the parameters of a query string.
pub fn read<T: DeserializeOwned>(query: &str) -> Result<T> {
    let pairs = form_urlencoded::parse(query.as_bytes());
    let parameters = serde_urlencoded::Deserializer::new(pairs);
    serde_path_to_error::deserialize(parameters).map_err(|error| {
        let path = error.path().to_string();
        let cause = error.inner().to_string();
        let duplicate = cause.strip_prefix("duplicate field `").and_then(|t| t.strip_suffix('`'));
        match duplicate {
            Some(name) => Error::field(format!("?{name}"), "is given twice"),
            None => Error::field(format!("?{path}"), expectation(&cause)),
        }
    })
}

/// Returns the error text for the invalid value of a parameter, such as `must be a whole number`. `cause` is the error
/// text of the standard library's parser.
fn expectation(cause: &str) -> &'static str {
    if cause.contains("`true`") {
        "must be true or false"
    } else if cause.contains("digit") || cause.contains("number") || cause.contains("integer") {
        "must be a whole number"
    } else {
        "is not valid"
    }
}

/// The names of the query parameters of every documented operation, by path and method.
#[derive(Debug, Default)]
struct KnownParameters(HashMap<String, HashMap<Method, Vec<String>>>);

impl KnownParameters {
    fn new(document: &utoipa::openapi::OpenApi) -> Self {
        let paths = document.paths.paths.iter();
        Self(paths.map(|(path, item)| (path.clone(), methods_of(item))).collect())
    }

    /// Returns an error that names the unknown and invalid parameters of a request. HTML pages and undocumented routes
    /// are not checked.
    fn check(&self, request: &Request, query: &str) -> Result<()> {
        let Some(path) = request.extensions().get::<MatchedPath>() else { return Ok(()) };
        let Some(known) = self.0.get(path.as_str()) else { return Ok(()) };
        let method = match *request.method() {
            Method::HEAD => &Method::GET,
            ref method => method,
        };
        let Some(known) = known.get(method) else { return Ok(()) };
        let mut errors = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let detail = if !known.iter().any(|known| *known == name) {
                "is not a parameter of this operation"
            } else if name == STALE && value != STALE_OK {
                "must be ok, or absent"
            } else if value.contains('\0') {
                // Postgres cannot store a NUL, so a search for such a value could not find anything.
                "must not contain a NUL"
            } else {
                continue;
            };
            let name: String = name.chars().take(NAME_MAX).collect();
            errors.push(FieldError { pointer: format!("?{name}"), detail: detail.to_owned() });
            if errors.len() == ERRORS_MAX {
                break;
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(Error::Invalid(errors)) }
    }
}

fn methods_of(item: &PathItem) -> HashMap<Method, Vec<String>> {
    let operations = [
        (Method::GET, &item.get),
        (Method::POST, &item.post),
        (Method::PUT, &item.put),
        (Method::PATCH, &item.patch),
        (Method::DELETE, &item.delete),
    ];
    let operations = operations.into_iter();
    let operations = operations.filter_map(|(method, one)| Some((method, one.as_ref()?)));
    let operations = operations.filter(|(_, operation)| !is_page(operation));
    let names = operations.map(|(method, operation)| {
        let mut names = names_of(operation);
        // Every read has this parameter too, but it is added to the document only later.
        let is_read = method == Method::GET && operation.responses.responses.contains_key("200");
        names.extend(is_read.then(|| STALE.to_owned()));
        (method, names)
    });
    names.collect()
}

/// Whether an operation returns a page about the API. These pages ignore query parameters.
pub(super) fn is_page(operation: &Operation) -> bool {
    operation.tags.iter().flatten().any(|tag| tag == "about")
}

fn names_of(operation: &Operation) -> Vec<String> {
    let parameters = operation.parameters.iter().flatten();
    let in_query = parameters.filter_map(|parameter| match parameter {
        RefOr::T(one) if one.parameter_in == ParameterIn::Query => Some(one.name.clone()),
        _ => None,
    });
    in_query.collect()
}

/// Rejects requests with query parameters that the OpenAPI document does not list for their operation. The default
/// layer knows no operations, so it rejects nothing.
#[derive(Debug, Clone, Default)]
pub struct KnownParametersLayer(Arc<KnownParameters>);

impl KnownParametersLayer {
    pub fn new(document: &utoipa::openapi::OpenApi) -> Self {
        Self(Arc::new(KnownParameters::new(document)))
    }
}

impl<S> Layer<S> for KnownParametersLayer {
    type Service = RequireKnownParameters<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RequireKnownParameters { inner, known: Arc::clone(&self.0) }
    }
}

/// The service that [`KnownParametersLayer`] wraps around a route.
#[derive(Debug, Clone)]
pub struct RequireKnownParameters<S> {
    inner: S,
    known: Arc<KnownParameters>,
}

impl<S: Service<Request, Response = Response>> Service<Request> for RequireKnownParameters<S> {
    type Response = Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let checked = match request.uri().query() {
            Some(query) => self.known.check(&request, query),
            None => Ok(()),
        };
        match checked {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(error) => Either::Right(ready(Ok(error.into_response()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Parameters {
        owner: Option<String>,
        limit: Option<i64>,
        closed: Option<bool>,
    }

    #[test]
    fn parameters_are_decoded() {
        let read: Parameters = read("owner=a%20b+c&limit=7&closed=true").expect("valid");

        assert_eq!(read.owner.as_deref(), Some("a b c"));
        assert_eq!((read.limit, read.closed), (Some(7), Some(true)));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (query, pointer, detail) in [
            ("limit=x", "?limit", "must be a whole number"),
            ("limit=", "?limit", "must be a whole number"),
            ("limit=1e3", "?limit", "must be a whole number"),
            ("limit=99999999999999999999", "?limit", "must be a whole number"),
            ("closed=1", "?closed", "must be true or false"),
            ("owner=a&owner=b", "?owner", "is given twice"),
        ] {
            match read::<Parameters>(query) {
                Err(Error::Invalid(errors)) => {
                    assert_eq!(errors[0].pointer, pointer, "{query}");
                    assert_eq!(errors[0].detail, detail, "{query}");
                }
                other => panic!("{query}: {other:?}"),
            }
        }
    }
}
