//! From a sampling session to a profile: addresses become functions, in the process itself or later and elsewhere.

use super::RawProfile;
use super::naming::Naming;
use super::recording::Recording;
use super::{Module, ModuleRange};
use pertask_profile::{Bounds, Mapping, PprofTypes, PprofWriter, Profile, Sample};
use pertask_symbols::{Symbolizer, SymbolizerOptions};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::io::{self, Write};
use std::path::PathBuf;

/// The options of finding names.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResolveOptions {
    /// The most memory for the contents of files, in bytes. A file for which there is too little gives fewer names or none, and
    /// the profile's remarks say so.
    pub memory_bytes: usize,
    /// Folders to look for files in, before the paths at which they were mapped: by the whole path below the folder, by the name
    /// alone, and by build id (`.build-id/xx/yyy.debug`).
    pub folders: Vec<PathBuf>,
}

impl Default for ResolveOptions {
    /// Returns a limit of 256 MiB, and no folders.
    fn default() -> Self {
        Self { memory_bytes: 256 << 20, folders: Vec::new() }
    }
}

impl RawProfile {
    /// Makes a profile, with the names of functions, tasks and threads.
    ///
    /// This reads the names of functions from the program's files on disk, within [`ResolveOptions::default`]. For a large program
    /// with full debug information, that takes a second and some tens of megabytes, so call it on a thread for which no other
    /// waits, or write the samples [unresolved](Self::write_pprof_unresolved). Functions of files that were replaced since the
    /// program began have no names.
    ///
    /// ```no_run
    /// use pertask::sampler::{Sampler, SamplerOptions};
    ///
    /// let sampler = Sampler::start(SamplerOptions::default())?;
    /// // ... the program runs ...
    /// let profile = sampler.stop().resolve();
    /// profile.write_pprof(std::fs::File::create("profile.pb.gz")?)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn resolve(&self) -> Profile {
        self.resolve_with(&ResolveOptions::default())
    }

    /// Makes a profile, as [`resolve`](Self::resolve) does, with the given options.
    #[must_use]
    pub fn resolve_with(&self, options: &ResolveOptions) -> Profile {
        let mut recording = Recording::of(self);
        let tables = recording.take_tables();
        let mut symbolizer = Symbolizer::with_options(&self.modules, &options.of_symbolizer());
        let mut naming = Naming::of(&tables, &mut symbolizer, Bounds::default());
        // The samples need room, too.
        drop(symbolizer);
        self.samples.iter().for_each(|raw| naming.look(&recording.sample(raw)));
        self.samples.iter().for_each(|raw| naming.add(&recording.sample(raw)));
        self.unmet.iter().for_each(|unmet| naming.add(&recording.unmet(unmet)));
        self.off_cpu(&mut recording).for_each(|sample| naming.add(&sample));
        let allocations = self.allocations.iter();
        allocations.for_each(|raw| naming.add_allocation(&recording.allocation(raw)));
        naming.finish()
    }

    /// Writes the samples as gzip'd pprof with addresses, mappings and build ids, and with no names of functions.
    ///
    /// Tasks, threads, scopes and labels have their names. This reads no symbols, and needs a few megabytes of memory. The file
    /// gets the names of functions where it is read, with [`resolve`] or with `pertask report`, on this machine or on another
    /// that has the program's files.
    ///
    /// ```no_run
    /// use pertask::sampler::{ResolveOptions, Sampler, SamplerOptions, resolve};
    ///
    /// let sampler = Sampler::start(SamplerOptions::default())?;
    /// // ... the program runs ...
    /// sampler.stop().write_pprof_unresolved(std::fs::File::create("profile.pb.gz")?)?;
    ///
    /// // Later, and perhaps elsewhere:
    /// let file = std::fs::File::open("profile.pb.gz")?;
    /// let profile = pertask::profile::Profile::from_pprof(file)?;
    /// let profile = resolve(&profile, &ResolveOptions::default());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the errors of `writer`.
    pub fn write_pprof_unresolved(&self, writer: impl Write) -> io::Result<()> {
        let mut recording = Recording::of(self);
        let mut head = recording.take_tables();
        let off_cpu = !self.waits.is_empty() || !self.blocked_ns.is_empty();
        let types = PprofTypes { off_cpu, allocations: self.has_allocations };
        let mut writer = PprofWriter::with_types(writer, types)?;
        head.mappings.iter().try_for_each(|it| writer.mapping(it).map(drop))?;
        head.functions.iter().try_for_each(|it| writer.function(it).map(drop))?;
        head.locations.iter().try_for_each(|it| writer.location(it).map(drop))?;
        let mut incomplete = 0;
        self.try_for_each_kind(&mut recording, |sample| {
            incomplete += if sample.complete { 0 } else { sample.count };
            writer.sample(sample)
        })?;
        for unmet in &self.unmet {
            writer.sample(&recording.unmet(unmet))?;
        }
        for sample in self.off_cpu(&mut recording) {
            writer.sample(&sample)?;
        }
        for allocation in &self.allocations {
            writer.allocation(&recording.allocation(allocation))?;
        }
        head.lost.stacks_incomplete = incomplete;
        writer.finish(&head).map(drop)
    }

    /// The samples of time off the CPU.
    fn off_cpu(&self, recording: &mut Recording<'_>) -> impl Iterator<Item = Sample> {
        let waits = self.waits.iter().flat_map(|wait| recording.waits(wait)).collect::<Vec<_>>();
        let blocked = self.blocked_ns.iter().map(|(path, ns)| recording.blocked(*path, *ns));
        waits.into_iter().chain(blocked.collect::<Vec<_>>())
    }

    /// Passes on each kind of sample, with the number and the CPU time of all that are equal to it.
    fn try_for_each_kind(
        &self,
        recording: &mut Recording<'_>,
        mut f: impl FnMut(&Sample) -> io::Result<()>,
    ) -> io::Result<()> {
        // A number for each sample takes far less room than a table of samples.
        let mut order: Vec<u32> = (0..self.samples.len() as u32).collect();
        let compare = |one: &u32, other: &u32| self.compare(*one, *other);
        order.sort_unstable_by(compare);
        for equal in order.chunk_by(|one, other| compare(one, other) == Ordering::Equal) {
            let samples = || equal.iter().map(|at| &self.samples[*at as usize]);
            let Some(first) = samples().next() else { continue };
            let mut sample = recording.sample(first);
            sample.count = equal.len() as u64;
            sample.time_ns = samples().fold(0, |sum, it| it.cpu_ns.saturating_add(sum));
            f(&sample)?;
        }
        Ok(())
    }

    /// Compares what a profile has of two samples, apart from their time.
    fn compare(&self, one: u32, other: u32) -> Ordering {
        let [one, other] = [one, other].map(|at| &self.samples[at as usize]);
        // Equal stacks and scopes share their memory.
        let key = |it: &super::RawSample| {
            let shared = (it.stack.as_ptr(), it.scopes.as_ptr());
            (shared, it.thread, it.task, it.parent, it.path, it.complete, it.fiber)
        };
        key(one).cmp(&key(other)).then_with(|| one.labels.iter().cmp(other.labels.iter()))
    }
}

/// Finds the names of a profile that was [written without](RawProfile::write_pprof_unresolved), and ends the stacks of tasks
/// where the tasks are polled.
///
/// The files that were mapped are looked for in the options' folders and at their own paths. A file with another build id is not
/// believed, and a remark of the profile says so. What has names already, as in other programs' profiles, keeps them.
#[must_use]
pub fn resolve(profile: &Profile, options: &ResolveOptions) -> Profile {
    let modules = modules(&profile.mappings);
    let mut symbolizer = Symbolizer::of_recorded(&modules, &options.of_symbolizer());
    let mut naming = Naming::of(profile, &mut symbolizer, bounds(profile));
    drop(symbolizer);
    let samples = || profile.samples.iter().chain(&profile.off_cpu);
    samples().for_each(|sample| naming.look(sample));
    samples().for_each(|sample| naming.add(sample));
    profile.allocations.iter().for_each(|allocation| naming.add_allocation(allocation));
    naming.finish()
}

/// Returns bounds within which a profile that was read fits, so that it loses nothing.
fn bounds(profile: &Profile) -> Bounds {
    let default = Bounds::default();
    Bounds {
        samples: default
            .samples
            .max(profile.samples.len() + profile.off_cpu.len() + profile.allocations.len()),
        locations: default.locations.max(profile.locations.len().saturating_mul(2)),
        texts: usize::MAX,
        text_bytes: usize::MAX,
        depth: usize::MAX,
        labels: usize::MAX,
        ..default
    }
}

/// Returns the modules that were mapped. Several mappings of one file are one module.
fn modules(mappings: &[Mapping]) -> Vec<Module> {
    let (mut modules, mut known) = (Vec::<Module>::new(), HashMap::new());
    for mapping in mappings.iter().filter(|mapping| !mapping.file.is_empty()) {
        let at = *known.entry((&mapping.file, &mapping.build_id)).or_insert_with(|| {
            let build_id = bytes(&mapping.build_id);
            modules.push(Module::new(&*mapping.file, build_id, Vec::new()));
            modules.len() - 1
        });
        let range = ModuleRange::new(mapping.start..mapping.end, mapping.offset);
        modules[at].ranges.push(range);
    }
    modules
}

/// Returns the bytes of hexadecimal digits. Go's build ids, for one, are none.
fn bytes(digits: &str) -> Vec<u8> {
    let pairs = (0..digits.len()).step_by(2);
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    pairs.map(byte).collect::<Option<_>>().unwrap_or_else(|| digits.as_bytes().to_vec())
}

impl ResolveOptions {
    fn of_symbolizer(&self) -> SymbolizerOptions {
        let mut options = SymbolizerOptions::default();
        options.memory_bytes = self.memory_bytes;
        options.folders = self.folders.clone();
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::RawSample;
    use crate::tasks::label_set::Labels;

    #[test]
    fn a_stack_that_ends_at_a_fibers_root_says_so() {
        let mut raw = RawProfile::empty();
        raw.remarks.push("a remark".to_owned());
        raw.samples = [true, false].map(|fiber| sample(fiber, &[0x1040, 0x1080])).to_vec();
        let profile = raw.resolve();
        let root = |sample: &Sample| {
            let location = profile.location(*sample.stack.last()?)?;
            profile.function(location.lines.first()?.function).map(|function| &*function.name)
        };
        let roots: Vec<_> = profile.samples.iter().map(root).collect();
        assert_eq!(roots, [Some("[fiber]"), Some("[anonymous code]")]);
        assert!(profile.remarks.contains(&"a remark".to_owned()), "{:?}", profile.remarks);
    }

    fn sample(fiber: bool, stack: &[u64]) -> RawSample {
        RawSample {
            time_ns: 0,
            cpu_ns: 1,
            thread: 1,
            task: None,
            parent: None,
            path: None,
            labels: Labels::default(),
            scopes: [].into(),
            deeper_scopes: 0,
            overrun: 0,
            handler_ns: 0,
            stack: stack.into(),
            complete: true,
            truncated: false,
            fiber,
        }
    }
}
