//! PromQL expressions: scaling of their time ranges for tests, and the metric names in them.

/// Time scale of the rules: a test runs through an hour of them in a minute.
#[derive(Debug, Clone, Copy)]
pub struct TimeScale {
    /// Seconds of the rules per second of the test.
    pub factor: f64,
    /// Shortest scaled duration in seconds: a rate needs a few scrapes.
    pub seconds_min: f64,
}

impl TimeScale {
    /// Real time, as in production.
    pub const REAL: Self = Self { factor: 1.0, seconds_min: 0.0 };

    /// A duration such as `5m`, scaled.
    pub fn duration(self, duration: &str) -> String {
        if self.factor <= 1.0 {
            return duration.to_owned();
        }
        let seconds = (seconds(duration) / self.factor).max(self.seconds_min).round();
        format!("{seconds}s")
    }

    /// An expression with every time range scaled.
    pub fn expression(self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(start) = rest.find('[') {
            let end = start + rest[start..].find(']').expect("every range is closed");
            out.push_str(&rest[..=start]);
            let range = &rest[start + 1..end];
            out.push_str(&if is_duration(range) { self.duration(range) } else { range.to_owned() });
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

/// Length of a duration in seconds.
pub fn seconds(duration: &str) -> f64 {
    let (number, unit) = duration.split_at(duration.len() - 1);
    let unit = match unit {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => panic!("not a duration: {duration}"),
    };
    number.parse::<f64>().unwrap() * unit
}

/// Names of the metrics in an expression, sorted and without duplicates.
pub fn metric_names(expression: &str) -> Vec<String> {
    let mut names = Vec::new();
    let chars: Vec<char> = expression.chars().collect();
    let mut at = 0;
    let (mut depth, mut quoted) = (0, false);
    while at < chars.len() {
        let c = chars[at];
        match c {
            '"' => quoted = !quoted,
            '{' | '[' if !quoted => depth += 1,
            '}' | ']' if !quoted => depth -= 1,
            _ if quoted || depth > 0 => {}
            _ if c.is_ascii_alphabetic() || c == '_' => {
                let start = at;
                while at < chars.len()
                    && (chars[at].is_ascii_alphanumeric() || "_:$".contains(chars[at]))
                {
                    at += 1;
                }
                let word: String = chars[start..at].iter().collect();
                let next = chars[at..].iter().find(|c| !c.is_whitespace());
                let is_call = next == Some(&'(');
                // `sum by (a) (b)`: an aggregation with a clause.
                let is_aggregation = {
                    let behind: String = chars[at..].iter().collect();
                    let behind = behind.trim_start();
                    behind.starts_with("by ")
                        || behind.starts_with("by(")
                        || behind.starts_with("without")
                };
                let is_clause = ["by", "on", "without", "ignoring", "group_left", "group_right"]
                    .contains(&word.as_str());
                if is_clause {
                    // Skip the labels in its parentheses: they are not metrics.
                    while at < chars.len() && chars[at] != ')' {
                        at += 1;
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
        at += 1;
    }
    names.sort();
    names.dedup();
    names
}

#[test]
fn metric_names_are_found_in_an_expression() {
    let text = r#"sum by (http_route) (rate(a_total{x="b_total"}[5m])) / on (le) group_left () c_seconds_bucket > 0.5 and e"#;
    assert_eq!(metric_names(text), ["a_total", "c_seconds_bucket", "e"]);
}

#[test]
fn scaling_an_expression_changes_only_its_ranges() {
    let scale = TimeScale { factor: 60.0, seconds_min: 5.0 };
    assert_eq!(scale.expression("rate(a[10m]) > rate(b[1h])"), "rate(a[10s]) > rate(b[60s])");
    assert_eq!(scale.expression("rate(a[1m])"), "rate(a[5s])");
    assert_eq!(scale.expression("rate(a[$__rate_interval])"), "rate(a[$__rate_interval])");
}
