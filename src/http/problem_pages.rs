//! Pages `/problems/<slug>`, to which the `type` of a problem links. Each page explains what the problem means and what
//! to do about it.

use std::fmt::Write;

use axum::response::{Html, IntoResponse, Response};
use http::header;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::Path;
use crate::error::{Error, PROBLEMS, Problem};
use crate::web;

pub fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S> {
    OpenApiRouter::new().routes(routes!(list_problems)).routes(routes!(get_problem))
}

/// List the problem types
#[utoipa::path(
    get, path = "/problems", tag = "about",
    responses((status = 200, description = "An HTML page", content_type = "text/html", body = String)),
)]
async fn list_problems() -> Response {
    let mut rows = String::new();
    for Problem { slug, title, status, .. } in PROBLEMS {
        let status = status.as_u16();
        // Writing to a String cannot fail.
        let _written = write!(
            rows,
            "<tr><td>{status}</td><td><a href=\"/problems/{slug}\">{slug}</a></td><td>{title}</td></tr>"
        );
    }
    let table = format!(
        "<h1>Problems</h1><table><tr><th>status</th><th>type</th><th>title</th></tr>{rows}</table>"
    );
    page("Problems", &table)
}

/// Get a problem type
///
/// Returns a page that explains what the problem means and what to do about it.
#[utoipa::path(
    get, path = "/problems/{slug}", tag = "about",
    params(("slug" = String, Path, description = "The last part of a problem's `type`", example = "invalid")),
    responses(
        (status = 200, description = "An HTML page", content_type = "text/html", body = String),
        (status = 404, description = "Unknown problem type", body = super::problem::ProblemBody<'static>,
            content_type = "application/problem+json"),
    ),
)]
async fn get_problem(Path(slug): Path<String>) -> Result<Response, Error> {
    let problem = PROBLEMS.iter().find(|problem| problem.slug == slug);
    let Problem { slug, title, status, advice, .. } = problem.ok_or(Error::NotFound("problem"))?;
    let article = format!(
        "<h1>{title}</h1><p><code>{slug}</code>, HTTP {status}</p><p>{advice}</p>\
         <p><a href=\"/problems\">All problems</a></p>"
    );
    Ok(page(title, &article))
}

fn page(title: &str, article: &str) -> Response {
    let page = Html(web::page(title, article));
    ([(header::CONTENT_SECURITY_POLICY, web::POLICY)], page).into_response()
}
