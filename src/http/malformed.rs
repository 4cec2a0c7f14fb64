//! Creates the problem document for a request head that hyper cannot parse. hyper itself would send a status without a
//! body.

use std::io::Write;

use bytes::Bytes;
use http::StatusCode;

use super::HEAD_BYTES_MAX;
use super::problem::ProblemBody;
use crate::error::Error;
use crate::telemetry::TraceContext;

/// Response header that the request pipeline always sets. A response without the header comes from hyper itself.
const OURS: &[u8] = b"\r\nx-request-id: ";

/// Returns the problem document to send instead of `written`, if `written` is an error response that hyper itself has
/// created.
///
/// `line_has_ended` says whether the whole request line has arrived. If not, a request head that is too large is
/// reported as a URI that is too long.
pub(super) fn replacement(written: &[u8], line_has_ended: bool) -> Option<Bytes> {
    let status = status_of_bare_response(written)?;
    let too_large = status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    let status = if too_large && !line_has_ended { StatusCode::URI_TOO_LONG } else { status };
    let detail = match status {
        StatusCode::URI_TOO_LONG => format!("the URI is longer than {HEAD_BYTES_MAX} bytes"),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            format!("there are more than 100 headers, or more than {HEAD_BYTES_MAX} bytes of them")
        }
        _ => Error::Malformed.to_string(),
    };
    let text = std::str::from_utf8(written).unwrap_or_default();
    let date = text.split_inclusive("\r\n").find(|line| line.starts_with("date: "));
    let trace = TraceContext::from_traceparent(None).trace_id_hex().to_string();
    let body = ProblemBody::malformed(status, detail, &trace);
    let body = serde_json::to_vec(&body).expect("strings and numbers always serialize");
    let mut response = Vec::new();
    write!(
        response,
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: application/problem+json\r\n\
         content-length: {}\r\ncache-control: no-store\r\nx-content-type-options: nosniff\r\n\
         x-request-id: {trace}\r\n{}\r\n",
        body.len(),
        date.unwrap_or_default(),
    )
    .expect("writing to memory cannot fail");
    response.extend_from_slice(&body);
    Some(response.into())
}

fn status_of_bare_response(written: &[u8]) -> Option<StatusCode> {
    // Only client errors match: their status line starts like `HTTP/1.1 400 Bad Request`.
    let rest = written.strip_prefix(b"HTTP/1.").filter(|rest| rest.get(1..3) == Some(b" 4"))?;
    let is_bare = written.ends_with(b"\r\n\r\n")
        && !written.windows(OURS.len()).any(|part| part.eq_ignore_ascii_case(OURS));
    is_bare.then(|| StatusCode::from_bytes(rest.get(2..5)?).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARE: &str = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\
         content-length: 0\r\ndate: Mon, 01 Jan 2026 00:00:00 GMT\r\n\r\n";

    #[test]
    fn a_response_of_the_pipeline_is_left_unchanged() {
        for written in [
            "HTTP/1.1 404 Not Found\r\nx-request-id: a\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 500 Internal Server Error\r\n\r\n",
            "HTTP/1.1 4\r\n\r\n",
            "",
        ] {
            assert_eq!(replacement(written.as_bytes(), true), None, "{written}");
        }
    }

    #[test]
    fn a_bare_status_gets_a_problem_with_the_same_status() {
        for (line_has_ended, status) in [(true, 431), (false, 414)] {
            let response = replacement(BARE.as_bytes(), line_has_ended).unwrap();

            let text = std::str::from_utf8(&response).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
            assert!(head.ends_with("\r\ndate: Mon, 01 Jan 2026 00:00:00 GMT"), "{head}");
            assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{head}");
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["type"], "/problems/malformed-request");
            assert_eq!(body["status"], status);
        }
    }
}
