//! The C allocator's settings for a process that moves megabytes.
//!
//! glibc keeps what is freed in one arena per thread and returns large blocks to the kernel at once, to fetch and clear them anew for
//! the next container block. One arena that keeps its pages took a 5 GiB upload from 436 to 155 MiB resident, and a download from
//! 476 to 157 MiB, with less processor time for both (docs/performance.md). The settings are read from the environment when a
//! process starts, so the process starts itself once more with them.

/// Settings and values, as mallopt(3) names them.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const SETTINGS: [(&str, &str); 3] =
    [("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "33554432"), ("MALLOC_TRIM_THRESHOLD_", "268435456")];

/// Replaces the process by itself with the settings in force, unless somebody chose any of them already. Returns when there is nothing
/// to do or the system refuses, which costs memory and nothing else.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn tune() {
    use std::os::unix::process::CommandExt;

    if SETTINGS.iter().any(|(name, _)| std::env::var_os(name).is_some()) {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut words = std::env::args_os();
    let mut command = std::process::Command::new(program);
    if let Some(name) = words.next() {
        command.arg0(name);
    }
    // Gives back an error or does not come back: same process id, same open files.
    drop(command.args(words).envs(SETTINGS).exec());
}

/// Other allocators are left alone.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn tune() {}
