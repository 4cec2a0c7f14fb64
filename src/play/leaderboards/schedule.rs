//! The schedule of a leaderboard's seasons: a cron expression in a time zone. A season ends at each time that matches
//! the expression (an occurrence).
//!
//! If the clocks go forward and skip the local time of an occurrence, the occurrence moves to the end of the gap. If
//! the clocks go back and repeat the local time, only the first of the two times counts. An expression with an
//! interval, such as `*/30 * * * *`, follows elapsed time: a clock change does not shift its occurrences.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use time::OffsetDateTime;

/// Longest cron expression, in characters.
pub(super) const CRON_MAX: usize = 100;

/// Maximum number of attempts to find the next time that matches a cron expression. When the clocks change for daylight
/// saving time, the cron library may return a time that has already passed; the search then continues from a later
/// time.
const SKIPPED_MAX: usize = 1_000;

/// A cron expression in a time zone. A season ends at each time that matches the expression.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    cron: Cron,
    time_zone: Tz,
}

impl Schedule {
    /// Parses a cron expression: five fields from minute to weekday, or a nickname such as `@weekly`.
    pub(super) fn parse(expression: &str, time_zone: Tz) -> Result<Self, String> {
        let parser =
            CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser
            .parse(expression)
            .map_err(|cause| format!("is not a cron expression of five fields: {cause}"))?;
        let schedule = Self { cron, time_zone };
        match schedule.next_after(OffsetDateTime::now_utc()) {
            Some(_) => Ok(schedule),
            None => Err("never occurs".to_owned()),
        }
    }

    /// Returns the first time after `moment` that matches the cron expression, if any.
    pub(super) fn next_after(&self, moment: OffsetDateTime) -> Option<OffsetDateTime> {
        let after = DateTime::<Utc>::from_timestamp(moment.unix_timestamp(), 0)?;
        let mut from = after.with_timezone(&self.time_zone);
        for _ in 0..SKIPPED_MAX {
            let next = self.cron.find_next_occurrence(&from, false).ok()?;
            let found = OffsetDateTime::from_unix_timestamp(next.timestamp()).ok()?;
            // When the clocks change, the cron library may find an occurrence that is not later than `moment`.
            if found > moment {
                return Some(found);
            }
            from = from.checked_add_signed(chrono::TimeDelta::minutes(1))?;
        }
        None
    }
}

/// Parses the name of a time zone, such as `Europe/Berlin`.
pub(super) fn time_zone(name: &str) -> Result<Tz, String> {
    name.parse().map_err(|_| "must be a time zone, such as Europe/Berlin".to_owned())
}

#[cfg(test)]
mod tests {
    use time::format_description::well_known::Rfc3339;

    use super::*;

    fn occurrences(expression: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::parse(expression, time_zone(zone).unwrap()).unwrap();
        let mut moment = OffsetDateTime::parse(after, &Rfc3339).unwrap();
        (0..count)
            .map(|_| {
                moment = schedule.next_after(moment).unwrap();
                moment.format(&Rfc3339).unwrap()
            })
            .collect()
    }

    #[test]
    fn a_day_has_one_reset_however_long_it_is() {
        // In Berlin, 2026-03-29 has no 02:30, and 2026-10-25 has two of them.
        assert_eq!(
            occurrences("30 2 * * *", "Europe/Berlin", "2026-03-27T12:00:00Z", 4),
            [
                "2026-03-28T01:30:00Z",
                "2026-03-29T01:00:00Z",
                "2026-03-30T00:30:00Z",
                "2026-03-31T00:30:00Z"
            ]
        );
        assert_eq!(
            occurrences("30 2 * * *", "Europe/Berlin", "2026-10-23T12:00:00Z", 4),
            [
                "2026-10-24T00:30:00Z",
                "2026-10-25T00:30:00Z",
                "2026-10-26T01:30:00Z",
                "2026-10-27T01:30:00Z"
            ]
        );
    }

    #[test]
    fn an_interval_follows_elapsed_time() {
        assert_eq!(
            occurrences("*/30 * * * *", "Europe/Berlin", "2026-10-25T00:15:00Z", 4),
            [
                "2026-10-25T00:30:00Z",
                "2026-10-25T01:00:00Z",
                "2026-10-25T01:30:00Z",
                "2026-10-25T02:00:00Z"
            ]
        );
        assert_eq!(
            occurrences("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:15:00Z", 3),
            ["2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"]
        );
    }

    #[test]
    fn irregular_expressions_and_nicknames_are_understood() {
        assert_eq!(
            occurrences("0 12 L * *", "UTC", "2026-01-31T12:00:00Z", 3),
            ["2026-02-28T12:00:00Z", "2026-03-31T12:00:00Z", "2026-04-30T12:00:00Z"]
        );
        assert_eq!(
            occurrences("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", 2),
            ["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"]
        );
        assert_eq!(
            occurrences("@weekly", "America/New_York", "2026-11-20T00:00:00Z", 1),
            ["2026-11-22T05:00:00Z"]
        );
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for expression in ["", "* * * *", "* * * * * *", "61 * * * *", "0 0 30 2 *", "tomorrow"] {
            assert!(Schedule::parse(expression, Tz::UTC).is_err(), "{expression}");
        }
        assert!(time_zone("Mars/Olympus").is_err());
    }
}
