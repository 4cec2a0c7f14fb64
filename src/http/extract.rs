//! Bodies, paths and queries into types, with our own words for what is wrong with them.

use axum::body::{Bytes, HttpBody};
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::{BODY_BYTES_MAX, json, query};
use crate::error::{Error, FieldError, Result};

/// A JSON body, still as bytes: [`JsonBody::read`] makes the type, which may borrow from them.
/// `MAX` is the limit that the route has set.
pub struct JsonBody<const MAX: usize = BODY_BYTES_MAX>(Bytes);

impl<const MAX: usize> JsonBody<MAX> {
    /// Reads the whole body as `T`.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        json::read(&self.0)
    }
}

impl<const MAX: usize> JsonBody<MAX> {
    /// Reads the whole body as `T`, from a program with a format of its own.
    pub fn read_foreign<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        json::read_foreign(&self.0)
    }
}

impl<S: Send + Sync, const MAX: usize> FromRequest<S> for JsonBody<MAX> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        if !is_json(request.headers()) {
            return Err(Error::UnsupportedMediaType);
        }
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            let too_large = rejection.status() == StatusCode::PAYLOAD_TOO_LARGE;
            match rejection {
                BytesRejection::FailedToBufferBody(_) if too_large => {
                    Error::BodyTooLarge { limit: MAX }
                }
                _ => Error::BrokenBody,
            }
        })?;
        Ok(Self(bytes))
    }
}

/// A JSON body all of whose members are optional: no body at all is the same as `{}`.
pub struct OptionalJsonBody(Option<JsonBody>);

impl OptionalJsonBody {
    /// Reads the whole body as `T`.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        match &self.0 {
            Some(body) => body.read(),
            None => json::read(b"{}"),
        }
    }
}

impl<S: Send + Sync> FromRequest<S> for OptionalJsonBody {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let is_absent = request.body().is_end_stream();
        if is_absent {
            return Ok(Self(None));
        }
        if request.headers().contains_key(header::CONTENT_TYPE) {
            return JsonBody::from_request(request, state).await.map(|body| Self(Some(body)));
        }
        // A body without a type, which may turn out to have no bytes.
        match Bytes::from_request(request, state).await {
            Ok(bytes) if bytes.is_empty() => Ok(Self(None)),
            _ => Err(Error::UnsupportedMediaType),
        }
    }
}

/// The body of a request without members: absent or `{}`.
pub struct EmptyBody;

#[derive(Deserialize)]
struct NoMembers {}

impl<S: Send + Sync> FromRequest<S> for EmptyBody {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let body = OptionalJsonBody::from_request(request, state).await?;
        body.read::<NoMembers>().map(|NoMembers {}| Self)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
        || essence
            .to_ascii_lowercase()
            .strip_prefix("application/")
            .is_some_and(|subtype| subtype.ends_with("+json"))
}

/// A member of a body before validation, so that every invalid member is reported, not only the first.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct RawField<'a>(#[serde(borrow)] Option<&'a RawValue>);

impl<'a> RawField<'a> {
    /// The text of the value as it stood in the body; nothing for `null`.
    pub fn raw(&self) -> Option<&'a str> {
        self.0.map(RawValue::get).filter(|raw| *raw != "null")
    }
}

/// Gathers what is wrong with the members of a body.
#[derive(Debug, Default)]
pub struct Validator(Vec<FieldError>);

impl Validator {
    /// A member that must be there.
    pub fn required<T>(
        &mut self,
        pointer: &str,
        member: &RawField<'_>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let Some(raw) = member.raw() else {
            self.refuse(pointer, "is required");
            return None;
        };
        self.parsed(pointer, raw, parse)
    }

    /// A member that may be absent.
    pub fn optional<T>(
        &mut self,
        pointer: &str,
        member: &RawField<'_>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        member.raw().and_then(|raw| self.parsed(pointer, raw, parse))
    }

    pub fn refuse(&mut self, pointer: &str, detail: impl Into<String>) {
        self.0.push(FieldError { pointer: pointer.to_owned(), detail: detail.into() });
    }

    /// The values if all was well, else everything that was not.
    pub fn finish<T>(self, values: Option<T>) -> Result<T> {
        match values {
            Some(values) if self.0.is_empty() => Ok(values),
            _ => Err(Error::Invalid(self.0)),
        }
    }

    fn parsed<T>(
        &mut self,
        pointer: &str,
        raw: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        parse(raw).map_err(|detail| self.refuse(pointer, detail)).ok()
    }
}

/// Parameters of the path. A value of the wrong type is answered like an unknown path.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        match <axum::extract::Path<T> as FromRequestParts<S>>::from_request_parts(parts, state)
            .await
        {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(_) => Err(Error::NotFound("path")),
        }
    }
}

/// Parameters of the query.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        query::read(parts.uri.query().unwrap_or_default()).map(Self)
    }
}
