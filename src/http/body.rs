//! Extractors for request bodies. They limit the size of a body, and the memory for the values that are built from it.

use std::fmt;
use std::marker::PhantomData;

use axum::body::HttpBody;
use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use http::uri::Authority;
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::context::RequestContext;
use super::json;
use super::memory::{MemoryCharge, UNCHARGED_BYTES};
use crate::error::{Error, Result};

/// Largest request body in bytes, unless the route sets its own limit.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// A JSON body of at most `MAX` bytes. [`JsonBody::read`] deserializes it; the returned value may borrow from the body.
pub struct JsonBody<const MAX: usize = BODY_BYTES_MAX> {
    bytes: Bytes,
    context: Option<RequestContext>,
    /// Memory that is charged to the memory budget until the body is dropped.
    charge: MemoryCharge,
}

impl<const MAX: usize> JsonBody<MAX> {
    /// Deserializes the whole body, and rejects members that `T` does not have.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        json::read(&self.bytes)
    }

    /// Deserializes a body whose format another program defines, such as Alertmanager. Members that `T` does not have
    /// are ignored.
    pub fn read_foreign<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        json::read_foreign(&self.bytes)
    }

    /// Charges memory to the memory budget, for values that a handler builds from the body.
    pub fn charge(&self, bytes: usize) -> Result<MemoryCharge> {
        match &self.context {
            Some(context) => context.memory().charge_request(bytes),
            None => Ok(MemoryCharge::default()),
        }
    }

    /// Appends a received part of the body, or returns an error if the body then exceeds its size limit or the memory
    /// budget.
    fn push(&mut self, gathered: &mut BytesMut, part: Bytes) -> Result<()> {
        let bytes = self.bytes.len() + gathered.len() + part.len();
        if bytes > MAX {
            return Err(Error::BodyTooLarge { limit: MAX });
        }
        // Only bytes that have arrived are charged to the budget, not the length that the client announces.
        if bytes > UNCHARGED_BYTES {
            let more = self.charge(part.len())?;
            self.charge.merge(more);
        }
        if self.bytes.is_empty() && gathered.is_empty() {
            self.bytes = part;
        } else {
            gathered.extend_from_slice(&std::mem::take(&mut self.bytes));
            gathered.extend_from_slice(&part);
        }
        Ok(())
    }
}

impl<S: Send + Sync, const MAX: usize> FromRequest<S> for JsonBody<MAX> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        if !is_json(request.headers()) {
            return Err(Error::UnsupportedMediaType);
        }
        Self::receive(request).await
    }
}

impl<const MAX: usize> JsonBody<MAX> {
    /// Receives the whole body into memory.
    async fn receive(request: Request) -> Result<Self> {
        let encoding = request.headers().get(header::CONTENT_ENCODING);
        if encoding.is_some_and(|encoding| encoding != "identity") {
            return Err(Error::CompressedBody);
        }
        let context = request.extensions().get::<RequestContext>().cloned();
        let mut body = request.into_body();
        if body.size_hint().lower() > MAX as u64 {
            return Err(Error::BodyTooLarge { limit: MAX });
        }
        let mut read = Self { bytes: Bytes::new(), context, charge: MemoryCharge::default() };
        let mut gathered = BytesMut::new();
        while let Some(frame) = body.frame().await {
            if let Ok(part) = frame.map_err(|_| Error::BrokenBody)?.into_data() {
                read.push(&mut gathered, part)?;
            }
        }
        if !gathered.is_empty() {
            read.bytes = gathered.freeze();
        }
        Ok(read)
    }
}

/// A list in a request body, of which at most `MAX` elements are built in memory. Without this limit, a body of the
/// permitted size could contain a huge number of tiny elements such as `{}`, and each element takes far more memory
/// than its JSON text.
#[derive(Debug)]
pub struct BoundedList<T, const MAX: usize> {
    items: Vec<T>,
    has_more: bool,
}

impl<T, const MAX: usize> BoundedList<T, MAX> {
    /// Returns the elements, or `None` if the list has more than `MAX`.
    pub fn within(self) -> Option<Vec<T>> {
        (!self.has_more).then_some(self.items)
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for BoundedList<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ListVisitor(PhantomData))
    }
}

struct ListVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for ListVisitor<T, MAX> {
    type Value = BoundedList<T, MAX>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while items.len() < MAX {
            match list.next_element()? {
                Some(item) => items.push(item),
                None => return Ok(BoundedList { items, has_more: false }),
            }
        }
        let has_more = list.next_element::<IgnoredAny>()?.is_some();
        // The elements beyond `MAX` are checked for valid JSON but not built.
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(BoundedList { items, has_more })
    }
}

/// A JSON body whose members are all optional. A request without a body counts as `{}`.
pub struct OptionalJsonBody(Option<JsonBody>);

impl OptionalJsonBody {
    /// Deserializes the whole body, and rejects members that `T` does not have.
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
        // A body without `Content-Type` is rejected, unless it turns out to be empty.
        let mut body = request.into_body();
        while let Some(frame) = body.frame().await {
            let is_empty = frame.is_ok_and(|frame| frame.data_ref().is_none_or(Bytes::is_empty));
            if !is_empty {
                return Err(Error::UnsupportedMediaType);
            }
        }
        Ok(Self(None))
    }
}

/// The body of a request that accepts no members: the body must be absent or `{}`.
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

/// A JSON body whose `Content-Type` header may be absent, for routes whose existing clients do not send this header.
///
/// Requests from web pages of other origins must have the header. Without it, a browser would send the request without
/// a CORS preflight, in which it asks the server for permission.
pub struct UntypedJsonBody(JsonBody);

impl UntypedJsonBody {
    /// Deserializes the whole body, and rejects members that `T` does not have.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        self.0.read()
    }
}

impl<S: Send + Sync> FromRequest<S> for UntypedJsonBody {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let is_untyped = !request.headers().contains_key(header::CONTENT_TYPE);
        if is_untyped && !has_foreign_origin(&request) {
            return JsonBody::receive(request).await.map(Self);
        }
        JsonBody::from_request(request, state).await.map(Self)
    }
}

/// Whether the request has an `Origin` header that does not match the request's host.
fn has_foreign_origin(request: &Request) -> bool {
    let Some(origin) = request.headers().get(header::ORIGIN) else { return false };
    let host = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    // An HTTP/2 request names its host in the request target instead.
    let host = host.or_else(|| request.uri().authority().map(Authority::as_str));
    let origin = origin.to_str().ok().and_then(|text| text.split_once("://"));
    match (origin, host) {
        (Some((_, origin)), Some(host)) => !origin.eq_ignore_ascii_case(host),
        _ => true,
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
