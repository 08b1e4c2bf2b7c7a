//! Records a process: opens the events, reads the rings, and makes the profile.

use crate::error::Error;
use crate::event::{self, Kind};
use crate::options::RecordOptions;
use crate::record::{Record, Sample};
use crate::ring::Ring;
use crate::space::Space;
use crate::tables::{self, Tables};
use crate::target::Target;
use pertask_profile::Profile;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::time::{Duration, Instant, SystemTime};

/// Records a process until [`finish`](Self::finish). Dropping it ends the recording; the process keeps running either way.
#[derive(Debug)]
pub struct Recorder {
    target: Target,
    options: RecordOptions,
    kind: Kind,
    /// The events of all threads that were there when the recording began, and of each CPU the first, whose ring it is.
    events: Vec<File>,
    rings: Vec<(File, Ring)>,
    seen: Seen,
    began: (Instant, SystemTime),
}

/// What was seen so far.
struct Seen {
    process: u32,
    space: Space,
    tables: Tables,
    /// Records that found no room in a ring.
    lost: u64,
    /// Processes that this one has made. They are not recorded.
    children: u64,
    /// Whether code may have been mapped since the last look.
    is_mapped: bool,
    /// How often the process began to run another program.
    execs: u64,
    stack: Vec<u64>,
}

impl Recorder {
    /// Begins to record a process that runs.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no such process, if it is another user's, or if the kernel refuses perf events.
    pub fn attach(process: u32, options: &RecordOptions) -> Result<Self, Error> {
        Self::begin(process, options, false)
    }

    /// Begins to record a process when it begins to run a program.
    pub(crate) fn from_exec(process: u32, options: &RecordOptions) -> Result<Self, Error> {
        Self::begin(process, options, true)
    }

    fn begin(process: u32, options: &RecordOptions, from_exec: bool) -> Result<Self, Error> {
        event::raise_descriptors();
        let options = options.bounded();
        let target = Target::of(process)?;
        let began = (Instant::now(), SystemTime::now());
        let mut seen = Seen::of(process);
        if !from_exec {
            seen.space.look().map_err(|cause| Error::NotAllowed { process, cause })?;
        }
        let cpus = event::cpus();
        let first = cpus.first().copied().unwrap_or(0);
        let kind = Kind::best(&options, process, first, from_exec)?;
        let mut recorder =
            Self { target, options, kind, events: Vec::new(), rings: Vec::new(), seen, began };
        recorder.open(&cpus)?;
        Ok(recorder)
    }

    /// Opens events on all threads and CPUs.
    fn open(&mut self, cpus: &[u32]) -> Result<(), Error> {
        let mut known = BTreeSet::new();
        loop {
            let threads = self.target.threads();
            let new: Vec<_> = threads.into_iter().filter(|thread| known.insert(*thread)).collect();
            if new.is_empty() {
                break;
            }
            // A thread that an opened thread makes is followed. One that another thread makes meanwhile is found by the next look.
            for thread in new {
                self.note_thread(thread);
                self.open_on(thread, cpus)?;
            }
        }
        if self.rings.is_empty() {
            return Err(Error::NoProcess(self.target.process));
        }
        if !self.kind.from_exec {
            let all = self.events.iter().chain(self.rings.iter().map(|(event, _)| event));
            for event in all {
                // The thread may have ended.
                let _ = event::enable(event);
            }
        }
        Ok(())
    }

    fn open_on(&mut self, thread: u32, cpus: &[u32]) -> Result<(), Error> {
        for (at, cpu) in cpus.iter().enumerate() {
            let event = match self.kind.open(&self.options, thread, *cpu) {
                Ok(event) => event,
                // The thread has ended, or the CPU has gone.
                Err(cause) if matches!(cause.raw_os_error(), Some(libc::ESRCH | libc::ENODEV)) => {
                    return Ok(());
                }
                Err(cause) => {
                    return Err(Error::Perf {
                        remedy: "raise ulimit -n, or record a process with fewer threads"
                            .to_owned(),
                        cause,
                    });
                }
            };
            match self.rings.get(at) {
                Some((first, _)) => {
                    event::share(&event, first).map_err(|cause| Error::Other {
                        what: "perf events cannot share a ring",
                        cause,
                    })?;
                    self.events.push(event);
                }
                None => {
                    let least = 2 * (self.options.stack_bytes as usize + 1_024);
                    let ring = Ring::map(&event, self.options.ring_bytes, least).map_err(|cause| Error::Perf {
                        remedy: "no memory may be locked: raise kernel.perf_event_mlock_kb or ulimit -l".to_owned(),
                        cause,
                    })?;
                    self.rings.push((event, ring));
                }
            }
        }
        Ok(())
    }

    fn note_thread(&mut self, thread: u32) {
        let used = self.target.cpu_ns(thread);
        let known = self.seen.tables.threads.entry(thread).or_default();
        known.used_ns = used.map(|used| (used, used));
        known.name = self.target.name(thread).unwrap_or_default();
    }

    /// Waits for samples, at most for that time, and takes them. To be called again and again: what finds no room in a ring is lost.
    ///
    /// # Errors
    ///
    /// Returns an error if the kernel refuses to wait.
    pub fn turn(&mut self, most: Duration) -> Result<(), Error> {
        let events = self.rings.iter().map(|(event, _)| event);
        event::wait(events, most)
            .map_err(|cause| Error::Other { what: "waiting for samples failed", cause })?;
        self.take();
        Ok(())
    }

    /// Takes what is in the rings.
    fn take(&mut self) {
        let Self { rings, seen, target, .. } = self;
        if std::mem::take(&mut seen.is_mapped) {
            // If the process has ended, the mappings so far are all that will be known.
            let _ = seen.space.look();
        }
        for (_, ring) in rings {
            ring.read(|bytes| seen.take(bytes, target));
        }
        for (thread, known) in &mut seen.tables.threads {
            match (&mut known.used_ns, target.cpu_ns(*thread)) {
                (Some((_, last)), Some(now)) => *last = now,
                (_, None) => known.has_ended = true,
                (None, Some(_)) => (),
            }
        }
    }

    /// The process that is recorded.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.target.process
    }

    /// Whether the process is still running.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.target.is_alive()
    }

    /// How many samples there are so far.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.seen.tables.threads.values().map(|thread| thread.samples).sum()
    }

    /// Ends the recording, and returns the profile. Its functions have addresses and no names.
    #[must_use]
    pub fn finish(mut self) -> Profile {
        for event in self.events.iter().chain(self.rings.iter().map(|(event, _)| event)) {
            event::disable(event);
        }
        self.take();
        let lasted = self.began.0.elapsed();
        let period_ns = self.options.period_ns();
        let mut builder = tables::builder(self.mechanism(), period_ns);
        builder.start(self.began.1);
        let Seen { space, tables, lost, .. } = &self.seen;
        builder.dropped(lost + tables.dropped);
        self.remarks().into_iter().for_each(|remark| builder.remark(remark));
        tables.profile(&space.modules, period_ns, self.kind.kernel, 0, &mut builder);
        tables::finish(builder, lasted)
    }

    fn mechanism(&self) -> String {
        let hertz = self.options.frequency_hz;
        let how = format!("perf cpu-clock from outside, {hertz} Hz");
        match self.kind.kernel {
            true => how,
            false => format!(
                "{how} (in user mode; what else a thread has used is shown as time in the kernel)"
            ),
        }
    }

    /// What people should know of what was not recorded like the rest.
    fn remarks(&self) -> Vec<String> {
        let Seen { children, execs, space, .. } = &self.seen;
        let mut remarks = tables::unread(&space.unread);
        if !self.kind.kernel {
            let level = event::paranoid().map_or(String::new(), |level| format!(" ({level} here)"));
            remarks.push(format!(
                "the kernel lets this user sample user mode alone: for the rest, lower kernel.perf_event_paranoid{level} to 1, or run as root"
            ));
        }
        let (cut, all) = (self.seen.tables.cut, self.samples());
        if cut * 100 > all {
            let bytes = self.options.stack_bytes;
            remarks.push(format!(
                "{cut} of {all} stacks are longer than the {bytes} bytes that a sample has of them, so their tasks may be missing: take more (--stack-size, at most 65528)"
            ));
        }
        if *children > 0 {
            let noun = if *children == 1 { "child process was" } else { "child processes were" };
            remarks.push(format!(
                "{children} {noun} started, and not recorded: record the server itself, and not a script or `cargo run`"
            ));
        }
        if *execs > u64::from(self.kind.from_exec) {
            remarks.push("the process began to run another program while it was recorded: samples from before may lack names".to_owned());
        }
        remarks
    }
}

impl Seen {
    fn of(process: u32) -> Self {
        Self {
            process,
            space: Space::new(process),
            tables: Tables::default(),
            lost: 0,
            children: 0,
            is_mapped: false,
            execs: 0,
            stack: Vec::new(),
        }
    }

    fn take(&mut self, bytes: &[u8], target: &Target) {
        match Record::parse(bytes) {
            Some(Record::Sample(sample)) if sample.process == self.process => {
                self.sample(&sample, target)
            }
            // Of a child, where the kernel cannot leave it out.
            Some(Record::Sample(_)) => (),
            Some(Record::Forked { process, parent })
                if parent == self.process && process != parent =>
            {
                self.children += 1;
            }
            Some(Record::Lost(records)) => self.lost += records,
            Some(Record::Mapped { process }) if process == self.process => self.look(),
            Some(Record::Named { process, thread, is_exec }) if process == self.process => {
                self.execs += u64::from(is_exec);
                let name = target.name(thread);
                if let Some(known) = self.tables.threads.get_mut(&thread) {
                    known.name = name.unwrap_or_default();
                }
                if is_exec {
                    self.look();
                }
            }
            Some(_) => (),
            None => self.tables.dropped += 1,
        }
    }

    /// Looks at the mappings now, because samples that follow may be in what was mapped.
    fn look(&mut self) {
        let _: io::Result<()> = self.space.look();
        self.is_mapped = true;
    }

    fn sample(&mut self, sample: &Sample<'_>, target: &Target) {
        self.tables.threads.entry(sample.thread).or_insert_with(|| tables::Thread {
            name: target.name(sample.thread).unwrap_or_default(),
            // It began while the process was recorded, so all of its time is in the recording.
            used_ns: target.cpu_ns(sample.thread).map(|now| (0, now)),
            ..tables::Thread::default()
        });
        let mut stack = std::mem::take(&mut self.stack);
        stack.clear();
        let end = self.space.walk(sample.registers, sample.stack, &mut stack);
        self.tables.add(sample.thread, &stack, end);
        self.stack = stack;
    }
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seen")
            .field("tables", &self.tables)
            .field("lost", &self.lost)
            .finish_non_exhaustive()
    }
}
