//! The process's threads, as the kernel lists them.

/// The name of a thread, as the kernel knows it.
pub(crate) fn name(number: u32) -> String {
    let comm = std::fs::read(format!("/proc/self/task/{number}/comm")).unwrap_or_default();
    String::from_utf8_lossy(&comm).trim_end_matches('\n').to_owned()
}

/// The number of threads. This is much cheaper than a list of them.
#[cfg(feature = "sampler")]
pub(crate) fn count() -> u64 {
    use std::os::unix::fs::MetadataExt;
    // A directory has two links of its own. This one has another link for each thread.
    std::fs::metadata("/proc/self/task").map_or(0, |folder| folder.nlink())
}

/// The numbers of all threads at this moment, or none where they cannot be listed.
pub(crate) fn numbers() -> Vec<u32> {
    list().unwrap_or_default()
}

/// The numbers of all threads at this moment. While threads end, the kernel's list may skip others.
pub(crate) fn list() -> std::io::Result<Vec<u32>> {
    let entries = std::fs::read_dir("/proc/self/task")?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}
