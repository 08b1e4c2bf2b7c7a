//! The help of `pertask report`.

/// The first line of the help.
pub const ABOUT: &str = "Read a sampled profile: which tasks and functions spent the CPU";

/// The first paragraphs of the help.
pub const LONG_ABOUT: &str = "\
Read a sampled profile: which tasks and functions spent the CPU.

FILE is a pprof file, gzip'd or not, as `pertask record -o profile.pb.gz` writes it, or a perf.data of `perf record`, whose tasks \
are listed by type. The command also reads profiles of other programs, such as Go's. Those have functions, threads and labels, but \
no tasks: what other programs call a task or a site is a label of theirs, for --by label:KEY and --label KEY=VALUE.

Untrusted pprof files are safe to read. Names that are too long and stacks that are too deep are cut, and counted as lost; a file \
with too much of anything else is refused, and says which --limit to raise. FILE chooses which paths are opened to look for \
symbols; with --no-symbols none are.";

/// The last paragraphs of the help.
pub const HELP: &str = "\
Reading the tables:
  The first lines say how much CPU time the samples stand for, when and how they were
  taken, how many stacks reach their root, and what was lost. With a filter, they also
  say how much of the profile matched. Percentages are of the CPU time in a table's title.
    SELF     CPU time in the function itself
    TOTAL    CPU time in the function and all that it called; recursion is counted once
    CPU      CPU time of a task, a site, a thread or a label's value; each sample is in
             one row, that of its first value if a label has several
    SAMPLES  the number of samples behind SELF or CPU. Chance changes n samples by about
             the square root of n: 4 are a hint, 400 are accurate to a twentieth.
             It is - if the file does not say how many there were.
             If the first lines say that times are by the clock, a site's CPU is
             measured, and the function (no sample) has the part without samples
    TASK     the task's name, or - if it has none. ~ marks the type of tasks without a name,
             read from their stacks; their CPU is estimated from samples
    SITE     the line of code that made the task; for ~, the line where its code begins
    FILE     the function's source file, shown where names alone are ambiguous
    PLACE    the innermost function: of a wait, what is awaited
    AT       the line of the program's own code that called or awaited it
    WOKEN BY what the tasks are called that ended the waits; (no task) if none did, but a
             timer, the network or another thread, or if that is not known. holds lock:
             the wait went on to the end, and these tasks held the lock
  SELF and CPU add up to the whole. Samples in no task, in no scope or without the label
  have a row of their own, such as (outside tasks) or (tokio scheduler). Functions that only
  called others have rows with --top 0.

Time off the CPU (--state, in a file that was recorded with waits):
  on-cpu       CPU time, as without --state
  blocked      time in polls off the CPU: in a blocking call, or without a CPU
  ready        time between wake and poll
  waiting      time until tasks were woken: what they awaited, and where
  life         all of these together, with the share of each
  Columns and percentages are of that time. Tasks wait one by one and all at once, so there can be
  more of it than the recording lasted: waiting time over duration is how many tasks waited on
  average. WAITS is about the number of waits; ready and blocked time are measured, and not counted.
  (wait not seen) is waiting time of which no place is known. Tasks that wait are on no thread and
  have no number. A line in the report of CPU time says if there is more in the file.

Two profiles (--diff BEFORE, and files of `go tool pprof -diff_base`):
    BEFORE, AFTER    CPU time per second of recording
    CHANGE           how much more that is than before; new or gone if it is in one alone
    BEFORE%, AFTER%  the share of all CPU time, or of what the filters selected
    POINTS           by how many percentage points the share has grown
    ~                marks a change that chance in sampling explains; rows with no other
                     change are counted, and listed with --top 0
  CHANGE is right if both had the same load, POINTS if not. Filters apply to both profiles.
  Functions and scopes have a table of their own time, and one of all that they called.
  Pictures and stacks show growth alone. How noise is judged: docs/SAMPLING.md.

Groups (--by, separated by commas):
  site         spawn sites, with the names of their tasks
  task         individual tasks, with their number and their parent's; in a recording of another
               program the number is tokio's ID, where it is known
  function     functions, by name and source file
  place        places: the innermost function, and the line of the program that awaited it
  waker        of waits (--state waiting), the tasks that waited and those that woke them
  thread       threads
  scope        scopes opened with scope!(\"...\"); SELF is its time as the innermost
  label:KEY    the values of the label KEY

Symbols:
  A profile that was written without names (`pertask demo --unresolved`, or
  RawProfile::write_pprof_unresolved) has addresses and build ids. The names come from the
  files that were mapped, which must be here or in --symbols DIR. A file with another build
  id is not believed. Remarks below the first lines say what was not found.
  FILE chooses which paths are opened: regular files only, by absolute paths outside /dev,
  /proc and /sys. With --no-symbols, none are.

Filters (a sample must meet all of them):
  --task 'GET /hash'  --task 4711  --task '(outside tasks)'  --site routes.rs:73
  --task axum::serve::handle_connection  --task '(tokio scheduler)'
  --thread worker  --label tenant=acme  --function render

Examples:
  pertask report profile.pb.gz
  pertask report profile.pb.gz --by task,thread --top 5
  pertask report profile.pb.gz --task 'GET /hash' --by function
  pertask report profile.pb.gz --task 'GET /hash' --flamegraph hash.svg
  pertask report profile.pb.gz --state waiting --by place
  pertask report profile.pb.gz --state life -o life.svg
  pertask report profile.pb.gz --folded - --root site | grep render
  pertask report huge.pb.gz --limit bytes=1000000000 --limit samples=10000000
  pertask report profile.pb.gz --json | jq '.tables[].rows[] | {name, self_cpu_ns}'
  pertask report profile.pb.gz --symbols target/release
  pertask report --diff before.pb.gz after.pb.gz --by site,function
  curl -s localhost:6060/debug/pprof/profile | pertask report -
  perf record -F 999 --call-graph dwarf,16384 -p 4711 -- sleep 5; pertask report perf.data

Exit status:
  0  the report is complete
  1  something failed: FILE is not a profile, nothing matched the filters, or an output
     is not writable; stderr says what failed and what to do about it
  2  the command line was not understood";
