//! What a profiler outside the process sees of tasks: it finds the process context and each thread's record as OTEP 4719 and 4947 say, on
//! `pertask demo --serve`.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    os::unix::fs::FileExt,
    process::Command,
    ptr, thread,
    time::{Duration, Instant},
};

use object::{
    Endianness, Object as _, ObjectSymbol as _,
    elf::{FileHeader64, PT_TLS},
    read::elf::{ElfFile, ProgramHeader as _},
};
use support::{Running, ask, loudly};

/// Reads another process.
struct Reader {
    pid: u32,
    memory: File,
}

impl Reader {
    fn of(pid: u32) -> Self {
        Self { pid, memory: File::open(format!("/proc/{pid}/mem")).expect("its memory") }
    }

    fn read(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read_exact_at(&mut bytes, address).expect("mapped memory");
        bytes
    }

    fn word(&self, address: u64) -> u64 {
        u64::from_le_bytes(self.read(address, 8).try_into().expect("8 bytes"))
    }

    /// The content of the process context. `None` while there is none, or it changes.
    fn context(&self) -> Option<Vec<u8>> {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.pid)).expect("its mappings");
        let names = ["[anon_shmem:OTEL_CTX]", "[anon:OTEL_CTX]", "/memfd:OTEL_CTX"];
        let is_named =
            |line: &&str| line.split_whitespace().nth(5).is_some_and(|it| names.contains(&it));
        let line = maps.lines().find(is_named)?;
        let start = u64::from_str_radix(line.split('-').next()?, 16).expect("an address");
        let head = self.read(start, 32);
        let published = self.word(start + 16);
        if &head[..8] != b"OTEL_CTX" || published == 0 {
            return None;
        }
        assert_eq!(head[8..12], 2_u32.to_le_bytes(), "the version");
        let length = u32::from_le_bytes(head[12..16].try_into().expect("4 bytes"));
        let content = self.read(self.word(start + 24), length as usize);
        (self.word(start + 16) == published).then_some(content)
    }

    /// How far the pointer to a thread's record is before the thread's base.
    fn distance(&self) -> u64 {
        let file = fs::read(format!("/proc/{}/exe", self.pid)).expect("its program");
        let elf = ElfFile::<FileHeader64<Endianness>>::parse(&*file).expect("ELF");
        let symbol = elf.dynamic_symbols().find(|symbol| symbol.name() == Ok("otel_thread_ctx_v1"));
        let offset = symbol.expect("it exports the symbol").address();
        let tls =
            elf.elf_program_headers().iter().find(|it| it.p_type(Endianness::Little) == PT_TLS);
        let tls = tls.expect("it has thread-local variables");
        let (size, align) = (tls.p_memsz(Endianness::Little), tls.p_align(Endianness::Little));
        let end = tls.p_vaddr(Endianness::Little) + size;
        size + (end.next_multiple_of(align) - end) - offset
    }

    fn threads(&self) -> Vec<i32> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid)).expect("its threads");
        threads.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
    }

    /// Stops a thread, looks at its record, and lets it go on. `None` if it has none that is valid now, or has ended.
    fn record_of(&self, thread: i32, distance: u64) -> Option<Vec<u8>> {
        let base = stop(thread)?;
        let pointer = self.word(base - distance);
        let record = (pointer != 0).then(|| self.read(pointer, 640));
        go_on(thread);
        record.filter(|record| record[24] == 1)
    }
}

/// Stops a thread, and returns its base of thread-local memory.
fn stop(thread: i32) -> Option<u64> {
    // SAFETY: the calls read and write no memory of this process.
    unsafe {
        if libc::ptrace(libc::PTRACE_SEIZE, thread, 0, 0) != 0 {
            return None;
        }
        libc::ptrace(libc::PTRACE_INTERRUPT, thread, 0, 0);
        libc::waitpid(thread, ptr::null_mut(), libc::__WALL);
    }
    base(thread)
}

#[cfg(target_arch = "x86_64")]
fn base(thread: i32) -> Option<u64> {
    let mut registers = std::mem::MaybeUninit::<libc::user_regs_struct>::uninit();
    // SAFETY: the kernel writes the registers of a stopped thread into memory of that size, or says that it has not.
    unsafe {
        let got = libc::ptrace(libc::PTRACE_GETREGS, thread, 0, registers.as_mut_ptr());
        (got == 0).then(|| registers.assume_init().fs_base)
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn base(_: i32) -> Option<u64> {
    None
}

/// Lets a stopped thread go on.
fn go_on(thread: i32) {
    // SAFETY: it reads and writes no memory of this process.
    unsafe { libc::ptrace(libc::PTRACE_DETACH, thread, 0, 0) };
}

/// The fields of a message, and those that are messages or texts.
fn fields(mut message: &[u8]) -> Vec<(u8, &[u8])> {
    let mut fields = Vec::new();
    while let [tag, rest @ ..] = message {
        assert_eq!(tag & 7, 2, "only messages and texts are used");
        let (mut length, mut at) = (0, 0);
        loop {
            length |= usize::from(rest[at] & 0x7f) << (7 * at);
            at += 1;
            if rest[at - 1] < 0x80 {
                break;
            }
        }
        fields.push((tag >> 3, &rest[at..at + length]));
        message = &rest[at + length..];
    }
    fields
}

/// The attributes in the message's `field`, and for each the field of its value.
fn attributes(message: &[u8], field: u8) -> BTreeMap<String, (u8, &[u8])> {
    let attribute = |(_, bytes)| {
        let parts = fields(bytes);
        (text(parts[0].1), fields(parts[1].1)[0])
    };
    fields(message).into_iter().filter(|(number, _)| *number == field).map(attribute).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// What the attributes of a record say, by the names of their keys.
fn said<'a>(record: &[u8], names: &'a [String]) -> BTreeMap<&'a str, String> {
    let length = u16::from_le_bytes([record[26], record[27]]);
    let (mut rest, mut said) = (&record[28..28 + usize::from(length)], BTreeMap::new());
    while let [key, length, after @ ..] = rest {
        let (value, after) = after.split_at((*length).into());
        said.insert(&*names[usize::from(*key)], text(value));
        rest = after;
    }
    said
}

#[test]
fn a_profiler_outside_finds_the_running_task_of_each_thread() {
    if cfg!(not(target_arch = "x86_64")) {
        return loudly("SKIPPED: this test finds thread-local memory on x86_64 alone");
    }
    let folder = std::env::temp_dir().join(format!("pertask-otel-{}", std::process::id()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_pertask"));
    command.args(["demo", "--serve"]).env("PERTASK_DIR", &folder).env_remove("PERTASK");
    let mut demo = Running::start(&mut command);
    let line = demo.wait_for("serving on http://");
    let service = line.split(' ').next().expect("an address").to_owned();
    let reader = Reader::of(demo.child.id());

    let first = i32::try_from(demo.child.id()).expect("a process id");
    if stop(first).is_none() {
        return loudly("SKIPPED: ptrace is not allowed here");
    }
    go_on(first);

    let context = reader.context().expect("a process context");
    let resource = fields(&context).into_iter().find(|(number, _)| *number == 1).expect("one").1;
    assert_eq!(attributes(resource, 1)["service.name"], (1, &b"pertask demo"[..]));
    let shared = attributes(&context, 2);
    assert_eq!(shared["threadlocal.schema_version"], (1, &b"tlsdesc_v1_dev"[..]));
    let (array, names) = shared["threadlocal.attribute_key_map"];
    assert_eq!(array, 5);
    let names: Vec<_> = fields(names).iter().map(|(_, name)| text(fields(name)[0].1)).collect();
    assert_eq!(names[..2], ["pertask.task.name", "pertask.task.site"]);

    // It is asked until both have been seen.
    let (distance, deadline) = (reader.distance(), Instant::now() + Duration::from_secs(120));
    let mut missing = BTreeSet::from(["GET /hash", "GET /render"]);
    while !missing.is_empty() {
        assert!(Instant::now() < deadline, "never seen: {missing:?}");
        thread::scope(|scope| {
            scope.spawn(|| ["GET /hash", "GET /render"].map(|route| ask(&service, route)));
            for thread in reader.threads() {
                let Some(record) = reader.record_of(thread, distance) else { continue };
                let said = said(&record, &names);
                let site = &said["pertask.task.site"];
                assert!(site.contains(".rs:"), "{said:?}");
                if let Some(name) = said.get("pertask.task.name") {
                    assert!(
                        !name.starts_with("GET ") || site.contains("demo/service.rs:"),
                        "{said:?}"
                    );
                    missing.remove(&**name);
                }
            }
        });
    }
    let doctor = Command::new(env!("CARGO_BIN_EXE_pertask"))
        .args(["doctor", "--pid", &demo.child.id().to_string()])
        .env("PERTASK_DIR", &folder)
        .output()
        .expect("to run");
    let doctor = text(&doctor.stdout);
    assert!(doctor.contains("otel_thread_ctx_v1: works"), "{doctor}");
    demo.signal(libc::SIGINT);
    assert!(demo.finish().status.success());
    let _ = fs::remove_dir_all(folder);
}
