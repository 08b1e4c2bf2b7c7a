//! Finds the names of functions in a profile that was written without them.

use std::path::PathBuf;

use clap::Args;
use pertask::{
    profile::{Location, Profile},
    sampler::{ResolveOptions, resolve},
};
use pertask_outside::PerfDataOptions;

/// The options about symbols.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Symbols")]
pub struct SymbolOptions {
    /// Look for programs and their debug information in DIR first: by path, by name, and by build id
    /// (.build-id/xx/yyy.debug); may be repeated
    #[arg(long, value_name = "DIR", conflicts_with = "no_symbols")]
    pub symbols: Vec<PathBuf>,

    /// Look for no symbols: functions that the profile does not name are shown by address
    #[arg(long)]
    pub no_symbols: bool,
}

impl SymbolOptions {
    /// Returns the profile with the names that can be found.
    pub fn named(&self, profile: Profile) -> Profile {
        self.named_from(profile, &[])
    }

    /// Returns the profile with the names that can be found, also in more folders than the user has named.
    pub fn named_from(&self, profile: Profile, folders: &[PathBuf]) -> Profile {
        if self.no_symbols || !lacks_names(&profile) {
            return profile;
        }
        let mut options = ResolveOptions::default();
        // Nobody shares this process.
        options.memory_bytes = 4 << 30;
        options.folders = self.symbols.iter().chain(folders).cloned().collect();
        resolve(&profile, &options)
    }
}

impl SymbolOptions {
    /// Returns where a file of `perf record` finds the files that were mapped.
    pub fn of_perf_data(&self) -> PerfDataOptions {
        let mut options = PerfDataOptions::default();
        options.open_files = !self.no_symbols;
        options.folders = self.symbols.clone();
        options
    }
}

/// Returns whether a file may name functions that the profile does not.
fn lacks_names(profile: &Profile) -> bool {
    let in_file = |location: &Location| {
        let mapping = location.mapping.and_then(|id| profile.mapping(id));
        mapping.is_some_and(|mapping| !mapping.file.is_empty())
    };
    let unnamed = |location: &Location| location.lines.is_empty() && in_file(location);
    profile.locations.iter().any(unnamed)
}
