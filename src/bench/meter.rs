//! What the processes use, as the kernel counts it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Clock ticks a second that the kernel counts CPU time in, on every Linux that matters.
const TICKS: u64 = 100;

/// Watches programs and the Postgres of a folder.
#[derive(Debug, Clone)]
pub(super) struct Meter {
    programs: Vec<u32>,
    folder: PathBuf,
}

#[derive(Debug, Clone)]
pub(super) struct Reading {
    at: Instant,
    program: Duration,
    postgres: Duration,
    memory_bytes: u64,
}

/// What was used between two readings: cores, and bytes at the end, of the largest program.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Used {
    pub program_cores: f64,
    pub postgres_cores: f64,
    pub memory_bytes: u64,
}

impl Meter {
    pub(super) fn new(programs: &[u32], folder: &Path) -> Self {
        Self { programs: programs.to_vec(), folder: folder.to_owned() }
    }

    pub(super) fn read(&self) -> Reading {
        Reading {
            at: Instant::now(),
            program: self.programs.iter().copied().map(cpu).sum(),
            postgres: self.postgres().into_iter().map(cpu).sum(),
            memory_bytes: self.programs.iter().copied().map(resident).max().unwrap_or_default(),
        }
    }

    /// Server processes stand in the folder of their cluster.
    fn postgres(&self) -> Vec<u32> {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.filter(|id| {
            std::fs::read_link(format!("/proc/{id}/cwd"))
                .is_ok_and(|cwd| cwd.starts_with(&self.folder))
        })
        .collect()
    }
}

impl Reading {
    pub(super) fn since(&self, before: &Self) -> Used {
        let seconds = (self.at - before.at).as_secs_f64();
        let cores = |after: Duration, before: Duration| {
            after.saturating_sub(before).as_secs_f64() / seconds
        };
        Used {
            program_cores: cores(self.program, before.program),
            postgres_cores: cores(self.postgres, before.postgres),
            memory_bytes: self.memory_bytes,
        }
    }
}

/// User and system time of a process, its ended children included.
fn cpu(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name may hold anything, so fields are counted from behind it.
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    let ticks: u64 = fields.skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1_000 / TICKS)
}

fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|rest| rest.trim().split(' ').next()?.parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}
