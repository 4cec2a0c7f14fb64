//! SQL statement that records a batch of submitted scores.

use sqlx::PgConnection;
use uuid::Uuid;

use super::queue::QueuedSubmission;
use crate::error::{Error, Result};
use crate::ids::LeaderboardId;

/// Outcome of a submission, as the SQL function returns it.
pub(super) struct OutcomeRow {
    pub n: Option<i32>,
    pub outcome: String,
    pub answer: Option<String>,
}

/// Records a batch of submissions to a leaderboard, in a single transaction.
pub(super) async fn submit(
    db: &mut PgConnection,
    board: LeaderboardId,
    batch: &[&QueuedSubmission],
) -> Result<Vec<OutcomeRow>> {
    let submissions = || batch.iter().map(|queued| &queued.submission);
    let owners: Vec<String> = submissions().map(|one| one.owner.to_string()).collect();
    let scores: Vec<i64> = submissions().map(|one| one.score).collect();
    let subscores: Vec<i64> = submissions().map(|one| one.subscore).collect();
    let metadata: Vec<Option<String>> =
        submissions().map(|one| one.metadata.as_ref().map(|raw| raw.get().to_owned())).collect();
    let keys: Vec<Option<Uuid>> =
        batch.iter().map(|queued| queued.key.map(|key| key.hash)).collect();
    let contents: Vec<Option<Uuid>> =
        batch.iter().map(|queued| queued.key.map(|key| key.content)).collect();
    let rows = sqlx::query_as!(
        OutcomeRow,
        r#"select n, outcome as "outcome!", answer::text as answer
        from leaderboard_submit($1, $2, $3, $4, $5, $6, $7)"#,
        board.0,
        &owners,
        &scores,
        &subscores,
        &metadata as &[Option<String>],
        &keys as &[Option<Uuid>],
        &contents as &[Option<Uuid>],
    );
    rows.fetch_all(db).await.map_err(submission_error)
}

/// Converts the database error of a failed batch to an error for the callers. If the connection broke, the outcome is
/// unknown, because the batch may have been committed. If another transaction locked the leaderboard for too long, the
/// batch was not committed.
fn submission_error(cause: sqlx::Error) -> Error {
    match &cause {
        sqlx::Error::Io(_) => Error::OutcomeUnknown,
        sqlx::Error::Database(database) if database.code().as_deref() == Some("55P03") => {
            Error::Overloaded
        }
        _ => cause.into(),
    }
}
