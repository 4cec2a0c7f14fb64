//! The rates as a picture: one bar a figure, a gap between the parts.

use std::fmt::Write;

use super::report::Report;

const BAR_HEIGHT: usize = 22;
const GAP_HEIGHT: usize = 14;
const LABEL_WIDTH: f64 = 400.0;
const BARS_WIDTH: f64 = 330.0;
const MARGIN: usize = 12;

/// What stands beside a bar is read on a white page and on a black one.
const TEXT: &str = "#7a808a";
const BASELINE: &str = "#9aa1ab";
const OURS: &str = "#0f8a6c";

pub(super) fn draw(report: &Report) -> String {
    let mut bars = String::new();
    let mut top = MARGIN;
    for part in report.parts.iter().filter(|part| !part.figures.is_empty()) {
        // Each part has a scale of its own: bulk would dwarf all others.
        let most = part.figures.iter().map(|figure| figure.run.rate).fold(1.0, f64::max);
        for figure in &part.figures {
            let color = if figure.what.starts_with("pgbench") { BASELINE } else { OURS };
            let width = (figure.run.rate / most * BARS_WIDTH).max(1.0);
            let plural = if figure.clients == 1 { "" } else { "s" };
            // Writing to a String cannot fail.
            let _written = writeln!(
                bars,
                "<text x=\"{:.0}\" y=\"{}\" text-anchor=\"end\">{}, {} client{plural}</text>\
                 <rect x=\"{LABEL_WIDTH:.0}\" y=\"{top}\" width=\"{width:.1}\" height=\"16\" rx=\"2\" fill=\"{color}\"/>\
                 <text x=\"{:.1}\" y=\"{}\">{}/s</text>",
                LABEL_WIDTH - 8.0,
                top + 13,
                escaped(&figure.what),
                figure.clients,
                LABEL_WIDTH + width + 6.0,
                top + 13,
                thousands(figure.run.rate),
            );
            top += BAR_HEIGHT;
        }
        top += GAP_HEIGHT;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 820 {height}\" width=\"820\" height=\"{height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\" fill=\"{TEXT}\" role=\"img\" aria-label=\"Rates of each measurement\">\n{bars}</svg>\n",
        height = top.saturating_sub(GAP_HEIGHT) + MARGIN,
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// `12345.6` as `12,346`.
fn thousands(rate: f64) -> String {
    let digits = format!("{rate:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(thousands(7.0), "7");
        assert_eq!(thousands(999.6), "1,000");
        assert_eq!(thousands(1_234_567.0), "1,234,567");
    }
}
