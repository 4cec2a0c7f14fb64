//! Names of users. Normalization makes two names equal if they differ only in surrounding spaces or in variants of the
//! same characters, such as full-width letters. Users cannot choose reserved names.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Names that could be mistaken for the service or its operator, in lower case and without `_`, `-` and `.`.
const RESERVED: &[&str] = &[
    "abuse",
    "admin",
    "administrator",
    "anonymous",
    "anybody",
    "api",
    "billing",
    "help",
    "helpdesk",
    "hostmaster",
    "info",
    "mod",
    "moderator",
    "noreply",
    "null",
    "official",
    "operator",
    "postmaster",
    "revwallet",
    "root",
    "security",
    "service",
    "staff",
    "superuser",
    "support",
    "sysadmin",
    "system",
    "undefined",
    "webmaster",
];

/// Normalizes a text for storage and comparison: applies the Unicode form NFKC, and removes surrounding spaces. Returns
/// an error if the text contains control, invisible or bidirectional characters, or begins with a combining mark.
pub(super) fn normalized(text: &str) -> Result<String, String> {
    let text: String = text.nfkc().collect();
    let text = text.trim();
    if text.chars().any(|c| c.is_control() || is_invisible(c)) {
        return Err("must not contain control, invisible or bidirectional characters".to_owned());
    }
    if text.chars().next().is_some_and(is_combining_mark) {
        return Err("must not begin with a combining mark".to_owned());
    }
    Ok(text.to_owned())
}

/// Normalizes an e-mail address, and converts non-ASCII letters to lower case. ASCII letters keep their case, because
/// the database ignores their case in every locale.
pub(super) fn normalized_email(text: &str) -> Result<String, String> {
    let lower = |c: char| if c.is_ascii() { vec![c] } else { c.to_lowercase().collect() };
    Ok(normalized(text)?.chars().flat_map(lower).collect())
}

/// Whether a character is invisible: the Unicode category Cf, separators of lines and paragraphs, fillers, variation
/// selectors, private use and noncharacters.
const fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}'
        | '\u{8e2}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
        | '\u{e000}'..='\u{f8ff}' | '\u{fdd0}'..='\u{fdef}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{ffff}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}' | '\u{f0000}'..)
}

/// Whether a user name is reserved for the service or its operator, regardless of case and punctuation.
pub(super) fn is_reserved(username: &str) -> bool {
    let plain: String = username.chars().filter(char::is_ascii_alphanumeric).collect();
    RESERVED.contains(&plain.to_ascii_lowercase().as_str())
}
