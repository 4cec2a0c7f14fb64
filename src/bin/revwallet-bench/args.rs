//! The command line of the benchmark.

use std::path::PathBuf;
use std::time::Duration;

use crate::scenario::Scenario;

/// Measures revwallet on this machine, with pgbench as the baseline.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "revwallet-bench", version, max_term_width = 100)]
pub(crate) struct BenchArgs {
    /// Duration of each measurement.
    #[arg(long, default_value = "5s", value_parser = revwallet::settings::positive_duration)]
    pub duration: Duration,
    /// Scenarios to run, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Scenario::DEFAULT)]
    pub scenarios: Vec<Scenario>,
    /// Also run the scenario `large-book`, which takes minutes and gigabytes of disk space.
    #[arg(long)]
    pub large_book: bool,
    /// Number of transfers in the large ledger of the scenario `large-book`.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(i64).range(1..))]
    pub large_book_transfers: i64,
    /// Number of entries of each leaderboard in the scenario `leaderboard`.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(i64).range(1_000..))]
    pub leaderboard_entries: i64,
    /// Server binary to measure [default: `revwallet` next to this program].
    #[arg(long)]
    pub revwallet: Option<PathBuf>,
    /// Binary of another build of the server. If given, the benchmark only compares the two builds and runs no
    /// scenario.
    #[arg(long, conflicts_with_all = ["scenarios", "large_book"])]
    pub compare: Option<PathBuf>,
    /// Folder that receives `benchmarks.md` and `benchmarks.svg`, in addition to the printed report.
    #[arg(long)]
    pub output_dir: Option<PathBuf>,
    /// Path of the nginx binary.
    #[arg(long, default_value = "nginx")]
    pub nginx: PathBuf,
    /// Folder with the configuration of nginx and its `start` script.
    #[arg(long, default_value = "nginx")]
    pub nginx_dir: PathBuf,
    /// Run only the bare axum server. The benchmark starts a second process of itself with this option.
    #[arg(long, hide = true)]
    pub serve_bare: bool,
}

impl BenchArgs {
    /// Returns the selected scenarios in the order in which they run, without duplicates.
    pub(crate) fn selected_scenarios(&self) -> Vec<Scenario> {
        let large_book = self.large_book.then_some(Scenario::LargeBook);
        let mut selected = Vec::new();
        for scenario in self.scenarios.iter().copied().chain(large_book) {
            if !selected.contains(&scenario) {
                selected.push(scenario);
            }
        }
        selected
    }

    /// Returns the path of the server binary under test.
    pub(crate) fn server_binary(&self) -> std::io::Result<PathBuf> {
        match &self.revwallet {
            Some(path) => Ok(path.clone()),
            None => Ok(std::env::current_exe()?.with_file_name("revwallet")),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    fn parse(line: &[&str]) -> Result<BenchArgs, clap::Error> {
        BenchArgs::try_parse_from([&["revwallet-bench"], line].concat())
    }

    #[test]
    fn the_command_line_is_consistent() {
        BenchArgs::command().debug_assert();
    }

    #[test]
    fn the_large_book_is_added_once() {
        let args = parse(&["--scenarios=bulk,large-book,bulk", "--large-book"]).unwrap();

        assert_eq!(args.selected_scenarios(), [Scenario::Bulk, Scenario::LargeBook]);
    }

    #[test]
    fn a_comparison_runs_no_scenario() {
        assert!(parse(&["--compare=other"]).is_ok());
        assert!(parse(&["--compare=other", "--scenarios=bulk"]).is_err());
    }

    #[test]
    fn the_server_is_next_to_the_benchmark_unless_it_is_named() {
        let own_folder = std::env::current_exe().unwrap().parent().unwrap().to_owned();

        assert_eq!(parse(&[]).unwrap().server_binary().unwrap(), own_folder.join("revwallet"));
        let named = parse(&["--revwallet=/old/revwallet"]).unwrap();
        assert_eq!(named.server_binary().unwrap(), PathBuf::from("/old/revwallet"));
    }
}
