//! Lists of published games, filtered by genre, by publisher, by sale, or by the words of a search.

mod sql;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Price;
use super::cache::CachedList;
use crate::db::position;
use crate::error::Result;
use crate::games::Games;
use crate::http::MoneyFormat;
use crate::http::pagination::last_of_full_page;
use crate::ids::{GameId, PublisherId};
use crate::secret::digest;

/// Time for which a list of games on sale is cached. It is short, because sales begin and end at any time.
const SALES_CACHED_FOR: Duration = Duration::from_millis(500);

/// Maximum number of words that a search uses; further words are ignored.
const WORDS_MAX: usize = 8;

/// Longest word that a search uses, in bytes; longer words are ignored.
const WORD_BYTES_MAX: usize = 100;

/// Filter, page and format of a list of games, which also identify the list in the cache.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct GameFilter {
    pub genre: Option<String>,
    /// Full-text query that [`search_query`] has made from the search words of the request.
    pub search: Option<String>,
    pub publisher: Option<PublisherId>,
    /// Whether the list contains only games whose price a sale currently lowers.
    pub on_sale: bool,
    /// Format of the prices in the list.
    pub money: MoneyFormat,
    /// Last game of the previous page; `None` for the first page.
    pub after: Option<GameId>,
    pub limit: i64,
}

/// A game in a list.
#[derive(Debug)]
pub struct ListedGame {
    pub id: GameId,
    pub title: String,
    pub genre: String,
    pub description: String,
    pub price: Price,
}

/// Returns the text that a full-text search examines: all words in the title, genre and description of a game, in lower
/// case, separated by spaces.
pub(super) fn words(texts: [&str; 3]) -> String {
    let words = texts.iter().flat_map(|text| text.split(|c: char| !c.is_alphanumeric()));
    let words: Vec<String> = words.filter(|word| !word.is_empty()).map(str::to_lowercase).collect();
    words.join(" ")
}

/// Returns the full-text query that finds the games with all words of a text. The last word may be incomplete. Returns
/// `None` for a text without words.
pub fn search_query(text: &str) -> Option<String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let words = words.map(str::to_lowercase).filter(|word| word.len() <= WORD_BYTES_MAX);
    let words: Vec<String> = words.take(WORDS_MAX).collect();
    (!words.is_empty()).then(|| format!("{}:*", words.join(" & ")))
}

impl Games {
    /// Returns a list of published games, from the cache if possible. `write` creates the response body from the games;
    /// `next` creates the path of the next page from the last game of the page.
    pub async fn list(
        &self,
        filter: &GameFilter,
        write: impl FnOnce(&[ListedGame]) -> Result<Bytes>,
        next: impl FnOnce(GameId) -> String,
    ) -> Result<Arc<CachedList>> {
        if let Some(list) = self.catalog.get(filter, &self.db).await? {
            position::note_read(list.position.clone());
            return Ok(list);
        }
        // Boxed, so that this rare path does not enlarge the future of every request.
        Box::pin(self.read_list(filter, write, next)).await
    }

    async fn read_list(
        &self,
        filter: &GameFilter,
        write: impl FnOnce(&[ListedGame]) -> Result<Bytes>,
        next: impl FnOnce(GameId) -> String,
    ) -> Result<Arc<CachedList>> {
        // A list of games on sale expires, because a sale can begin, end or sell out without a change to the catalog.
        let expires_at = filter.on_sale.then(|| Instant::now() + SALES_CACHED_FOR);
        let mut db = self.db.fresh_snapshot("games.list").await?;
        let (revision, position) = sql::revision_and_position(&mut db).await?;
        if filter.search.is_some() {
            sql::plan_by_values(&mut db).await?;
        }
        let rows = sql::list(&mut db, filter).await?;
        drop(db);
        let games =
            rows.into_iter().map(|row| self.listed_from(row)).collect::<Result<Vec<_>>>()?;
        let body = write(&games)?;
        let etag = format!("W/\"{}\"", digest(&[&String::from_utf8_lossy(&body)]).simple());
        let next = last_of_full_page(&games, filter.limit).map(|last| next(last.id));
        let list = Arc::new(CachedList { body, etag, next, position, revision, expires_at });
        self.catalog.insert(filter, &list);
        Ok(list)
    }

    fn listed_from(&self, row: sql::ListedRow) -> Result<ListedGame> {
        let sql::ListedRow { id, title, genre, description, price, currency } = row;
        let price = self.price_from(&currency, price)?;
        Ok(ListedGame { id, title, genre, description, price })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_is_made_of_words_only() {
        let query = |text| search_query(text);

        assert_eq!(query("half life").as_deref(), Some("half & life:*"));
        assert_eq!(query("a' | !b:* & (c)").as_deref(), Some("a & b & c:*"));
        assert_eq!(query("été 東京").as_deref(), Some("été & 東京:*"));
        assert_eq!(query("ÉTÉ").as_deref(), Some("été:*"));
        assert_eq!(words(["Portal-2", "A/B", "Été 1.5"]), "portal 2 a b été 1 5");
        assert_eq!(query(" :&|! "), None);
        assert_eq!(query(&"x ".repeat(100)).unwrap().matches('x').count(), WORDS_MAX);
    }
}
