//! The rates as a picture: one bar a figure.

use std::fmt::Write;

use super::System;
use super::report::Report;

const BAR_HEIGHT: usize = 22;
const LABEL_WIDTH: f64 = 300.0;
const BARS_WIDTH: f64 = 420.0;

pub(super) fn draw(report: &Report) -> String {
    let most = report.figures.iter().map(|figure| figure.run.rate).fold(1.0, f64::max);
    let height = report.figures.len() * BAR_HEIGHT + 16;
    let mut bars = String::new();
    for (row, figure) in report.figures.iter().enumerate() {
        let (name, color) = match figure.case.system {
            System::Pgbench => ("pgbench", "#8a8f98"),
            System::Http => ("revwallet", "#0a6b55"),
        };
        let top = row * BAR_HEIGHT + 8;
        let width = figure.run.rate / most * BARS_WIDTH;
        let accounts = if figure.case.accounts == 1 { "one account" } else { "10,000 accounts" };
        // Writing to a String cannot fail.
        let _written = writeln!(
            bars,
            "<text x=\"{:.0}\" y=\"{}\" text-anchor=\"end\">{name}, {} clients, {accounts}</text>\
             <rect x=\"{LABEL_WIDTH:.0}\" y=\"{top}\" width=\"{width:.1}\" height=\"16\" fill=\"{color}\"/>\
             <text x=\"{:.1}\" y=\"{}\">{:.0}/s</text>",
            LABEL_WIDTH - 8.0,
            top + 13,
            figure.case.clients,
            LABEL_WIDTH + width + 6.0,
            top + 13,
            figure.run.rate,
        );
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"800\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#555\">\n{bars}</svg>\n"
    )
}
