//! What a process used, by its own account, and how figures are written.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::Measured;

/// Processor time and memory of one process.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// User and system time of all threads, in nanoseconds.
    pub(crate) cpu_ns: u64,
    /// Of it in the kernel, in clock ticks of 10 ms.
    pub(crate) system_ticks: u64,
    /// Resident now, in KiB.
    pub(crate) rss_kib: u64,
    /// Most that was ever resident since the peak was reset, in KiB.
    pub(crate) peak_kib: u64,
}

impl Usage {
    /// Of this process.
    pub(crate) fn now() -> Measured<Self> {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let cpu_ns = u64::try_from(cpu.tv_sec)? * 1_000_000_000 + u64::try_from(cpu.tv_nsec)?;
        let stat = std::fs::read_to_string("/proc/self/stat")?;
        let system_ticks = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(12)).unwrap_or("0").parse()?;
        let status = std::fs::read_to_string("/proc/self/status")?;
        let kib = |name: &str| -> Measured<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such line in /proc/self/status")?;
            Ok(line.trim_end_matches("kB").trim().parse()?)
        };
        Ok(Self { cpu_ns, system_ticks, rss_kib: kib("VmRSS:")?, peak_kib: kib("VmHWM:")? })
    }

    /// Forgets the peak so far (`proc(5)`, `clear_refs`).
    pub(crate) fn reset_peak() -> Measured<()> {
        Ok(std::fs::write("/proc/self/clear_refs", "5")?)
    }

    /// Processor time since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Duration {
        Duration::from_nanos(self.cpu_ns.saturating_sub(earlier.cpu_ns))
    }
}

/// As a float, for ratios; exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(crate) fn float(number: u64) -> f64 {
    number as f64
}

/// 10^6 bytes per second.
pub(crate) fn megabytes_per_s(bytes: u64, wall: Duration) -> f64 {
    float(bytes) / 1e6 / wall.as_secs_f64()
}

/// Nanoseconds per byte.
pub(crate) fn ns_per_byte(cpu: Duration, bytes: u64) -> f64 {
    cpu.as_secs_f64() * 1e9 / float(bytes)
}

/// Milliseconds.
pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The value that so many percent of a sorted list do not exceed.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}

/// `64KiB`, `256MiB`, `1GiB` or plain bytes.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let shift = match unit {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err(format!("`{unit}` is no unit: KiB, MiB or GiB")),
    };
    let number: u64 = number.parse().map_err(|_| format!("`{text}` is no size"))?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).ok_or_else(|| format!("`{text}` is no usable size"))
}

/// Load of the machine over the last minute: figures taken beside other work are worth less.
pub(crate) fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_whitespace().next().unwrap_or("unknown").to_owned()
}
