//! Any bytes, as a file of `perf record`: an error, or a profile that can be written and comes back. No other file is opened.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pertask_outside::{PerfDataOptions, read_perf_data};
use pertask_profile::{GroupBy, Profile};
use std::io::Cursor;
use std::panic;
use std::sync::Once;

/// libFuzzer ends at a panic that our reader catches, as it does with those of the library below. Those that leave it still end the run.
static QUIET: Once = Once::new();

fuzz_target!(|file: &[u8]| {
    QUIET.call_once(|| panic::set_hook(Box::new(|panic| eprintln!("{panic}"))));
    let mut options = PerfDataOptions::default();
    options.open_files = false;
    match read_perf_data(Cursor::new(file), &options) {
        Ok(profile) => {
            let mut written = Vec::new();
            profile.write_pprof(&mut written).expect("memory");
            assert_eq!(Profile::from_pprof(&written[..]).expect("we wrote it"), profile);
            let summary = profile.summary(&GroupBy::Thread);
            let own = summary.rows.iter().map(|row| row.own.cpu_ns).sum::<u64>();
            assert_eq!(own, summary.whole.cpu_ns);
        }
        Err(error) => {
            let said = error.to_string();
            assert!(!said.chars().any(char::is_control), "{said:?}");
        }
    }
});
