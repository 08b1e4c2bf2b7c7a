//! The polls that blocked their worker, by site.

#[cfg(feature = "sampler")]
use super::MetricsOptions;
#[cfg(feature = "sampler")]
use crate::error::Error;
use crate::report::SpawnSite;
#[cfg(feature = "sampler")]
use crate::watch::{BlockedSite, Watch, WatchOptions};

/// The polls of one site.
pub(super) struct BlockedPolls {
    pub(super) site: SpawnSite,
    pub(super) polls: u64,
    pub(super) total_ns: u64,
}

/// Watches for such polls, if that is wanted. Without the feature `sampler` it is not.
#[derive(Debug)]
pub(super) struct Watching {
    #[cfg(feature = "sampler")]
    watch: Watch,
}

#[cfg(feature = "sampler")]
impl Watching {
    pub(super) fn begin(options: &MetricsOptions) -> Result<Option<Self>, Error> {
        let begin = |threshold| {
            // Nobody sees the stacks.
            let without_stacks = WatchOptions {
                threshold,
                most_rows: 0,
                most_stacks_a_second: 0,
                most_told_a_second: 0,
            };
            Watch::start(without_stacks).map(|watch| Self { watch })
        };
        options.blocked.map(begin).transpose()
    }

    pub(super) fn by_site(&self) -> Vec<BlockedPolls> {
        let polls = |BlockedSite { site, polls, total_ns }| BlockedPolls { site, polls, total_ns };
        self.watch.by_site().into_iter().map(polls).collect()
    }
}

#[cfg(not(feature = "sampler"))]
impl Watching {
    pub(super) fn by_site(&self) -> Vec<BlockedPolls> {
        Vec::new()
    }
}
