//! CPU time and memory of the processes under test, read from `/proc`. Both are zero on systems without `/proc`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// `USER_HZ`, the clock ticks per second of `/proc/PID/stat`: 100 on every platform that Linux supports today.
const TICKS_PER_SECOND: u64 = 100;

/// Monitors the CPU time and the memory of server processes, and the CPU time of the Postgres server whose data is in
/// `postgres_dir`.
#[derive(Debug, Clone)]
pub(crate) struct ResourceMonitor {
    processes: Vec<u32>,
    postgres_dir: PathBuf,
}

/// CPU times and memory of the monitored processes at one moment.
#[derive(Debug)]
struct ResourceSnapshot {
    taken_at: Instant,
    process_cpu: Duration,
    postgres_cpu: Duration,
    memory_bytes: u64,
}

/// Average number of busy cores during a measurement, and resident memory of the largest monitored process at the end.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ResourceUsage {
    pub process_cores: f64,
    pub postgres_cores: f64,
    pub memory_bytes: u64,
}

impl ResourceMonitor {
    pub(crate) fn new(processes: &[u32], postgres_dir: &Path) -> Self {
        Self { processes: processes.to_vec(), postgres_dir: postgres_dir.to_owned() }
    }

    /// Runs a load. Returns its output, and the resources that were used while the load ran.
    pub(crate) async fn measure<T>(
        &self,
        load: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<(T, ResourceUsage)> {
        let before = self.snapshot();
        let output = load.await?;
        Ok((output, self.snapshot().since(&before)))
    }

    /// Returns the resident memory of the largest monitored process.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.processes.iter().copied().map(resident_bytes).max().unwrap_or_default()
    }

    fn snapshot(&self) -> ResourceSnapshot {
        ResourceSnapshot {
            taken_at: Instant::now(),
            process_cpu: self.processes.iter().copied().map(cpu_time).sum(),
            postgres_cpu: self.postgres_processes().into_iter().map(cpu_time).sum(),
            memory_bytes: self.memory_bytes(),
        }
    }

    /// Returns the ids of the Postgres processes, which are the processes whose working directory is in `postgres_dir`.
    fn postgres_processes(&self) -> Vec<u32> {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.filter(|id| {
            std::fs::read_link(format!("/proc/{id}/cwd"))
                .is_ok_and(|cwd| cwd.starts_with(&self.postgres_dir))
        })
        .collect()
    }
}

impl ResourceSnapshot {
    fn since(&self, before: &Self) -> ResourceUsage {
        let seconds = (self.taken_at - before.taken_at).as_secs_f64();
        let cores = |after: Duration, before: Duration| {
            after.saturating_sub(before).as_secs_f64() / seconds
        };
        ResourceUsage {
            process_cores: cores(self.process_cpu, before.process_cpu),
            postgres_cores: cores(self.postgres_cpu, before.postgres_cpu),
            memory_bytes: self.memory_bytes,
        }
    }
}

/// User and system CPU time of a process and of its terminated children.
fn cpu_time(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The process name may contain spaces and parentheses, so fields are counted from its end.
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    let ticks: u64 = fields.skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND)
}

fn resident_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|rest| rest.trim().split(' ').next()?.parse::<u64>().ok());
    kibibytes.unwrap_or_default() * 1024
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn cpu_time_of_a_busy_process_is_counted() {
        let monitor = ResourceMonitor::new(&[std::process::id()], Path::new("/nowhere"));
        let busy = async {
            let began = cpu_time(std::process::id());
            while cpu_time(std::process::id()) < began + Duration::from_millis(50) {}
            Ok("done")
        };

        let (output, usage) = monitor.measure(busy).await.unwrap();

        assert_eq!(output, "done");
        assert!(usage.process_cores > 0.0);
        assert!(usage.memory_bytes > 0);
        assert!(usage.postgres_cores.abs() < f64::EPSILON);
    }
}
