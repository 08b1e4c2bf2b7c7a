//! Records a process: opens the events, reads the rings, and makes the profile.

use crate::error::Error;
use crate::event::{self, Kind};
use crate::identity::{Identity, Look};
use crate::options::RecordOptions;
use crate::record::{Record, Sample};
use crate::ring::{self, Ring};
use crate::space::{Space, Walked};
use crate::tables::{self, Tables};
use crate::target::Target;
use pertask_profile::Profile;
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::time::{Duration, Instant, SystemTime};

/// Records a process until [`finish`](Self::finish). Dropping it ends the recording; the process keeps running either way.
#[derive(Debug)]
pub struct Recorder {
    target: Target,
    options: RecordOptions,
    kind: Kind,
    /// The rings of all CPUs, each with the event whose ring it is, and the events of all other threads.
    rings: Vec<CpuRing>,
    events: Vec<File>,
    wakeup_bytes: u32,
    /// When the threads' CPU times are read again.
    next_look: Instant,
    seen: Seen,
    began: (Instant, SystemTime),
}

/// The ring of a CPU.
#[derive(Debug)]
struct CpuRing {
    cpu: u32,
    event: File,
    ring: Ring,
}

/// The most memory of all rings.
const MOST_RING_BYTES: usize = 256 << 20;

/// How often the threads' CPU times are read, and the mappings at most.
const LOOK: Duration = Duration::from_millis(250);
const MAPPINGS_LOOK: Duration = Duration::from_millis(10);

/// What was seen so far.
struct Seen {
    process: u32,
    space: Space,
    tables: Tables,
    /// Records that found no room in a ring.
    lost: u64,
    /// Processes that this one has made. They are not recorded.
    children: u64,
    /// Which thread each event was opened on, by the event's number.
    owners: HashMap<u64, u32>,
    /// Whether code may have been mapped since the last look at the mappings, and when that was.
    is_mapped: bool,
    is_exec: bool,
    looked: Instant,
    /// How often the process began to run another program.
    execs: u64,
    stack: Walked,
    identity: Identity,
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
        let mut recorder = Self {
            target,
            options,
            kind,
            rings: Vec::new(),
            events: Vec::new(),
            wakeup_bytes: 0,
            next_look: began.0 + LOOK,
            seen,
            began,
        };
        recorder.open(&cpus)?;
        Ok(recorder)
    }

    /// Opens events on all threads and CPUs, and starts them.
    fn open(&mut self, cpus: &[u32]) -> Result<(), Error> {
        let mut known = BTreeSet::new();
        loop {
            let threads = self.target.threads();
            let new: Vec<_> = threads.into_iter().filter(|thread| known.insert(*thread)).collect();
            if new.is_empty() {
                break;
            }
            // A thread that another one has made meanwhile may have inherited that one's events, and gets its own, too: see `Seen::sample`.
            for thread in new {
                self.note_thread(thread);
                match self.rings.is_empty() {
                    true => self.open_rings(thread, cpus)?,
                    false => self.open_beside(thread)?,
                }
            }
        }
        if self.rings.is_empty() {
            return Err(Error::NoProcess(self.target.process));
        }
        if !self.kind.from_exec {
            let given_out = self.seen.ids_given_out();
            self.seen.identity.read_until(given_out);
            let all = self.events.iter().chain(self.rings.iter().map(|ring| &ring.event));
            for event in all {
                // The thread may have ended.
                let _ = event::enable(event);
            }
            // What was mapped meanwhile is in no record.
            self.seen.is_mapped = true;
        }
        Ok(())
    }

    /// Opens the events whose rings those of all threads write to, of one size on all CPUs.
    fn open_rings(&mut self, thread: u32, cpus: &[u32]) -> Result<(), Error> {
        let least = (2 * (self.options.stack_bytes as usize + 1_024)).next_power_of_two();
        let most = self.options.ring_bytes.min(MOST_RING_BYTES / cpus.len().max(1));
        let mut size = most.max(least).next_power_of_two();
        let refused = loop {
            match self.open_rings_of(thread, cpus, size) {
                Err(cause) if size > least && ring::is_want_of_memory(&cause) => size /= 2,
                Err(cause) => break cause,
                Ok(rings) => {
                    self.wakeup_bytes = wakeup_bytes(size);
                    self.rings = rings;
                    return Ok(());
                }
            }
        };
        if is_gone(&refused) {
            return Ok(());
        }
        let remedy = "raise kernel.perf_event_mlock_kb, ulimit -l or ulimit -n".to_owned();
        Err(Error::Perf { remedy, cause: refused })
    }

    fn open_rings_of(
        &mut self,
        thread: u32,
        cpus: &[u32],
        size: usize,
    ) -> io::Result<Vec<CpuRing>> {
        let mut rings = Vec::new();
        for cpu in cpus.iter().copied() {
            let event = self.kind.open(&self.options, thread, cpu, wakeup_bytes(size));
            match event {
                Err(cause) if cause.raw_os_error() == Some(libc::ENODEV) => (),
                Err(cause) => return Err(cause),
                Ok(event) => {
                    let ring = Ring::map(&event, size)?;
                    self.seen.owners.insert(event::number(&event)?, thread);
                    rings.push(CpuRing { cpu, event, ring });
                }
            }
        }
        Ok(rings)
    }

    /// Opens events that write to the rings that are there.
    fn open_beside(&mut self, thread: u32) -> Result<(), Error> {
        let Self { kind, options, rings, seen, events, wakeup_bytes, .. } = self;
        let mut open = |ring: &CpuRing| {
            let event = kind.open(options, thread, ring.cpu, *wakeup_bytes)?;
            event::share(&event, &ring.event)?;
            seen.owners.insert(event::number(&event)?, thread);
            events.push(event);
            Ok(())
        };
        match rings.iter().try_for_each(&mut open) {
            Err(cause) if !is_gone(&cause) => {
                let remedy = "raise ulimit -n, or record a process with fewer threads".to_owned();
                Err(Error::Perf { remedy, cause })
            }
            _ => Ok(()),
        }
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
        let events = self.rings.iter().map(|ring| &ring.event);
        event::wait(events, most)
            .map_err(|cause| Error::Other { what: "waiting for samples failed", cause })?;
        self.take();
        Ok(())
    }

    /// Takes what is in the rings.
    fn take(&mut self) {
        let Self { rings, seen, target, .. } = self;
        // A CPU may have samples of code whose mapping is told in the ring of another one.
        for CpuRing { ring, .. } in rings.iter_mut() {
            ring.peek(|bytes| seen.note_mapping(bytes));
        }
        seen.look_if_mapped();
        let given_out = seen.ids_given_out();
        for CpuRing { ring, .. } in rings {
            ring.read(|bytes| seen.take(bytes, target));
        }
        seen.identity.read_until(given_out);
        if Instant::now() >= self.next_look {
            self.look_at_threads();
            self.next_look = Instant::now() + LOOK;
        }
    }

    /// Notes what the threads have used so far.
    fn look_at_threads(&mut self) {
        let Self { seen, target, .. } = self;
        for (thread, known) in seen.tables.threads.iter_mut().filter(|(_, it)| !it.has_ended) {
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
        for event in self.events.iter().chain(self.rings.iter().map(|ring| &ring.event)) {
            event::disable(event);
        }
        self.take();
        self.look_at_threads();
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
        let Seen { children, execs, space, lost, .. } = &self.seen;
        let mut remarks = tables::unread(&space.unread);
        if !self.kind.kernel {
            remarks.push(event::without_kernel());
        }
        let (cut, all) = (self.seen.tables.cut, self.samples());
        if cut * 100 > all {
            let bytes = self.options.stack_bytes;
            remarks.push(format!(
                "{cut} of {all} stacks are longer than the {bytes} bytes that a sample has of them; if tasks are missing, take more (--stack-size, at most 65528)"
            ));
        }
        if *children > 0 {
            let noun = if *children == 1 { "child process was" } else { "child processes were" };
            remarks.push(format!(
                "{children} {noun} started, and not recorded: record the server itself, and not a script or `cargo run`"
            ));
        }
        if let Some(tokio) = &space.tokio {
            remarks.extend(self.seen.identity.remark(tokio));
        }
        if space.has_replaced {
            remarks.push(
                "libraries were unloaded meanwhile: if others took their place, some functions may have wrong names"
                    .to_owned(),
            );
        }
        if !self.kind.kernel && *lost > 0 {
            remarks.push(
                "records were lost: a part of what is shown as time in the kernel was not there"
                    .to_owned(),
            );
        }
        if *execs > u64::from(self.kind.from_exec) {
            remarks.push(
                "the process began to run another program while it was recorded: functions from before may have wrong names"
                    .to_owned(),
            );
        }
        remarks
    }
}

impl Seen {
    fn of(process: u32) -> Self {
        Self {
            process,
            space: Space::with_tokio(process),
            tables: Tables::default(),
            lost: 0,
            children: 0,
            owners: HashMap::new(),
            is_mapped: false,
            is_exec: false,
            looked: Instant::now(),
            execs: 0,
            stack: Walked::default(),
            identity: Identity::of(process),
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
            Some(Record::Named { process, thread, is_exec }) if process == self.process => {
                if let Some(known) = self.tables.threads.get_mut(&thread) {
                    known.name = target.name(thread).unwrap_or_else(|| known.name.clone());
                }
                self.execs += u64::from(is_exec);
            }
            Some(_) => (),
            None => self.tables.dropped += 1,
        }
    }

    /// Notes whether a record tells of code that was mapped.
    fn note_mapping(&mut self, bytes: &[u8]) {
        match Record::parse(bytes) {
            Some(Record::Mapped { process }) if process == self.process => self.is_mapped = true,
            Some(Record::Named { process, is_exec: true, .. }) if process == self.process => {
                // Nothing of what was mapped before is left.
                (self.is_mapped, self.is_exec) = (true, true);
            }
            _ => (),
        }
    }

    /// Looks at the mappings if they may have changed, but not too often: a compiler at run time changes them all the time.
    fn look_if_mapped(&mut self) {
        if self.is_exec || self.is_mapped && self.looked.elapsed() >= MAPPINGS_LOOK {
            self.look();
        }
    }

    fn look(&mut self) {
        match self.is_exec {
            true => self.identity.forget(),
            false => self.identity.forget_tables(),
        }
        // If the process has ended, the mappings so far are all that will be known.
        let _: io::Result<()> = self.space.look();
        (self.is_mapped, self.is_exec, self.looked) = (false, false, Instant::now());
    }

    fn sample(&mut self, sample: &Sample<'_>, target: &Target) {
        let owner = self.owners.get(&sample.event).copied().unwrap_or(sample.thread);
        let known = self.tables.threads.entry(sample.thread).or_insert_with(|| tables::Thread {
            name: target.name(sample.thread).unwrap_or_default(),
            // It began while the process was recorded, so all of its time is in the recording.
            used_ns: target.cpu_ns(sample.thread).map(|now| (0, now)),
            ..tables::Thread::default()
        });
        // Its number may be that of a thread which has ended.
        known.has_ended = false;
        // While events were being opened, it may have got its own beside those of the thread that has made it.
        if *known.owner.get_or_insert(owner) != owner {
            return;
        }
        let Self { stack, space, tables, identity, .. } = self;
        stack.addresses.clear();
        stack.ends.clear();
        let end = space.walk(sample.registers, sample.stack, stack);
        let task = identity.task(space, sample, stack);
        tables.add(sample.thread, &stack.addresses, end, task);
    }

    /// Looks which IDs tokio has given out.
    fn ids_given_out(&mut self) -> Option<Look> {
        let Self { space, identity, .. } = self;
        identity.look(space.tokio.as_ref()?)
    }
}

/// The bytes that wake the reader of a ring.
fn wakeup_bytes(size: usize) -> u32 {
    u32::try_from(size / 4).unwrap_or(u32::MAX)
}

/// Whether an event cannot be opened because its thread has ended.
fn is_gone(cause: &io::Error) -> bool {
    cause.raw_os_error() == Some(libc::ESRCH)
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seen")
            .field("tables", &self.tables)
            .field("lost", &self.lost)
            .finish_non_exhaustive()
    }
}
