//! Expressions with what differs between a dashboard, the real rules and a test in a hurry.

/// How fast time passes: a test lives through an hour in a minute.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Seconds of the rules for one second of the test.
    pub factor: f64,
    /// No duration gets shorter than this many seconds: a rate needs a few scrapes.
    pub least: f64,
}

impl Pace {
    /// As it is in production.
    pub const REAL: Self = Self { factor: 1.0, least: 0.0 };

    /// A duration such as `5m`, at this pace.
    pub fn scaled(self, duration: &str) -> String {
        if self.factor <= 1.0 {
            return duration.to_owned();
        }
        let seconds = (seconds(duration) / self.factor).max(self.least).round();
        format!("{seconds}s")
    }

    /// An expression with every range at this pace.
    pub fn expression(self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(start) = rest.find('[') {
            let end = start + rest[start..].find(']').expect("a range ends");
            out.push_str(&rest[..=start]);
            let range = &rest[start + 1..end];
            out.push_str(&if is_duration(range) { self.scaled(range) } else { range.to_owned() });
            rest = &rest[end..];
        }
        out.push_str(rest);
        out
    }
}

fn is_duration(text: &str) -> bool {
    text.len() > 1
        && text.ends_with(['s', 'm', 'h', 'd'])
        && text[..text.len() - 1].bytes().all(|byte| byte.is_ascii_digit())
}

/// How long a duration is.
pub fn seconds(duration: &str) -> f64 {
    let (number, unit) = duration.split_at(duration.len() - 1);
    let unit = match unit {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => panic!("no duration: {duration}"),
    };
    number.parse::<f64>().unwrap() * unit
}

/// The names of the metrics in an expression.
pub fn metrics(expression: &str) -> Vec<String> {
    let mut names = Vec::new();
    let bytes: Vec<char> = expression.chars().collect();
    let mut place = 0;
    let (mut depth, mut quoted) = (0, false);
    while place < bytes.len() {
        let c = bytes[place];
        match c {
            '"' => quoted = !quoted,
            '{' | '[' if !quoted => depth += 1,
            '}' | ']' if !quoted => depth -= 1,
            _ if quoted || depth > 0 => {}
            _ if c.is_ascii_alphabetic() || c == '_' => {
                let start = place;
                while place < bytes.len()
                    && (bytes[place].is_ascii_alphanumeric() || "_:$".contains(bytes[place]))
                {
                    place += 1;
                }
                let word: String = bytes[start..place].iter().collect();
                let next = bytes[place..].iter().find(|c| !c.is_whitespace());
                let is_call = next == Some(&'(');
                // `sum by (a) (b)`: a function with a clause.
                let is_aggregation = {
                    let behind: String = bytes[place..].iter().collect();
                    let behind = behind.trim_start();
                    behind.starts_with("by ")
                        || behind.starts_with("by(")
                        || behind.starts_with("without")
                };
                let is_clause = ["by", "on", "without", "ignoring", "group_left", "group_right"]
                    .contains(&word.as_str());
                if is_clause {
                    // Its labels are no metrics.
                    while place < bytes.len() && bytes[place] != ')' {
                        place += 1;
                    }
                } else if !is_call
                    && !is_aggregation
                    && !["and", "or", "unless", "bool", "offset", "inf"].contains(&word.as_str())
                {
                    names.push(word);
                }
                continue;
            }
            _ => {}
        }
        place += 1;
    }
    names.sort();
    names.dedup();
    names
}

#[test]
fn the_metrics_of_an_expression_are_found() {
    let text = r#"sum by (http_route) (rate(a_total{x="b_total"}[5m])) / on (le) group_left () c_seconds_bucket > 0.5 and e"#;
    assert_eq!(metrics(text), ["a_total", "c_seconds_bucket", "e"]);
}

#[test]
fn a_hurried_expression_is_the_same_but_for_its_ranges() {
    let pace = Pace { factor: 60.0, least: 5.0 };
    assert_eq!(pace.expression("rate(a[10m]) > rate(b[1h])"), "rate(a[10s]) > rate(b[60s])");
    assert_eq!(pace.expression("rate(a[1m])"), "rate(a[5s])");
    assert_eq!(pace.expression("rate(a[$__rate_interval])"), "rate(a[$__rate_interval])");
}
