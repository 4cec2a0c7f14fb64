//! Realtime topics with a fixed name, and the topics of leaderboards. Messages on these topics are stored in the table
//! of events. The other feeds in this folder create their messages from ledger transfers.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::auth::{Access, Caller, Principal};
use crate::error::{CredentialFault, Error, Result};
use crate::ledger::tail::SealedRow;
use crate::realtime::Message;
use crate::realtime::feed::{Feed, Topic, Wanted};

/// Longest name of a leaderboard, in characters.
const BOARD_MAX: usize = 64;

/// Name of the game progress topic, which another feed ([`super::progress`]) serves.
pub(super) const PROGRESS: &str = "gameprogress-event";

/// Topics with a fixed name that this feed serves.
const TOPICS: [&str; 4] =
    ["leaderboard-game-event", "game_updates", "game-outcomes", "leaderboard-changes"];

/// Feed of the topics with a fixed name, and of the topics `leaderboard:{board}`.
pub(super) struct NamedTopics;

impl Feed for NamedTopics {
    fn topic(&self, name: &str) -> Option<Topic> {
        let name = if name == "outcomes" { "game-outcomes" } else { name };
        let is_board = name.strip_prefix("leaderboard:").is_some_and(is_board_name);
        (is_board || TOPICS.contains(&name)).then(|| Topic::of_events(name))
    }

    /// Refuses anonymous callers unless access is open. The topic `game_updates`, which announces changes to the
    /// catalog, is always public.
    fn authorize<'a>(&'a self, caller: &'a Caller, topic: &'a Topic) -> BoxFuture<'a, Result<()>> {
        let is_anonymous = matches!(caller.principal(), Principal::Anonymous);
        let is_open = caller.policy().access == Access::Open;
        async move {
            if is_anonymous && !is_open && &*topic.name != "game_updates" {
                return Err(Error::Unauthenticated(CredentialFault::Missing));
            }
            Ok(())
        }
        .boxed()
    }

    fn messages<'a>(
        &'a self,
        _rows: &'a [SealedRow],
        _wanted: &'a Wanted,
    ) -> BoxFuture<'a, Result<Vec<(usize, Message)>>> {
        async { Ok(Vec::new()) }.boxed()
    }
}

fn is_board_name(name: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=BOARD_MAX).contains(&name.len()) && name.chars().all(is_letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_have_one_name() {
        let name = |text| NamedTopics.topic(text).map(|topic| topic.name.to_string());

        assert_eq!(name("outcomes").as_deref(), Some("game-outcomes"));
        assert_eq!(name("leaderboard:weekly").as_deref(), Some("leaderboard:weekly"));
        for text in ["", "internal:revoked", "leaderboard:", "leaderboard:a b", "wallet:1"] {
            assert_eq!(name(text), None, "{text}");
        }
    }
}
