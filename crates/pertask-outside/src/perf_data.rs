//! Files that `perf record -g` or `perf record --call-graph dwarf` has written.

use crate::error::Error;
use crate::perf_check::{self, Kind};
use crate::registers::{self, Registers};
use crate::space::{End, Space, Walked};
use crate::tables::{self, KERNEL, Tables};
use linux_perf_data::linux_perf_event_reader::{
    CpuMode, EventRecord, Mmap2FileId, PerfEventAttr, PerfEventType, RawData, SampleRecord,
    SamplingPolicy, SoftwareCounterType, constants,
};
use linux_perf_data::{
    AttributeDescription, DsoInfo, PerfFileReader, PerfFileRecord, PerfRecordIter,
};
use pertask_profile::Profile;
use pertask_symbols::{
    MappedElf, MappedFiles, Mapping, Memory, Module, mappings_around, open_regular,
};
use std::collections::{BTreeMap, HashMap};
use std::env::consts::ARCH;
use std::fs::File;
use std::io::{Read, Seek};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The beginning of such a file.
pub const MAGIC: [u8; 8] = *b"PERFILE2";

/// The most processes of a file. The addresses of each have the sixteen bits above those of a process.
const MOST_PROCESSES: usize = 1 << 15;
const PROCESS_SHIFT: u32 = 48;

/// Where to look for the files that were mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PerfDataOptions {
    /// Whether any file is opened. Without them, stacks that perf has copied cannot be unwound.
    pub open_files: bool,
    /// Folders to look in before the paths at which the files were mapped: by the whole path below the folder, and by the name alone.
    pub folders: Vec<PathBuf>,
}

impl Default for PerfDataOptions {
    fn default() -> Self {
        Self { open_files: true, folders: Vec::new() }
    }
}

/// Reads a file that `perf record` has written, with addresses and no names.
///
/// Stacks that perf has copied are unwound with the tables of the files that were mapped, which must be here: in the folders or at their own
/// paths. Where perf has followed frame pointers, its own chains are taken. Time in the kernel stands at the call that went there.
///
/// If the file has several processes, n times 2^48 is added to the addresses of process n, counted from 0.
///
/// # Errors
///
/// Returns an error if it is no such file, or if its events do not stand for time. If a file is damaged, what comes before is read, and the
/// profile says so.
pub fn read_perf_data(
    mut file: impl Read + Seek,
    options: &PerfDataOptions,
) -> Result<Profile, Error> {
    let kind = perf_check::check(&mut file).map_err(Error::PerfData)?;
    let parse = || match kind {
        Kind::File => PerfFileReader::parse_file(file),
        Kind::Pipe => PerfFileReader::parse_pipe(file),
    };
    let PerfFileReader { mut perf_file, mut record_iter } = unless_it_panics(parse)
        .map_err(|why| Error::PerfData(why.to_owned()))?
        .map_err(|why| Error::PerfData(why.to_string()))?;
    let build_ids = perf_file.build_ids().unwrap_or_default();
    let arch = perf_file.arch().ok().flatten().unwrap_or(ARCH);
    if arch != ARCH {
        return Err(Error::PerfData(format!(
            "it was recorded on {arch}, and this machine is {ARCH}; read it on one of those"
        )));
    }
    let attributes = perf_file.event_attributes();
    let event = attributes.first().ok_or_else(|| Error::PerfData("it has no events".to_owned()))?;
    let (event, period_ns) = (name(event), period_ns(&event.attr)?);
    let mut reading = Reading::new(options, build_ids.into_values());
    let read = unless_it_panics(|| reading.all(&mut perf_file, &mut record_iter));
    let damage = read.unwrap_or_else(|why| Some(why.to_owned()));
    Ok(reading.finish(&event, period_ns, damage))
}

/// Calls a function that trusts a damaged file. What was read before a panic is still there.
fn unless_it_panics<T>(read: impl FnOnce() -> T) -> Result<T, &'static str> {
    catch_unwind(AssertUnwindSafe(read))
        .map_err(|_| "it is damaged in a way that its reader did not expect")
}

/// The event's name.
fn name(event: &AttributeDescription) -> String {
    event.name().unwrap_or("an event without a name").to_owned()
}

/// The CPU time between two samples.
fn period_ns(attr: &PerfEventAttr) -> Result<u64, Error> {
    use SoftwareCounterType::{CpuClock, TaskClock};
    const SECOND: u64 = 1_000_000_000;
    // A longer one is no period of anybody's.
    const HOUR: u64 = 3600 * SECOND;
    let is_clock = matches!(attr.type_, PerfEventType::Software(CpuClock | TaskClock));
    match attr.sampling_policy {
        // The kernel changes the period so that there are as many samples a second.
        SamplingPolicy::Frequency(hertz) if (1..=SECOND).contains(&hertz) => Ok(SECOND / hertz),
        SamplingPolicy::Period(ns) if is_clock && ns.get() <= HOUR => Ok(ns.get()),
        _ => Err(Error::PerfData(
            "its samples do not stand for time; record with -F, or with -e cpu-clock".to_owned(),
        )),
    }
}

struct Reading<'a> {
    options: &'a PerfDataOptions,
    /// The build ids of the mapped files, by path.
    build_ids: HashMap<Vec<u8>, Vec<u8>>,
    files: HashMap<String, Option<Arc<File>>>,
    processes: BTreeMap<i32, Process>,
    lost: u64,
    /// Samples of other events than the first, and those without a process.
    left_out: u64,
    times: Option<Range<u64>>,
    other_builds: Vec<String>,
}

/// One of the processes.
struct Process {
    space: Space,
    /// Where code is mapped.
    code: Vec<Mapping>,
    has_changed: bool,
    tables: Tables,
}

impl Process {
    fn new(process: i32) -> Self {
        let space = Space::new(process.cast_unsigned());
        Self { space, code: Vec::new(), has_changed: false, tables: Tables::default() }
    }

    fn map(&mut self, mapping: Mapping) {
        let overlaps = |other: &Mapping| {
            other.range.start < mapping.range.end && mapping.range.start < other.range.end
        };
        self.code.retain(|other| !overlaps(other));
        self.code.push(mapping);
        self.has_changed = true;
    }
}

impl<'a> Reading<'a> {
    fn new(options: &'a PerfDataOptions, build_ids: impl Iterator<Item = DsoInfo>) -> Self {
        let build_ids = build_ids.map(|DsoInfo { path, build_id }| (path, build_id)).collect();
        Self {
            options,
            build_ids,
            files: HashMap::new(),
            processes: BTreeMap::new(),
            lost: 0,
            left_out: 0,
            times: None,
            other_builds: Vec::new(),
        }
    }

    /// Reads all records. Returns what is wrong with the file, if anything is.
    fn all<R: Read>(
        &mut self,
        file: &mut linux_perf_data::PerfFile,
        records: &mut PerfRecordIter<R>,
    ) -> Option<String> {
        loop {
            match records.next_record(file) {
                Ok(Some(PerfFileRecord::EventRecord { attr_index, record })) => {
                    match record.parse() {
                        Ok(record) => self.take(attr_index, &record),
                        Err(why) => return Some(why.to_string()),
                    }
                }
                Ok(Some(PerfFileRecord::UserRecord(_))) => (),
                Ok(None) => return None,
                Err(why) => return Some(why.to_string()),
            }
        }
    }

    fn take(&mut self, event: usize, record: &EventRecord<'_>) {
        match record {
            EventRecord::Sample(sample) if event == 0 => self.sample(sample),
            EventRecord::Sample(_) => self.left_out += 1,
            EventRecord::Lost(lost) => self.lost = self.lost.saturating_add(lost.count),
            EventRecord::Mmap(map) if map.is_executable && is_user(map.cpu_mode) => {
                let range = map.address..map.address.saturating_add(map.length);
                self.map(map.pid, range, map.page_offset, map.path);
            }
            EventRecord::Mmap2(map) if is_user(map.cpu_mode) && is_code(map.protection) => {
                if let Mmap2FileId::BuildId(build_id) = &map.file_id {
                    self.build_ids.insert(map.path.as_slice().into_owned(), build_id.clone());
                }
                let range = map.address..map.address.saturating_add(map.length);
                self.map(map.pid, range, map.page_offset, map.path);
            }
            EventRecord::Fork(fork) if fork.pid != fork.ppid => {
                let code = self.processes.get(&fork.ppid).map(|parent| parent.code.clone());
                if let (Some(code), Some(child)) = (code, self.process(fork.pid)) {
                    (child.code, child.has_changed) = (code, true);
                }
            }
            EventRecord::Comm(comm) => {
                let name = String::from_utf8_lossy(&comm.name.as_slice()).into_owned();
                if let Some(process) = self.process(comm.pid) {
                    process.tables.threads.entry(comm.tid.cast_unsigned()).or_default().name = name;
                    if comm.is_execve {
                        process.code.clear();
                        process.has_changed = true;
                    }
                }
            }
            _ => (),
        }
    }

    fn process(&mut self, number: i32) -> Option<&mut Process> {
        let is_full = self.processes.len() >= MOST_PROCESSES;
        if is_full && !self.processes.contains_key(&number) {
            return None;
        }
        Some(self.processes.entry(number).or_insert_with(|| Process::new(number)))
    }

    fn map(&mut self, process: i32, range: Range<u64>, offset: u64, path: RawData<'_>) {
        let path = String::from_utf8_lossy(&path.as_slice()).into_owned();
        if let Some(process) =
            self.process(process).filter(|_| path.starts_with('/') && !path.starts_with("//"))
        {
            process.map(Mapping::of_code(range, offset, path));
        }
    }

    fn sample(&mut self, sample: &SampleRecord<'_>) {
        let (Some(number), Some(thread)) = (sample.pid, sample.tid) else {
            self.left_out += 1;
            return;
        };
        if let Some(time) = sample.timestamp {
            let times = self.times.get_or_insert(time..time);
            (times.start, times.end) = (times.start.min(time), times.end.max(time));
        }
        if self.process(number).is_some_and(|process| process.has_changed) {
            self.look(number);
        }
        let Some(process) = self.process(number) else {
            self.left_out += 1;
            return;
        };
        let mut stack = Walked::default();
        let copied = sample.user_stack.as_ref().zip(registers(sample));
        let end = match copied {
            Some(((bytes, written), registers)) => {
                let bytes = bytes.as_slice();
                let written = usize::try_from(*written).unwrap_or(usize::MAX).min(bytes.len());
                process.space.walk(Some(registers), &bytes[..written], &mut stack)
            }
            None => {
                stack.addresses.extend(chain(sample));
                // Nobody knows whether a chain of frame pointers has reached the root.
                End::Lost
            }
        };
        let mut stack = stack.addresses;
        if stack.is_empty() {
            stack.push(KERNEL);
        }
        process.tables.add(thread.cast_unsigned(), &stack, end, None);
    }

    /// Opens the files that a process has mapped since the last look.
    fn look(&mut self, number: i32) {
        let Some(process) = self.process(number) else { return };
        process.has_changed = false;
        let code = process.code.clone();
        let mut mapped: Vec<(Mapping, Arc<File>)> = Vec::new();
        for mapping in &code {
            let Some(file) = self.file(&mapping.path) else { continue };
            let around = mappings_around(mapping, &file).unwrap_or_default();
            for mapping in around {
                if !mapped.iter().any(|(known, _)| *known == mapping) {
                    mapped.push((mapping, Arc::clone(&file)));
                }
            }
        }
        mapped.sort_by_key(|(mapping, _)| mapping.range.start);
        let files = Memory::Files(MappedFiles::given(mapped.iter().cloned()));
        let mapped: Vec<_> = mapped.into_iter().map(|(mapping, _)| mapping).collect();
        if self.refuse_others(&mapped, &files) {
            return self.look(number);
        }
        let unread: Vec<_> = code
            .into_iter()
            .filter(|mapping| !matches!(self.files.get(&mapping.path), Some(Some(_))))
            .map(|mapping| (self.build_id(&mapping.path).unwrap_or_default(), mapping))
            .collect();
        if let Some(process) = self.process(number) {
            process.space.set(mapped, &files);
            unread.into_iter().for_each(|(build_id, it)| process.space.add_unread(it, build_id));
        }
    }

    /// The build id that a file had when it was mapped, if it is known.
    fn build_id(&self, path: &str) -> Option<Vec<u8>> {
        let mut build_id = self.build_ids.get(path.as_bytes())?.clone();
        // perf writes twenty bytes whatever the length is.
        while build_id.len() > 8 && build_id.ends_with(&[0; 4]) {
            build_id.truncate(build_id.len() - 4);
        }
        Some(build_id)
    }

    /// Takes files with another build id than those that ran for missing. Returns whether there are any.
    fn refuse_others(&mut self, mapped: &[Mapping], files: &Memory) -> bool {
        let is_other = |module: &Module| {
            let wanted = self.build_id(&module.path);
            wanted.is_some_and(|wanted| !module.build_id.starts_with(&wanted))
        };
        let modules = MappedElf::all(mapped, files).map(|image| image.module());
        let others: Vec<_> = modules.filter(is_other).map(|module| module.path).collect();
        for path in &others {
            self.files.insert(path.clone(), None);
            self.other_builds.push(path.clone());
        }
        !others.is_empty()
    }

    /// Opens a mapped file, if it is here and has the right build id.
    fn file(&mut self, path: &str) -> Option<Arc<File>> {
        if let Some(known) = self.files.get(path) {
            return known.clone();
        }
        let own = Path::new(path);
        // A path comes from a file that nobody trusts.
        let leads_up = own.components().any(|part| part == Component::ParentDir);
        if !self.options.open_files || leads_up || !own.is_absolute() {
            self.files.insert(path.to_owned(), None);
            return None;
        }
        let below = own.strip_prefix("/").unwrap_or(own);
        let name = own.file_name().unwrap_or_default();
        let folders =
            self.options.folders.iter().flat_map(|folder| [folder.join(below), folder.join(name)]);
        let opened = folders.chain([own.to_owned()]).find_map(|path| regular(&path));
        self.files.insert(path.to_owned(), opened.clone());
        opened
    }

    fn finish(mut self, event: &str, period_ns: u64, damage: Option<String>) -> Profile {
        let hertz = 1_000_000_000 / period_ns.max(1);
        let mut builder = tables::builder(format!("perf record, {event}, {hertz} Hz"), period_ns);
        builder.start(SystemTime::UNIX_EPOCH);
        let dropped: u64 = self.processes.values().map(|process| process.tables.dropped).sum();
        builder.dropped(self.lost.saturating_add(dropped));
        if let Some(damage) = damage {
            builder.remark(format!("the file is damaged, and this is what comes before: {damage}"));
        }
        if self.left_out > 0 {
            let left_out = self.left_out;
            builder.remark(format!(
                "{left_out} samples of other events than {event}, or of no process, are left out"
            ));
        }
        let sampled = |process: &Process| process.tables.threads.values().any(|it| it.samples > 0);
        self.processes.retain(|_, process| sampled(process));
        for (at, process) in (0_u64..).zip(self.processes.values()) {
            let Process { space, tables, .. } = process;
            tables::unread(&space.unread).into_iter().for_each(|remark| builder.remark(remark));
            tables.profile(&space.modules, period_ns, true, at << PROCESS_SHIFT, &mut builder);
        }
        for file in &self.other_builds {
            builder.remark(format!("{file} has another build id than the file that ran"));
        }
        // pprof's numbers have a sign. Only a damaged file's times are so far apart.
        let lasted = self.times.map_or(0, |times| times.end - times.start).min(i64::MAX as u64);
        tables::finish(builder, Duration::from_nanos(lasted))
    }
}

fn regular(path: &Path) -> Option<Arc<File>> {
    let kernels = ["/dev", "/proc", "/sys"];
    if kernels.iter().any(|folder| path.starts_with(folder)) {
        return None;
    }
    open_regular(path).ok().map(Arc::new)
}

fn is_user(mode: CpuMode) -> bool {
    matches!(mode, CpuMode::User | CpuMode::Unknown)
}

fn is_code(protection: u32) -> bool {
    protection & libc::PROT_EXEC.cast_unsigned() != 0
}

/// The registers that a stack can be unwound from, if perf has copied them.
fn registers(sample: &SampleRecord<'_>) -> Option<Registers> {
    let registers = sample.user_regs.as_ref()?;
    let mut values = [0; registers::UNWIND.len()];
    for (value, wanted) in values.iter_mut().zip(registers::UNWIND) {
        *value = registers.get(wanted.into())?;
    }
    Some(Registers::to_unwind(values))
}

/// The addresses in user mode of a chain that perf has followed.
fn chain(sample: &SampleRecord<'_>) -> Vec<u64> {
    let Some(chain) = &sample.callchain else { return sample.ip.into_iter().collect() };
    let all = (0..chain.len()).filter_map(|at| chain.get(at));
    let mut is_user = sample.cpu_mode == CpuMode::User;
    let mut user = Vec::new();
    for address in all {
        match address {
            constants::PERF_CONTEXT_USER => is_user = true,
            constants::PERF_CONTEXT_MAX.. => is_user = false,
            address if is_user => user.push(address),
            _ => (),
        }
    }
    user
}

/// Returns whether bytes begin as such a file does.
#[must_use]
pub fn is_perf_data(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}
