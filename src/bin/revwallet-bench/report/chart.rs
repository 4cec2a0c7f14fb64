//! A bar chart of all rates, as SVG: one bar for each measurement, with a gap between scenarios.

use std::fmt::Write;

use super::{BenchReport, Measurement};

const BAR_HEIGHT: usize = 22;
const GAP_HEIGHT: usize = 14;
const LABEL_WIDTH: f64 = 400.0;
const BARS_WIDTH: f64 = 330.0;
const MARGIN: usize = 12;

/// Color of text that is readable on both a white and a black page.
const TEXT_COLOR: &str = "#7a808a";
const BASELINE_COLOR: &str = "#9aa1ab";
const REVWALLET_COLOR: &str = "#0f8a6c";

/// Draws the chart; each scenario has its own scale, because on a common scale the bars of bulk postings would dwarf
/// all other bars.
pub(crate) fn draw(report: &BenchReport) -> String {
    let mut bars = String::new();
    let mut top = MARGIN;
    for section in report.sections.iter().filter(|section| !section.measurements.is_empty()) {
        let rates = section.measurements.iter().map(|measurement| measurement.result.rate);
        let rate_max = rates.fold(1.0, f64::max);
        for measurement in &section.measurements {
            draw_bar(&mut bars, top, measurement, rate_max);
            top += BAR_HEIGHT;
        }
        top += GAP_HEIGHT;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 820 {height}\" width=\"820\" height=\"{height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\" fill=\"{TEXT_COLOR}\" role=\"img\" aria-label=\"Rate of each measurement\">\n{bars}</svg>\n",
        height = top.saturating_sub(GAP_HEIGHT) + MARGIN,
    )
}

fn draw_bar(bars: &mut String, top: usize, measurement: &Measurement, rate_max: f64) {
    let Measurement { label, clients, result, .. } = measurement;
    let color = if label.starts_with("pgbench") { BASELINE_COLOR } else { REVWALLET_COLOR };
    let width = (result.rate / rate_max * BARS_WIDTH).max(1.0);
    let plural = if *clients == 1 { "" } else { "s" };
    // Writing to a String cannot fail.
    let _written = writeln!(
        bars,
        "<text x=\"{:.0}\" y=\"{}\" text-anchor=\"end\">{}, {clients} client{plural}</text>\
         <rect x=\"{LABEL_WIDTH:.0}\" y=\"{top}\" width=\"{width:.1}\" height=\"16\" rx=\"2\" fill=\"{color}\"/>\
         <text x=\"{:.1}\" y=\"{}\">{}/s</text>",
        LABEL_WIDTH - 8.0,
        top + 13,
        escape(label),
        LABEL_WIDTH + width + 6.0,
        top + 13,
        with_thousands_separators(result.rate),
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// Rounds a rate and groups its digits, so that `12345.6` becomes `12,346`.
fn with_thousands_separators(rate: f64) -> String {
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
    fn thousands_are_separated() {
        assert_eq!(with_thousands_separators(7.0), "7");
        assert_eq!(with_thousands_separators(999.6), "1,000");
        assert_eq!(with_thousands_separators(1_234_567.0), "1,234,567");
    }
}
